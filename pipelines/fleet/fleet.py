"""Runs engines on a Ray cluster: hands out shards, takes reports and reacts to failures.

Owns the shards in hand and the reactions to each answer. State lives in the lake alone: an actor or driver that dies
loses at most the shards in hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from collectors.engines import ModelRef, make_engine
from collectors.lake.store import Lake
from collectors.models.placement import next_placement
from collectors.runs.listeners import AtWork, Listener, Workers
from collectors.runs.log_lines import about
from collectors.runs.plan import Plan
from collectors.runs.stages import Trace
from collectors.runs.work import Allowance, ShardReport
from pipelines.console.progress import Progress
from pipelines.fleet.budget import Budget, GpuPrices
from pipelines.fleet.cluster import Joined, any_node, node_caused
from pipelines.fleet.crew import Crew, Kind, Work, in_words
from pipelines.fleet.faults import Again, Faults, GiveUp
from pipelines.fleet.folding import Folding
from pipelines.fleet.neighbours import Neighbours
from pipelines.fleet.outcome import Outcome
from pipelines.fleet.prometheus import Metrics
from pipelines.fleet.sharing import Sharing
from pipelines.fleet.turns import Turns
from pipelines.fleet.waiting import LONGEST_PAUSE, Away, Outage
from pipelines.fleet.workqueue import Job, WorkQueue
from schemas.failures import (
    DISK_FULL,
    ENDPOINT_DOWN,
    NO_NODE,
    OUT_OF_MEMORY,
    OVER_BUDGET,
    OVER_CAP,
    EngineError,
    ModelError,
    StorageError,
    one_line,
)

logger = logging.getLogger(__name__)

#: Shards that a worker has at once: its engine answers one while it judges and writes the one before.
AHEAD = 2

#: Seconds between two looks at the cluster's nodes.
LOOK_SECONDS = 10.0

#: Seconds between two warnings that the cluster has no room for an engine.
WAITING_SECONDS = 30.0


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


class Fleet:
    """Runs a plan's open shards on a crew of workers until none is left. See `run`."""

    def __init__(
        self,
        plan: Plan,
        lake: Lake,
        crew: Crew,
        joined: Joined,
        trace: Trace | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.plan = plan
        self.budget = budget or Budget(plan.config.budget, GpuPrices())
        self.trace = trace
        self.crew = crew
        self.head, self._own = joined.head, joined.own
        open_cells = [p for p in plan.cells if p.todo]
        sizes = {model.key: size.parameters for model, size in plan.sizes.items() if size.parameters}
        self.queue = WorkQueue(open_cells, plan.config.fleet, sizes)
        self.progress = Progress(cells=len(open_cells), items=plan.items_todo)
        self.listeners: list[Listener] = [self.progress, Metrics(plan.run_id, len(open_cells), plan.items_todo)]
        self.outcome = Outcome(plan, lake, self.listeners, self._patiently)
        self.sharing = Sharing(lake, plan.run_id, plan.generation, self.queue, self.outcome.done_elsewhere)
        self.turns = Turns(lake, plan.run_id, Neighbours(plan.run_id, plan.config.fleet.priority))
        self.folding = Folding(lake, on=plan.config.fleet.compact)
        #: Model key -> prices of its endpoint's tokens.
        self.host_prices: dict[str, dict[str, float | None]] = {}
        self._has_hosted = any(planned.cell.model.endpoint for planned in open_cells)
        self.faults = Faults(make_engine(plan.config.engine.name, plan.config.engine.options), self._next_placement)
        patience = plan.config.fleet.patience_seconds
        self._last_done = time.monotonic()
        #: Kind of UnreachableError -> the outage.
        self._outages = {kind: Outage(patience) for kind in ("storage", "hub_down", DISK_FULL, ENDPOINT_DOWN)}
        #: When the fleet last looked at the cluster's nodes (monotonic clock).
        self._looked = time.monotonic()
        #: When an engine last worked, or the last warning that none can (monotonic clock).
        self._last_warning = time.monotonic()
        #: Worker -> its shards, in the order of its answers.
        self._hands: dict[Any, deque[InHand]] = {}
        self._holds: dict[Any, ModelRef | None] = {}
        #: Future -> the worker that answers it.
        self._awaited: dict[Any, Any] = {}

    def run(self) -> None:
        """Works until every cell is collected or failed, or a budget is spent.

        Raises StorageError if the lake cannot be written, EngineError if no engine process starts or the cluster's head
        is lost.
        """
        with self.progress, contextlib.ExitStack() as closing:
            for part in (self.sharing, self.budget, self.turns, self.folding):
                closing.callback(part.close)
            self._grow()
            logger.info("starting %d engines; the first shards take longest: models are loaded", len(self.crew))
            while self._goes_on():
                if awaited := [*self._awaited, *self.crew.awaited]:
                    ready, _ = ray.wait(awaited, num_returns=1, timeout=1.0)
                else:
                    ready = []
                    time.sleep(1.0)  # no node has room, but one may come
                for future in ready:
                    if future in self._awaited:
                        actor = self._awaited[future]
                        with about(self._hands[actor][0].job.planned.cell):
                            self._answered(actor)
                    elif actor := self._started(future):
                        self._holds[actor], self._hands[actor] = None, deque()
                        self.budget.hold(actor, self.crew.gpus_of(actor), self.crew.gpu_class_of(actor))
                        self._feed(actor)
                self._watch()
                self.sharing.tick()
                self.budget.tick()
                self.folding.tick()
                self.turns.tick(waits=bool(self.crew.requested()))
                if self.turns.holds_back:
                    self.crew.drop()
                for listener in self.listeners:
                    listener.on_tick(self._at_work)
            if self.outcome.stopped:  # with the cost of the shards that were in hand
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
        if not (self.queue or self.queue.held) or self._over_budget():
            return False
        self.sharing.hear()
        if not self.crew.awaited:
            self._grow()
        return True

    def _over_budget(self) -> bool:
        """Whether a spent budget ends the run. Shards in hand are finished anyway."""
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
        return Workers(working, len(self.crew.awaited), self.crew.gpus, self.budget.usd)

    def _grow(self) -> None:
        """Requests workers for new nodes, and for models with a new placement."""
        self._looked = time.monotonic()
        if not self.queue or self._over_budget() or self.turns.holds_back:
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
        """Gives a worker as many shards as it may have, and waits for the answer to its first."""
        hands = self._hands[actor]
        if not hands and not self._give(actor):
            return
        workers = self.crew.count(self.crew.kind_of(actor))
        while len(hands) < AHEAD and not (self.crew.is_coming() or self._over_budget() or self.turns.holds_back):
            model = hands[0].job.planned.cell.model
            job = self.sharing.next(partial(self.queue.take_ahead, model, workers))
            if job is None:
                break
            self._begin(actor, job)
        # Last, because a worker runs its calls in order and finish() waits for the engine.
        self._await(actor)

    def _await(self, actor: Any) -> None:
        first = self._hands[actor][0]
        self._awaited.pop(first.future, None)
        first.future, first.since = actor.finish.remote(), time.monotonic()
        self._awaited[first.future] = actor

    def _give(self, actor: Any) -> bool:
        """Gives a worker a shard of the model that is next. Returns False if it ended the worker instead."""
        held = self._holds[actor]
        fitting = self._fitting(actor)
        stops = self._over_budget() or self.turns.holds_back
        job = None if stops else self.sharing.next(lambda: self.queue.take(held, self._busy(), fitting))
        if job is None:
            self._stop_worker(actor)
            self._looked = 0.0  # a worker of another kind may have room now
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
        return lambda model: self._kind_for(model) == kind

    def _begin(self, actor: Any, job: Job) -> None:
        planned = job.planned.cell.model
        busy = self._busy()
        busy[planned.key] += not self._hands[actor]
        model, upcoming = self.faults.fitted(planned), self.queue.upcoming(planned, busy, self._fitting(actor))
        cell = dataclasses.replace(job.planned.cell, model=model)
        ahead = upcoming and self.faults.fitted(upcoming)
        if model.endpoint:
            allowance = self._allowance(model)
            actor.begin.remote(cell, job.first, job.last, ahead, allowance)
            self._hands[actor].append(InHand(job, model, allowed=allowance.usd))
        else:
            actor.begin.remote(cell, job.first, job.last, ahead)
            self._hands[actor].append(InHand(job, model))

    def _allowance(self, model: ModelRef) -> Allowance:
        """Most dollars for an endpoint's next shard: half of those that no other shard may spend."""
        prices, left = self.host_prices.get(model.key, {}), self.budget.left
        if left is None:
            return Allowance(None, prices)
        held = sum(hand.allowed or 0.0 for hands in self._hands.values() for hand in hands)
        return Allowance(max(0.0, left - held) / 2, prices)

    def _busy(self) -> Counter[str]:
        """Model key -> number of workers that have a shard of it, those of other runs included."""
        own = Counter(hands[0].job.planned.cell.model.key for hands in self._hands.values() if hands)
        return own + self.sharing.busy

    def _swaps(self, held: ModelRef, model: ModelRef) -> bool:
        """Whether an engine on a GPU may load `model` in place of `held`. The config has to allow swaps of weights."""
        allowed = self.plan.config.engine.options.get("swap_weights") is True
        return allowed and held.group is not None and held.group == model.group

    def _stop_worker(self, actor: Any) -> Kind:
        for hand in self._hands.pop(actor):
            self._awaited.pop(hand.future, None)
        del self._holds[actor]
        self.budget.free(actor)
        return self.crew.stop(actor)

    def _watch(self) -> None:
        """Ends engines that do not answer, uses new nodes, and warns if the cluster has no room for any engine.

        Raises EngineError if the cluster's head or its last node is gone.
        """
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
        if now - self._last_warning <= WAITING_SECONDS:
            return
        self._last_warning = now
        for kind in self.crew.unmet(self.plan.config.fleet.node_seconds):
            self._give_up_kind(kind)
        if not self._awaited:
            self._warn_of_waiting()

    def _warn_of_waiting(self) -> None:
        """Raises EngineError if the cluster has lost its last node."""
        if not any_node():
            raise EngineError("the Ray cluster has no node left: its processes were killed, maybe for lack of memory")
        requested = self.crew.requested()
        if requested and not self._own:  # a cluster of its own has room for all that a run requests
            logger.warning("the cluster has no room yet for an engine with %s; waiting", requested)
        elif self.queue.held:
            logger.info("the last items are in hand of other runs on this lake; waiting for them")

    def _give_up_kind(self, kind: Kind) -> None:
        """Fails the models that need workers of a kind that the cluster cannot have.

        Raises EngineError if no engine is at work and no model needs another kind.
        """
        needing = [model for model in self.queue.models if self._kind_for(model) == kind]
        error = EngineError(
            f"no node has {in_words(kind)} for an engine, no group of the cluster's autoscaler has them, and no such "
            f"node came within {self.plan.config.fleet.node_seconds:g} s (fleet.node_seconds)",
            NO_NODE,
        )
        if not self._awaited and len(needing) == len(self.queue.models):
            raise error
        self.crew.drop(kind)
        self._looked = 0.0  # other kinds may have its place
        for model in needing:
            for planned in self.outcome.open_cells(model):
                self.queue.drop(planned)
                self.outcome.give_up(planned, None, error)

    def _answered(self, actor: Any) -> None:
        """Handles the answer to a worker's first shard, or the worker's death, and hands out more work."""
        hand = self._hands[actor][0]
        moot = self.outcome.is_moot(hand.job)
        replaced = False
        try:
            report: ShardReport | Away = ray.get(hand.future)
        except (RayActorError, OutOfMemoryError) as error:
            self._drop_first(actor)
            replaced = True
            if not moot:
                self._died(hand, error)
        except RayError as error:
            self._drop_first(actor)
            cause = getattr(error, "cause", None)
            if not moot:
                replaced = self._broke(actor, hand, cause if isinstance(cause, Exception) else error)
        else:
            if isinstance(report, Away) and report.kind == OVER_BUDGET:
                self._drop_first(actor)
                self._overspent(hand, report)
                self._feed(actor)
                return
            if isinstance(report, Away) and not moot and self._waits(hand, report):
                self._await(actor)
                return
            self._drop_first(actor)
            if isinstance(report, Away):
                replaced = True  # the worker would go on with the shard
                if not moot:
                    self._waited_enough(hand, report)
            else:
                self.budget.named(actor, report.gpu, report.gpu_class)
                if moot:
                    self.sharing.over(hand.job)
                else:
                    self._done(hand, report)
        if replaced:
            self._replace_worker(actor)
        else:
            self._feed(actor)

    def _overspent(self, hand: InHand, away: Away) -> None:
        """Tries a shard again while the budget has much left beside those in hand, and else ends the run in order."""
        self.budget.paid(hand.job.planned.cell.model.key, away.usd)
        self.queue.retry(dataclasses.replace(hand.job, tries=hand.job.tries - 1))
        left, limit = self.budget.left, self.plan.config.budget.usd
        if (left is not None and limit is not None and left < 0.05 * limit) or hand.allowed == 0 or not away.usd:
            self.outcome.stopped = self.budget.reached() or f"budget.usd: {away.message}"

    def _drop_first(self, actor: Any) -> None:
        del self._awaited[self._hands[actor].popleft().future]

    def _replace_worker(self, actor: Any) -> None:
        """Starts a new process for a lost worker, and queues its other shards again: they are not to blame."""
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
        """Ends the run if the lake is away or no other shard was done since; else only this model fails.

        Raises StorageError to end the run.
        """
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
        """Decides about a shard that raised. Returns True if the worker has to be replaced to free GPU memory.

        Raises `error` again if it is a StorageError.
        """
        if isinstance(error, StorageError):
            raise error
        verdict = self.faults.broke(hand.job, error, hand.model)
        if isinstance(verdict, Again):
            logger.warning("cell %s: %s; trying the shard again", hand.job.planned.cell.cell_id, one_line(error))
        self._do(hand.job, verdict)
        starved = isinstance(error, EngineError) and error.kind == OUT_OF_MEMORY
        if starved:
            self._looked = 0.0  # the model may need a worker elsewhere
        return starved and bool(self.crew.gpus_of(actor))

    def _do(self, job: Job, verdict: Again | GiveUp) -> None:
        if isinstance(verdict, Again):
            self.queue.retry(verdict.job)
            return
        self.sharing.over(job)
        if verdict.whole_model:
            cells = self.outcome.open_cells(job.planned.cell.model)
        else:
            cells = [] if self.outcome.is_moot(job) else [job.planned]
        for planned in cells:
            self.queue.drop(planned)
            self.outcome.give_up(planned, job if planned is job.planned else None, verdict.error)

    def _done(self, hand: InHand, report: ShardReport) -> None:
        job, cell = hand.job, hand.job.planned.cell
        self.sharing.over(job)
        self.faults.recovered(cell.model)
        self.folding.done()
        self._last_done = time.monotonic()
        if hand.away:
            self._outages[hand.away[0]].over()
        self.queue.learn(job, report)
        if report.served:
            self.budget.paid(cell.model.key, report.served["usd"])
        if self.trace:
            about = {"model": cell.model.name, "task": cell.spec.task, "cell": cell.cell_id}
            self.trace.add(report.worker, report.spans, **about, items=f"{job.shard.first}-{job.shard.last}")
        if self.outcome.done(job, report):
            self.budget.finished()
        if message := self.budget.over_cap(cell.model.key):
            self._give_up_at_cap(cell.model, message)

    def _give_up_at_cap(self, model: ModelRef, message: str) -> None:
        for planned in self.outcome.open_cells(model):
            if job := self.queue.first_open(planned):
                self._do(job, GiveUp(EngineError(message, OVER_CAP), whole_model=True))
                return

    def _next_placement(self, model: ModelRef) -> ModelRef | None:
        """The model with the next placement that this cluster has room for; None if there is none."""
        placed = next_placement(model)
        while placed and not self.crew.has_room(placed):
            placed = next_placement(placed)
        return placed

    def _patiently(self, write: Callable[[], None]) -> None:
        """Calls `write` until the store accepts it. The time spent here does not count against any worker's answer."""
        waited = self._outages["storage"].wait(write)
        for hands in self._hands.values():
            for hand in hands:
                hand.since += waited
