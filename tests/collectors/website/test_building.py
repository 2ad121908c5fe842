"""A site without a browser: bytes, links, text that stays text, and numbers that are the views' own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from collectors.lake import store
from collectors.website import database
from collectors.website.building import SITE_MANIFEST, BuiltSite
from collectors.website.reading import Tables
from collectors.website.rendering import Page, Site, render
from collectors.website.tables import Column, Table, item_page, model_page, shown, significant, task_page
from collectors.website.verifying import verify_site
from schemas.failures import ConfigError
from schemas.texts import CUT
from tests.helpers.filled_lakes import contents, query
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.markers import KEY
from tests.helpers.sites import HOSTILE, Links, asked_lake, broken_links, built, hostile_lake


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    folder = tmp_path_factory.mktemp("hostile")
    return built(hostile_lake(str(folder / "lake")), folder / "site")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    folder = tmp_path_factory.mktemp("asked")
    return built(asked_lake(str(folder / "lake")), folder / "site")


def pages(site: BuiltSite) -> dict[str, Links]:
    return {name: Links((site.folder / name).read_text()) for name in site.files if name.endswith(".html")}


# ---- bytes


def test_site_same_lake_gives_the_same_bytes(asked: BuiltSite, tmp_path: Path) -> None:
    again = built(asked_lake(str(tmp_path / "lake")), tmp_path / "site")
    assert contents(again.folder) == contents(asked.folder)


def test_site_manifest_names_every_file(asked: BuiltSite) -> None:
    value = json.loads((asked.folder / SITE_MANIFEST).read_bytes())
    assert {*value["files"], SITE_MANIFEST} == set(contents(asked.folder))


def test_database_of_a_lake_without_cells_is_refused(tmp_path: Path) -> None:
    builder = LakeBuilder(str(tmp_path / "lake"))
    with pytest.raises(ConfigError, match="holds no cells"):
        database._write(builder.lake.uri, tmp_path / "site.duckdb", "all")


# ---- links and content


@pytest.mark.parametrize("kind", ["asked", "hostile"])
def test_site_links_lead_to_files_of_the_site(kind: str, request: pytest.FixtureRequest) -> None:
    site: BuiltSite = request.getfixturevalue(kind)
    assert broken_links(site.folder) == []


def test_site_pages_have_landmarks_one_heading_and_captions(asked: BuiltSite) -> None:
    for name, page in pages(asked).items():
        tags = [tag for tag, _ in page.tags]
        assert [tags.count(tag) for tag in ("main", "header", "nav", "footer", "h1")] == [1] * 5, name
        assert tags.count("table") == tags.count("caption"), name
        assert ("html", {"lang": "en"}) in page.tags, name


def test_site_question_page_shows_question_gold_and_every_answer(asked: BuiltSite) -> None:
    texts = pages(asked)[item_page("t", "i0", 2)].texts
    for text in ("question 2 of t?", "gold 2", "m0000 says 2", "m0001 says 2", "m0002 says 2"):
        assert text in texts
    # of cells 0, 2 and 4, (2 + cell) % 3 == 0 is true of the last alone
    assert "1 of 3 right" in texts


def test_site_numbers_lead_to_queries_that_give_their_records(asked: BuiltSite) -> None:
    tables = Tables(asked.folder / "site.duckdb")
    queries = {sql for page in pages(asked).values() for sql in queries_of(page)}
    try:
        assert len(queries) > 30
        for sql in queries:
            tables.rows(sql)
        [score] = {row["score"] for row in tables.rows("FROM leaderboard WHERE model = 'm0000' AND task = 't'")}
        [cell] = [row["cell_id"] for row in tables.rows("FROM candidates WHERE candidate = 'm0000' AND task = 't'")]
        rows = tables.rows(f"FROM matrix WHERE cell_id = '{cell}' ORDER BY item")
        assert sum(row["score"] for row in rows) / len(rows) == score == 0.5
    finally:
        tables.close()


def queries_of(page: Links) -> list[str]:
    return [unquote(address.partition("#sql=")[2]) for address in page.addresses if "#sql=" in address]


def test_table_larger_than_a_page_has_all_rows_in_a_script() -> None:
    rows = [{"name": f"</script>{i}", "score": None if i == 1 else i / 2} for i in range(110)]
    table = Table("many", "Many", [Column("name", "model", "name"), Column("score", "score", "score")], rows)
    text = table.script()
    values = json.loads(text[text.index("=", text.index("]")) + 1 : text.rindex(";")])
    assert (values["name"][109], values["score"][:3]) == ("</script>109", [0.0, None, 1.0])
    assert "</script" not in text
    site = Site("A title", "version 1", None, None, [])
    html = render(site, Page("x/y.html", "Many", tables=[table])).decode()
    assert html.count("<tr>") == 101
    assert '<script defer src="../data/many.js"></script>' in html


def test_database_pairs_are_those_of_the_view_and_large_lakes_have_the_same_matrix(
    asked: BuiltSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "AT_ONCE", 1)
    builder = asked_lake(str(tmp_path / "lake"))
    database._write(builder.lake.uri, tmp_path / "site.duckdb", "all")
    by_task, at_once = Tables(tmp_path / "site.duckdb"), Tables(asked.folder / "site.duckdb")
    try:
        assert by_task.rows("FROM matrix") == at_once.rows("FROM matrix")
        pairs = at_once.rows("FROM pairs ORDER BY ALL")
    finally:
        by_task.close()
        at_once.close()
    columns = ", ".join(f'"{name}"' for name in pairs[0])
    expected = query(builder.lake, f"SELECT {columns} FROM complementarity WHERE NOT is_all ORDER BY ALL")
    assert [tuple(row.values()) for row in pairs] == expected


def test_database_of_an_older_lake_holds_no_key_and_all_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys in names as a release stored them that did not cut any, and items beyond those that a later run planned."""
    monkeypatch.setattr(store, "keyless", lambda name, table: table)
    monkeypatch.setattr(database, "AT_ONCE", 3)
    builder = LakeBuilder(str(tmp_path / "lake"))
    cells = [BuiltCell(model=model, task=f"https://u:{KEY}@h/t", items=2) for model in (f"https://u:{KEY}@h/m", "m")]
    builder.run(*cells)
    for cell in cells:
        builder.shard(cell, [cell.record(item, score=1.0, responses=["x"]) for item in range(4)])
    database._write(builder.lake.uri, tmp_path / "site.duckdb", "all")
    tables = Tables(tmp_path / "site.duckdb")
    try:
        joined = "SELECT task, model, count(*) AS n FROM matrix SEMI JOIN leaderboard USING (task, model)"
        rows = tables.rows(f"{joined} GROUP BY ALL ORDER BY ALL")
        task = f"https://{CUT}@h/t"
        assert [tuple(row.values()) for row in rows] == [(task, f"https://{CUT}@h/m", 4), (task, "m", 4)]
        names = [row["table_name"] for row in tables.rows("SELECT table_name FROM duckdb_tables()")]
        assert [name for name in names if KEY in repr(tables.rows(f"FROM {name}"))] == []
        lists = tables.rows("SELECT table_name FROM duckdb_columns() WHERE data_type LIKE '%[]' AND NOT internal")
        assert {row["table_name"] for row in lists} == {"items", "responses"}, "lists of texts are cut nowhere"
    finally:
        tables.close()


# ---- hostile texts


def test_site_hostile_texts_make_no_markup(hostile: BuiltSite) -> None:
    for name, page in pages(hostile).items():
        for tag, values in page.tags:
            assert not any(key.startswith("on") for key in values), (name, tag, values)
            assert tag != "img" or re.fullmatch(r"(\.\./)*pictures/[\w-]+\.svg", values["src"] or ""), name
            assert tag != "script" or re.fullmatch(r"(\.\./)*(static|data)/[\w.-]+\.js", values["src"] or ""), name
            assert not (values.get("href") or "").startswith("javascript:"), name
        assert "49" not in {text.strip() for text in page.texts}, "a template ran a name"


def test_site_hostile_names_are_shown_as_text(hostile: BuiltSite) -> None:
    texts = {text.strip() for page in pages(hostile).values() for text in page.texts}
    for name in HOSTILE:
        expected = name.replace("\u202e", "\\u202e").replace("\0", "\\x00")
        assert expected in texts, name


def test_site_hostile_names_are_no_names_of_files(hostile: BuiltSite) -> None:
    assert model_page(HOSTILE[2]) in hostile.files
    assert task_page(f"{HOSTILE[5]} t") in hostile.files
    plain = re.compile(
        r"(model|task|question|pictures)/[0-9a-f]{16}(/[0-9]+|-questions|-cost|-pool)?\.(html|svg)"
        r"|[a-z]+\.html|site\.duckdb|static/[\w.]+|data/[\w-]+\.js"
    )
    assert [name for name in hostile.files if not plain.fullmatch(name)] == []


def test_site_characters_that_turn_text_around_reach_no_page(hostile: BuiltSite) -> None:
    for name in hostile.files:
        if not name.endswith(".duckdb"):
            assert not re.search("[\x00\u202e]", (hostile.folder / name).read_text()), name


# ---- values


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "score", "–"),
        (float("nan"), "score", "–"),
        (0, "usd", "$0"),
        (0.000123456, "usd", "$0.000123"),
        (12345.6, "usd", "$12,346"),
        (1.5, "seconds", "1.50 s"),
        (7e9, "billions", "7.00 B"),
        (1234567, "count", "1,234,567"),
        (2 / 3, "score", "0.667"),
        ("\x1b[0m", "text", "\\x1b[0m"),
    ],
)
def test_shown_value_has_digits_that_count_and_missing_is_no_zero(value: object, kind: str, text: str) -> None:
    assert shown(value, kind) == text


def test_significant_numbers_keep_three_digits_however_small() -> None:
    assert [significant(x) for x in (1e-5, 123.456, -0.5)] == ["0.0000100", "123", "-0.500"]
    assert [significant(x) for x in (3.126e-9, -1e-10, 5e-324)] == ["0.00000000313", "-0.000000000100", "4.94e-324"]


# ---- verifying


def test_verify_site_names_each_file_that_is_not_as_it_was_written(asked: BuiltSite, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(asked.folder, copy)
    assert verify_site(copy).faults == []
    (copy / "index.html").write_text("x")
    (copy / "heat.html").unlink()
    (copy / "pairs.html").unlink()
    (copy / "pairs.html").symlink_to(asked.folder / "pairs.html")
    (copy / "more.html").write_text("x")
    (copy / "version").mkdir()
    faults = {fault.partition(":")[0]: fault for fault in verify_site(copy).faults}
    assert sorted(faults) == ["heat.html", "index.html", "more.html", "pairs.html", "version"]
    assert faults["heat.html"].endswith("missing")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda value: value["files"]["index.html"].update(bytes=10**15), "index.html: its "),
        (lambda value: value.update(version="version 9"), "site.json: its version"),
        (lambda value: value.update(manifest_sha256="0" * 64), "site.json: its version"),
        (lambda value: value["files"].pop("index.html"), "index.html: not part"),
    ],
)
def test_verify_site_list_that_differs_from_the_pages_is_a_fault(
    change: Callable[[dict[str, Any]], None], fault: str, asked: BuiltSite, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(asked.folder, copy)
    value = json.loads((copy / SITE_MANIFEST).read_bytes())
    change(value)
    (copy / SITE_MANIFEST).write_text(json.dumps(value))
    assert verify_site(copy).faults[0].startswith(fault)


def test_verify_site_empty_folder_and_linked_list_are_faults(asked: BuiltSite, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(asked.folder, copy)
    (copy / "static" / "empty").mkdir()
    (copy / SITE_MANIFEST).unlink()
    (copy / SITE_MANIFEST).symlink_to(asked.folder / SITE_MANIFEST)
    faults = verify_site(copy).faults
    assert [fault.partition(":")[0] for fault in faults] == [SITE_MANIFEST, "static/empty"]


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "routerlake site", "version": "a lake", "manifest_sha256": 5, "files": {}}',
        '{"kind": "routerlake site", "version": 1, "manifest_sha256": null, "files": {}}',
        '{"kind": "routerlake site", "version": "a lake", "manifest_sha256": null, "files": {}, "files": {}}',
        '{"kind": "routerlake site", "manifest_sha256": null, "files": {"a": {"bytes": 1, "sha256": "0"}}}',
    ],
)
def test_verify_site_damaged_list_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / SITE_MANIFEST).write_text(text)
    with pytest.raises(ConfigError, match="is not a site's"):
        verify_site(tmp_path)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a//b"])
def test_verify_site_follows_no_name_out_of_the_folder(name: str, tmp_path: Path) -> None:
    value = {"kind": "routerlake site", "manifest_sha256": None, "files": {name: {"bytes": 1, "sha256": "0"}}}
    (tmp_path / SITE_MANIFEST).write_text(json.dumps(value))
    with pytest.raises(ConfigError, match="plain relative name"):
        verify_site(tmp_path)


def test_site_of_a_lake_without_forecasts_has_no_page_of_them(asked: BuiltSite) -> None:
    assert "foretold.html" not in asked.files
    assert "foretold.html" not in (asked.folder / "index.html").read_text()
