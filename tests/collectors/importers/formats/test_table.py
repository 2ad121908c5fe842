"""Tables of verdicts: their values are imported unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from collectors.importers.sources import ImportSource
from tests.helpers.importing import COLUMNS, imported, rows, table, verdicts, write_lines


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "json", "csv.gz"])
def test_table_of_every_kind_is_the_same_records(tmp_path: Path, ending: str) -> None:
    given = [("a", "q,uiz", "1", True, 'say "hi"\nthere'), ("b", "q,uiz", "1", False, "no")]
    path = table(tmp_path / "t.parquet", given, ("model", "task", "id", "score", "text"))
    if ending != "parquet":
        other = tmp_path / f"t.{ending}"
        form = {"csv": "CSV", "json": "JSON, ARRAY true", "jsonl": "JSON"}[ending.split(".")[0]]
        duckdb.execute(f"COPY '{path}' TO '{other}' (FORMAT {form})")
        path = other
    imported("table", path, tmp_path / "lake", options={**COLUMNS, "response": "text"})
    stored = rows(
        tmp_path / "lake",
        "SELECT model, task, score, responses FROM records JOIN responses USING (model, task) ORDER BY 1",
    )
    assert stored == [("a", "q,uiz", 1.0, ['say "hi"\nthere']), ("b", "q,uiz", 0.0, ["no"])]


def test_table_whose_columns_are_not_there_is_rejected_with_those_that_are(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", verdicts())
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, "score": "points"})
    [reject] = report.rejects
    assert reject["kind"] == "unknown_layout"
    assert "score (points)" in reject["message"]
    assert "task" in reject["message"]


def test_table_of_scores_that_are_text_rejects_what_is_no_number(tmp_path: Path) -> None:
    given = [("a", "quiz", "1", "1"), ("a", "quiz", "2", "true"), ("a", "quiz", "3", "right"), ("a", "quiz", "4", "")]
    report = imported("table", table(tmp_path / "t.parquet", given), tmp_path / "lake", options=COLUMNS)
    assert [(r["kind"], r["source_key"]) for r in report.rejects] == [("not_finite", "3"), ("no_verdict", "4")]
    assert rows(tmp_path / "lake", "SELECT score FROM records") == [(1.0,), (1.0,)]


def test_source_of_lines_of_one_table_keeps_constants(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", [{"n": 1, "ok": True}, {"n": 2, "ok": False}])
    options = {"model": {"value": "gpt"}, "task": {"value": "quiz"}, "key": "n", "score": "ok", "metric": "acc"}
    imported("table", path, tmp_path / "lake", options=options)
    assert rows(tmp_path / "lake", "SELECT model, task, metric, score FROM leaderboard") == [
        ("gpt", "quiz", "acc", 0.5)
    ]
    assert json.loads(rows(tmp_path / "lake", "SELECT config FROM runs")[0][0])["format"] == "table"
    assert ImportSource("x", "table").aliases == {}


def test_ingest_of_json_lines_takes_keys_as_they_stand(tmp_path: Path) -> None:
    keys = ["ABCDEF01-1111-2222-3333-444455556666", "2024-1-2", "2024-01-02", 7, "07", "1e3"]
    lines = [{"model": "a", "task": "quiz", "id": key, "score": 1.0} for key in keys]
    report = imported("table", write_lines(tmp_path / "t.jsonl", lines), tmp_path / "lake", options=COLUMNS)
    assert report.total.records == 6
    assert rows(tmp_path / "lake", "SELECT source_key FROM items ORDER BY item") == [(str(key),) for key in keys]


@pytest.mark.parametrize("first", [0, False])
def test_ingest_of_json_lines_rounds_nothing_that_comes_late(tmp_path: Path, first: Any) -> None:
    many = 21_000  # DuckDB takes the types of the first 20,480
    lines = [{"model": "a", "task": "quiz", "id": i, "score": first, "usd": 1} for i in range(many)]
    late = [{**lines[0], "id": key, "score": 0.4, "usd": 0.37} for key in (2**64 + 1, 2**64 + 2, 25000.4, 25000.45)]
    path = write_lines(tmp_path / "t.jsonl", [*lines, *late])
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, "usd": "usd"})
    assert report.total.records == many + 4
    stored = rows(
        tmp_path / "lake",
        "SELECT source_key, score, stated_usd FROM records JOIN items USING (task, item) "
        f"WHERE item >= {many} ORDER BY item",
    )
    assert stored == [(str(row["id"]), 0.4, 0.37) for row in late]


def test_ingest_takes_row_numbers_from_no_column(tmp_path: Path) -> None:
    lines = ["_row,model,task,id,score,turn", "77,a,quiz,x,1_0,0", "88,a,quiz,y,1,2.5", "99,a,quiz,z,1,0"]
    lines += ["1,a,quiz,z,1,32767", "2,a,quiz,z,1,32768", "3,a,quiz,z,1,-1"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    report = imported("table", tmp_path / "t.csv", tmp_path / "lake", options={**COLUMNS, "repeat": "turn"})
    assert [(r["kind"], r["source_row"]) for r in report.rejects] == [
        *[("not_finite", 1), ("no_key", 2), ("no_key", 5), ("no_key", 6)]
    ]
    assert rows(tmp_path / "lake", "SELECT source_row, repeat FROM records ORDER BY 1") == [(3, 0), (4, 32767)]


def test_table_of_text_keys_that_look_like_numbers_keeps_them_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,task,id,score,row\nm,t,1.1,1,5\nm,t,1.10,0,5\nm,t,1.100,1,5\n")
    imported("table", tmp_path / "t.csv", tmp_path / "lake", options=COLUMNS)
    stored = rows(tmp_path / "lake", "SELECT source_key, score, source_row FROM records JOIN items USING (task, item)")
    assert sorted(stored) == [("1.1", 1.0, 1), ("1.10", 0.0, 2), ("1.100", 1.0, 3)]


def test_table_of_empty_and_cut_answers_counts_them_apart(tmp_path: Path) -> None:
    columns = {**COLUMNS, "response": "text", "completion_tokens": "out", "finish_reason": "why"}
    lines = [
        {"id": "a", "score": 1, "text": "four", "out": 2, "why": "stop"},
        {"id": "b", "score": 0, "text": "", "out": 0, "why": "stop"},
        {"id": "c", "score": 1, "text": " \n", "out": 3, "why": "stop"},
        {"id": "d", "score": 0, "text": None, "out": 0, "why": None},
        {"id": "e", "score": 0, "text": "and so", "out": 9, "why": "MAX_TOKENS"},
        {"id": "f", "score": 1, "text": "and", "out": 9, "why": "length"},
        {"id": "g", "score": None, "text": "", "out": 0, "why": "stop"},
        {"id": "h", "score": 1, "text": None, "out": None, "why": None},
    ]
    path = write_lines(tmp_path / "t.jsonl", [{"model": "m", "task": "t", **line} for line in lines])
    imported("table", path, tmp_path / "lake", options=columns)
    stored = rows(tmp_path / "lake", "SELECT outcome, score FROM matrix ORDER BY item")
    assert stored == [
        ("ok", 1.0),
        ("empty", 0.0),
        ("empty", 1.0),
        ("empty", 0.0),
        ("truncated", 0.0),
        ("truncated", 1.0),
        ("judge", None),
        ("ok", 1.0),
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_table_counts_that_do_not_add_up_are_unknown_and_suspicious(tmp_path: Path, ending: str) -> None:
    names = ("model", "task", "id", "score", "in", "out", "cached", "all")
    given = [
        ("m", "t", "as stated", 1, 10, 5, 4, 15),
        ("m", "t", "cached beside the prompt", 1, 10, 5, 40, 55),
        ("m", "t", "more cached than asked", 1, 10, 5, 40, None),
        ("m", "t", "another total", 1, 10, 5, None, 20),
        ("m", "t", "no total", 1, 10, 5, None, None),
        ("m", "t", "a total of nothing", 1, 10, 5, 4, 0),
        ("m", "t", "no answer", 1, 10, None, 4, 15),
        ("m", "t", "below zero", 1, 10, 5, -1, 15),
    ]
    path = table(tmp_path / "t.parquet", given, names)
    if ending == "csv":
        path = tmp_path / "t.csv"
        duckdb.execute(f"COPY '{tmp_path}/t.parquet' TO '{path}'")
    counts = {"prompt_tokens": "in", "completion_tokens": "out", "cached_tokens": "cached"}
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, **counts, "total_tokens": "all"})
    query = (
        "SELECT source_key, prompt_tokens, completion_tokens, cached_tokens FROM records JOIN items USING (task, item) "
        "ORDER BY item"
    )
    assert rows(tmp_path / "lake", query) == [
        ("as stated", 10, 5, 4),
        ("cached beside the prompt", 50, 5, 40),
        ("more cached than asked", None, None, None),
        ("another total", None, None, None),
        ("no total", 10, 5, None),
        ("a total of nothing", 10, 5, 4),
        ("no answer", 10, None, 4),
    ]
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [("negative_tokens", 8)]
    [message] = [one.message for one in report.suspicions if one.kind == "odd_total"]
    assert message.startswith("2 rows")


def test_table_reject_of_an_odd_number_names_its_column_and_value(tmp_path: Path) -> None:
    lines = ["model,task,id,points,tokens", "m,t,1,high,3", "m,t,2,1,many", "m,t,3,1,2.5", "m,t,4,1,-4", "m,t,5,1,3"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    options = {**COLUMNS, "score": "points", "prompt_tokens": "tokens"}
    report = imported("table", tmp_path / "t.csv", tmp_path / "lake", options=options)
    messages = [(one["kind"], one["message"].split(": ")[1]) for one in report.rejects]
    assert messages == [
        ("not_finite", 'score nan, points is "high"'),
        ("negative_tokens", 'prompt_tokens -1, tokens is "many"'),
        ("negative_tokens", 'prompt_tokens -1, tokens is "2.5"'),
        ("negative_tokens", "prompt_tokens -4"),
    ]


def test_table_conflict_names_what_differs(tmp_path: Path) -> None:
    names = ("model", "task", "id", "score", "usd", "text")
    given = [("m", "t", "1", 1.0, 0.5, "yes"), ("m", "t", "1", 0.0, 0.5, "no"), ("m", "t", "2", 1.0, 0.5, "yes")]
    options = {**COLUMNS, "usd": "usd", "response": "text"}
    [reject] = imported(
        "table", table(tmp_path / "a.parquet", given, names), tmp_path / "lake", options=options
    ).rejects
    assert reject["message"] == (
        "row 1 of a.parquet has another verdict of the same answer: score is '0.0' here and '1.0' there; "
        "responses is \"['no']\" here and \"['yes']\" there; correct is 'False' here and 'True' there"
    )
    later = table(tmp_path / "b.parquet", [("m", "t", "2", 1.0, 0.75, "yes"), ("m", "t", "1", 1.0, 0.5, "yes")], names)
    [reject] = imported("table", later, tmp_path / "lake", options=options).rejects
    assert reject["message"].endswith("from an earlier import of table: stated_usd is '0.75' here and '0.5' there")


def test_table_of_means_is_suspicious_and_one_of_items_without_names_is_not(tmp_path: Path) -> None:
    options = {name: column for name, column in COLUMNS.items() if name != "key"}
    names = ("model", "task", "score")
    means = [(model, task, 0.7) for model in "ab" for task in "tu"]
    report = imported("table", table(tmp_path / "m.parquet", means, names), tmp_path / "means", options=options)
    assert {(one.kind, one.model, one.task) for one in report.suspicions} >= {("aggregate", "a", "t")}
    items = [("a", "t", 1.0), ("a", "t", 0.0), ("a", "u", 1.0)]
    report = imported("table", table(tmp_path / "i.parquet", items, names), tmp_path / "items", options=options)
    assert "aggregate" not in {one.kind for one in report.suspicions}
