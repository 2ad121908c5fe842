"""The order of work: picks the next shard and its size.

Owns the open shards of a run. Knows nothing of Ray, engines or storage: fleet.py hands the shards out.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from collectors.engines import ModelRef
from collectors.runs.config import FleetSpec
from collectors.runs.plan import PlannedCell
from collectors.runs.work import ShardReport
from schemas.identity import MAX_SHARD_ITEMS, ShardName


@dataclass
class Job:
    """A shard to collect: the items `first` to `last` of a cell, both included, or their places in its list."""

    planned: PlannedCell
    first: int
    last: int
    tries: int = 0
    #: Whether it was handed out before.
    is_retry: bool = False

    @property
    def shard(self) -> ShardName:
        return self.planned.shard(self.first, self.last)


#: The items, or places in a cell's list, from the first to the last, both included.
Range = tuple[int, int]


class WorkQueue:
    """The open shards, which are cut from their cells when they are taken.

    A worker keeps its model while it has shards, then takes a model of the same group that has no worker.
    """

    def __init__(self, cells: list[PlannedCell], spec: FleetSpec, sizes: Mapping[str, int] | None = None) -> None:
        """`sizes` maps model keys to numbers of parameters, without models of unknown size."""
        self._spec = spec
        self._sizes = sizes or {}
        #: The size of a model whose size is unknown: the median.
        self._usual = sorted(self._sizes.values())[len(self._sizes) // 2] if self._sizes else 1
        #: Model key -> its cells in the plan's order, and the number of their items that nobody has taken.
        self._cells: dict[str, deque[PlannedCell]] = {}
        self._items: Counter[str] = Counter()
        self._models: dict[str, ModelRef] = {}
        self._gaps: dict[str, deque[Range]] = {}
        self._planned: dict[str, PlannedCell] = {}
        #: Cell id -> open ranges that other runs have in hand. Neither `_gaps` nor `_items` holds them.
        self._held: dict[str, list[Range]] = {}
        self._retries: dict[str, deque[Job]] = {}
        self._seconds_per_item: dict[str, float] = {}
        for planned in cells:
            if planned.todo:
                self._cells.setdefault(planned.cell.model.key, deque()).append(planned)
                self._gaps[planned.cell.cell_id] = deque(planned.todo)
                self._planned[planned.cell.cell_id] = planned
                self._items[planned.cell.model.key] += planned.items_todo
                self._models[planned.cell.model.key] = planned.cell.model

    @property
    def models(self) -> list[ModelRef]:
        """The models that have shards left to take."""
        return [self._models[key] for key in {**self._retries, **self._items}]

    def shards_left(self, model: ModelRef) -> int:
        """How many shards of `model` are left to take, by the shard sizes of this moment."""
        fresh = self._cells[model.key] if model.key in self._items else ()
        return sum(self._shards_left(p.cell.cell_id) for p in fresh) + len(self._retries.get(model.key, ()))

    def __bool__(self) -> bool:
        """Whether any shard is left to take."""
        return bool(self._items or self._retries)

    @property
    def open(self) -> list[PlannedCell]:
        """The cells with items to take."""
        return [self._planned[cell_id] for cell_id, gaps in self._gaps.items() if gaps]

    @property
    def held(self) -> list[PlannedCell]:
        """The cells with items that other runs have in hand."""
        return [self._planned[cell_id] for cell_id in self._held]

    def take(
        self, current: ModelRef | None, busy: Counter[str], only: Callable[[ModelRef], bool] | None = None
    ) -> Job | None:
        """Takes the next shard: of the worker's model `current`, else of the model with the fewest workers.

        Among those with equally few it prefers the worker's group, because its engine switches there at little cost,
        and then the model with the most work left, so that the longest work does not start last. `busy` counts workers
        by model key; `only` tests whether the worker has room for a model. Returns None if no model is left.
        """
        model = self._next_model(current, busy, only)
        if model is None:
            return None
        return self._retry_of(model) if model in self._retries else self._next_of(model)

    def upcoming(
        self, current: ModelRef, busy: Counter[str], only: Callable[[ModelRef], bool] | None = None
    ) -> ModelRef | None:
        """The model that a worker would take after `current`; None while `current` has shards, or if no other has.

        Another worker may take it first.
        """
        model = self._next_model(current, busy, only)
        return None if model is None or model == current.key else self._models[model]

    def take_ahead(self, model: ModelRef, workers: int) -> Job | None:
        """Takes another shard of `model` for a worker that has one; None if other workers may need the last shards."""
        if model.key in self._retries or model.key not in self._items:
            return None
        left = [self._shards_left(planned.cell.cell_id) for planned in self._cells[model.key]]
        return self._next_of(model.key) if sum(left) > workers else None

    def _shards_left(self, cell_id: str) -> int:
        return math.ceil(_length(self._gaps[cell_id]) / self._shard_items(cell_id))

    def _next_model(
        self, current: ModelRef | None, busy: Counter[str], only: Callable[[ModelRef], bool] | None
    ) -> str | None:
        models = {**self._retries, **self._items}
        if only:
            models = {model: models[model] for model in models if only(self._models[model])}
        if current and current.key in models:
            return current.key
        group = current.group if current else None

        def order(model: str) -> tuple[int, bool, int]:
            work = self._items[model] * self._sizes.get(model, self._usual)
            return busy[model], group is None or self._models[model].group != group, -work

        return min(models, key=order, default=None)

    def _retry_of(self, model: str) -> Job:
        job = self._retries[model].popleft()
        if not self._retries[model]:
            del self._retries[model]
        return job

    def _next_of(self, model: str) -> Job:
        cells = self._cells[model]
        while not self._gaps[cells[0].cell.cell_id]:
            cells.popleft()
        cell_id = cells[0].cell.cell_id
        first, last = self._gaps[cell_id].popleft()
        cut = min(last, first + self._shard_items(cell_id) - 1)
        if cut < last:
            self._gaps[cell_id].appendleft((cut + 1, last))
        self._taken(model, cut - first + 1)
        return Job(cells[0], first, cut)

    def _taken(self, model: str, items: int) -> None:
        self._items[model] -= items
        if not self._items[model]:
            del self._items[model]

    def _shard_items(self, cell_id: str) -> int:
        pace = self._seconds_per_item.get(cell_id)
        if pace is None:
            return self._spec.first_shard_items
        return max(1, min(MAX_SHARD_ITEMS, int(self._spec.shard_seconds / max(pace, 1e-9))))

    def has(self, model: ModelRef) -> bool:
        """Whether a shard of the model is left to take, or in hand of another run."""
        held = any(self._planned[cell_id].cell.model.key == model.key for cell_id in self._held)
        return held or model.key in self._items or model.key in self._retries

    def reopen(self, planned: PlannedCell) -> None:
        """Adds the open items of a cell of which nothing was left to take."""
        key, cell_id = planned.cell.model.key, planned.cell.cell_id
        self._cells.setdefault(key, deque())
        self._models[key], self._planned[cell_id] = planned.cell.model, planned
        self._gaps[cell_id] = deque(planned.todo)
        self._items[key] += planned.items_todo
        self._offer(planned)

    def first_open(self, planned: PlannedCell) -> Job | None:
        """A cell's first shard that nobody has, without taking it."""
        gaps = self._gaps[planned.cell.cell_id]
        return Job(planned, *gaps[0]) if gaps else None

    def give_back(self, job: Job) -> None:
        """Takes a job back that was not begun, as the next of its cell."""
        key, cell_id = job.planned.cell.model.key, job.planned.cell.cell_id
        if job.is_retry:
            self._retries.setdefault(key, deque()).appendleft(job)
            return
        self._gaps[cell_id].appendleft((job.first, job.last))
        self._items[key] += job.last - job.first + 1
        self._offer(job.planned)

    def settle(self, planned: PlannedCell, done: Iterable[Range], held: Iterable[Range]) -> int:
        """Takes out items that other runs have committed, or have in hand (`held`) until the next call for the cell.

        A shard that is to be retried stays unless all of it is done. Returns how many items are done.
        """
        key, cell_id = planned.cell.model.key, planned.cell.cell_id
        left = _union([*self._gaps[cell_id], *self._held.pop(cell_id, ())])
        done = _union(done)
        still_open = _without(left, done)
        free = _without(still_open, _union(held))
        if taken := _without(still_open, free):
            self._held[cell_id] = taken
        self._items[key] += _length(free) - _length(self._gaps[cell_id])
        if not self._items[key]:
            del self._items[key]
        self._gaps[cell_id] = deque(free)
        if free:
            self._offer(planned)
        settled = _length(left) - _length(still_open)
        for job in [job for job in self._retries.get(key, ()) if job.planned is planned]:
            if not _without([(job.first, job.last)], done):
                self._retries[key].remove(job)
                settled += job.last - job.first + 1
        if key in self._retries and not self._retries[key]:
            del self._retries[key]
        return settled

    def _offer(self, planned: PlannedCell) -> None:
        """Puts a cell with open items in front, unless it is among its model's cells."""
        cells = self._cells[planned.cell.model.key]
        if not any(cell is planned for cell in cells):
            cells.appendleft(planned)

    def learn(self, job: Job, report: ShardReport) -> None:
        """Sets the size of the cell's next shards by the pace of a finished one, without the time to load the model."""
        if report.items:
            # The engine and the other stages overlap, so the slower one sets the pace.
            beside = sum(report.stages.get(stage, 0.0) for stage in ("build", "judge", "write"))
            pace = max(report.engine_seconds, beside) / report.items
            self._seconds_per_item[job.planned.cell.cell_id] = pace

    def retry(self, job: Job) -> None:
        """Queues a shard again, before new ones of its model, and counts the try.

        A caller that does not blame the shard passes it with one try less.
        """
        self._retries.setdefault(job.planned.cell.model.key, deque()).append(
            dataclasses.replace(job, tries=job.tries + 1, is_retry=True)
        )

    def drop(self, planned: PlannedCell) -> None:
        """Removes the shards of a cell that has failed."""
        model, cell_id = planned.cell.model.key, planned.cell.cell_id
        self._taken(model, _length(self._gaps[cell_id]))
        self._gaps[cell_id].clear()
        self._held.pop(cell_id, None)
        if model in self._retries:
            left = deque(job for job in self._retries.pop(model) if job.planned.cell.cell_id != cell_id)
            if left:
                self._retries[model] = left


def _union(ranges: Iterable[Range]) -> list[Range]:
    """The same items as sorted ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """The items of `ranges` that are not in `taken`; both are as `_union` returns them."""
    left, taken = [], list(taken)
    for first, last in ranges:
        for out_first, out_last in taken:
            if out_last < first or out_first > last:
                continue
            if first < out_first:
                left.append((first, out_first - 1))
            first = out_last + 1
        if first <= last:
            left.append((first, last))
    return left


def _length(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)
