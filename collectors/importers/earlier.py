"""Rows that a lake held of imported cells before an import, read for many cells at once.

Owns how these rows are read. Knows nothing of the import that asks, or of what becomes of its own rows.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from collectors.importers.cells import ImportedCell
from collectors.lake.holdings import Holdings, read_holdings
from collectors.lake.layout import shard_name
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from schemas.identity import ShardName
from schemas.records import ANSWERS, RECORD

#: Columns that identify an answer.
_ANSWER = "cell_id, item, filter, repeat"


@dataclass(frozen=True)
class ItemRange:
    """Items `first` to `last` of a cell, and the shards that the lake has of the cell."""

    cell: ImportedCell
    shards: Sequence[ShardName]
    first: int
    last: int

    @property
    def overlapping(self) -> list[ShardName]:
        return [shard for shard in self.shards if shard.first <= self.last and shard.last >= self.first]

    @property
    def earlier_items(self) -> int:
        """How many items of the range the shards may hold, by their names."""
        shards = self.overlapping
        return sum(min(shard.last, self.last) - max(shard.first, self.first) + 1 for shard in shards)


class EarlierRows:
    """Reads the lake as it is when first asked. Several threads may ask."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()

    def read(self, ranges: Sequence[ItemRange]) -> list[pa.Table]:
        """Returns for each range the rows of schemas.records.RECORD that it has, in any order.

        One database serves all ranges: making one for each took 0.12 CPU-seconds a cell.
        """
        ids = [one.cell.cell_id for one in ranges]
        asked = pa.table(
            {
                "number": pa.array(range(len(ranges)), pa.int32()),
                "cell_id": pa.array(ids, pa.string()),
                "first": pa.array([one.first for one in ranges], pa.int32()),
                "last": pa.array([one.last for one in ranges], pa.int32()),
            }
        )
        with connect(self._lake, self._holdings_of(ranges), only=["records", "responses"]) as con:
            con.register("asked", asked)
            rows = con.execute(
                f"""
                SELECT number, {", ".join(f"kept.{name}" for name in RECORD.names)}
                FROM (
                    SELECT *
                    FROM records
                    LEFT JOIN (SELECT {_ANSWER}, {", ".join(ANSWERS)} FROM responses) USING ({_ANSWER})
                ) AS kept
                JOIN asked ON kept.cell_id = asked.cell_id AND kept.item BETWEEN asked.first AND asked.last
                ORDER BY number
                """
            ).to_arrow_table()
        return _parted(rows, len(ranges))

    def _holdings_of(self, ranges: Sequence[ItemRange]) -> Holdings:
        """The objects of the lake to read for these ranges."""
        with self._lock:
            holdings = self._holdings
        names = {shard_name(one.cell.task, shard) for one in ranges for shard in one.shards}
        listed = {**holdings.listed, "shards": [name for name in holdings.listed["shards"] if name in names]}
        manifest = holdings.manifest
        if manifest:
            tables = {(one.cell.task, one.cell.prompting) for one in ranges}
            parts = tuple(part for part in manifest.parts if (part.task, part.prompting) in tables)
            manifest = dataclasses.replace(manifest, parts=parts)
        return dataclasses.replace(holdings, listed=listed, manifest=manifest)

    @functools.cached_property
    def _holdings(self) -> Holdings:
        """Stays as it is for a whole import: no other one of its source is at work."""
        return read_holdings(self._lake)


def _parted(rows: pa.Table, many: int) -> list[pa.Table]:
    """A table for each of `many` numbers, from rows sorted by their number."""
    edges = np.searchsorted(rows["number"].to_numpy(), np.arange(many + 1)).tolist()
    rest = rows.drop_columns(["number"])
    return [rest.slice(start, end - start) for start, end in itertools.pairwise(edges)]
