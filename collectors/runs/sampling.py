"""Which items of a cell a run asks: a probe set of the task, or all, without those that the lake holds.

Owns the choice of a task's probe set and of the list that a cell's shards name. A probe set that some run of the lake
has used is used again, so that cells stay comparable. Knows nothing of models.
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.item_sets import ItemSets, Range, places, ranges
from collectors.lake.store import Lake
from collectors.runs.learned import Table, answered
from collectors.runs.repeating import part_of
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName

if TYPE_CHECKING:
    from collectors.harness.tasks import BoundTask
    from collectors.specs import RepeatsSpec, SampleSpec

#: Shards that a cell may be cut into by the items that the lake holds of it. Beyond, its open items get a list.
MOST_RANGES = 8
#: Strata of length within a subject.
LENGTHS = 5


@dataclass(frozen=True)
class OpenItems:
    """The items of a cell that are to be asked."""

    #: Their list, or one with others that the lake holds; '': the cell's items as they are.
    item_set: str
    #: Ranges of items, or of places in the list.
    todo: list[Range]
    #: Items of the whole cell that no shard holds.
    open: int = 0


def chosen(sets: ItemSets, done: Sequence[ShardName], items: int, sample: str | None) -> OpenItems:
    """The open items of a cell with so many items, by its shards in the lake. `sample`: the list to ask; None: all.

    An open cell takes a list that the lake has, as far as one fits: lists of its own would be an object for each cell.
    """
    open_ranges = sets.missing(done, items)
    still_open = sum(last - first + 1 for first, last in open_ranges)
    if sample is None and len(open_ranges) <= (1 if any(shard.item_set for shard in done) else len(open_ranges)):
        return OpenItems("", open_ranges, still_open)
    wanted = range(items) if sample is None else sets.of(sample)
    left = [wanted[place] for first, last in places(wanted, open_ranges) for place in range(first, last + 1)]
    lists = dict.fromkeys([*([sample] if sample else []), *(shard.item_set for shard in done if shard.item_set)])
    for item_set in lists:
        todo = places(sets.of(item_set), ranges(left))
        todo = [*_merged(todo)]
        if sum(last - first + 1 for first, last in todo) == len(left) and len(todo) <= MOST_RANGES:
            return OpenItems(item_set, todo, still_open)
    return OpenItems(sets.add(left), [(0, len(left) - 1)], still_open)


def _merged(found: Sequence[Range]) -> Iterator[Range]:
    """Ranges of places in ascending order, those that touch as one."""
    held: Range | None = None
    for first, last in found:
        if held and first == held[1] + 1:
            held = (held[0], last)
            continue
        if held:
            yield held
        held = (first, last)
    if held:
        yield held


class Samples:
    """The probe sets of a lake, and those that a plan adds."""

    def __init__(self, lake: Lake, sets: ItemSets) -> None:
        self._lake, self._sets = lake, sets
        self._known = set(lake.names(layout.PROBE_SETS)) if lake.exists() else set()
        #: Rows of schemas.records.PROBE_SET, by the names of their objects.
        self.new: dict[str, dict[str, Any]] = {}
        #: One line each, for a person.
        self.notes: list[str] = []

    def of(self, task: BoundTask, items: int, spec: SampleSpec) -> str | None:
        """The list to ask of a task's first `items` items; None: all of them."""
        size = spec.size(items)
        if size == items:
            return None
        name = layout.probe_set_name(task.settings.items_digest, items, size, 1)
        if name in self._known:
            return self._read(name)
        if name not in self.new:
            self.new[name] = self._choose(task, items, size)
        return str(self.new[name]["item_set"])

    def repeated(self, task: BoundTask, items: int, spec: RepeatsSpec) -> str | None:
        """The list of the task's first `items` items that `repeats` ask several times; None: all of them."""
        listed = part_of(task, items, spec)
        return None if len(listed) == items else self._sets.add(listed)

    def _read(self, name: str) -> str:
        try:
            table = pq.read_table(io.BytesIO(self._lake.read(name)), page_checksum_verification=True)
            return str(table["item_set"][0].as_py())
        except (OSError, ValueError, KeyError, IndexError, pa.ArrowException) as error:
            raise StorageError(f"{name} in {self._lake.uri} is damaged ({one_line(error)})") from error

    def _choose(self, task: BoundTask, items: int, size: int) -> dict[str, Any]:
        strata = strata_of(task, items)
        read = answered(self._lake, [Table.of(task, items)], any_prompting=True)
        if read.can_teach:
            rule, listed = "greedy", read.probe(size, strata)
            why = f"chosen by the answers of {read.complete} complete models"
        else:
            rule, listed = "stratified", stratified(strata, size, task.settings.items_digest)
            why = "chosen by subject and length"
        self.notes.append(f"{task.name}: {size} of {items} items are asked, {why}")
        return {
            "task": task.name,
            "items_digest": task.settings.items_digest,
            "planned_items": items,
            "items": size,
            "version": 1,
            "item_set": self._sets.add(listed),
            "rule": rule,
            "models": read.complete if read.can_teach else 0,
            "chosen_at": dt.datetime.now(dt.UTC),
        }


def strata_of(task: BoundTask, items: int) -> list[list[int]]:
    """The items by subject, and within one by the length of the question: LENGTHS parts of equal size."""
    table = task.item_table().slice(0, items)
    by_subject: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for item, (subject, prompt) in enumerate(
        zip(table["subject"].to_pylist(), table["prompt"].to_pylist(), strict=True)
    ):
        by_subject[subject or ""].append((len(prompt or ""), item))
    strata = []
    for _, of_subject in sorted(by_subject.items()):
        ordered = [item for _, item in sorted(of_subject)]
        edges = [len(ordered) * part // LENGTHS for part in range(LENGTHS + 1)]
        strata += [ordered[begin:end] for begin, end in itertools.pairwise(edges) if begin < end]
    return strata


def stratified(strata: Sequence[Sequence[int]], size: int, seed: str) -> list[int]:
    """`size` items, from each stratum by its share of all, in ascending order.

    Systematic sampling: the strata stand in one row, each in random order, and every (all / size)th item is taken from
    a random start. So each item has the same chance.
    """
    dice = random.Random(seed)
    row = [item for stratum in strata for item in dice.sample(list(stratum), len(stratum))]
    step = len(row) / size
    start = dice.random() * step
    return sorted(row[min(len(row) - 1, int(start + step * number))] for number in range(size))
