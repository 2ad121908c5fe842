"""What a page shows of long names, digests, unknown values and places above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.website import boards
from collectors.website.building import BuiltSite
from collectors.website.extra_pages import board
from collectors.website.many_pages import gold_text
from collectors.website.rendering import Page, Site, render
from collectors.website.tables import LONGEST_NAME, Column, Table, item_page, shown, task_page
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.sites import Links, broken_links, built

LONG = "x" * 100_000
SITE = Site("Title", "version 1", "cc-by-4.0", "a" * 64, [("index.html", "Start")])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    folder = tmp_path_factory.mktemp("long")
    builder = LakeBuilder(str(folder / "lake"))
    cells = [BuiltCell(model=model, task=task, items=2) for model in (LONG, "m") for task in ("t", "u")]
    builder.run(*cells)
    for cell in cells:
        changes = {"prompt_tokens": None, "completion_tokens": None, "latency_s": None} if cell.model == "m" else {}
        builder.shard(cell, [cell.record(item, score=1.0, responses=["a"], **changes) for item in range(2)])
    builder.items("t", "i0", 2, prompt=["word " * 40, "short"], target=["a", "b"])
    return built(builder, folder / "site")


def test_site_long_name_is_cut_and_tells_its_digest(site: BuiltSite) -> None:
    pages = [entry["bytes"] for name, entry in site.files.items() if name.endswith((".html", ".js", ".svg"))]
    assert max(pages) < len(LONG)
    assert shown(LONG) != shown(LONG + "x")
    assert len(shown("y" * LONGEST_NAME)) == LONGEST_NAME
    assert shown(LONG) in Links((site.folder / "leaderboard.html").read_text()).texts
    assert broken_links(site.folder) == []


def test_question_page_leaves_out_what_nobody_measured(site: BuiltSite) -> None:
    page = (site.folder / item_page("t", "i0", 0)).read_text()
    assert ">score 1.000</a></p>" in page
    assert ">score 1.000 · 10 prompt and 2 completion tokens · 0.500 s</a></p>" in page


def test_questions_long_prompt_is_cut_between_words(site: BuiltSite) -> None:
    texts = [text for path in site.folder.glob("task/*-questions.html") for text in Links(path.read_text()).texts]
    assert ("word " * 32).rstrip() + "…" in texts
    assert "short" in texts


def test_right_answer_is_a_text_or_a_choice_with_its_text() -> None:
    choices = ["one", "two"]
    assert gold_text("1", choices) == "1: two"
    assert [gold_text(target, choices) for target in ("2", "-1", "true", '"1"', "1.0")] == [
        "2",
        "-1",
        "true",
        "1",
        "1.0",
    ]
    assert (gold_text("1", None), gold_text("[0, 1]", choices), gold_text(None, choices)) == ("1", "[0, 1]", None)


def test_page_places_above_it_end_without_a_mark() -> None:
    page = render(SITE, Page("a.html", "A", above=[("b.html", "B"), ("c.html", "C")])).decode()
    above = page[page.index('class="above"') : page.index("<h1>")]
    assert above.count("›") == 1
    assert not above.rstrip().endswith("› </p>")


def test_page_of_many_links_folds_them() -> None:
    def page(count: int) -> str:
        links = [(f"{number}.html", f"task {number}") for number in range(count)]
        return render(SITE, Page("a.html", "A", links=links)).decode()

    assert "<details>" not in page(20)
    assert "<summary>Pages of the 21 tasks</summary>" in page(21)


def test_leaderboards_say_which_ranks_and_means_compare(tmp_path: Path) -> None:
    builder = LakeBuilder(str(tmp_path / "lake"))
    cells = [BuiltCell(model=f"m{n}", task="tu"[n > 1], items_digest=f"i{n % 2}", items=2) for n in range(4)]
    builder.run(*cells)
    for cell in cells:
        builder.shard(cell, [cell.record(item, score=1.0) for item in range(2)])
    site = built(builder, tmp_path / "site")
    assert boards._NO_MEAN in Links((site.folder / "leaderboard.html").read_text()).texts
    assert boards._RANKS in Links((site.folder / task_page("t")).read_text()).texts


def test_board_digest_is_short_with_the_whole_as_title(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    (tmp_path / "board.json").write_text(f'{{"rows": [{{"rank": 1, "router": "r", "sha256": "{digest}"}}]}}')
    page = render(SITE, board(tmp_path / "board.json")).decode()
    assert f'<bdi title="{digest}">0123456789ab</bdi>' in page


def test_table_script_keeps_digests_whole_and_cuts_names() -> None:
    columns = [Column("model", "model", "name"), Column("sha256", "SHA-256", "digest")]
    script = Table("t", "t", columns, [{"model": LONG, "sha256": "a" * 64}]).script()
    assert "a" * 64 in script
    assert len(script) < 500
