"""What each worker has in hand: gives out shards, waits for each worker's first, and takes back those of a lost one.

Owns which worker has which shards and which model. Knows nothing of what an answer means (fleet.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from collectors.engines import ModelRef
from collectors.runs.listeners import AtWork, Workers
from collectors.runs.plan import Plan
from collectors.runs.work import Allowance
from pipelines.fleet.budget import Budget
from pipelines.fleet.crew import Crew, Kind
from pipelines.fleet.faults import Faults
from pipelines.fleet.sharing import Sharing
from pipelines.fleet.workqueue import Job, WorkQueue

#: Shards that a worker has at once: its engine answers one while it judges and writes the one before.
AHEAD = 2


@dataclass
class InHand:
    """A shard that a worker has."""

    job: Job
    #: The model with the batch and placement of this attempt.
    model: ModelRef
    #: Future of the report; None until the shard is the worker's first.
    future: Any = None
    #: When the fleet began to wait for `future` (monotonic clock).
    since: float = 0.0
    stalled: bool = False
    #: Dollars that its endpoint may be paid for it; None: any, or there is none.
    allowed: float | None = None
    #: Kind of the UnreachableError that the worker waits out, and since when (monotonic clock).
    away: tuple[str, float] | None = None


@dataclass
class Hands:
    """The workers' shards."""

    plan: Plan
    crew: Crew
    queue: WorkQueue
    sharing: Sharing
    budget: Budget
    faults: Faults
    #: Whether no more shards are handed out: a budget is spent, or other runs go first.
    stops: Callable[[], bool]
    #: Model key -> prices of its endpoint's tokens.
    host_prices: Mapping[str, dict[str, float | None]] = field(default_factory=dict)
    #: Future -> the worker that answers it.
    awaited: dict[Any, Any] = field(default_factory=dict)
    #: Whether a worker has ended or failed, so that another kind of worker may have room.
    freed: bool = False
    #: Worker -> its shards, in the order of its answers.
    _of: dict[Any, deque[InHand]] = field(default_factory=dict)
    _holds: dict[Any, ModelRef | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._has_hosted = any(planned.cell.model.endpoint for planned in self.plan.cells if planned.todo)

    def add(self, actor: Any) -> None:
        """Takes a worker that has started."""
        self._holds[actor], self._of[actor] = None, deque()
        self.budget.hold(actor, self.crew.gpus_of(actor), self.crew.gpu_class_of(actor))
        self.feed(actor)

    def first(self, actor: Any) -> InHand:
        """The shard that a worker answers next."""
        return self._of[actor][0]

    def is_idle(self, actor: Any) -> bool:
        """Whether a worker has no shard."""
        return not self._of[actor]

    @property
    def models(self) -> list[ModelRef]:
        """The models that workers have shards of, once for each worker."""
        return [hands[0].job.planned.cell.model for hands in self._of.values() if hands]

    def has(self, model: ModelRef) -> bool:
        """Whether a worker has a shard of the model."""
        return any(hand.job.planned.cell.model.key == model.key for hands in self._of.values() for hand in hands)

    def kind_for(self, model: ModelRef) -> Kind:
        return self.crew.kind_for(self.faults.fitted(model))

    def pause(self, seconds: float) -> None:
        """Does not count the time against any worker's answer."""
        for hands in self._of.values():
            for hand in hands:
                hand.since += seconds

    def feed(self, actor: Any) -> None:
        """Gives a worker as many shards as it may have, and waits for the answer to its first."""
        hands = self._of[actor]
        if not hands and not self._give(actor):
            return
        workers = self.crew.count(self.crew.kind_of(actor))
        while len(hands) < AHEAD and not (self.crew.is_coming() or self.stops()):
            model = hands[0].job.planned.cell.model
            job = self.sharing.next(partial(self.queue.take_ahead, model, workers))
            if job is None:
                break
            self._begin(actor, job)
        # Last, because a worker runs its calls in order and finish() waits for the engine.
        self.wait_for(actor)

    def wait_for(self, actor: Any) -> None:
        first = self._of[actor][0]
        self.awaited.pop(first.future, None)
        first.future, first.since = actor.finish.remote(), time.monotonic()
        self.awaited[first.future] = actor

    def _give(self, actor: Any) -> bool:
        """Gives a worker a shard of the model that is next. Returns False if it ended the worker instead."""
        held = self._holds[actor]
        fitting = self._fitting(actor)
        stops = self.stops()
        job = None if stops else self.sharing.next(lambda: self.queue.take(held, self._busy(), fitting))
        if job is None:
            self._stop_worker(actor)
            self.freed = True  # a worker of another kind may have room now
            return False
        model = job.planned.cell.model
        if held and held.key != model.key and bool(self.crew.gpus_of(actor)) and not self._swaps(held, model):
            # A process frees its GPU memory only when it ends, so a new model gets a new process.
            self.queue.retry(dataclasses.replace(job, tries=job.tries - 1))
            self.crew.start(self._stop_worker(actor))
            return False
        self._holds[actor] = model
        self.budget.works(actor, model.key)
        self._begin(actor, job)
        return True

    def _fitting(self, actor: Any) -> Callable[[ModelRef], bool] | None:
        """A test for the models that a worker may take; None if it may take all."""
        if not self.plan.gpus and not self._has_hosted:
            return None
        kind = self.crew.kind_of(actor)
        return lambda model: self.kind_for(model) == kind

    def _begin(self, actor: Any, job: Job) -> None:
        planned = job.planned.cell.model
        busy = self._busy()
        busy[planned.key] += not self._of[actor]
        model, upcoming = self.faults.fitted(planned), self.queue.upcoming(planned, busy, self._fitting(actor))
        cell = dataclasses.replace(job.planned.cell, model=model)
        ahead = upcoming and self.faults.fitted(upcoming)
        if model.endpoint:
            allowance = self.allowance(model)
            actor.begin.remote(cell, job.first, job.last, ahead, allowance)
            self._of[actor].append(InHand(job, model, allowed=allowance.usd))
        else:
            actor.begin.remote(cell, job.first, job.last, ahead)
            self._of[actor].append(InHand(job, model))

    def allowance(self, model: ModelRef) -> Allowance:
        """Most dollars for an endpoint's next shard: half of those that no other shard may spend."""
        prices, left = self.host_prices.get(model.key, {}), self.budget.left
        if left is None:
            return Allowance(None, prices)
        held = sum(hand.allowed or 0.0 for hands in self._of.values() for hand in hands)
        return Allowance(max(0.0, left - held) / 2, prices)

    def _busy(self) -> Counter[str]:
        """Model key -> number of workers that have a shard of it, those of other runs included."""
        own = Counter(hands[0].job.planned.cell.model.key for hands in self._of.values() if hands)
        return own + self.sharing.busy

    def _swaps(self, held: ModelRef, model: ModelRef) -> bool:
        """Whether an engine on a GPU may load `model` in place of `held`. The config has to allow swaps of weights."""
        allowed = self.plan.config.engine.options.get("swap_weights") is True
        return allowed and held.group is not None and held.group == model.group

    def _stop_worker(self, actor: Any) -> Kind:
        for hand in self._of.pop(actor):
            self.awaited.pop(hand.future, None)
        del self._holds[actor]
        self.budget.free(actor)
        return self.crew.stop(actor)

    def drop_first(self, actor: Any) -> None:
        del self.awaited[self._of[actor].popleft().future]

    def replace(self, actor: Any, is_moot: Callable[[Job], bool]) -> None:
        """Starts a new process for a lost worker, and queues its other shards again: they are not to blame."""
        for behind in self._of[actor]:
            if not is_moot(behind.job):
                self.queue.retry(dataclasses.replace(behind.job, tries=behind.job.tries - 1))
        self.crew.start(self._stop_worker(actor))

    def at_work(self) -> Workers:
        now = time.monotonic()
        working = []
        for actor, hands in self._of.items():
            if hands:
                hand, task = hands[0], hands[0].job.planned.cell.spec.task
                away, gpus = hand.away and hand.away[0], self.crew.gpus_of(actor)
                working.append(AtWork(hand.model.name, task, now - hand.since, away, gpus))
        return Workers(working, len(self.crew.awaited), self.crew.gpus, self.budget.usd)
