"""Imported records name their source, and join collected ones and each other by content and by alias."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.compaction import compact
from collectors.lake.forgetting import Wish, plan_forgetting, write_retraction
from collectors.lake.pruning import prune
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from collectors.publish.card import Description
from collectors.publish.version import build_version
from schemas.identity import content_hash, digest
from schemas.views import PoolChoice
from tests.helpers.filled_lakes import NOW
from tests.helpers.importing import COLUMNS, imported, rows, table, verdicts, write_json
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.lm_eval_releases import Answers, letters, write_release
from tests.helpers.thorough import LONG, long_only


def test_ingest_says_of_each_record_whence_it_is(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", verdicts())
    imported("table", path, tmp_path / "lake", options=COLUMNS, licence="mit", name="mine")
    stored = rows(
        tmp_path / "lake",
        "SELECT records.source_row, imports.path, imports.licence, imports.format, cells.imported_from, cells.revision "
        "FROM records JOIN imports ON source_file = sha256 JOIN cells USING (cell_id) ORDER BY source_row",
    )
    assert stored == [(row, "t.parquet", "mit", "table", "mine", None) for row in range(1, 7)]


@pytest.mark.slow
def test_imported_records_are_mixed_with_collected_ones_only_when_asked(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    builder.planned(BuiltCell(model="a", task="quiz", items=3), [1.0, 1.0, 1.0])
    imported("table", table(tmp_path / "t.parquet", verdicts()), tmp_path / "lake", options=COLUMNS)
    folds, prunes = (lambda: compact(builder.lake)), (lambda: prune(builder.lake, NOW))
    for steps in ([], [folds], [prunes]) if LONG else ([], [folds, prunes]):
        for step in steps:
            step()
        for include, cells, records in (("collected", 1, 3), ("imported", 2, 6), ("all", 3, 9)):
            for sql, count in (("cells", cells), ("matrix", records), ("records", records), ("leaderboard", cells)):
                query = f"SELECT count(*) FROM {sql}"
                asked = ask(builder.lake, lambda con, _, q=query: con.sql(q).fetchall(), only=[sql], include=include)
                assert asked == [(count,)], (include, sql)
            pool = load_matrix(str(tmp_path / "lake"), choice=PoolChoice(questions="any"), include=include)
            # Of the collected and the imported cell of a one stands in the pool.
            assert int(pool.valid.sum()) == min(records, 6)
    assert int(load_matrix(str(tmp_path / "lake")).valid.sum()) == 3


# ---- joining


def test_imported_items_join_collected_ones_where_the_documents_are_the_same(tmp_path: Path) -> None:
    documents = [row["doc"] for row in letters(Answers())]
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    collected = LakeBuilder(tmp_path / "lake")
    folder = write_release(tmp_path / "run", "0.4.9")
    first = imported("lm_eval", folder, tmp_path / "other")
    [(items_digest,)] = rows(tmp_path / "other", "SELECT DISTINCT items_digest FROM items WHERE task = 'letters'")
    hashes = [
        h for (h,) in rows(tmp_path / "other", "SELECT item_hash FROM items WHERE task = 'letters' ORDER BY item")
    ]
    assert items_digest == digest(hashes), "as a collected task's"
    schema = pq.read_schema(tmp_path / "lake/items/schema/schema.parquet")
    made = [
        {
            "task": "letters",
            "items_digest": "d0",
            "item": i,
            "item_hash": h,
            "content_hash": content_hash(doc["question"], doc["choices"]),
        }
        for i, (h, doc) in enumerate(zip(hashes, documents, strict=True))
    ]
    more = {"task": "letters", "items_digest": "d0", "item": 3, "item_hash": "more"}
    assert lake.create_table("items/task=letters/d0.parquet", pa.Table.from_pylist([*made, more], schema))
    collected.run(BuiltCell(task="letters", items_digest="d0"))
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert first.items["letters"] == (3, 0, 3, 0)
    assert report.items["letters"] == (3, 3, 3, 3)
    assert rows(tmp_path / "lake", "SELECT DISTINCT items_digest FROM matrix WHERE task = 'letters'") == [("d0",)]


def test_imported_items_of_different_sources_join_by_content_and_never_by_likeness(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    write_json(tmp_path / "one/quiz.json", [{"question": "What  is\n2?", "scores": {"a": 1.0}}])
    imported("routerdc", tmp_path / "one", lake)
    given = [
        ("b", "other", "x", 1.0, "What is 2?"),
        ("b", "other", "y", 1.0, "what is 2?"),
        ("b", "other", "z", 0.0, None),
    ]
    path = table(tmp_path / "t.parquet", given, ("model", "task", "id", "score", "text"))
    report = imported("table", path, lake, options={**COLUMNS, "prompt": "text"})
    assert report.items == {"other": (3, 0, 2, 1)}
    joined = (
        "SELECT x.task, y.task, y.source_key FROM items AS x JOIN items AS y USING (content_hash) WHERE x.task < y.task"
    )
    assert rows(lake, joined) == [("other", "quiz", "0")]


def test_import_says_why_no_item_is_one_of_the_lake_and_counts_no_forgotten_import(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    asked: dict[str, Any] = {"prompt": ["Q: 2?", "Q: 3?"], "choices": [["a", "b"]] * 2}
    asked["content_hash"] = [content_hash(f"{n}?", ["a", "b"]) for n in (2, 3)]
    lake.items("quiz", "i0", 2, **asked)
    lake.run(BuiltCell())

    def said(name: str, text: str, choices: str | None, task: str = "quiz") -> tuple[int, str | None]:
        given = [("m", task, "x", 1.0, text, choices), ("m", task, "y", 0.0, f"other {text}", choices)]
        path = table(tmp_path / f"{name}.parquet", given, ("model", "task", "id", "score", "text", "options"))
        options = {**COLUMNS, "prompt": "text", "choices": "options"}
        report = imported("table", path, tmp_path / "lake", name=name, options=options)
        return report.items[task][3], report.unmatched.get(task)

    assert said("wrong", "a", '["a", "b"]') == (0, "other texts; the lake's are such as 'Q: 2?'")
    assert said("bare", "2?", None) == (0, "those of the lake have choices, and these none")
    assert said("right", "2?", '["a", "b"]') == (1, None)
    assert said("elsewhere", "9?", None, task="new") == (0, None)
    forgotten = plan_forgetting(lake.lake, Wish(source="elsewhere"))
    write_retraction(lake.lake, forgotten, "the wrong column")
    assert said("again", "9?", None, task="new") == (0, None)


def test_imported_models_have_the_ids_that_aliases_give_them(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", verdicts())
    report = imported("table", path, tmp_path / "lake", options=COLUMNS, aliases={"a": "org/a-7b"})
    assert report.models == {"a": "org/a-7b", "b": "b"}
    assert rows(tmp_path / "lake", "SELECT model, source FROM cells ORDER BY ALL") == [("b", "b"), ("org/a-7b", "a")]


def test_imported_runs_of_equal_items_share_a_table_whatever_was_limited(tmp_path: Path) -> None:
    whole = write_release(tmp_path / "runs/a", "0.4.9", Answers(model="m/whole"))
    part = write_release(tmp_path / "runs/b", "0.4.9", Answers(right=(True, True), model="m/part"))
    imported("lm_eval", whole.parent, tmp_path / "lake")
    assert rows(
        tmp_path / "lake", "SELECT count(DISTINCT items_digest), count(*) FROM leaderboard WHERE task = 'letters'"
    ) == [(1, 2)]
    assert part.exists()
    pool = load_matrix(str(tmp_path / "lake"), ["letters"], PoolChoice(questions="any"), include="imported")
    assert pool.valid.tolist() == [[True, True], [True, True], [False, True]]


@long_only
def test_published_card_names_whose_records_were_imported_under_which_licence(tmp_path: Path) -> None:
    path, lake = table(tmp_path / "t.parquet", verdicts()), tmp_path / "lake"
    imported("table", path, lake, options=COLUMNS, name="theirs", licence="mit")
    imported("table", path, lake, options=COLUMNS, name="others")
    (tmp_path / "version").mkdir()
    build_version(Lake(str(lake)), tmp_path / "version", Description(licence="cc0-1.0"), include="imported")
    card = (tmp_path / "version/README.md").read_text()
    assert "- `others` (table): licence not stated" in card
    assert "- `theirs` (table): `mit`" in card
    assert (
        "Imported theirs (table): mit." in json.loads((tmp_path / "version/croissant.json").read_text())["description"]
    )
