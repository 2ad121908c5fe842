"""Finds the objects of a lake that are gone, by others that name them.

A manifest names its objects, an inventory all that a compaction found, a run its cells and their items, and a run that
finished has all items of its cells. The deletion of another object that is newer than the newest compaction (a failure,
a price, a model's row) leaves no trace.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.damage import advice
from collectors.lake.holdings import Manifest, folded_shards
from collectors.lake.item_sets import ItemSets, places
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.store import Lake
from schemas.failures import StorageError
from schemas.identity import ShardName
from schemas.records import RUN_CELL
from schemas.versions import with_columns

#: Of a run's cells. Runs of an older schema version lack the last.
_OF_CELL = ("cell_id", "model", "task", "items_digest", "planned_items", "imported_from", "generation", "item_set")


@dataclass(frozen=True)
class Fault:
    """Why an object is not as it was written, and what to do."""

    reason: str
    advice: str


_COPY = "put a whole copy in its place"
_AGAIN = "collect.py with the config of its run writes it again"
_COMPUTED = f"{_AGAIN}: its values are computed from records"


def missing_objects(
    lake: Lake,
    names: Sequence[str],
    manifests: Sequence[Manifest],
    inventory: Mapping[str, str],
    damaged: Collection[str],
) -> dict[str, Fault]:
    """Returns name -> fault of the objects that are not among `names`, the lake's.

    `damaged` are objects that cannot be believed. Where a run is among them, shards without a run are not named.
    """
    # Listed again, because a run may have ended meanwhile: its end was seen then, and its last shards were not.
    there = {*names, *filter(layout.is_object, lake.names("", layout.DEPTH))}
    missing = {
        name: Fault(f"it is missing: {manifest.name} names it", advice(name))
        for manifest in manifests
        for name in manifest.objects
        if name not in there
    }
    retracted = read_retracted(lake, sorted(n for n in there if layout.is_retraction(n) and n not in damaged))
    aside = {layout.set_aside_of(name) for name in lake.names(layout.DAMAGED, 5)}
    missing |= {
        name: Fault(
            f"it is missing: compaction {manifests[-1].number} listed it",
            _COMPUTED if layout.table_of(name) == layout.AGGREGATES else _COPY,
        )
        for name in inventory
        if name not in there and name not in aside and not ShardName.parse(name) and not _is_forgotten(name, retracted)
    }
    unsound = {*missing, *damaged}
    ends = [name for name in names if layout.is_end(name) and name not in unsound]
    return missing | dict(_Plans(lake, sorted(there - unsound), ends, manifests, unsound).missing())


def _is_forgotten(name: str, retracted: Retracted) -> bool:
    """Whether an object holds verdicts on answers that were forgotten."""
    verdicts = layout.parse_verdicts(name)
    return verdicts is not None and retracted.covers(verdicts[1])


@dataclass(frozen=True)
class _Planned:
    """A cell as one run planned it."""

    run_id: str
    model: str
    task: str
    items_digest: str
    planned_items: int
    is_imported: bool
    #: Of the shards that the run wrote.
    generation: int
    #: Whether an item of an older generation counts, too, unless it was forgotten before.
    takes_older: bool
    #: The list of the items that the run meant to ask; None: all.
    item_set: str | None = None


class _Plans:
    """The cells that runs planned, and the shards that hold them."""

    def __init__(
        self, lake: Lake, names: Sequence[str], ends: Sequence[str], manifests: Sequence[Manifest], unsound: set[str]
    ) -> None:
        self.lake, self.ends, self.unsound, self.sets = lake, ends, unsound, ItemSets(lake)
        self.of_table = {
            table: [name for name in names if layout.table_of(name) == table and layout.is_of_table(table, name)]
            for table in ("shards", "items", "runs", "failures", layout.ITEM_SETS)
        }
        shards = set(self.of_table["shards"])
        #: Whether the folded shards are known; without them each of their cells would seem to be gone.
        self.has_lists = not any(layout.lists_shards(name) for name in unsound)
        if manifests and self.has_lists:
            shards |= set(folded_shards(lake, manifests[-1]))
        # A damaged shard is named itself.
        shards |= {name for name in unsound if ShardName.parse(name)}
        self.shards: dict[str, list[str]] = {}
        for name in sorted(shards):
            shard = ShardName.parse(name)
            assert shard
            self.shards.setdefault(shard.cell_id, []).append(name)
        #: Forgotten items are not missing: a prune may have deleted them.
        self.retracted = read_retracted(lake, sorted(n for n in names if layout.is_retraction(n)))
        self.cells: dict[str, list[_Planned]] = {}
        for name in self.of_table["runs"]:
            for cell_id, cell in self._cells_of(name):
                self.cells.setdefault(cell_id, []).append(cell)

    def missing(self) -> Iterator[tuple[str, Fault]]:
        yield from self._runs()
        yield from self._items()
        yield from self._item_sets()
        yield from self._shards()

    def _runs(self) -> Iterator[tuple[str, Fault]]:
        runs = {layout.run_id_of(name) for name in (*self.of_table["runs"], *self.unsound) if layout.is_run(name)}
        for end in self.ends:
            run_id = layout.run_id_of_end(end)
            if run_id not in runs:
                yield layout.run_name(run_id), Fault(f"it is missing: {end} is the end of this run", _COPY)
        if any(layout.is_run(name) for name in self.unsound):
            return
        for cell_id, shards in self.shards.items():
            if cell_id not in self.cells:
                reason = f"no run in runs/ planned its cell ({len(shards)} shards): an object of runs/ is missing"
                yield shards[0], Fault(reason, "put a whole copy of that object in its place")

    def _items(self) -> Iterator[tuple[str, Fault]]:
        tables = {(layout.folder_of_task(n), layout.items_digest_of(n)) for n in self.of_table["items"]}
        for cell_id, planned in self.cells.items():
            for cell in planned if cell_id in self.shards else ():
                name = layout.items_name(cell.task, cell.items_digest)
                if (layout.folder_of_task(name), cell.items_digest) not in tables and name not in self.unsound:
                    yield name, Fault(f"it is missing: the cell {cell_id} was asked its items", f"{_COPY}, or {_AGAIN}")

    def _item_sets(self) -> Iterator[tuple[str, Fault]]:
        """Lists that shards or runs name. Of a sparse shard nobody knows the items without its list."""
        for item_set, name in self._named_lists():
            if layout.item_set_name(item_set) not in {*self.of_table[layout.ITEM_SETS], *self.unsound}:
                yield layout.item_set_name(item_set), Fault(f"it is missing: {name} names it", _COPY)

    def _named_lists(self) -> list[tuple[str, str]]:
        """Each list, with an object that names it."""
        named = {
            shard.item_set: name
            for names in self.shards.values()
            for name in names
            if (shard := ShardName.parse(name)) and shard.item_set
        }
        for planned in self.cells.values():
            named |= {cell.item_set: layout.run_name(cell.run_id) for cell in planned if cell.item_set}
        return sorted(named.items())

    def _shards(self) -> Iterator[tuple[str, Fault]]:
        """Items that a finished run collected and no shard holds. A failure of the model or task excuses its cells."""
        if not self.has_lists:
            return
        finished = {layout.run_id_of_end(name) for name in self.ends if self._is_finished(name)}
        failed = self._failed()
        for cell_id, planned in self.cells.items():
            names = [shard for name in self.shards.get(cell_id, ()) if (shard := ShardName.parse(name))]
            for cell in planned:
                if cell.run_id not in finished or cell.is_imported or failed & {cell_id, cell.model, cell.task}:
                    continue
                older = self.retracted.without(names) if cell.takes_older else ()
                done = [*older, *(shard for shard in names if shard.generation == cell.generation)]
                done += self.retracted.shards_of(cell_id, cell.planned_items, cell.generation)
                for first, last in self._open(cell, done):
                    shard = ShardName(cell_id, cell.generation, first, last)
                    reason = f"no shard holds these items any more; run {cell.run_id} had all of them when it finished"
                    name = layout.shard_name(cell.task, shard)
                    yield name, Fault(reason, f"{_COPY}, or collect.py collects them again")

    def _open(self, cell: _Planned, done: list[ShardName]) -> list[tuple[int, int]]:
        """The items that the run meant to ask and no shard of `done` holds; none where a list is missing."""
        try:
            left = self.sets.missing(done, cell.planned_items)
            if cell.item_set:
                listed = self.sets.of(cell.item_set)
                left = [(listed[first], listed[last]) for first, last in places(listed, left)]
        except StorageError:
            return []
        return left

    # ---- small tables

    def _cells_of(self, name: str) -> Iterator[tuple[str, _Planned]]:
        file = self._read(name)
        if file is None:
            return
        run_id = layout.run_id_of(name) or ""
        requested = json.loads((file.metadata.metadata or {}).get(b"run", b"{}")).get("generation")
        schema = pa.schema([RUN_CELL.field(name) for name in _OF_CELL])
        for row in with_columns(file.read(schema.names), schema).to_pylist():
            is_imported = row.pop("imported_from") is not None
            cell_id = row.pop("cell_id")
            if requested is not None:
                row["generation"] = requested
            yield cell_id, _Planned(run_id, **row, is_imported=is_imported, takes_older=requested is None)

    def _is_finished(self, name: str) -> bool:
        file = self._read(name)
        return file is not None and ("finished",) in self._rows(file, ["outcome"])

    def _failed(self) -> set[str]:
        """Cells, models and tasks with a failure. One of a model alone concerns all of its cells."""
        failed: set[str] = set()
        for name in self.of_table["failures"]:
            if file := self._read(name):
                for cell_id, model, task in self._rows(file, ["cell_id", "model", "task"]):
                    failed |= {value for value in (cell_id or model or task,) if value}
        return failed

    def _read(self, name: str) -> pq.ParquetFile | None:
        try:
            return pq.ParquetFile(io.BytesIO(self.lake.read(name)))
        except (FileNotFoundError, StorageError, OSError, ValueError, pa.ArrowException):
            return None

    @staticmethod
    def _rows(file: pq.ParquetFile, columns: list[str]) -> list[tuple[Any, ...]]:
        table = file.read(columns)
        return list(zip(*(table[name].to_pylist() for name in columns), strict=True))
