"""Decides whether an object's rows are those of its table and of its name.

Objects of schema version 6 state no name: one that was copied over another is recognised by its rows alone. Knows
nothing of stores and of checksums (collectors.lake.seals).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence

import pyarrow as pa

from collectors.lake import layout
from schemas.identity import ShardName, digest, item_set_of
from schemas.records import RECORD, SCHEMA_FILES, TABLES
from schemas.versions import VERSION_KEY


def foreign_columns(schema: pa.Schema, table: str) -> str | None:
    """Returns the reason why a file's columns are not those of a table, by name and type; None if they are."""
    for column in TABLES[table]:
        if column.name not in schema.names:
            if VERSION_KEY in (schema.metadata or {}) and column.nullable:  # added later
                continue
            return f"it is foreign: it lacks column {column.name}"
        dtype = schema.field(column.name).type
        if dtype != column.type:
            return f"it is foreign: column {column.name} holds {dtype}, not {column.type}"
    return None


def foreign_rows(table: pa.Table, name: str) -> str | None:
    """Returns the reason why the rows of `table` do not belong under `name`; None if they may."""
    kind = layout.table_of(name)
    if name == layout.published_name(kind):  # all rows of a published version: its name claims nothing of them
        return None
    check = _CHECKS.get(kind)
    # Every table has an empty schema file. Else only a list of items is damaged where it is empty.
    is_empty = not len(table) and (kind != layout.ITEM_SETS or name == SCHEMA_FILES[kind])
    return check(table, name) if check and not is_empty else None


def list_fault(items: Sequence[int | None], item_set: str) -> str | None:
    """Returns the reason why `items` are not the list with the digest `item_set`; None if they are."""
    if not items or item_set_of([item for item in items if item is not None]) != item_set or None in items:
        return "its items do not have the digest in its name"
    present = [item for item in items if item is not None]
    if present[0] < 0 or any(one >= other for one, other in itertools.pairwise(present)):
        return "its items are not in ascending order from 0 on, each once"
    return None


def _foreign_records(table: pa.Table, name: str) -> str | None:
    shard = ShardName.parse(name)
    if not shard:
        return None
    try:
        json.loads((table.schema.metadata or {}).get(b"shard", b"{}").decode())
    except ValueError:
        return "it is foreign: its metadata are not JSON"
    import pyarrow.compute as pc  # 75 ms

    for column in RECORD:
        if not column.nullable and table[column.name].null_count:
            return f"it is foreign: column {column.name} lacks values"
    items = table["item"]
    if not pc.all(pc.equal(table["cell_id"], shard.cell_id)).as_py():
        return "it is foreign: its rows are of another cell than its name"
    if not shard.first <= pc.min(items).as_py() <= pc.max(items).as_py() <= shard.last:
        return "it is foreign: its items are outside the range in its name"
    keys = table.select(["item", "filter", "repeat"])
    if len(keys.group_by(keys.column_names).aggregate([])) < len(keys):
        return "it is foreign: it holds a row twice"
    return None


def _foreign_items(table: pa.Table, name: str) -> str | None:
    """Of a table that did not grow its digest is checked, too."""
    stated = layout.items_digest_of(name)
    if set(table["items_digest"].to_pylist()) != {stated}:
        return "it is foreign: its rows are of another item table than its name"
    task = table["task"][0].as_py()
    if layout.folder_of_task(name) != layout.folder_of_task(layout.items_name(task, stated)):
        return "it is foreign: its rows are of another task than its name"
    hashes = table["item_hash"].to_pylist()
    is_whole = table["item"].to_pylist() == list(range(len(table)))
    if is_whole and not layout.is_added_to_items(name) and len(stated) == 16 and digest(hashes) != stated:
        return "it is foreign: its items do not have the digest in its name"
    return None


def _foreign_models(table: pa.Table, name: str) -> str | None:
    if len(table) != 1:  # a catalog's or an import's, whose names are not made of their rows
        return None
    [row] = table.select(["model", "revision", "said_at"]).to_pylist()
    if row["said_at"] or layout.holds_many_models(name) or not row["revision"]:
        return None
    if layout.model_name(row["model"], row["revision"]) != name:
        return "it is foreign: its row is of another model or revision than its name"
    return None


def _foreign_list(table: pa.Table, name: str) -> str | None:
    item_set = name.rpartition("/")[2].removesuffix(".parquet")
    if set(table["item_set"].to_pylist()) - {item_set}:
        return "it is foreign: its rows are of another list than its name"
    return list_fault(table["item"].to_pylist(), item_set)


def _of_another_run(name_of: Callable[[str], str], column: str) -> Callable[[pa.Table, str], str | None]:
    def check(table: pa.Table, name: str) -> str | None:
        if {name_of(value) for value in set(table[column].to_pylist())} != {name}:
            return f"it is foreign: its rows are of another {column} than its name"
        return None

    return check


_CHECKS: dict[str, Callable[[pa.Table, str], str | None]] = {
    "shards": _foreign_records,
    "items": _foreign_items,
    "models": _foreign_models,
    layout.ITEM_SETS: _foreign_list,
    "runs": _of_another_run(layout.run_name, "run_id"),
    "run_ends": _of_another_run(layout.end_name, "run_id"),
}
