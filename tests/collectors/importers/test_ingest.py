"""What becomes of imported rows: counted, joined, once in the lake, and never mixed with collected ones unasked."""

from __future__ import annotations

import math
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from collectors.importers import processes
from collectors.importers.files import find_files
from collectors.importers.ingest import ingest
from collectors.importers.registry import FORMATS
from collectors.importers.sources import ImportSource
from collectors.importers.staging import Staging
from collectors.lake.compaction import compact
from collectors.lake.pruning import prune
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from schemas.failures import StorageError
from schemas.views import PoolChoice
from tests.helpers.filled_lakes import NOW
from tests.helpers.importing import COLUMNS, contents, imported, rows, table, verdicts
from tests.helpers.lm_eval_releases import TIME, write_release
from tests.helpers.object_store import BUCKET

# ---- reading


def test_import_by_several_processes_is_the_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for release in ("0.4.5", "0.4.13"):
        write_release(tmp_path / "run" / release, release)
    letters_file = tmp_path / "run/0.4.13" / f"samples_letters_{TIME}.jsonl"
    letters_file.write_text(letters_file.read_text() + "no JSON\n")
    (tmp_path / "run/0.4.13" / f"samples_letters_{TIME}.jsonl.gz").write_bytes(b"no gzip")
    by_one = imported("lm_eval", tmp_path / "run", tmp_path / "one")
    monkeypatch.setattr(processes, "WORTH", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    by_several = imported("lm_eval", tmp_path / "run", tmp_path / "several")
    assert (by_several.rejects, by_several.counts) == (by_one.rejects, by_one.counts)
    assert {reject["kind"] for reject in by_one.rejects} == {"damaged"}
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


def test_first_import_of_a_lake_asks_no_view_and_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(lake: Lake, *args: Any, **options: Any) -> Any:
        asked.append(lake.uri)
        return connect(lake, *args, **options)

    monkeypatch.setattr("collectors.lake.reading.connect", noted)
    for number in range(2):
        path = table(tmp_path / f"{number}.parquet", [(f"m{number}", "t", "q", 1.0)])
        imported("table", path, tmp_path / "lake", name=f"source-{number}", options=COLUMNS)
        assert bool(asked) == bool(number)


def test_import_whose_other_process_dies_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_release(tmp_path / "run", "0.4.13")
    monkeypatch.setattr(processes, "WORTH", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(processes._SharedJobs, "claim", lambda jobs, index: False)  # the other one began all of it
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="ended too early"):
        imported("lm_eval", tmp_path / "run", tmp_path / "lake")


@pytest.mark.slow
def test_import_from_and_into_an_object_store(tmp_path: Path, s3_environment: Any) -> None:
    folder = write_release(tmp_path / "run", "0.4.13")
    imported("lm_eval", folder, tmp_path / "lake")
    there = f"{BUCKET}/{secrets.token_hex(4)}"
    fsspec.filesystem("s3").put(str(folder), f"{there}/run", recursive=True)
    files = find_files([f"s3://{there}/run"], FORMATS["lm_eval"].patterns)
    lake = Lake(f"s3://{there}/lake")
    reports = [ingest(FORMATS["lm_eval"].read, files, ImportSource("lm_eval", "lm_eval"), lake) for _ in range(2)]
    assert [report.total.records for report in reports] == [7, 0]
    query = "SELECT * FROM records ORDER BY ALL"
    with connect(lake, only=["records"]) as con:
        assert con.execute(query).fetchall() == rows(tmp_path / "lake", query)


# ---- counting


def test_ingest_counts_every_row_once(tmp_path: Path) -> None:
    given = verdicts()
    bad = [("a", "quiz", "q7", math.nan), ("a", "quiz", "q8", 2.0), ("a", None, "q9", 1.0), ("a", "quiz", "q9", None)]
    given += [*bad, given[0], ("a", "quiz", "q1", 1.0)]
    report = imported("table", table(tmp_path / "t.parquet", given), tmp_path / "lake", options=COLUMNS)
    assert (report.total.rows, report.total.records, report.total.folded, report.total.rejected) == (12, 6, 1, 5)
    assert [(r["kind"], r["source_row"]) for r in report.rejects] == [
        ("not_finite", 7),
        ("out_of_range", 8),
        ("no_key", 9),
        ("no_verdict", 10),
        ("conflict", 12),
    ]
    stored = rows(tmp_path / "lake", "SELECT kind, source_row, model, source_key FROM rejects ORDER BY source_row")
    assert stored[-1] == ("conflict", 12, "a", "q1")
    [counts] = rows(tmp_path / "lake", "SELECT rows, records, known, folded, rejected FROM imports")
    assert counts == (12, 6, 0, 1, 5)


def test_ingest_of_positions_far_apart_takes_no_memory_for_those_between(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.13")
    path = folder / f"samples_letters_{TIME}.jsonl"
    path.write_text(path.read_text().replace('"doc_id": 2', '"doc_id": 9999999'))
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert report.total.records == 7
    assert rows(tmp_path / "lake", "SELECT item FROM records WHERE task = 'letters' ORDER BY ALL")[-1] == (9_999_999,)


def test_ingest_twice_adds_nothing_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    path, lake = table(tmp_path / "t.parquet", verdicts()), tmp_path / "lake"
    assert imported("table", path, lake, options=COLUMNS, dry_run=True).total.records == 6
    assert not lake.exists()
    imported("table", path, lake, options=COLUMNS)
    before = contents(lake)
    again = imported("table", path, lake, options=COLUMNS)
    assert (again.files, again.skipped) == ([], ["t.parquet"])
    assert contents(lake) == before


def test_ingest_of_the_same_file_under_another_name_adds_no_record_and_says_so(tmp_path: Path) -> None:
    first, second = (table(tmp_path / name, verdicts()) for name in ("one.parquet", "two.parquet"))
    report = imported("table", [first, second], tmp_path / "lake", options=COLUMNS)
    assert (report.total.records, report.total.folded) == (6, 6)
    assert [one.kind for one in report.suspicions] == ["same_file"]
    assert rows(tmp_path / "lake", "SELECT kind, path FROM suspicions") == [("same_file", "two.parquet")]
    later = tmp_path / "later"
    imported("table", first, later, options=COLUMNS)
    again = imported("table", second, later, options=COLUMNS)
    assert (again.total.records, again.total.known) == (0, 6)
    assert rows(later, "SELECT count(*) FROM records") == [(6,)]


@pytest.mark.few(1)
@pytest.mark.parametrize("folded", [False, True])
def test_ingest_of_more_of_a_cell_takes_what_is_new_and_rejects_what_contradicts(tmp_path: Path, folded: bool) -> None:
    lake = tmp_path / "lake"
    whole = verdicts("a", 6)
    imported("table", table(tmp_path / "all.parquet", verdicts("b", 6)), lake, options=COLUMNS)  # the items
    imported("table", table(tmp_path / "some.parquet", [whole[0], whole[3], whole[4]]), lake, options=COLUMNS)
    if folded:
        compact(Lake(str(lake)))
        prune(Lake(str(lake)), NOW)
    changed = [(*row[:3], 1 - row[3]) if number == 3 else row for number, row in enumerate(whole)]
    report = imported("table", table(tmp_path / "rest.parquet", changed), lake, options=COLUMNS)
    assert (report.total.records, report.total.known, report.total.rejected) == (3, 2, 1)
    assert rows(lake, "SELECT score FROM records WHERE model = 'a' ORDER BY item") == [(row[3],) for row in whole]


@pytest.mark.few(1)
@pytest.mark.parametrize("folded", [False, True])
def test_ingest_of_a_table_that_grew_makes_the_same_cells_longer(tmp_path: Path, folded: bool) -> None:
    path, lake = tmp_path / "t.parquet", tmp_path / "lake"
    imported("table", table(path, verdicts("ab", 6)), lake, options=COLUMNS)
    imported("table", table(tmp_path / "other.parquet", verdicts("c", 3)), lake, options=COLUMNS, name="others")
    if folded:
        compact(Lake(str(lake)))
        prune(Lake(str(lake)), NOW)
    more = [("a", "quiz", f"new{item}", 1.0) for item in range(2)]
    report = imported("table", table(path, [more[1], *verdicts("ab", 6), more[0]]), lake, options=COLUMNS)
    assert (report.total.records, report.total.known, report.total.rejected) == (2, 12, 0)
    assert not [one for one in report.suspicions if one.kind != "fewer_rows"]
    counts = "SELECT model, scored, planned FROM coverage JOIN (SELECT cell_id FROM cells) USING (cell_id) "
    assert rows(lake, counts + "WHERE imported_from = 'table' ORDER BY model") == [("a", 8, 8), ("b", 6, 8)]
    of_a = "FROM items JOIN cells USING (task, items_digest) WHERE model = 'a' ORDER BY item"
    keys = rows(lake, f"SELECT item, source_key {of_a}")
    assert keys == [*((item, f"q{item}") for item in range(6)), (6, "new1"), (7, "new0")]
    assert load_matrix(
        str(lake), choice=PoolChoice("model IN ('a', 'b')", questions="any"), include="imported"
    ).scores.shape == (8, 2)
    before = contents(lake)
    assert imported("table", path, lake, options=COLUMNS).skipped == ["t.parquet"]
    assert contents(lake) == before


def test_ingest_with_other_settings_reads_the_same_files_again(tmp_path: Path) -> None:
    path, lake = table(tmp_path / "t.parquet", [("a", "quiz", f"q{n}", float(n)) for n in range(11)]), tmp_path / "lake"
    first = imported("table", path, lake, options=COLUMNS)
    assert (first.total.records, first.total.rejected) == (2, 9)
    assert [one.kind for one in first.suspicions] == ["mostly_rejected"]
    again = imported("table", path, lake, options=COLUMNS)
    assert (again.files, again.skipped_rejects) == ([], 9)
    tenths = imported("table", path, tmp_path / "tenths", options={**COLUMNS, "low": 0, "high": 10})
    assert (tenths.total.records, tenths.suspicions) == (11, [])
    assert rows(tmp_path / "tenths", "SELECT count(correct) FROM records") == [(0,)]
    ruled = imported("table", path, tmp_path / "ruled", options={**COLUMNS, "low": 0, "high": 10, "threshold": 8})
    assert ruled.total.records == 11
    assert rows(tmp_path / "ruled", "SELECT sum(correct::INTEGER), count(correct) FROM records") == [(3, 11)]
    folder = write_release(tmp_path / "run", "0.4.13")
    (folder / f"results_{TIME}.json").unlink()
    assert imported("lm_eval", folder, tmp_path / "named").total.records == 0
    assert imported("lm_eval", folder, tmp_path / "named", model="me/model").total.records == 7


@pytest.mark.few(2)
@pytest.mark.parametrize("after", range(0, 9, 2))
def test_ingest_killed_half_way_and_again_ends_in_the_same_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    path = table(tmp_path / "t.parquet", [*verdicts("abcd", 5), ("a", "quiz", "x", 7.0)])
    imported("table", path, tmp_path / "whole", options=COLUMNS)
    create, left = Lake.create, [after]

    def dies(self: Lake, name: str, data: bytes) -> bool:
        if not name.endswith("schema.parquet") and not name.startswith("probe-"):
            if not left[0]:
                raise StorageError("killed")
            left[0] -= 1
        return create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "create", dies)
        with pytest.raises(StorageError, match="killed"):
            imported("table", path, tmp_path / "lake", options=COLUMNS)
    imported("table", path, tmp_path / "lake", options=COLUMNS)
    counts = "imports/"
    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "lake")
    assert again.keys() == whole.keys()
    assert all(again[name] == whole[name] for name in whole if not name.startswith(counts))


@pytest.mark.parametrize("folded", [False, True])
def test_ingest_of_another_repeat_hides_nothing_that_is_there(tmp_path: Path, folded: bool) -> None:
    names, options = ("model", "task", "id", "score", "repeat"), {**COLUMNS, "repeat": "repeat"}
    first = table(tmp_path / "1.parquet", [("a", "quiz", f"q{n}", 1.0, 1) for n in range(3)], names)
    second = table(tmp_path / "2.parquet", [("a", "quiz", "q1", 0.0, 2)], names)
    imported("table", first, tmp_path / "lake", options=options)
    if folded:
        compact(Lake(str(tmp_path / "lake")))
        prune(Lake(str(tmp_path / "lake")), NOW)
    assert imported("table", second, tmp_path / "lake", options=options).total.records == 1
    stored = rows(tmp_path / "lake", "SELECT item, repeat, score, source_row FROM records ORDER BY ALL")
    assert stored == [(0, 1, 1.0, 1), (1, 1, 1.0, 2), (1, 2, 0.0, 1), (2, 1, 1.0, 3)]


def test_ingest_of_numbers_that_are_none_rejects_them(tmp_path: Path) -> None:
    names = ("model", "task", "id", "score", "usd", "p")
    given = [
        ("a", "quiz", "1", 1.0, math.nan, "3"),
        ("a", "quiz", "2", 1.0, 0.1, "12.7"),
        ("a", "quiz", "3", 1.0, 0.1, "12"),
        ("a", "quiz", "4", 1.0, 1e308, "12"),  # two of these have no mean
    ]
    path = table(tmp_path / "t.parquet", given, names)
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, "usd": "usd", "prompt_tokens": "p"})
    assert [reject["kind"] for reject in report.rejects] == ["not_finite", "negative_tokens", "not_finite"]
    assert rows(tmp_path / "lake", "SELECT prompt_tokens, stated_usd FROM records") == [(12, 0.1)]


def test_ingest_of_a_file_that_changes_meanwhile_writes_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", verdicts())

    def read(staging: Staging, source: ImportSource) -> None:
        FORMATS["table"].read(staging, source)
        table(path, verdicts("cd", 9))

    files = find_files([str(path)], ["*.parquet"])
    with pytest.raises(StorageError, match="changed while it was read"):
        ingest(read, files, ImportSource("table", "table", options=COLUMNS), Lake(str(tmp_path / "lake")))
    assert rows(tmp_path / "lake", "SELECT count(*) FROM records") == [(0,)]


def test_items_whose_key_stands_for_several_questions_are_named_and_joined_to_none(tmp_path: Path) -> None:
    given = [
        ("a", "quiz", "1", 1.0, "What is 1?"),
        ("b", "quiz", "1", 0.0, "What is one?"),
        ("a", "quiz", "2", 1.0, "Two?"),
    ]
    path = table(tmp_path / "t.parquet", given, ("model", "task", "id", "score", "text"))
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, "prompt": "text"})
    assert [(one.kind, one.task) for one in report.suspicions if one.kind != "fewer_rows"] == [
        ("several_questions", "quiz")
    ]
    assert rows(tmp_path / "lake", "SELECT source_key, prompt, content_hash IS NULL FROM items ORDER BY item") == [
        ("1", None, True),
        ("2", "Two?", False),
    ]


def test_tables_without_a_key_never_take_one_files_item_for_anothers(tmp_path: Path) -> None:
    names = ("model", "task", "score", "text")
    first = table(tmp_path / "1.parquet", [("a", "quiz", 1.0, "A?"), ("a", "quiz", 0.0, "B?")], names)
    second = table(tmp_path / "2.parquet", [("b", "quiz", 1.0, "B?"), ("b", "quiz", 0.0, "C?")], names)
    options = {"model": "model", "task": "task", "score": "score"}
    imported("table", [first, second], tmp_path / "rows", options=options)
    assert rows(tmp_path / "rows", "SELECT count(DISTINCT item), count(*) FROM records") == [(4, 4)]
    imported("table", [first, second], tmp_path / "texts", options={**options, "prompt": "text"})
    stored = rows(
        tmp_path / "texts", "SELECT model, prompt, score FROM records JOIN items USING (task, item) ORDER BY ALL"
    )
    assert stored == [("a", "A?", 1.0), ("a", "B?", 0.0), ("b", "B?", 1.0), ("b", "C?", 0.0)]


def test_ingest_of_a_large_cell_parts_it_between_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.importers.writing.SHARD_ITEMS", 7)
    monkeypatch.setattr("collectors.importers.writing._BATCH_ROWS", 5)
    given = [("a", "quiz", f"q{item:02d}", f, 1.0) for item in range(31) for f in ("x", "y")]
    path = table(tmp_path / "t.parquet", given, ("model", "task", "id", "filter", "score"))
    imported("table", path, tmp_path / "lake", options={**COLUMNS, "filter": "filter"})
    assert len(Lake(str(tmp_path / "lake")).names("shards/task=quiz")) == 5
    assert rows(tmp_path / "lake", "SELECT count(*), count(DISTINCT item) FROM records") == [(62, 31)]


# ---- names that no SQL text can hold


def test_import_of_a_name_with_nul_rejects_its_row_and_takes_the_others(tmp_path: Path) -> None:
    verdicts = [("a\0", "quiz", "1", 1.0), ("a", "a\0b", "1", 1.0), ("a", "quiz", "1\0", 1.0), ("a", "quiz", "2", 1.0)]
    report = imported("table", table(tmp_path / "t.parquet", verdicts), tmp_path / "lake", options=COLUMNS)
    where = "the character NUL stands in the name of: "
    assert [(one["kind"], one["source_row"], one["message"]) for one in report.rejects] == [
        ("encoding", 1, where + "model"),
        ("encoding", 2, where + "task"),
        ("encoding", 3, where + "key"),
    ]
    assert rows(tmp_path / "lake", "SELECT model, task, score FROM records") == [("a", "quiz", 1.0)]


@pytest.mark.parametrize("form", ["routerbench", "routellm"])
def test_import_of_a_column_whose_name_holds_nul_rejects_its_model_alone(tmp_path: Path, form: str) -> None:
    name, header, values = {
        "routerbench": ("t.csv", "sample_id,prompt,a,a|total_cost,b\0,b\0|total_cost", "quiz.1,x,1,.1,0,.1"),
        "routellm": ("quiz_responses.csv", "prompt,a,b\0", "x,True,False"),
    }[form]
    (tmp_path / name).write_text(f"{header}\n{values}\n")
    report = imported(form, tmp_path / name, tmp_path / "lake")
    assert [(one["kind"], one["source_row"], one["model"]) for one in report.rejects] == [("encoding", 1, "b\0")]
    assert rows(tmp_path / "lake", "SELECT model, score FROM records") == [("a", 1.0)]


def test_routellm_column_that_no_rule_reads_is_named(tmp_path: Path) -> None:
    header = "Unnamed: 0,prompt,a,b,b_response,w,note,c_response"
    (tmp_path / "quiz_responses.csv").write_text(f"{header}\n0,x,True,False,n,1,hm,y\n1,y,False,True,n,0,hm,y\n")
    report = imported("routellm", tmp_path / "quiz_responses.csv", tmp_path / "lake")
    assert [(one["kind"], one["message"].split(" is not read")[0]) for one in report.rejects] == [
        ("unknown_layout", "the column 'c_response'"),
        ("unknown_layout", "the column 'note'"),
        ("unknown_layout", "the column 'w'"),
    ]
    assert rows(tmp_path / "lake", "SELECT model, sum(score) FROM records GROUP BY model ORDER BY 1") == [
        ("a", 1.0),
        ("b", 1.0),
    ]
