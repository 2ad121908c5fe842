"""The scripts of question.html: with them the version's own Parquet gives each row that the matrix shows."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.publish.manifests import open_published
from collectors.website import building, database
from collectors.website.question_data import CHARGES, no_answers, notes_of_questions, question_scripts
from collectors.website.reading import Tables
from collectors.website.tables import model_page, question_fragment, question_key, shown
from collectors.website.verifying import verify_site
from schemas.views import view_files
from tests.helpers.sites import HOSTILE, QUIZ, Links, asked_lake, broken_links, built, published, varied_lake


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("varied")
    return Path(published(varied_lake(str(folder / "lake")), folder / "version"))


@pytest.fixture(scope="module")
def tables(version: Path) -> Iterator[Tables]:
    database._write(str(version), version.parent / "site.duckdb", "all")
    opened = Tables(version.parent / "site.duckdb")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def scripts(version: Path, tables: Tables) -> dict[str, Any]:
    _, manifest = open_published(str(version))
    found = dict(question_scripts(tables, Lake(str(version)), manifest, "all"))
    return {
        name[len("data/") : -len(".js")]: json.loads(text[text.index("]=") + 2 : -2]) for name, text in found.items()
    }


def rows_of(version: Path, scripts: dict[str, Any], key: str, item: int) -> Iterator[dict[str, Any]]:
    """The rows of a question, found as static/question.js finds them."""
    for part in scripts[f"question-{key}"]["parts"]:
        records = table_of(version, part["records"], item)
        answers = table_of(version, part["responses"], item)
        for row in records:
            if row["is_primary"] and (part["places"] is None or row["place"] in part["places"]):
                chunk = scripts[f"cells-{part['key']}-{row['place'] // 100}"]
                cell_id, model, page, kind = chunk["cells"][row["place"] % 100]
                about = chunk["kinds"][kind]
                [text] = [
                    one
                    for one in answers
                    if (one["cell_id"], one["filter"], one["repeat"]) == (cell_id, about["filter"], 0)
                ] or [{"responses": None, "loglikelihoods": None}]
                named = {"shown": model, "page": page, "cell_id": cell_id, "about": about}
                yield {**row, **named, "responses": text["responses"], "loglikelihoods": text["loglikelihoods"]}


def table_of(version: Path, file: list[Any], item: int) -> list[dict[str, Any]]:
    address, size, footer = file
    path = version / unquote(address).removeprefix("version/")
    assert path.stat().st_size == size
    assert pq.read_metadata(path).serialized_size + 8 == footer
    table = pq.read_table(path, partitioning=None)
    return list(table.filter(pc.field("item") == item).to_pylist())


def usd_of(row: dict[str, Any]) -> float | None:
    """The cost by CHARGES, as static/question.js adds it up."""
    prices, given = row["about"]["prices"], row["about"]["answers"]
    times = (given.get(str(row["item"])) if isinstance(given, dict) else given) or 1
    usd = 0.0
    for term in CHARGES:
        tokens, price, less = row[term["tokens"]], prices.get(term["price"]), term.get("less")
        is_known = None not in (tokens, price)
        if not less and not is_known:
            return row["stated_usd"]
        beside = row.get(term.get("beside")) or 0
        if less and not (is_known and tokens + beside <= row[term["within"]]):
            continue
        usd += tokens * (price - (prices[less] if less else 0)) * (times if term.get("each") else 1)
    return usd / 1e6 + prices.get("request", 0) * times


def test_charges_are_the_macros_for_all_borders_and_unknowns() -> None:
    kinds = ("prompt", "cached", "cache_write", "completion", "reasoning")
    choose = random.Random(0).choice
    rows = [
        {
            **{f"{kind}_tokens": choose((None, 0, 3, 7, 7, 10)) for kind in kinds},
            "prices": [choose((None, 0.0, 0.25, 1.5, 3.0)) for _ in (*kinds, "request")],
            "answers": choose((None, 1, 3)),
        }
        for _ in range(4000)
    ]
    given = [*(f"{kind}_tokens" for kind in kinds), "answers", *(f"prices[{n}]" for n in range(1, 7))]
    with contextlib.closing(duckdb.connect()) as con:
        con.register("rows", pa.Table.from_pylist(rows))
        con.execute(view_files()["_serving_usd"].sql)
        found = con.execute(f"SELECT _serving_usd({', '.join(given)}) FROM rows").fetchall()
    known = 0
    for row, (expected,) in zip(rows, found, strict=True):
        prices = {
            name: price for name, price in zip((*kinds, "request"), row["prices"], strict=True) if price is not None
        }
        about = {"prices": prices, "answers": row["answers"]}
        usd = usd_of({**row, "about": about, "stated_usd": None, "item": 0})
        assert usd == (None if expected is None else pytest.approx(expected, rel=1e-12, abs=1e-18)), row
        known += expected is not None
    assert known > 1000


def test_scripts_lead_to_the_rows_and_costs_of_the_matrix(
    version: Path, tables: Tables, scripts: dict[str, Any]
) -> None:
    names = ("cell_id", "score", "correct", "outcome", "prompt_tokens", "completion_tokens", "latency_s")
    texts = {
        (row["cell_id"], row["item"]): (row["responses"], row["loglikelihoods"])
        for row in tables.rows("FROM responses")
    }
    seen = 0
    for question in tables.rows("SELECT task, items_digest, item FROM questions"):
        key = question_key(question["task"], question["items_digest"])
        expected = {
            row["cell_id"]: row
            for row in tables.rows(f"FROM matrix WHERE item = {question['item']}")
            if row["task"] == question["task"]
        }
        found = list(rows_of(version, scripts, key, question["item"]))
        assert sorted(row["cell_id"] for row in found) == sorted(expected)
        for row in found:
            matrix = expected[row["cell_id"]]
            assert [row[name] for name in names] == [matrix[name] for name in names]
            usd = usd_of(row)
            assert usd == (None if matrix["usd"] is None else pytest.approx(matrix["usd"], rel=1e-12)), (row, matrix)
            assert (row["shown"], row["page"]) == (shown(matrix["model"]), model_page(matrix["model"]))
            stored = texts.get((row["cell_id"], row["item"]), (None, None))
            assert repr((row["responses"], row["loglikelihoods"])) == repr(stored)
            seen += 1
    assert seen == tables.row("SELECT count(*) AS n FROM matrix")["n"] > 103
    assert tables.row("SELECT count(DISTINCT usd) AS n FROM matrix")["n"] > 5


def test_scripts_state_texts_and_settings_that_differ(scripts: dict[str, Any]) -> None:
    key = question_key(QUIZ, "i0")
    text = scripts[f"question-{key}-0"]["2"]
    assert (text["question"]["text"], text["choices"][0], text["gold"]) == (HOSTILE[2], HOSTILE[0], HOSTILE[2])
    assert text["answers"] == 11
    kinds = [kind["setting"] for name, cells in scripts.items() if name.startswith("cells-") for kind in cells["kinds"]]
    assert {"few-shot 5, chat template \\u202echat, dtype bfloat16", "few-shot 0, dtype float32", ""} == set(kinds)


def test_names_of_a_part_are_those_of_its_cells(scripts: dict[str, Any]) -> None:
    parts = [name.removeprefix("names-") for name in scripts if name.startswith("names-")]
    seen = 0
    for part in parts:
        value, before = scripts[f"names-{part}"], ""
        kinds = [value["kinds"][kind] for kind, number in value["runs"] for _ in range(number)]
        for place, (same, rest) in enumerate(zip(value["names"][::2], value["names"][1::2], strict=True)):
            before = before[:same] + rest
            chunk = scripts[f"cells-{part}-{place // 100}"]
            if (cell := chunk["cells"][place % 100]) is not None:
                _, model, _, kind = cell
                assert (before, kinds[place]) == (model, chunk["kinds"][kind])
                seen += 1
        assert len(kinds) == place + 1
    assert seen == sum(len([one for one in cells["cells"] if one]) for cells in scripts.values() if "cells" in cells)
    assert seen > 103


def test_version_has_an_index_of_pages_and_all_that_a_page_needs(version: Path) -> None:
    lake = Lake(str(version))
    _, manifest = open_published(str(version))
    assert no_answers(lake, manifest, "all", has_reader=True) is None
    assert len(list(notes_of_questions(lake, "all", None))) == 1, "no line about a missing index"
    assert "without npm" in (no_answers(lake, manifest, "all", has_reader=False) or "")


def test_site_of_a_large_lake_links_each_question_to_the_page_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "MOST_ANSWERS", 0)
    site = built(asked_lake(str(tmp_path / "lake")), tmp_path / "site")
    assert not [name for name in site.files if name.startswith("question/")]
    assert broken_links(site.folder) == []
    page = Links(next(site.folder.glob("task/*-questions.html")).read_text())
    tasks = {question_fragment(task, "i0", 3) for task in ("t", "u")}
    assert len({f"../{fragment}" for fragment in tasks} & set(page.addresses)) == 1
    text = (site.folder / "question.html").read_text()
    assert "a lake grows, and its answers with it: publish it (publish.py)" in text
    assert "static/rows.js" not in text
    assert any("question.html shows any question without its answers" in note for note in site.notes)
    assert verify_site(site.folder).faults == []
    (site.folder / "static" / "question.js").write_text("x")
    assert [fault.partition(":")[0] for fault in verify_site(site.folder).faults] == ["static/question.js"]
