"""Lists of items, each stored once under its digest, and the items that sparse shards hold by them.

Owns the objects of item_sets/. Knows nothing of why a list was chosen (collectors.runs.sampling).
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.contents import list_fault
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName, item_set_of, missing_ranges
from schemas.records import ITEM_SET

#: Items from the first to the last, both included.
Range = tuple[int, int]


class ItemSets:
    """The lists of one lake, each read once."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._lists: dict[str, tuple[int, ...]] = {}

    def of(self, item_set: str) -> tuple[int, ...]:
        """The items of a list, in ascending order.

        Raises StorageError if its object is gone or damaged: nobody knows then what its shards hold.
        """
        if item_set not in self._lists:
            self._lists[item_set] = self._read(item_set)
        return self._lists[item_set]

    def add(self, items: Sequence[int]) -> str:
        """Keeps a list here, without writing it. Returns its digest."""
        item_set = item_set_of(items)
        self._lists.setdefault(item_set, tuple(items))
        return item_set

    def write(self, item_set: str) -> None:
        """Writes a list into the lake, unless it is there."""
        name = layout.item_set_name(item_set)
        if not self.lake.has(name):
            items = self.of(item_set)
            rows = {"item_set": [item_set] * len(items), "item": list(items)}
            self.lake.create_table(name, pa.table(rows, schema=ITEM_SET))

    def items_of(self, shard: ShardName) -> Sequence[int]:
        """The items that a shard holds, or that a piece of one has in its bounds."""
        if not shard.item_set:
            return range(shard.first, shard.last + 1)
        items = self.of(shard.item_set)
        return items[bisect.bisect_left(items, shard.first) : bisect.bisect_right(items, shard.last)]

    def ranges_of(self, shard: ShardName) -> list[Range]:
        """The same as ranges of items that follow each other."""
        if not shard.item_set:
            return [(shard.first, shard.last)]
        return ranges(self.items_of(shard))

    def holds(self, shard: ShardName, item: int) -> bool:
        """Whether a shard holds an item."""
        if not shard.first <= item <= shard.last:
            return False
        if not shard.item_set:
            return True
        items = self.items_of(shard)
        place = bisect.bisect_left(items, item)
        return place < len(items) and items[place] == item

    def missing(self, done: Iterable[ShardName], items: int) -> list[Range]:
        """The ranges of the items 0..items-1 that no shard of `done` holds."""
        done = list(done)
        if not any(shard.item_set for shard in done):
            return missing_ranges(done, items)
        pieces = [ShardName(shard.cell_id, shard.generation, *one) for shard in done for one in self.ranges_of(shard)]
        return missing_ranges(pieces, items)

    def _read(self, item_set: str) -> tuple[int, ...]:
        name = layout.item_set_name(item_set)
        try:
            table = pq.read_table(io.BytesIO(self.lake.read(name)), page_checksum_verification=True)
            items = tuple(table["item"].to_pylist())
        except FileNotFoundError as error:
            raise StorageError(f"{name} is missing from {self.lake.uri}: put a whole copy in its place") from error
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise StorageError(f"{name} in {self.lake.uri} is damaged ({one_line(error)})") from error
        if reason := list_fault(items, item_set):
            raise StorageError(f"{name} in {self.lake.uri} is damaged: {reason}")
        return items


def ranges(items: Iterable[int]) -> list[Range]:
    """Items in ascending order as ranges of those that follow each other."""
    found: list[Range] = []
    for item in items:
        if found and found[-1][1] == item - 1:
            found[-1] = (found[-1][0], item)
        else:
            found.append((item, item))
    return found


def places(listed: Sequence[int], held: Iterable[Range]) -> list[Range]:
    """The places in a list of the items that are in `held`, as ranges of places that follow each other."""
    found: list[Range] = []
    for first, last in held:
        begin, end = bisect.bisect_left(listed, first), bisect.bisect_right(listed, last) - 1
        if begin <= end:
            found.append((begin, end))
    return found
