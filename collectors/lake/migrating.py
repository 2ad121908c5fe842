"""Copies some objects of a lake and migrates their rows, for a compaction.

Owns the copy. Knows nothing of the migrations themselves (schemas.migrations), and changes nothing in the lake.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.layout import table_of
from collectors.lake.store import Lake
from schemas.migrations import migrated
from schemas.records import TABLES
from schemas.versions import with_columns


def migrated_copy(lake: Lake, whole: Iterable[str], versions: Mapping[str, int], folder: Path) -> Lake:
    """Returns a lake in `folder` with copies of the objects `whole` and migrated copies of those in `versions`.

    `versions` maps the name of a record object to the schema version of its rows. Copies of earlier calls are kept.
    Raises FileNotFoundError for a deleted object, StorageError if the lake cannot be read.
    """
    copy = Lake(str(folder)).open_for_writing()
    for name in whole:
        if not copy.has(name):
            copy.create(name, lake.read(name))
    for name, version in versions.items():
        if not copy.has(name):
            rows = pq.read_table(io.BytesIO(lake.read(name)), page_checksum_verification=True)
            copy.create_table(name, _as_today(table_of(name), rows, version))
    return copy


def _as_today(table: str, rows: pa.Table, version: int) -> pa.Table:
    rows, schema = migrated(table, rows, version), TABLES[table]
    return with_columns(rows, schema).cast(schema)
