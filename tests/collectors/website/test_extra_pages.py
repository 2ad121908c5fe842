"""The pages that not every site has: changes since the version before, and a board of routers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collectors.lake.store import Lake
from collectors.publish.earlier import named_version
from collectors.publish.manifests import open_published
from collectors.publish.version import build_version
from collectors.website.extra_pages import board, changes
from collectors.website.rendering import Page, Site, render
from schemas.failures import ConfigError
from tests.helpers.filled_lakes import DESCRIPTION, plain_lake
from tests.helpers.lake_builder import BuiltCell
from tests.helpers.sites import HOSTILE, Links
from tests.helpers.thorough import long_only

SITE = Site("A title", "version 1", None, None, [])


def shown(page: Page | None) -> str:
    assert page
    return " ".join(" ".join(Links(render(SITE, page).decode()).texts).split())


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions beside each other: the later one has a cell more, and names the first."""
    folder = tmp_path_factory.mktemp("versions")
    builder = plain_lake(str(folder / "lake"), models=1)
    for name in ("1.0.0", "1.1.0"):
        (folder / name).mkdir()
        earlier = [named_version(str(folder / "1.0.0"))] if name == "1.1.0" else []
        build_version(builder.lake, folder / name, DESCRIPTION, name, earlier=earlier)
        builder.run(BuiltCell(model="m9", task="t", items=4), run_id="run-0009")
        if name == "1.0.0":
            builder.scores(BuiltCell(model="m9", task="t", items=4), [1.0, 0.0, 1.0, 1.0])
    return folder / "1.0.0", folder / "1.1.0"


def of(version: Path, before: str | None = None) -> tuple[Page | None, list[str]]:
    return changes(Lake(str(version)), open_published(str(version))[1], before)


@long_only
def test_changes_are_those_since_the_version_that_the_manifest_names(versions: tuple[Path, Path]) -> None:
    page, notes = of(versions[1])
    assert notes == []
    text = shown(page)
    assert "From version 1.0.0" in text
    assert "came 4 records went 0 records" in text
    assert "m9 t 4 0 0 0" in text


def test_changes_of_a_first_version_and_of_a_lake_are_no_page(versions: tuple[Path, Path]) -> None:
    assert of(versions[0]) == (None, [])
    assert changes(Lake(str(versions[0].parent / "lake")), None, None) == (None, [])


def test_changes_without_the_version_before_are_left_out_with_a_line(
    versions: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = tmp_path / "1.1.0"
    moved.symlink_to(versions[1])
    page, [note] = of(moved)
    assert page is None
    assert note.startswith("changes since 1.0.0 are left out: no published version at ")
    assert "m9 t 4 0 0 0" in shown(of(moved, str(versions[0]))[0])
    with pytest.raises(ConfigError, match="no published version"):
        of(moved, str(tmp_path / "nowhere"))


def test_board_rows_of_both_kinds_of_files_are_shown(tmp_path: Path) -> None:
    row = {"rank": 1, "router": "knn", "score": 0.75, "gap_closed": 0.5, "usd": 0.002,
           "vs_best_constant": {"verdict": "better"}}  # fmt: skip
    for value in ({"rows": [row]}, {"boards": [{"pool": "small", "split": "own", "rows": [row]}]}):
        (tmp_path / "board.json").write_text(json.dumps(value))
        assert "1 knn 0.750 50.0 % $0.00200 better" in shown(board(tmp_path / "board.json"))


def test_board_has_a_heading_and_its_notes_for_each_pool_and_split_and_the_leakage(tmp_path: Path) -> None:
    rows = [{"rank": 1, "router": "knn", "score": 0.75, "leakage": "suspicious"}, {"router": "oracle", "score": 1.0}]
    boards = [
        {"pool": None, "include": "collected", "split": None, "rows": rows, "notes": ["tied: knn"]},
        {"pool": "small", "include": "all", "split": "own", "rows": rows[1:], "notes": ["tied: none"]},
    ]
    (tmp_path / "board.json").write_text(json.dumps({"version": "1.0.0", "boards": boards}))
    page = board(tmp_path / "board.json", "1.0.0")
    assert [table.caption for table in page.tables] == [
        "Pool of all candidates, collected records, split none: all questions",
        "Pool small, all records, split own",
    ]
    text = shown(page)
    assert "1 knn 0.750 suspicious" in text
    assert text.index("tied: knn") < text.index("Pool small") < text.index("tied: none")


def test_board_of_models_has_their_intervals_senders_and_suspicions(tmp_path: Path) -> None:
    own = {"rank": 1, "name": "a", "model": "a", "score": 0.75, "low": 0.7, "high": 0.8, "answered": 80, "usd": 0.002}
    sent = {"rank": None, "name": "b", "model": "acme/b", "score": 0.5, "low": None, "high": None, "answered": 60,
            "by": HOSTILE[0], "suspicions": [{"kind": "copy", "line": "x"}, {"kind": "constant"}, 5]}  # fmt: skip
    models = [{"pool": "small", "include": "all", "split": None, "rows": [own, sent], "notes": []}]
    (tmp_path / "board.json").write_text(json.dumps({"version": "1.0.0", "boards": [], "models": models}))
    page = board(tmp_path / "board.json", "1.0.0")
    assert [table.caption for table in page.tables] == ["Models: Pool small, all records, split none: all questions"]
    text = shown(page)
    assert "1 a a 0.750 0.700–0.800 80 $0.00200" in text.replace(" – ", "–")
    assert "copy, constant" in text
    assert "<script>window" not in render(SITE, page).decode()


def test_board_of_another_version_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "board.json").write_text(json.dumps({"version": "1.0.0", "boards": []}))
    with pytest.raises(ConfigError, match=r"is a board of version 1\.0\.0, and this is version 1\.2\.0"):
        board(tmp_path / "board.json", "1.2.0")
    assert board(tmp_path / "board.json").title == "Routers"


def test_board_values_of_another_kind_are_unknown_and_names_stay_text(tmp_path: Path) -> None:
    rows = [{"rank": "1", "router": name, "score": [1], "usd": 1e300, "by": {"a": 1}} for name in HOSTILE]
    (tmp_path / "board.json").write_text(json.dumps({"rows": rows, "notes": [HOSTILE[0], 5]}))
    html = render(SITE, board(tmp_path / "board.json")).decode()
    assert "<script>window" not in html
    assert "onmouseover=" not in html.replace("&#34;onmouseover=&#34;", "")
    assert not set("\0\u202e") & set(html)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"rows": 5}',
        '{"boards": [5]}',
        '{"boards": [], "models": [{}]}',
        '{"boards": [], "models": 5}',
        '{"a": 1}',
        "[" * 100_000,
    ],
)
def test_board_file_of_another_form_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "board.json").write_text(text)
    with pytest.raises(ConfigError, match="is not a board's board"):
        board(tmp_path / "board.json")
