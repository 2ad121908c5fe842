"""Engines on a Ray cluster: who works on which shard, and what happens when one breaks.

Owns actors, retries and the order of work. State lives in the lake alone: an actor or driver that dies loses at most
the shard in hand.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from collectors.cell import ShardReport
from collectors.engines import ModelRef, make_engine
from collectors.lake import Lake
from collectors.log_lines import about
from collectors.placement import next_placement
from collectors.planning import Plan
from collectors.stages import Trace
from pipelines.budget import Budget, GpuPrices
from pipelines.cluster import any_node, node_caused
from pipelines.crew import Crew, Kind, Work
from pipelines.faults import Again, Faults, GiveUp
from pipelines.head import HeadWatch
from pipelines.listeners import AtWork, Listener, Workers
from pipelines.metrics import Metrics
from pipelines.outage import LONGEST_PAUSE, Away, Outage
from pipelines.outcome import Outcome
from pipelines.progress import Progress
from pipelines.workqueue import Job, WorkQueue
from schemas.failures import (
    OUT_OF_MEMORY,
    EngineError,
    ModelError,
    StorageError,
    one_line,
)

logger = logging.getLogger(__name__)

#: Shards that a worker is given at once: its engine answers one while it judges and writes the one before.
AHEAD = 2

#: Seconds between two looks at which nodes there are.
LOOK_SECONDS = 10.0

#: Seconds without any engine after which, and then every so often, a person is told that the cluster is full.
WAITING_SECONDS = 30.0


@dataclass
class InHand:
    """A shard that a worker has been given, and since when its answer is awaited (monotonic clock)."""

    job: Job
    #: The model with the batch that it was given with.
    model: ModelRef
    #: Its answer; None while it is not the worker's first.
    future: Any = None
    since: float = 0.0
    stalled: bool = False
    #: What it waits for, a kind of UnreachableError, and since when.
    away: tuple[str, float] | None = None


class Fleet:
    """Runs a plan's open shards on a crew of workers until none is left. See `run`."""

    def __init__(
        self,
        plan: Plan,
        lake: Lake,
        crew: Crew,
        head: HeadWatch,
        trace: Trace | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.plan = plan
        self.budget = budget or Budget(plan.config.budget, GpuPrices())
        self.trace = trace
        self.crew = crew
        self.head = head
        open_cells = [p for p in plan.cells if p.todo]
        sizes = {model.key: facts.parameters for model, facts in plan.facts.items() if facts.parameters}
        self.queue = WorkQueue(open_cells, plan.config.fleet, sizes)
        self.progress = Progress(cells=len(open_cells), items=plan.items_todo)
        self.listeners: list[Listener] = [self.progress, Metrics(plan.run_id, len(open_cells), plan.items_todo)]
        self.outcome = Outcome(plan, lake, self.listeners, self._patiently)
        self.faults = Faults(make_engine(plan.config.engine.name, plan.config.engine.options), self._next_placement)
        patience = plan.config.fleet.patience_seconds
        self._last_done = time.monotonic()
        #: By kind of UnreachableError.
        self._outages = {kind: Outage(patience) for kind in ("storage", "hub_down")}
        #: When the cluster's nodes were looked at last (monotonic clock).
        self._looked = time.monotonic()
        self._told_waiting = time.monotonic()
        #: Each worker's shards, in the order in which it answers.
        self._hands: dict[Any, deque[InHand]] = {}
        self._holds: dict[Any, ModelRef | None] = {}
        #: The worker of each answer that is waited for.
        self._awaited: dict[Any, Any] = {}

    def run(self) -> None:
        """Works until every cell is collected or failed.

        Raises StorageError when the lake cannot be written, EngineError when no engine process can be started.
        """
        with self.progress:
            self._grow()
            logger.info("starting %d engines; the first shards take longest: models are loaded", len(self.crew))
            while self._goes_on():
                if awaited := [*self._awaited, *self.crew.awaited]:
                    ready, _ = ray.wait(awaited, num_returns=1, timeout=1.0)
                else:
                    ready = []
                    time.sleep(1.0)  # no node has room: one may come
                for future in ready:
                    if future in self._awaited:
                        actor = self._awaited[future]
                        with about(self._hands[actor][0].job.planned.cell):
                            self._answered(actor)
                    elif actor := self._started(future):
                        self._holds[actor], self._hands[actor] = None, deque()
                        self._feed(actor)
                self._watch()
                for listener in self.listeners:
                    listener.on_tick(self._at_work)
            if self.outcome.stopped:  # shards that were in hand are paid for since
                self.outcome.stopped = self.budget.reached() or self.outcome.stopped
            self.crew.end()

    def _started(self, future: Any) -> Any:
        try:
            return self.crew.started(future)
        except EngineError as error:
            raise self.head.blame(error) from error

    def _goes_on(self) -> bool:
        if self._awaited:
            return True
        if not self.queue or self._over_budget():
            return False
        if not self.crew.awaited:
            self._grow()
        return True

    def _over_budget(self) -> bool:
        """Whether a budget keeps back what is left; shards in hand are finished all the same."""
        if self.outcome.stopped is None and self.queue and (reached := self.budget.reached()):
            self.outcome.stopped = reached
            logger.warning("%s: no more shards are handed out", reached)
        return self.outcome.stopped is not None

    def _at_work(self) -> Workers:
        now = time.monotonic()
        working = []
        for actor, hands in self._hands.items():
            if hands:
                hand, task = hands[0], hands[0].job.planned.cell.spec.task
                away, gpus = hand.away and hand.away[0], self.crew.gpus_of(actor)
                working.append(AtWork(hand.model.name, task, now - hand.since, away, gpus))
        return Workers(working, starting=len(self.crew.awaited), gpus=self.crew.gpus)

    def _grow(self) -> None:
        """Workers for nodes that came since, and for models that have to go elsewhere."""
        self._looked = time.monotonic()
        if not self.queue or self._over_budget():
            return
        work: defaultdict[Kind, Work] = defaultdict(Work)
        queued = self.queue.models
        for model in queued:
            work[self._kind_for(model)].shards += self.queue.shards_left(model)
        at_work = [hands[0].job.planned.cell.model for hands in self._hands.values() if hands]
        for model in {model.key: model for model in [*queued, *at_work]}.values():
            work[self._kind_for(model)].models += 1
        self.crew.grow(work)
        self.progress.workers = len(self.crew)

    def _kind_for(self, model: ModelRef) -> Kind:
        return self.crew.kind_for(self.faults.fitted(model))

    def _feed(self, actor: Any) -> None:
        """Gives a worker what it has room for, and waits for the answer to its first."""
        hands = self._hands[actor]
        if not hands and not self._give(actor):
            return
        workers = self.crew.count(self.crew.kind_of(actor))
        while len(hands) < AHEAD and not self.crew.is_coming() and not self._over_budget():
            job = self.queue.take_ahead(hands[0].job.planned.cell.model, workers)
            if job is None:
                break
            self._begin(actor, job)
        # Last: a worker does what it is told in order, and finish() waits for the engine.
        self._await(actor)

    def _await(self, actor: Any) -> None:
        first = self._hands[actor][0]
        self._awaited.pop(first.future, None)
        first.future, first.since = actor.finish.remote(), time.monotonic()
        self._awaited[first.future] = actor

    def _give(self, actor: Any) -> bool:
        """A shard of whatever model is next; False where the worker was ended instead."""
        held = self._holds[actor]
        job = None if self._over_budget() else self.queue.take(held, self._busy(), self._fitting(actor))
        if job is None:
            self._stop_worker(actor)
            self._looked = 0.0  # for workers of another kind there is room now
            return False
        model = job.planned.cell.model
        if held and held.key != model.key and bool(self.crew.gpus_of(actor)) and not self._swaps(held, model):
            # On a GPU a process gives its memory back only by ending: a new model gets a new one.
            self.queue.retry(dataclasses.replace(job, tries=job.tries - 1))
            self.crew.start(self._stop_worker(actor))
            return False
        self._holds[actor] = model
        self._begin(actor, job)
        return True

    def _fitting(self, actor: Any) -> Callable[[ModelRef], bool] | None:
        """Which models a worker is for; None: for all."""
        if not self.plan.gpus:
            return None
        kind = self.crew.kind_of(actor)
        return lambda model: self._kind_for(model) == kind

    def _begin(self, actor: Any, job: Job) -> None:
        planned = job.planned.cell.model
        busy = self._busy()
        busy[planned.key] += not self._hands[actor]
        model, upcoming = self.faults.fitted(planned), self.queue.upcoming(planned, busy, self._fitting(actor))
        cell = dataclasses.replace(job.planned.cell, model=model)
        actor.begin.remote(cell, job.first, job.last, upcoming and self.faults.fitted(upcoming))
        self._hands[actor].append(InHand(job, model))

    def _busy(self) -> Counter[str]:
        """Workers by the key of the model that they work on."""
        return Counter(hands[0].job.planned.cell.model.key for hands in self._hands.values() if hands)

    def _swaps(self, held: ModelRef, model: ModelRef) -> bool:
        """Whether a GPU's engine may take over `model`: only where the config says that it may swap weights at all."""
        allowed = self.plan.config.engine.options.get("swap_weights") is True
        return allowed and held.group is not None and held.group == model.group

    def _stop_worker(self, actor: Any) -> Kind:
        for hand in self._hands.pop(actor):
            self._awaited.pop(hand.future, None)
        del self._holds[actor]
        return self.crew.stop(actor)

    def _watch(self) -> None:
        """Ends engines that do not answer, takes nodes that came, and says when the cluster has no room for any."""
        now = time.monotonic()
        self.head.check()
        if now - self._looked > LOOK_SECONDS:
            self._grow()
        for actor in self._awaited.values():
            hand = self._hands[actor][0]
            allowed = self.plan.config.fleet.stall_seconds + (LONGEST_PAUSE if hand.away else 0)
            if now - hand.since > allowed and not hand.stalled:
                hand.stalled = True
                ray.kill(actor)
        if self._awaited:
            self._told_waiting = now
        elif now - self._told_waiting > WAITING_SECONDS:
            self._told_waiting = now
            if not any_node():
                raise EngineError(
                    "the Ray cluster has no node left: what ran it was killed, perhaps for want of memory"
                )
            logger.warning("the cluster has no room yet for an engine of %s; waiting", self.crew.told())

    def _answered(self, actor: Any) -> None:
        """Takes the answer to a worker's first shard, or its death, and gives it more to do."""
        hand = self._hands[actor][0]
        moot = self.outcome.is_moot(hand.job)
        replaced = False
        try:
            report: ShardReport | Away = ray.get(hand.future)
        except (RayActorError, OutOfMemoryError) as error:
            self._pay_for_lost(actor)
            self._drop_first(actor)
            replaced = True
            if not moot:
                self._died(hand, error)
        except RayError as error:
            self._pay_for_lost(actor)
            self._drop_first(actor)
            cause = getattr(error, "cause", None)
            if not moot:
                replaced = self._broke(actor, hand, cause if isinstance(cause, Exception) else error)
        else:
            if isinstance(report, Away) and not moot and self._waits(hand, report):
                self._await(actor)
                return
            self._drop_first(actor)
            if isinstance(report, Away):
                replaced = True  # it has the shard in hand still
                if not moot:
                    self._waited_enough(hand, report)
            elif moot:
                self.budget.spent(report)
            else:
                self._done(hand, report)
        if replaced:
            self._replace_worker(actor)
        else:
            self._feed(actor)

    def _pay_for_lost(self, actor: Any) -> None:
        """Counts the seconds in which a worker had the shard in hand that it will not commit: no report says them."""
        seconds = time.monotonic() - self._hands[actor][0].since
        self.budget.lost(seconds, self.crew.gpus_of(actor), self.crew.gpu_class_of(actor))

    def _drop_first(self, actor: Any) -> None:
        del self._awaited[self._hands[actor].popleft().future]

    def _replace_worker(self, actor: Any) -> None:
        """A new process for one that died or has to; the shards behind its first are not to blame."""
        for behind in self._hands[actor]:
            if not self.outcome.is_moot(behind.job):
                self.queue.retry(dataclasses.replace(behind.job, tries=behind.job.tries - 1))
        self.crew.start(self._stop_worker(actor))

    def _waits(self, hand: InHand, away: Away) -> bool:
        now = time.monotonic()
        hand.away = hand.away or (away.kind, now)
        if now - hand.away[1] >= self.plan.config.fleet.patience_seconds:
            return False
        self._outages[away.kind].heard(away.message)
        return True

    def _waited_enough(self, hand: InHand, away: Away) -> None:
        """Without the lake, and where nothing else went on meanwhile, the run ends; else this model fails alone."""
        if away.kind == "storage" or (hand.away and self._last_done < hand.away[1]):
            raise StorageError(f"{away.message}; waited for {self.plan.config.fleet.patience_seconds:g} s", away.kind)
        self._do(hand.job, GiveUp(ModelError(away.message, away.kind), whole_model=True))

    def _died(self, hand: InHand, error: RayError) -> None:
        job, model, now = hand.job, hand.job.planned.cell.model, time.monotonic()
        if hand.stalled:
            seconds = self.plan.config.fleet.stall_seconds
            lost = EngineError(f"no answer within {seconds:g} s (fleet.stall_seconds)", "engine_stalled")
        elif isinstance(error, OutOfMemoryError):
            lost = EngineError(f"its node ran out of memory: {one_line(error, 300)}", OUT_OF_MEMORY)
        else:
            lost = EngineError(f"its process died: {one_line(error, 300)}", "engine_died")
        logger.warning("model %s: its engine was lost: %s", model.name, one_line(lost, 160))
        if lost.kind == OUT_OF_MEMORY:
            self._do(job, self.faults.out_of_memory(job, lost, hand.model))
        elif lost.kind == "engine_died" and node_caused(error):
            self._do(job, self.faults.node_died(job, lost))
        else:
            self._do(job, self.faults.died(job, lost, hand.since, now))

    def _broke(self, actor: Any, hand: InHand, error: BaseException) -> bool:
        """Whether the worker has to be replaced: on a GPU only the end of a process gives its memory back."""
        if isinstance(error, StorageError):
            raise error
        verdict = self.faults.broke(hand.job, error, hand.model)
        if isinstance(verdict, Again):
            logger.warning("cell %s: %s; trying the shard again", hand.job.planned.cell.cell_id, one_line(error))
        self._do(hand.job, verdict)
        starved = isinstance(error, EngineError) and error.kind == OUT_OF_MEMORY
        if starved:
            self._looked = 0.0  # it may have to go elsewhere
        return starved and bool(self.crew.gpus_of(actor))

    def _do(self, job: Job, verdict: Again | GiveUp) -> None:
        if isinstance(verdict, Again):
            self.queue.retry(verdict.job)
            return
        if verdict.whole_model:
            cells = self.outcome.open_cells(job.planned.cell.model)
        else:
            cells = [] if self.outcome.is_moot(job) else [job.planned]
        for planned in cells:
            self.queue.drop(planned)
            self.outcome.give_up(planned, job if planned is job.planned else None, verdict.error)

    def _done(self, hand: InHand, report: ShardReport) -> None:
        job, cell = hand.job, hand.job.planned.cell
        self.faults.recovered(cell.model)
        self._last_done = time.monotonic()
        if hand.away:
            self._outages[hand.away[0]].over()
        self.queue.learn(job, report)
        if self.trace:
            about = {"model": cell.model.name, "task": cell.spec.task, "cell": cell.cell_id}
            self.trace.add(report.worker, report.spans, **about, items=f"{job.first}-{job.last}")
        self.budget.spent(report, finished=self.outcome.done(job, report))

    def _next_placement(self, model: ModelRef) -> ModelRef | None:
        """Where the model has more memory, of the places that this cluster has."""
        placed = next_placement(model)
        while placed and not self.crew.has_room(placed):
            placed = next_placement(placed)
        return placed

    def _patiently(self, write: Callable[[], None]) -> None:
        """What the driver itself writes, once the store takes it. Nobody is taken for stalled for that."""
        waited = self._outages["storage"].wait(write)
        for hands in self._hands.values():
            for hand in hands:
                hand.since += waited
