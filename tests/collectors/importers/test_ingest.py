"""What becomes of imported rows: counted, joined, once in the lake, and never mixed with collected ones unasked."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.card import Description
from collectors.compaction import compact
from collectors.dense import load_matrix
from collectors.importers import apart
from collectors.importers.files import find_files
from collectors.importers.found import Source
from collectors.importers.ingest import claimed, ingest
from collectors.importers.registry import FORMATS
from collectors.importers.staging import Staging
from collectors.lake import Lake
from collectors.pruning import prune
from collectors.reading import ask, connect
from collectors.snapshot import build_snapshot
from schemas.failures import ConfigError, StorageError
from schemas.identity import content_hash, digest
from tests.filled_lakes import NOW
from tests.importing import contents, imported, rows, write_json, write_lines
from tests.lake_builder import BuiltCell, LakeBuilder
from tests.lm_eval_releases import TIME, Answers, letters, write_release
from tests.object_store import BUCKET

COLUMNS = {"model": "model", "task": "task", "key": "id", "score": "score"}


def table(
    path: Path, verdicts: list[tuple[Any, ...]], names: tuple[str, ...] = ("model", "task", "id", "score")
) -> Path:
    """A Parquet table of verdicts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(zip(*verdicts, strict=True))
    pq.write_table(pa.table(dict(zip(names, (list(column) for column in columns), strict=True))), path)
    return path


def verdicts(models: str = "ab", items: int = 3) -> list[tuple[Any, ...]]:
    return [(model, "quiz", f"q{item}", float((item + ord(model)) % 2)) for model in models for item in range(items)]


# ---- what is read


def test_import_by_several_processes_is_the_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for release in ("0.4.5", "0.4.13"):
        write_release(tmp_path / "run" / release, release)
    letters_file = tmp_path / "run/0.4.13" / f"samples_letters_{TIME}.jsonl"
    letters_file.write_text(letters_file.read_text() + "no JSON\n")
    (tmp_path / "run/0.4.13" / f"samples_letters_{TIME}.jsonl.gz").write_bytes(b"no gzip")
    by_one = imported("lm_eval", tmp_path / "run", tmp_path / "one")
    monkeypatch.setattr(apart, "WORTH", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    by_several = imported("lm_eval", tmp_path / "run", tmp_path / "several")
    assert (by_several.rejects, by_several.counts) == (by_one.rejects, by_one.counts)
    assert {reject["kind"] for reject in by_one.rejects} == {"damaged"}
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


def test_import_whose_other_process_dies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_release(tmp_path / "run", "0.4.13")
    monkeypatch.setattr(apart, "WORTH", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(apart._Work, "claim", lambda work, index: False)  # the other one began all of it
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="ended before its work"):
        imported("lm_eval", tmp_path / "run", tmp_path / "lake")


@pytest.mark.slow
def test_import_from_and_into_an_object_store(tmp_path: Path, s3_environment: Any) -> None:
    folder = write_release(tmp_path / "run", "0.4.13")
    imported("lm_eval", folder, tmp_path / "lake")
    there = f"{BUCKET}/{secrets.token_hex(4)}"
    fsspec.filesystem("s3").put(str(folder), f"{there}/run", recursive=True)
    files = find_files([f"s3://{there}/run"], FORMATS["lm_eval"].patterns)
    lake = Lake(f"s3://{there}/lake")
    reports = [ingest(FORMATS["lm_eval"].read, files, Source("lm_eval", "lm_eval"), lake) for _ in range(2)]
    assert [report.total.records for report in reports] == [7, 0]
    told = "SELECT * FROM records ORDER BY ALL"
    with connect(lake) as con:
        assert con.execute(told).fetchall() == rows(tmp_path / "lake", told)


# ---- what is counted


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
    found = rows(
        tmp_path / "lake",
        "SELECT source_key, score, stated_usd FROM records JOIN items USING (task, item) "
        f"WHERE item >= {many} ORDER BY item",
    )
    assert found == [(str(row["id"]), 0.4, 0.37) for row in late]


def test_ingest_takes_row_numbers_from_no_column(tmp_path: Path) -> None:
    lines = ["_row,model,task,id,score,turn", "77,a,quiz,x,1_0,0", "88,a,quiz,y,1,2.5", "99,a,quiz,z,1,0"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    report = imported("table", tmp_path / "t.csv", tmp_path / "lake", options={**COLUMNS, "repeat": "turn"})
    assert [(r["kind"], r["source_row"]) for r in report.rejects] == [("not_finite", 1), ("no_key", 2)]
    assert rows(tmp_path / "lake", "SELECT source_row FROM records") == [(3,)]


def test_ingest_of_positions_far_apart_takes_no_memory_for_those_between(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.13")
    path = folder / f"samples_letters_{TIME}.jsonl"
    path.write_text(path.read_text().replace('"doc_id": 2', '"doc_id": 9999999'))
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert report.total.records == 7
    assert rows(tmp_path / "lake", "SELECT item FROM records WHERE task = 'letters' ORDER BY ALL")[-1] == (9_999_999,)


def test_ingest_of_two_who_find_a_dead_claim_lets_one_in(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = json.dumps({"source": "s", "host": socket.gethostname(), "process": process.pid}).encode()
    name = f"imports/claim-{digest('s')}.json"
    assert lake.create(name, dead)
    with claimed(lake, "s"):
        mine = lake.read(name)
        # The other one read the dead claim before, and would remove it now.
        lake.remove([name])
        lake.create(name, dead)
        with pytest.raises(ConfigError, match="began in this moment"), claimed(lake, "s"):
            pass
        lake.remove([name])
        lake.create(name, mine)
    with claimed(lake, "s"):
        pass


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
    assert load_matrix(str(lake), models=["a", "b"], include="imported").scores.shape == (8, 2)
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
    found = rows(tmp_path / "lake", "SELECT item, repeat, score, source_row FROM records ORDER BY ALL")
    assert found == [(0, 1, 1.0, 1), (1, 1, 1.0, 2), (1, 2, 0.0, 1), (2, 1, 1.0, 3)]


def test_ingest_of_numbers_that_are_none_rejects_them(tmp_path: Path) -> None:
    names = ("model", "task", "id", "score", "usd", "p")
    given = [
        ("a", "quiz", "1", 1.0, math.nan, "3"),
        ("a", "quiz", "2", 1.0, 0.1, "12.7"),
        ("a", "quiz", "3", 1.0, 0.1, "12"),
    ]
    path = table(tmp_path / "t.parquet", given, names)
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, "usd": "usd", "prompt_tokens": "p"})
    assert [reject["kind"] for reject in report.rejects] == ["not_finite", "negative_tokens"]
    assert rows(tmp_path / "lake", "SELECT prompt_tokens, stated_usd FROM records") == [(12, 0.1)]


def test_table_of_text_keys_that_look_like_numbers_keeps_them_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,task,id,score,row\nm,t,1.1,1,5\nm,t,1.10,0,5\nm,t,1.100,1,5\n")
    imported("table", tmp_path / "t.csv", tmp_path / "lake", options=COLUMNS)
    found = rows(tmp_path / "lake", "SELECT source_key, score, source_row FROM records JOIN items USING (task, item)")
    assert sorted(found) == [("1.1", 1.0, 1), ("1.10", 0.0, 2), ("1.100", 1.0, 3)]


def test_ingest_beside_another_of_the_same_source_is_refused_and_a_dead_ones_claim_is_taken(tmp_path: Path) -> None:
    path, lake = table(tmp_path / "t.parquet", verdicts()), Lake(str(tmp_path / "lake")).open_for_writing()
    name = f"imports/claim-{digest('table')}.json"
    for process, host in ((os.getpid(), socket.gethostname()), (1, "another-host")):
        assert lake.create(name, json.dumps({"host": host, "process": process}).encode())
        with pytest.raises(ConfigError, match=r"is at work.*or if it is not, remove .*claim-"):
            imported("table", path, tmp_path / "lake", options=COLUMNS)
        lake.remove([name])
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    lake.create(name, json.dumps({"host": socket.gethostname(), "process": int(gone.stdout)}).encode())
    assert imported("table", path, tmp_path / "lake", options=COLUMNS).total.records == 6
    assert not lake.has(name)


def test_ingest_of_a_file_that_changes_meanwhile_writes_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", verdicts())

    def read(staging: Staging, source: Source) -> None:
        FORMATS["table"].read(staging, source)
        table(path, verdicts("cd", 9))

    files = find_files([str(path)], ["*.parquet"])
    with pytest.raises(StorageError, match="changed while it was read"):
        ingest(read, files, Source("table", "table", options=COLUMNS), Lake(str(tmp_path / "lake")))
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
    found = rows(
        tmp_path / "texts", "SELECT model, prompt, score FROM records JOIN items USING (task, item) ORDER BY ALL"
    )
    assert found == [("a", "A?", 1.0), ("a", "B?", 0.0), ("b", "B?", 1.0), ("b", "C?", 0.0)]


def test_ingest_of_a_large_cell_parts_it_between_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.importers.writing.SHARD_ITEMS", 7)
    monkeypatch.setattr("collectors.importers.writing._BATCH_ROWS", 5)
    given = [("a", "quiz", f"q{item:02d}", f, 1.0) for item in range(31) for f in ("x", "y")]
    path = table(tmp_path / "t.parquet", given, ("model", "task", "id", "filter", "score"))
    imported("table", path, tmp_path / "lake", options={**COLUMNS, "filter": "filter"})
    assert len(Lake(str(tmp_path / "lake")).names("shards/task=quiz")) == 5
    assert rows(tmp_path / "lake", "SELECT count(*), count(DISTINCT item) FROM records") == [(62, 31)]


# ---- whence it is


def test_ingest_says_of_each_record_whence_it_is(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", verdicts())
    imported("table", path, tmp_path / "lake", options=COLUMNS, licence="mit", name="mine")
    found = rows(
        tmp_path / "lake",
        "SELECT records.source_row, imports.path, imports.licence, imports.format, cells.imported_from, cells.revision "
        "FROM records JOIN imports ON source_file = sha256 JOIN cells USING (cell_id) ORDER BY source_row",
    )
    assert found == [(row, "t.parquet", "mit", "table", "mine", None) for row in range(1, 7)]


def test_imported_records_are_mixed_with_collected_ones_only_when_asked(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    builder.planned(BuiltCell(model="a", task="quiz", items=3), [1.0, 1.0, 1.0])
    imported("table", table(tmp_path / "t.parquet", verdicts()), tmp_path / "lake", options=COLUMNS)
    for step in (lambda: None, lambda: compact(builder.lake), lambda: prune(builder.lake, NOW)):
        step()
        for include, cells, records in (("collected", 1, 3), ("imported", 2, 6), ("all", 3, 9)):
            for sql, count in (("cells", cells), ("matrix", records), ("records", records), ("leaderboard", cells)):
                asked = ask(
                    builder.lake, lambda con, _, s=sql: con.sql(f"SELECT count(*) FROM {s}").fetchall(), include=include
                )
                assert asked == [(count,)], (include, sql)
            matrix = load_matrix(str(tmp_path / "lake"), include=include)
            assert int(matrix.valid.sum()) == records
    assert int(load_matrix(str(tmp_path / "lake")).valid.sum()) == 3
    groups = "SELECT count(*) FROM (SELECT 1 FROM oracle GROUP BY task, items_digest, prompting)"
    assert rows(tmp_path / "lake", groups) == [(2,)]


# ---- what is joined


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
    assert collected.lake.exists()
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
    matrix = load_matrix(str(tmp_path / "lake"), ["letters"], include="imported")
    assert matrix.valid.tolist() == [[True, True], [True, True], [False, True]]


# ---- what looks wrong


def suspected(
    tmp_path: Path, given: list[tuple[Any, ...]], names: str, **settings: str
) -> list[tuple[str, str | None]]:
    path = table(tmp_path / "t.parquet", given, tuple(names.split()))
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, **settings})
    assert rows(tmp_path / "lake", "SELECT count(*) FROM suspicions") == [(len(report.suspicions),)]
    return [(one.kind, one.model) for one in report.suspicions]


def test_suspicions_name_token_counts_that_nobody_counted(tmp_path: Path) -> None:
    texts = [" ".join(["word"] * (number + 1)) for number in range(30)]
    given = [("a", "quiz", str(n), 1.0, 40, round(1.3 * (n + 1)), text) for n, text in enumerate(texts)]
    given += [("b", "quiz", str(n), 1.0, 30 + 7 * n % 13, 3 + n * n % 17, text) for n, text in enumerate(texts)]
    names = "model task id score prompt_tokens completion_tokens response"
    found = suspected(tmp_path, given, names, **{name: name for name in names.split()[4:]})
    assert found == [("constant_tokens", "a"), ("words", "a")]
    assert rows(tmp_path / "lake", "SELECT model, suspicions FROM coverage ORDER BY model") == [
        ("a", "constant_tokens, words"),
        ("b", None),
    ]


def test_suspicions_name_models_that_count_the_same_and_lack_rows_and_cost_nothing(tmp_path: Path) -> None:
    given = [(m, "quiz", str(n), 1.0, 10 + n, 0.0 if m == "a" else 0.1) for m in "ab" for n in range(25)]
    given += [("c", "quiz", str(n), 1.0, 11 + 2 * n, 0.1) for n in range(24)]
    found = suspected(tmp_path, given, "model task id score p usd", prompt_tokens="p", usd="usd")
    assert found == [("identical_tokens", None), ("free", "a"), ("fewer_rows", "c")]


def test_suspicions_name_right_answers_without_usage(tmp_path: Path) -> None:
    given = [("a", "quiz", str(n), 1.0, 0 if n < 2 else 5 + n, 0 if n < 2 else 1 + n % 3) for n in range(25)]
    found = suspected(tmp_path, given, "model task id score p c", prompt_tokens="p", completion_tokens="c")
    assert found == [("no_usage", "a")]


def test_suspicions_of_honest_counts_are_none(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    given = [
        (m, "quiz", str(n), 1.0, int(draw.integers(50, 90)), int(draw.integers(1, 9)), "some words in an answer")
        for m in "ab"
        for n in range(40)
    ]
    names = "model task id score prompt_tokens completion_tokens response"
    assert suspected(tmp_path, given, names, **{name: name for name in names.split()[4:]}) == []


# ---- tables


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
    found = rows(
        tmp_path / "lake",
        "SELECT model, task, score, responses FROM records JOIN responses USING (model, task) ORDER BY 1",
    )
    assert found == [("a", "q,uiz", 1.0, ['say "hi"\nthere']), ("b", "q,uiz", 0.0, ["no"])]


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
    assert Source("x", "table").aliases == {}


def test_published_card_names_whose_records_were_imported_under_which_licence(tmp_path: Path) -> None:
    path, lake = table(tmp_path / "t.parquet", verdicts()), tmp_path / "lake"
    imported("table", path, lake, options=COLUMNS, name="theirs", licence="mit")
    imported("table", path, lake, options=COLUMNS, name="others")
    (tmp_path / "version").mkdir()
    build_snapshot(Lake(str(lake)), tmp_path / "version", Description(licence="cc0-1.0"), include="imported")
    card = (tmp_path / "version/README.md").read_text()
    assert "- others (table): licence not stated" in card
    assert "- theirs (table): mit" in card
    assert (
        "Imported theirs (table): mit." in json.loads((tmp_path / "version/croissant.json").read_text())["description"]
    )
