"""Which committed shards do not count any more, because a retraction names their cell, generation and items.

Owns the reading of retractions/ for programs that know shards by their names alone. The views read the same table
(schemas/views/_retracted.sql). Knows nothing of the choice of what to forget (collectors.lake.forgetting).
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from schemas.failures import one_line
from schemas.identity import ShardName
from schemas.records import RETRACTION

logger = logging.getLogger(__name__)

#: The last item of a line without items.
_ALL = 2**31 - 1


#: Table -> the columns that decide whether a row is about a forgotten cell, run or model.
_ABOUT = {
    layout.RUNS: ["run_id", "cell_id", "generation"],
    "run_ends": ["run_id"],
    layout.FAILURES: ["run_id", "cell_id", "model", "failed_at"],
    layout.AGGREGATES: ["cell_id", "members"],
    layout.IMPORTS: ["import_id"],
    "rejects": ["import_id"],
    "suspicions": ["import_id"],
}
_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)


class _Range(NamedTuple):
    generation: int
    first: int
    last: int


@dataclass(frozen=True)
class Retracted:
    """All that standing retractions name."""

    #: Cell -> ranges of items that do not count up to a generation.
    ranges: Mapping[str, list[_Range]] = field(default_factory=dict)
    #: Runs and imports.
    runs: frozenset[str] = frozenset()
    #: The lines of these retractions.
    rows: Sequence[Mapping[str, Any]] = ()
    #: The lists of sparse shards; None: a shard counts as holding all items in its bounds.
    item_sets: ItemSets | None = field(default=None, compare=False)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], item_sets: ItemSets | None = None) -> Retracted:
        """`rows` of schemas.records.RETRACTION, in any order."""
        rows = list(rows)
        back = {row["takes_back"] for row in rows}
        ranges: dict[str, list[_Range]] = defaultdict(list)
        standing = [row for row in rows if row["takes_back"] is None and row["retraction_id"] not in back]
        for row in standing:
            if row["cell_id"] is not None:
                first, last = row["first_item"], row["last_item"]
                ranges[row["cell_id"]].append(
                    _Range(row["generation"], 0 if first is None else first, _ALL if last is None else last)
                )
        runs = frozenset(row["run_id"] for row in standing if row["run_id"] is not None)
        return cls(dict(ranges), runs, standing, item_sets)

    @property
    def ids(self) -> frozenset[str]:
        """Ids of these retractions."""
        return frozenset(row["retraction_id"] for row in self.rows)

    def touches(self, shard: ShardName) -> bool:
        """Whether any item of the shard does not count."""
        return any(True for _ in self.over(shard))

    def covers(self, shard: ShardName) -> bool:
        """Whether no item of the shard counts."""
        return not self._left(shard) if shard.cell_id in self.ranges else False

    def without(self, shards: Iterable[ShardName]) -> list[ShardName]:
        """The items of `shards` that count: a shard with others is cut, and no object has the name of a piece."""
        return [piece for shard in shards for piece in self._left(shard)]

    def standing(self, shards: Mapping[str, Iterable[ShardName]]) -> dict[str, list[ShardName]]:
        """Cell -> its shards with an item that counts, by the names of their objects."""
        left = {cell_id: [one for one in names if not self.covers(one)] for cell_id, names in shards.items()}
        return {cell_id: names for cell_id, names in left.items() if names}

    def next_generation(self, cell_id: str, newest: int) -> int:
        """The generation for new shards of a cell whose newest one is `newest`: a forgotten one is never used again."""
        return max([newest, *(one.generation + 1 for one in self.ranges.get(cell_id, ()))])

    def shards_of(self, cell_id: str, items: int, generation: int | None) -> list[ShardName]:
        """The forgotten ranges of a cell of so many items as shards, whatever was there; of any generation for None."""
        return [
            ShardName(cell_id, one.generation, one.first, min(one.last, items - 1))
            for one in self.ranges.get(cell_id, ())
            if generation is None or generation <= one.generation
        ]

    def only(self, ids: Iterable[str]) -> Retracted:
        """What these retractions name."""
        wanted = set(ids)
        return Retracted.of([row for row in self.rows if row["retraction_id"] in wanted], self.item_sets)

    def is_cell(self, cell_id: str, generation: int) -> bool:
        """Whether all items of a cell up to this generation are forgotten by one line."""
        return any(
            one.generation >= generation and (one.first, one.last) == (0, _ALL) for one in self.ranges.get(cell_id, ())
        )

    def as_table(self) -> pa.Table:
        """The ranges of all cells, with the columns cell_id, generation, first and last."""
        rows = [(cell_id, *one) for cell_id, ranges in self.ranges.items() for one in ranges]
        columns = list(zip(*rows, strict=True)) or [()] * 4
        types = (pa.string(), pa.int32(), pa.int32(), pa.int32())
        names = ("cell_id", "generation", "first", "last")
        return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})

    def left_of(self, table: str, rows: pa.Table) -> pa.Table:
        """The rows of one of the small tables without those about forgotten cells, as the views leave them out."""
        if not self.rows or table not in _ABOUT:
            return rows
        keep = [not self._is_about(table, row) for row in rows.select(_ABOUT[table]).to_pylist()]
        return rows.filter(pa.array(keep, pa.bool_()))

    def _is_about(self, table: str, row: Mapping[str, Any]) -> bool:
        if (row.get("run_id") or row.get("import_id")) in self.runs:
            return True
        if table == layout.RUNS:
            return self.is_cell(row["cell_id"], row["generation"])
        if table == layout.AGGREGATES:
            cells = [row["cell_id"]] if row["cell_id"] else row["members"] or []
            return any(self.is_cell(cell_id, 0) for cell_id in cells)
        if table == layout.FAILURES:
            since = max(self._times.get(name, _NEVER) for name in (row["cell_id"], f"model {row['model']}"))
            return bool(row["failed_at"] <= since)
        return False

    @functools.cached_property
    def _times(self) -> dict[str | None, dt.datetime]:
        """A cell, or 'model ' and the name of one with nothing left -> when it was last forgotten."""
        times: dict[str | None, dt.datetime] = {}
        for row in self.rows:
            is_model = row["cell_id"] is None and row["run_id"] is None
            name = f"model {row['model']}" if is_model else row["cell_id"]
            if row["first_item"] is None:
                times[name] = max(row["retracted_at"], times.get(name, _NEVER))
        times.pop(None, None)
        return times

    def over(self, shard: ShardName) -> Iterator[_Range]:
        """The ranges that concern items of the shard."""
        for one in self.ranges.get(shard.cell_id, ()):
            if shard.generation <= one.generation and shard.first <= one.last and shard.last >= one.first:
                yield one

    def _left(self, shard: ShardName) -> list[ShardName]:
        over = sorted(self.over(shard), key=lambda one: (one.first, one.last))
        if not over:
            return [shard]
        left, position = [], shard.first
        for one in over:
            if one.first > position:
                left.append(replace(shard, first=position, last=one.first - 1))
            position = max(position, one.last + 1)
        if position <= shard.last:
            left.append(replace(shard, first=position))
        if shard.item_set and self.item_sets:
            left = [piece for piece in left if self.item_sets.items_of(piece)]
        return left


def read_retracted(lake: Lake, names: Iterable[str] | None = None) -> Retracted:
    """Reads all retractions of a lake, or those of `names`.

    A damaged one is named in the log and does not count, as in the views.
    """
    return Retracted.of(retraction_rows(lake, names), ItemSets(lake))


def retraction_rows(lake: Lake, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Returns the rows of retractions/, the oldest retraction first."""
    rows: list[dict[str, Any]] = []
    for name in lake.names(layout.RETRACTIONS) if names is None else names:
        if not layout.is_of_table(layout.RETRACTIONS, name):
            continue
        try:
            table = pq.read_table(io.BytesIO(lake.read(name)), page_checksum_verification=True)
            rows += table.select(RETRACTION.names).to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            logger.warning("%s cannot be read, and does not count: %s", name, one_line(error))
    return sorted(rows, key=lambda row: (row["retracted_at"], row["retraction_id"]))
