"""Ways to tamper with a published version and to sign the change, so that every SHA-256 is right.

Owns the kinds of a foreign compaction, of foreign tables and of foreign views. `KINDS` are all, of tampering.py too.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import shutil
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.holdings import Manifest
from collectors.lake.layout import DATABASE, manifest_name, published_name
from collectors.lake.seals import sealed_json
from schemas.records import TABLES
from tests.helpers.tampering import COMPACTION, DEEP, KINDS, Copy, kind

__all__ = ["KINDS", "Copy"]


def _part(name: str, **values: Any) -> None:
    KINDS[name] = lambda copy: copy.fold_part(**values)


def _signed(name: str, file: str, data: bytes) -> None:
    KINDS[name] = lambda copy: copy.sign(file, data)


# ---- the compaction, signed

_part("part_above_the_folder", records="../outside/compact/000001/task=t/records-00000.parquet")
_part("part_absolute", records="/tmp/records-00000.parquet")
_part("part_in_another_store", records="s3://bucket/compact/000001/task=t/records-00000.parquet")
_part("part_of_no_file", records="compact/000001/task=t/records-00009.parquet")
_part("part_without_answers", responses=None, sha256=[])
_part("part_of_another_task", task="u")
_part("part_with_other_rows", rows=31)
_part("part_with_rows_as_text", rows="many")
_part("part_with_other_bytes", bytes=1)
_part("part_of_another_prompting", prompting="0" * 16)
_part("part_with_more_cells", cells=99)
_part("part_with_fewer_primary_rows", primary_rows=1)
_part("part_of_other_items", first_item=7, last_item=8)
_part("part_of_the_future", schema_version=999)
_part("part_with_a_strange_field", evil=1)


@kind
def part_that_is_no_grid(copy: Copy) -> None:
    copy.fold_part(is_grid=not copy.compaction["parts"][0]["is_grid"])


@kind
def part_twice(copy: Copy) -> None:
    copy.fold(parts=copy.compaction["parts"] * 2)


@kind
def part_shared(copy: Copy) -> None:
    first, second = copy.compaction["parts"][:2]
    copy.fold(parts=[first, {**second, "responses": first["responses"], "sha256": []}])


@kind
def part_left_out(copy: Copy) -> None:
    copy.fold(parts=copy.compaction["parts"][:1])


@kind
def part_through_a_link(copy: Copy) -> None:
    """Its name is plain, and it lies outside."""
    name = copy.parts[0]
    data = copy.read(name)
    copy.outside.write_bytes(data)
    (copy.folder / name).unlink()
    (copy.folder / name).symlink_to(copy.outside)


@kind
def compaction_of_the_future(copy: Copy) -> None:
    copy.fold(schema_version=999)


@kind
def compaction_of_another_number(copy: Copy) -> None:
    copy.fold(number=2)


@kind
def compaction_with_fewer_shards(copy: Copy) -> None:
    copy.fold(shards=1)


@kind
def compaction_with_an_inventory(copy: Copy) -> None:
    copy.fold(inventory="compact/000001/inventory-x.json")


@kind
def compaction_with_a_list_elsewhere(copy: Copy) -> None:
    copy.fold(folded="../folded.parquet")


_signed("compaction_of_damaged_json", COMPACTION, b'{"schema_version": 7,')
_signed("compaction_of_deep_json", COMPACTION, DEEP)


@kind
def compaction_with_a_broken_seal(copy: Copy) -> None:
    copy.sign(COMPACTION, copy.read(COMPACTION).replace(b"2026", b"2027"))


@kind
def compaction_without_a_seal(copy: Copy) -> None:
    copy.sign(COMPACTION, json.dumps(copy.compaction).encode())


@kind
def compaction_twice(copy: Copy) -> None:
    manifest = Manifest.from_json(copy.read(COMPACTION))
    name = manifest_name(2)
    copy.sign(name, sealed_json({**copy.compaction, "number": manifest.number + 1}, name))


@kind
def counts_without_tasks(copy: Copy) -> None:
    copy.state(counts={name: count for name, count in copy.manifest["counts"].items() if name != "tasks"})


@kind
def counts_of_other_runs(copy: Copy) -> None:
    copy.state(counts={**copy.manifest["counts"], "runs": 9})


# ---- tables, signed

_signed("extra_program", "run.sh", b"#!/bin/sh")
_signed("extra_table", "evil/all.parquet", b"PAR1PAR1")
_signed("table_not_parquet", "failures/all.parquet", b"PAR1 nothing PAR1")


@kind
def extra_shard(copy: Copy) -> None:
    """It would double records."""
    copy.sign("shards/task=t/0123456789abcdef-g0-0000000-0000004.parquet", copy.read(copy.parts[0]))


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@kind
def data_sheet_left_out(copy: Copy) -> None:
    files = copy.manifest["files"]
    del files["DATASHEET.md"]
    (copy.folder / "DATASHEET.md").unlink()
    copy.state(files=files)


@kind
def citation_of_another_version(copy: Copy) -> None:
    copy.sign("CITATION.cff", copy.read("CITATION.cff").replace(b"version: ", b"version: 9"))


@kind
def croissant_of_other_files(copy: Copy) -> None:
    value = json.loads(copy.read("croissant.json"))
    value["distribution"].append({"@type": "cr:FileObject", "@id": "x", "sha256": "0" * 64})
    copy.sign("croissant.json", json.dumps(value).encode())


@kind
def zenodo_that_is_none(copy: Copy) -> None:
    copy.sign(".zenodo.json", DEEP)


@kind
def table_of_the_future(copy: Copy) -> None:
    table = pq.read_table(copy.folder / "models/all.parquet")
    metadata = {**(table.schema.metadata or {}), b"routerlake_schema_version": b"999"}
    copy.sign("models/all.parquet", _parquet(table.replace_schema_metadata(metadata)))


@kind
def table_with_other_columns(copy: Copy) -> None:
    copy.sign("runs/all.parquet", _parquet(pa.table({"x": [1]})))


@kind
def part_with_more_rows(copy: Copy) -> None:
    table = pq.read_table(copy.folder / copy.parts[0])
    data = _parquet(pa.concat_tables([table, table]))
    copy.sign(copy.parts[0], data)
    copy.fold_part(bytes=len(data), sha256=[])


@kind
def schema_file_with_rows(copy: Copy) -> None:
    copy.sign("compact/records/schema.parquet", copy.read(copy.parts[0]))


def _added_table(name: str, table: str, **values: Any) -> None:
    """One row of a table that the version lacks; the values that it needs are its columns' names."""
    KINDS[name] = lambda copy: copy.sign(published_name(table), _parquet(_row(table, **values)))


def _row(table: str, **values: Any) -> pa.Table:
    schema = TABLES[table]
    row = {field.name: _filled(field) for field in schema if not field.nullable} | values
    return pa.Table.from_pylist([row], pa.schema([field.with_nullable(True) for field in schema]))


def _filled(field: pa.Field) -> Any:
    if pa.types.is_string(field.type):
        return field.name
    if pa.types.is_timestamp(field.type):
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return True if pa.types.is_boolean(field.type) else 1


_added_table("verdicts_of_no_judge", "verdicts")
_added_table("forecasts_of_no_fit", "forecasts")
_added_table("list_of_other_items", "item_sets", item_set="0" * 16, item=3)
_added_table("list_without_a_digest", "item_sets", item_set=None, item=3)
_signed("pool_that_is_none", "pools/small.yaml", b"[")
_signed("pool_above_a_mebibyte", "pools/small.yaml", b"{name: small}" + b" " * (1 << 20))
_signed("pool_under_another_name", "pools/small.yaml", b"{name: large}")
_signed("pool_that_runs_code", "pools/small.yaml", b"name: !!python/object/apply:os.system [id]")
_signed("splits_that_are_none", "splits/all.parquet", b"PAR1PAR1")


_VERDICTS = published_name("verdicts")


@kind
def verdicts_without_the_column_of_judges(copy: Copy) -> None:
    copy.sign(_VERDICTS, _parquet(_row("verdicts").drop_columns("judge_id")))


def _verdicts_of(name: str, judges: pa.Array) -> None:
    def act(copy: Copy) -> None:
        table = _row("verdicts")
        copy.sign(_VERDICTS, _parquet(table.set_column(table.column_names.index("judge_id"), "judge_id", judges)))

    KINDS[name] = act


_verdicts_of("verdicts_of_a_list_of_judges", pa.array([["judge"]]))
_verdicts_of("verdicts_of_a_judge_that_is_no_text", pa.array([b"\xff"]).view(pa.string()))


@kind
def verdicts_with_a_broken_page(copy: Copy) -> None:
    """The footer is whole, and the page's checksum is another's."""
    data = _parquet(_row("verdicts", judge_id="judge-one"), write_page_checksum=True, compression="none")
    assert data.count(b"judge-one") > 1, "in the page, and in its statistics"
    copy.sign(_VERDICTS, data.replace(b"judge-one", b"judge-two", 1))


@kind
def items_of_another_table(copy: Copy) -> None:
    name = next(name for name in copy.manifest["files"] if name.startswith("items/task="))
    copy.sign(name.replace("i0", "i1"), copy.read(name))


@kind
def views_missing_from_the_manifest(copy: Copy) -> None:
    files = copy.manifest["files"]
    del files["views.sql"]
    (copy.folder / "views.sql").unlink()
    copy.state(files=files)


@kind
def views_of_other_files(copy: Copy) -> None:
    copy.sign("views.sql", copy.read("views.sql").replace(b"'/runs/all.parquet'", b"'/../lake/runs/all.parquet'"))


@kind
def views_of_a_server(copy: Copy) -> None:
    copy.sign("views.sql", copy.read("views.sql") + b"CREATE VIEW x AS FROM 'https://127.0.0.1/x.parquet';")


def _database(name: str, statement: str) -> None:
    def act(copy: Copy) -> None:
        place = copy.folder.parent / "changed.duckdb"
        shutil.copy(copy.folder / DATABASE, place)
        with contextlib.closing(duckdb.connect(place)) as con:
            con.execute(statement)
        copy.sign(DATABASE, place.read_bytes())

    KINDS[name] = act


_database("database_that_reads_texts", "CREATE VIEW x AS FROM read_text('/etc/hostname')")
_database("database_with_a_macro_that_lists", "CREATE MACRO x(y) AS TABLE FROM glob(y)")


@kind
def database_that_reads_elsewhere(copy: Copy) -> None:
    """DuckDB makes no view over a file that does not exist."""
    pq.write_table(pa.table({"x": [1]}), copy.folder.parent / "x.parquet")
    _database("", f"CREATE VIEW x AS FROM '{copy.folder.parent}/x.parquet'")
    KINDS.pop("")(copy)


_signed("database_that_is_none", DATABASE, b"nothing")


# ---- statements beside those that make the views, signed


def _added(name: str, statement: str) -> None:
    KINDS[name] = lambda copy: copy.sign("views.sql", copy.read("views.sql") + statement.encode())


_added("views_of_a_file_with_another_ending", "CREATE VIEW x AS FROM read_parquet('/tmp/other.bin');")
_added("views_of_a_file_in_dollars", "CREATE VIEW x AS FROM read_parquet($$/tmp/other.parquet$$);")
_added("views_of_a_file_of_two_texts", "CREATE VIEW x AS FROM read_parquet('/tmp/other' || '.par' || 'quet');")
_added("views_of_a_file_by_its_name", "CREATE VIEW x AS FROM 'other.csv';")
_added("views_of_a_reader_behind_a_comment", "CREATE VIEW x AS FROM read_csv/**/('other.csv');")
_added("views_of_a_reader_behind_lines_of_comment", "CREATE VIEW x AS FROM read_csv/*\n*/('other.csv');")
_added("views_of_a_reader_behind_a_carriage_return", "CREATE VIEW x AS FROM --\rread_csv('other.csv');")
_added("views_that_write", "COPY (SELECT 1) TO 'written.csv';")
_added("views_that_attach", "ATTACH 'other.db' AS other;")
_added("views_that_load_code", "LOAD 'evil.duckdb_extension';")
_added("views_made_again", "CREATE OR REPLACE VIEW leaderboard AS SELECT 999 AS score;")
_added("views_of_one_name", "CREATE VIEW leaderboard AS SELECT 999 AS score;")


@kind
def views_that_are_not_utf8(copy: Copy) -> None:
    copy.sign("views.sql", copy.read("views.sql") + b"-- \xff\n")


@kind
def views_emptied(copy: Copy) -> None:
    copy.sign("views.sql", b"-- none\n")
