"""Objects of a lake that cannot be read: how one is told, and the failures row that names it.

Owns what counts as damaged. Knows nothing of views or of who reads.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName, digest, new_run_id
from schemas.migrations import first_readable
from schemas.records import FAILURE, TABLES
from schemas.versions import check_readable, stated_version

logger = logging.getLogger(__name__)

#: Failure kind of an object that cannot be read or is not the lake's own.
DAMAGED = "damaged_file"
#: Tables that a run makes anew.
_COLLECTED = ("shards", "items", "models")


def examine(lake: Lake, name: str) -> str | None:
    """What is wrong with a Parquet object of a lake, read as a whole; None: nothing, or it is gone.

    Part of a compaction may not be gone: whoever asks has its name from a manifest. An object of an older schema
    version is not damaged where it lacks columns; of one that a migration left behind only the bytes are checked.
    Raises ConfigError for an object of a newer version, which this program cannot judge.
    """
    try:
        data = lake.read(name)
    except FileNotFoundError:
        return "it is missing" if layout.is_compacted(name) else None
    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        return f"it is no whole Parquet file: {one_line(error, 160)}"
    try:
        version = stated_version(table.schema.metadata)
    except ValueError:
        return "it is foreign: its schema version is not a number"
    if version is not None:
        check_readable(f"{name} in {lake.uri}", version)
        if version < first_readable():
            return None
    table_name = layout.table_of(name)
    for column in TABLES[table_name]:
        if column.name not in table.schema.names:
            if version is not None and column.nullable:  # added later
                continue
            return f"it is foreign: column {column.name} is not in it"
        dtype = table.schema.field(column.name).type
        if dtype != column.type:
            return f"it is foreign: column {column.name} holds {dtype}, not {column.type}"
    shard = ShardName.parse(name)
    if not shard or table_name != layout.SHARDS:
        return None
    try:
        json.loads((table.schema.metadata or {}).get(b"shard", b"{}").decode())
    except ValueError:
        return "it is foreign: what it says of its making is no JSON"
    import pyarrow.compute as pc  # 75 ms

    items = table["item"]
    if len(table) and not pc.all(pc.equal(table["cell_id"], shard.cell_id)).as_py():
        return "it is foreign: its rows are of another cell than its name says"
    if len(table) and not (shard.first <= pc.min(items).as_py() and pc.max(items).as_py() <= shard.last):
        return "it is foreign: it holds other items than its name says"
    return None


def find_damaged(lake: Lake, message: str, names: Iterable[str]) -> dict[str, str]:
    """Which of `names` are damaged, and how: those that an error message names, else all are looked at."""
    names = list(names)
    named = layout.names_in(message)
    for some in ([name for name in names if name in named], names):
        found = {name: reason for name in some if (reason := examine(lake, name))}
        if found:
            return found
    return {}


def record_damage(lake: Lake, name: str, reason: str) -> None:
    """Adds the failures row; where the lake cannot be written, or is a published version, the log has to do."""
    if lake.is_published():
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
        "message": f"{name}: {reason}; {_advice(name)}",
        "file": name,
    }
    try:
        path = layout.damage_name(digest({"file": name, "reason": reason}))
        lake.create_table(path, pa.Table.from_pylist([row], schema=FAILURE))
    except StorageError as error:
        logger.warning("%s: %s (not recorded: %s)", name, reason, error)


def _advice(name: str) -> str:
    if layout.is_compacted(name):
        return (
            "its shards are read, and compact.py writes it anew, while they are there; else put a whole copy in place"
        )
    if layout.table_of(name) in _COLLECTED:
        return "compact.py --prune sets it aside, and collect.py collects anew what it held"
    return "compact.py --prune sets it aside; what it held is lost, unless a whole copy is put in its place"


def known_damage(lake: Lake, failures: Iterable[str]) -> dict[str, str]:
    """Objects with such a failure that are damaged still: one that was removed and collected anew is whole."""
    damaged: dict[str, str] = {}
    for path in failures:
        if layout.is_damage(path):
            try:
                [name] = pq.read_table(io.BytesIO(lake.read(path)), columns=["file"])["file"].to_pylist()
            except (OSError, ValueError) as error:
                damaged[path] = one_line(error)
                continue
            if not layout.may_be_damaged(str(name)):
                damaged[path] = f"it names {name!r}, which is no object of a lake"
            elif reason := examine(lake, name):
                damaged[name] = reason
    return damaged
