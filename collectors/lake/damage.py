"""Recognises objects of a lake that cannot be read, and records them in failures.

Owns the definition of damage. Knows nothing of views and readers.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.contents import foreign_columns, foreign_rows
from collectors.lake.seals import broken_seal
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName, digest, new_run_id
from schemas.migrations import first_readable
from schemas.records import FAILURE, SCHEMA_FILES
from schemas.versions import check_readable, stated_version

logger = logging.getLogger(__name__)

#: Failure kind of an object that cannot be read or is foreign.
DAMAGED = "damaged_file"
#: Tables that a run writes again.
_COLLECTED = ("shards", "items", "models")


def examine(lake: Lake, name: str, recorded: str | None = None) -> str | None:
    """Reads a whole Parquet object of a lake. Returns the reason why it is damaged; None if it is sound or deleted.

    `recorded` is its SHA-256 by a compaction. A deleted part of a compaction is damage, because a manifest names it.
    Raises ConfigError for an object of a newer version, which this program cannot judge.
    """
    try:
        data = lake.read(name)
    except FileNotFoundError:
        return "it is missing" if layout.is_compacted(name) else None
    return broken_seal(data, name, recorded) or examine_rows(lake, name, data)


def examine_rows(lake: Lake, name: str, data: bytes) -> str | None:
    """Decodes a Parquet object. Returns the reason why it is damaged or foreign; None if it is sound.

    An object of an older schema version may lack columns; if it is too old for the views, only its bytes are checked.
    Raises ConfigError for an object of a newer version.
    """
    try:
        table = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"it is not a whole Parquet file: {one_line(error, 160)}"
    try:
        version = stated_version(table.schema.metadata)
    except ValueError:
        return "it is foreign: its schema version is not a number"
    if version is not None:
        check_readable(f"{name} in {lake.uri}", version)
        if version < first_readable():
            return None
    return foreign_columns(table.schema, layout.table_of(name)) or foreign_rows(table, name)


def find_damaged(
    lake: Lake, message: str, names: Iterable[str], recorded: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns name -> reason of damaged objects among `names`: of those in the error message, else of all.

    `recorded` maps objects of a compaction to their SHA-256.
    """
    names, recorded = list(names), recorded or {}
    named = layout.names_in(message)
    for some in ([name for name in names if name in named], names):
        damaged = {name: reason for name in some if (reason := examine(lake, name, recorded.get(name)))}
        if damaged:
            return damaged
    return {}


def record_damage(lake: Lake, name: str, reason: str) -> None:
    """Adds a row to failures. If the lake cannot be written, or is a published version, the log must suffice.

    A schema file has no rows to lose, so it is not recorded either.
    """
    if lake.is_published() or name in SCHEMA_FILES.values():
        return
    shard = ShardName.parse(name)
    row = {
        **dict.fromkeys(FAILURE.names),
        "run_id": new_run_id(),
        "failed_at": dt.datetime.now(dt.UTC),
        "kind": DAMAGED,
        "cell_id": shard.cell_id if shard else None,
        "first_item": shard.first if shard else None,
        "last_item": shard.last if shard else None,
        "message": f"{name}: {reason}; {advice(name)}",
        "file": name,
    }
    try:
        path = layout.damage_name(digest({"file": name, "reason": reason}))
        lake.create_table(path, pa.Table.from_pylist([row], schema=FAILURE))
    except StorageError as error:
        logger.warning("%s: %s (not recorded: %s)", name, reason, error)


def advice(name: str) -> str:
    """Returns what to do about a damaged object."""
    if name in SCHEMA_FILES.values():
        return "remove it, and the next command that writes to the lake makes it anew"
    if layout.is_compacted(name):
        if layout.table_of(name) == "compact/folded":
            return "put a whole copy in its place"
        return (
            "all of its shards are read if they exist, and compact.py writes it again; "
            "else put a whole copy in its place, or compact.py --give-up leaves it out, to be collected again"
        )
    if layout.table_of(name) in _COLLECTED:
        return "compact.py --prune sets it aside, and collect.py collects its rows again"
    if layout.table_of(name) == layout.VERDICTS:
        return "compact.py --prune sets it aside, and the same judge judges its answers again"
    if layout.table_of(name) == layout.AGGREGATES:
        return "compact.py --prune sets it aside, and collect.py computes its values again from records"
    if layout.table_of(name) == layout.ITEM_SETS:
        return "put a whole copy in its place: shards that name it cannot be read without it"
    if layout.table_of(name) in (layout.FORECASTS, layout.FORECAST_FITS):
        return "forecast.py makes it anew"
    return "compact.py --prune sets it aside; its rows are lost, unless a whole copy is put in its place"


def recorded_damage(lake: Lake, failures: Iterable[str], recorded: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the objects with such a failure that are still damaged: one that was collected again is whole.

    `recorded` maps objects of a compaction to their SHA-256.
    """
    damaged: dict[str, str] = {}
    for path in failures:
        if layout.is_damage(path):
            try:
                table = pq.ParquetFile(io.BytesIO(lake.read(path)), page_checksum_verification=True).read()
                if (version := stated_version(table.schema.metadata)) is not None:
                    check_readable(f"{path} in {lake.uri}", version)
                [name] = table["file"].to_pylist()
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                damaged[path] = one_line(error)
                continue
            if not layout.may_be_damaged(str(name)):
                damaged[path] = f"it names {name!r}, which cannot be an object of a lake"
            elif reason := examine(lake, name, (recorded or {}).get(name)):
                damaged[name] = reason
    return damaged
