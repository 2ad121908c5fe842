"""What other runs on the lake have done or have in hand, asked before a shard goes to an engine.

Owns how often the lake is asked: once for a cell, again when the answer is old. Where the lake does not answer, work
goes on without: the answers only spare work. Knows nothing of Ray.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from collectors.lake.claims import CLAIM_SECONDS, Claims
from collectors.lake.holdings import committed
from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from collectors.runs.plan import PlannedCell
from collectors.runs.work import Cell
from pipelines.fleet.workqueue import Job, Range, WorkQueue
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName

logger = logging.getLogger(__name__)

#: Seconds for which the answer about a cell is believed, and where another run is at work on the cell.
FRESH_SECONDS, SHARED_SECONDS = 30.0, 5.0
#: Seconds without a question after the lake did not answer one.
QUIET_SECONDS = 60.0
#: The whole lake is listed at most this share of the time, and not more often than every FRESH_SECONDS.
LISTING_SHARE = 0.05


@dataclass
class Sharing:
    """Keeps one run's queue of work up to date with the lake."""

    lake: Lake
    run_id: str
    #: The plan's; None: an item of any generation is done.
    generation: int | None
    queue: WorkQueue
    #: Called with a cell and the number of its open items that another run committed.
    done_elsewhere: Callable[[Cell, int], None]
    clock: Callable[[], float] = time.monotonic
    _claims: Claims | None = None
    #: Cell id -> when it was asked last.
    _asked: dict[str, float] = field(default_factory=dict)
    #: Cell id -> model key, number of claims of other runs, and when they were seen.
    _others: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    _quiet_until: float = float("-inf")
    _next_listing: float = 0.0
    _tidied: float = 0.0

    def __post_init__(self) -> None:
        self._item_sets = ItemSets(self.lake)
        self._tidied = self.clock()
        self._next_listing = self._tidied + FRESH_SECONDS  # the plan has just listed it

    @property
    def busy(self) -> Counter[str]:
        """Model key -> shards of it that other runs have in hand, as far as cells were asked."""
        recent = self.clock() - CLAIM_SECONDS
        counts: Counter[str] = Counter()
        for key, claims, seen in self._others.values():
            if seen > recent:
                counts[key] += claims
        return +counts

    def next(self, take: Callable[[], Job | None]) -> Job | None:
        """Takes a job from the queue by `take`, and claims it. Takes another one where other runs are at work."""
        while job := take():
            was_asked = self._is_fresh(job.planned)
            if was_asked and self._claim(job):
                return job
            self.queue.give_back(job)
            self._ask(job.planned)
        return None

    def hear(self) -> None:
        """While no engine works: looks for shards that other runs commit, and for those that they gave up."""
        if self.clock() < max(self._next_listing, self._quiet_until):
            return
        started = self.clock()
        try:
            shards = committed(self.lake)
        except StorageError as error:
            self._silent(error)
            return
        now = self.clock()
        self._next_listing = now + max(FRESH_SECONDS, (now - started) / LISTING_SHARE)
        for planned in self.queue.held:
            self._ask(planned)
        for planned in self.queue.open:
            if planned.cell.cell_id in shards:
                self._settle(planned, self._ranges(planned, shards[planned.cell.cell_id]), [])

    def _is_fresh(self, planned: PlannedCell) -> bool:
        """Whether the cell needs no question now."""
        cell_id, now = planned.cell.cell_id, self.clock()
        _, others, _ = self._others.get(cell_id, ("", 0, 0.0))
        asked = self._asked.get(cell_id, float("-inf"))
        return now < self._quiet_until or now - asked < (SHARED_SECONDS if others else FRESH_SECONDS)

    def _ask(self, planned: PlannedCell) -> None:
        """Asks the lake about a cell."""
        claims = self._with_claims()
        if claims is None:
            return
        cell_id, now = planned.cell.cell_id, self.clock()
        try:
            seen = claims.look(cell_id, planned.cell.spec.task)
        except StorageError as error:
            self._silent(error)
            return
        self._asked[cell_id] = self.clock()
        held = self._ranges(planned, seen.claimed)
        self._others[cell_id] = planned.cell.model.key, len(held), now
        self._settle(planned, self._ranges(planned, seen.committed), held)

    def _settle(self, planned: PlannedCell, done: list[Range], held: list[Range]) -> None:
        if items := self.queue.settle(planned, done, held):
            self.done_elsewhere(planned.cell, items)

    def _claim(self, job: Job) -> bool:
        """Claims a job's shard. False if another run has just claimed the same."""
        claims = self._with_claims()
        if claims is None:
            return True
        try:
            return claims.take(job.shard)
        except StorageError as error:
            self._silent(error)
            return True

    def over(self, job: Job) -> None:
        """Gives up the claim on a job that is done or given up."""
        if self._claims:
            self._claims.drop(job.shard)

    def tick(self) -> None:
        """Renews claims that are old and removes those that are not needed. Call it at least every minute."""
        if self._claims and self.clock() - self._tidied > FRESH_SECONDS and self.clock() >= self._quiet_until:
            self._tidied = self.clock()
            try:
                self._claims.renew()
            except StorageError as error:
                self._silent(error)
            self._claims.tidy()

    def close(self) -> None:
        """Removes all claims of this run."""
        if self._claims:
            self._claims.tidy(everything=True)

    def _with_claims(self) -> Claims | None:
        """The claims of this run; None while the lake is left alone because it did not answer."""
        if self.clock() < self._quiet_until:
            return None
        if self._claims is None:
            try:
                self._claims = Claims(self.lake, self.run_id, self.clock)
            except StorageError as error:
                self._silent(error)
        return self._claims

    def _silent(self, error: StorageError) -> None:
        self._quiet_until = self.clock() + QUIET_SECONDS
        logger.warning("shards may be asked twice, because other runs cannot be seen: %s", one_line(error))

    def _ranges(self, planned: PlannedCell, shards: list[ShardName]) -> list[Range]:
        """What shards hold of a cell whose generation counts."""
        counting = [shard for shard in shards if self.generation in (None, shard.generation)]
        return planned.ranges_of(one for shard in counting for one in self._item_sets.ranges_of(shard))
