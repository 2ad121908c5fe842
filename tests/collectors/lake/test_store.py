"""A lake in a folder and on a real S3 server: opening, listing, and tables that come back as they were."""

from __future__ import annotations

import datetime as dt
import io
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.holdings import committed
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from schemas.failures import ConfigError, StorageError
from schemas.records import RECORD, SCHEMA_FILES, SCHEMA_VERSION, TABLES
from tests.helpers.object_store import BUCKET, ObjectStore
from tests.helpers.opened_lakes import CELL, lake, read, shard, uri
from tests.helpers.thorough import long_only

__all__ = ["lake", "uri"]  # fixtures


# ---- opening


def test_lake_opened_for_writing_holds_every_tables_schema(lake: Lake) -> None:
    names = list(SCHEMA_FILES.values())
    assert [name for folder in TABLES for name in lake.names(folder)] == names
    for name, schema in zip(names, TABLES.values(), strict=True):
        assert pq.read_schema(io.BytesIO(read(lake, name))).equals(schema)


def test_lake_opened_twice_is_the_same_and_leaves_no_probe(lake: Lake, uri: str) -> None:
    before = lake.names("")
    assert Lake(uri).open_for_writing().names("") == before
    assert Lake(uri).open_for_reading().exists()
    assert not [name for name in before if ("probe" in name and "probe_sets" not in name) or name.endswith(".tmp")]


def test_lake_not_there_reading_is_refused_and_makes_nothing(uri: str) -> None:
    lake = Lake(uri)
    assert not lake.exists()
    assert (lake.names("shards"), committed(lake), lake.has("x")) == ([], {}, False)
    with pytest.raises(ConfigError, match=re.escape(f"no lake at {lake.uri}")):
        lake.open_for_reading()
    assert lake.names("") == []


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0])
def test_lake_of_another_schema_version_is_refused_unchanged(uri: str, version: int) -> None:
    lake = Lake(uri)
    sink = io.BytesIO()
    metadata = {b"routerlake_schema_version": str(version).encode()} if version else {}
    pq.write_table(RECORD.empty_table().replace_schema_metadata(metadata), sink)
    lake.create(SCHEMA_FILES["shards"], sink.getvalue())
    for open_lake in (lake.open_for_reading, lake.open_for_writing):
        with pytest.raises(ConfigError, match=f"schema version {version}, this program reads"):
            open_lake()
    assert lake.names("") == [SCHEMA_FILES["shards"]]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet" * 100])
def test_lake_damaged_schema_file_is_a_storage_error(uri: str, data: bytes) -> None:
    lake = Lake(uri)
    lake.create(SCHEMA_FILES["shards"], data)
    with pytest.raises(StorageError, match=re.escape(SCHEMA_FILES["shards"])):
        lake.open_for_writing()


def test_lake_uri_of_one_slash_is_no_folder() -> None:
    with pytest.raises(ConfigError, match="two slashes"):
        Lake("s3:/bucket/lake")


@pytest.mark.parametrize("uri", ["nosuch://x/y", "s3://key:hidden@bucket/x"])
def test_lake_uri_that_cannot_be_one_is_a_config_error_without_secrets(uri: str) -> None:
    with pytest.raises(ConfigError, match="lake") as caught:
        Lake(uri)
    assert "hidden" not in str(caught.value)


# ---- listing


def test_names_are_in_byte_order_whole_and_below_the_folder_only(lake: Lake) -> None:
    names = ["runs/Z", "runs/a", "runs/a-b", "runs/aa/b", "runs/b", "runs/z/y", "runs/é", "runs/日"]
    for name in [*reversed(names), "runs2/c", "other/d"]:
        lake.create(name, b"1")
    assert [name for name in lake.names("runs") if name != "runs/schema.parquet"] == names
    assert lake.names("nothing") == []


def test_names_another_process_created_are_seen_at_once(lake: Lake, uri: str) -> None:
    assert committed(lake) == {}
    Lake(uri).create(shard_name("t", shard(0, 4)), b"1")
    assert committed(lake) == {CELL: [shard(0, 4)]}
    assert lake.has(shard_name("t", shard(0, 4)))


@long_only
@pytest.mark.slow
def test_names_more_than_a_page_of_listing_are_all_there(s3_environment: ObjectStore) -> None:
    lake = Lake(f"s3://{BUCKET}/pages-{secrets.token_hex(4)}")
    shards = [shard(i, i) for i in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: lake.create(shard_name("t", one), b"1"), shards))
    assert committed(lake) == {CELL: shards}


def test_committed_only_shards_count_and_in_order(lake: Lake) -> None:
    other = "f" * 16
    shards = [shard(0, 4), shard(5, 4100), shard(0, 4, 1), shard(0, 0, 10), shard(7, 9, cell=other)]
    for number, one in enumerate(shards):
        lake.create(shard_name(f"task {number}", one), b"1")
    leftovers = ["schema.txt", ".0123.tmp", f"copy-of-{shard(9, 9)}", f"{shard(9, 9)}.tmp", f"{shard(9, 9)}.bak"]
    for name in [*leftovers, "0123456789ABCDEF-g0-0000000-0000001.parquet", "x.parquet", f"{CELL}-g0-1-2.parquet"]:
        lake.create(f"shards/task=t/{name}", b"1")
    assert {cell: sorted(found) for cell, found in committed(lake).items()} == {
        CELL: sorted(shards[:4]),
        other: [shards[4]],
    }


HOSTILE = [
    "..",
    ".",
    "a/b",
    "a b",
    "it's",
    '"',
    "$x",
    "*",
    "a\nb",
    "%2F",
    "ü",
    "=",
    "task=t",
    "a" * 200,
    "\x00",
    "?",
    "#",
]


@pytest.mark.few(6)
@pytest.mark.parametrize("task", HOSTILE)
def test_shard_path_hostile_task_name_is_committed_in_one_folder(lake: Lake, task: str) -> None:
    path = shard_name(task, shard(0, 1))
    assert path.count("/") == 2
    assert lake.create(path, b"1")
    assert committed(lake) == {CELL: [shard(0, 1)]}
    assert lake.names("shards") == sorted([path, SCHEMA_FILES["shards"]])


# ---- Parquet


def full_rows() -> list[dict[str, Any]]:
    """Rows that fill every column, with nulls, empty and nested lists, extremes and texts of all kinds."""
    texts = ["", "日本\x00\n'\"", "x" * 100_000]
    filled: dict[Any, Any] = {
        pa.string(): texts[1],
        pa.int16(): -(2**15),
        pa.int32(): 2**31 - 1,
        pa.int64(): -(2**63),
        pa.float64(): 1e-300,
        pa.bool_(): True,
        pa.list_(pa.string()): [*texts, None],
        pa.list_(pa.float64()): [1.5, None, float("inf")],
        pa.list_(pa.bool_()): [True, None, False],
        pa.date32(): dt.date(2026, 1, 2),
        pa.timestamp("us", tz="UTC"): dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    }
    return [filled]


@pytest.mark.few(5)
@pytest.mark.parametrize("table", TABLES)
def test_create_table_nulls_and_nested_columns_come_back_as_they_were(lake: Lake, table: str) -> None:
    schema = TABLES[table]
    (filled,) = full_rows()
    full = {field.name: filled[field.type] for field in schema}
    least = {field.name: None if field.nullable else filled[field.type] for field in schema}
    empty = {f.name: [] if pa.types.is_list(f.type) else filled[f.type] for f in schema}
    rows = [full, least, empty] * 50
    assert lake.create_table(f"{table}/x.parquet", pa.Table.from_pylist(rows, schema=schema), {"shard": {"a": "é"}})
    found = pq.ParquetFile(io.BytesIO(read(lake, f"{table}/x.parquet")))
    assert found.read().to_pylist() == rows
    assert found.schema_arrow.equals(schema)
    assert found.schema_arrow.metadata[b"routerlake_schema_version"] == str(SCHEMA_VERSION).encode()
    assert found.schema_arrow.metadata[b"shard"] == b'{"a": "\\u00e9"}'
    assert not lake.create_table(f"{table}/x.parquet", schema.empty_table())
