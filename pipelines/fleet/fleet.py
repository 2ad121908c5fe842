"""Runs engines on a Ray cluster: hands out shards, takes reports and reacts to failures.

Owns the loop and the reactions to each answer; hands.py has the shards in hand. State lives in the lake alone: an actor
or driver that dies loses at most the shards in hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from collectors.engines import ModelRef, make_engine
from collectors.lake.store import Lake
from collectors.models.placement import next_placement
from collectors.runs.adapting import Rounds
from collectors.runs.listeners import Listener
from collectors.runs.log_lines import about
from collectors.runs.plan import Plan
from collectors.runs.stages import Trace
from collectors.runs.work import ShardReport
from pipelines.console.progress import Progress
from pipelines.fleet.budget import Budget, GpuPrices
from pipelines.fleet.cluster import Joined, any_node, node_caused
from pipelines.fleet.crew import COMING_SECONDS, Crew, Kind, Work, in_words
from pipelines.fleet.faults import Again, Faults, GiveUp
from pipelines.fleet.folding import Folding
from pipelines.fleet.hands import Hands, InHand
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

#: Seconds between two looks at the cluster's nodes.
LOOK_SECONDS = 10.0

#: Seconds between two warnings that the cluster has no room for an engine.
WAITING_SECONDS = 30.0


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
        rounds: Rounds | None = None,
    ) -> None:
        self.plan = plan
        self.budget = budget or Budget(plan.config.budget, GpuPrices())
        self.trace = trace
        self.rounds = rounds
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
        self.faults = Faults(make_engine(plan.config.engine.name, plan.config.engine.options), self._next_placement)
        self.hands = Hands(plan, crew, self.queue, self.sharing, self.budget, self.faults, self._stops)
        patience = plan.config.fleet.patience_seconds
        self._last_done = time.monotonic()
        #: Kind of UnreachableError -> the outage.
        self._outages = {kind: Outage(patience) for kind in ("storage", "hub_down", DISK_FULL, ENDPOINT_DOWN)}
        #: Workers without a shard that wait for dollars of the shards in hand.
        self._resting: list[Any] = []
        #: When the fleet last looked at the cluster's nodes (monotonic clock).
        self._looked = time.monotonic()
        #: When an engine last worked, or the last warning that none can (monotonic clock).
        self._last_warning = time.monotonic()

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
                if awaited := [*self.hands.awaited, *self.crew.awaited]:
                    ready, _ = ray.wait(awaited, num_returns=1, timeout=1.0)
                else:
                    ready = []
                    time.sleep(1.0)  # no node has room, but one may come
                for future in ready:
                    if actor := self.hands.awaited.get(future):
                        with about(self.hands.first(actor).job.planned.cell):
                            self._answered(actor)
                        self._wake(actor)
                    elif actor := self._started(future):
                        self.hands.add(actor)
                self._watch()
                self.sharing.tick()
                self.budget.tick()
                self.folding.tick()
                self.turns.tick(waits=bool(self.crew.late(COMING_SECONDS)))
                if self.turns.holds_back:
                    self.crew.drop()
                for listener in self.listeners:
                    listener.on_tick(self.hands.at_work)
            if self.outcome.stopped:  # with the cost of the shards that were in hand
                self.outcome.stopped = self.budget.reached() or self.outcome.stopped
            self.crew.end()

    def _started(self, future: Any) -> Any:
        try:
            return self.crew.started(future)
        except EngineError as error:
            raise self.head.blame(error) from error

    def _goes_on(self) -> bool:
        if self.hands.awaited:
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

    def _stops(self) -> bool:
        """Whether no shards are handed out now."""
        return self._over_budget() or self.turns.holds_back

    def _grow(self) -> None:
        """Requests workers for new nodes, and for models with a new placement."""
        self._looked, self.hands.freed = time.monotonic(), False
        if not self.queue or self._stops():
            return
        work: defaultdict[Kind, Work] = defaultdict(Work)
        queued = self.queue.models
        for model in queued:
            work[self.hands.kind_for(model)].shards += self.queue.shards_left(model)
        for model in {model.key: model for model in [*queued, *self.hands.models]}.values():
            work[self.hands.kind_for(model)].models += 1
        self.crew.grow(work)
        self.progress.workers = len(self.crew)

    def _watch(self) -> None:
        """Ends engines that do not answer, uses new nodes, and warns if the cluster has no room for any engine.

        Raises EngineError if the cluster's head or its last node is gone.
        """
        now = time.monotonic()
        self.head.check()
        if self.hands.freed or now - self._looked > LOOK_SECONDS:
            self._grow()
        for actor in self.hands.awaited.values():
            hand = self.hands.first(actor)
            allowed = self.plan.config.fleet.stall_seconds + (LONGEST_PAUSE if hand.away else 0)
            if now - hand.since > allowed and not hand.stalled:
                hand.stalled = True
                ray.kill(actor)
        if now - self._last_warning <= WAITING_SECONDS:
            return
        self._last_warning = now
        for kind in self.crew.unmet(self.plan.config.fleet.node_seconds):
            self._give_up_kind(kind)
        if not self.hands.awaited:
            self._warn_of_waiting()

    def _warn_of_waiting(self) -> None:
        """Raises EngineError if the cluster has lost its last node."""
        if not any_node():
            raise EngineError("the Ray cluster has no node left: its processes were killed, maybe for lack of memory")
        # A cluster of its own has room for all that a run requests: a late worker is slow to start there.
        if kinds := [] if self._own else self.crew.late(COMING_SECONDS):
            requested = " or ".join(sorted(in_words(kind) for kind in kinds))
            logger.warning("the cluster has no room yet for an engine with %s; waiting", requested)
        elif self.queue.held:
            logger.info("the last items are in hand of other runs on this lake; waiting for them")

    def _give_up_kind(self, kind: Kind) -> None:
        """Fails the models that need workers of a kind that the cluster cannot have.

        Raises EngineError if no engine is at work and no model needs another kind.
        """
        needing = [model for model in self.queue.models if self.hands.kind_for(model) == kind]
        error = EngineError(
            f"no node has {in_words(kind)} for an engine, no group of the cluster's autoscaler has them, and no such "
            f"node came within {self.plan.config.fleet.node_seconds:g} s (fleet.node_seconds)",
            NO_NODE,
        )
        if not self.hands.awaited and len(needing) == len(self.queue.models):
            raise error
        self.crew.drop(kind)
        self.hands.freed = True  # other kinds may have its place
        for model in needing:
            for planned in self.outcome.open_cells(model):
                self.queue.drop(planned)
                self.outcome.give_up(planned, None, error)

    def _answered(self, actor: Any) -> None:
        """Handles the answer to a worker's first shard, or the worker's death, and hands out more work."""
        hand = self.hands.first(actor)
        moot = self.outcome.is_moot(hand.job)
        replaced = False
        try:
            report: ShardReport | Away = ray.get(hand.future)
        except (RayActorError, OutOfMemoryError) as error:
            self.hands.drop_first(actor)
            replaced = True
            if not moot:
                self._died(hand, error)
        except RayError as error:
            self.hands.drop_first(actor)
            cause = getattr(error, "cause", None)
            if not moot:
                replaced = self._broke(actor, hand, cause if isinstance(cause, Exception) else error)
        else:
            if isinstance(report, Away) and report.kind == OVER_BUDGET:
                self.hands.drop_first(actor)
                self._overspent(actor, hand, report)
                return
            if isinstance(report, Away) and not moot and self._waits(hand, report):
                self.hands.wait_for(actor)
                return
            self.hands.drop_first(actor)
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
            self.hands.replace(actor, self.outcome.is_moot)
        else:
            self.hands.feed(actor)

    def _wake(self, answered: Any) -> None:
        """Feeds the workers that wait for dollars, after another one's answer."""
        woken, self._resting = self._resting, [actor for actor in self._resting if actor is answered]
        for actor in woken:
            if actor is not answered:
                self.hands.feed(actor)

    def _overspent(self, actor: Any, hand: InHand, away: Away) -> None:
        """Tries a shard again while the budget has much left, and else ends the run in order.

        A shard that was paid nothing, and would have no more dollars at once, waits for those of shards in hand.
        """
        self.budget.paid(hand.job.planned.cell.model.key, away.usd)
        self.queue.retry(dataclasses.replace(hand.job, tries=hand.job.tries - 1))
        left, limit = self.budget.left or 0.0, self.plan.config.budget.usd or 0.0
        is_stuck = not away.usd and (self.hands.allowance(hand.model).usd or 0.0) <= (hand.allowed or 0.0)
        is_spent = left < 0.05 * limit
        if is_stuck and not is_spent and not self.hands.is_idle(actor):
            self.hands.wait_for(actor)
        elif is_stuck and not is_spent and self.hands.awaited:
            self._resting.append(actor)
        else:
            if is_stuck or is_spent:
                self.outcome.stopped = self.budget.reached() or f"budget.usd: {away.message}"
            self.hands.feed(actor)

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
            self.hands.freed = True  # the model may need a worker elsewhere
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
        if self.rounds:
            self.rounds.saw(cell, report.scores)
            self._next_round(cell.model, self.rounds)
        if message := self.budget.over_cap(cell.model.key):
            self._give_up_at_cap(cell.model, message)

    def _next_round(self, model: ModelRef, rounds: Rounds) -> None:
        """Queues the model's next round, once all of it is in the lake: its worker still has it loaded."""
        if self.queue.has(model) or self.hands.has(model) or self.outcome.stopped or self.budget.reached():
            return
        for planned in rounds.more(model, self.outcome.failed):
            self._patiently(partial(rounds.sets.write, planned.cell.item_set))
            self.queue.reopen(planned)
            self.outcome.reopen(planned)

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
        self.hands.pause(waited)
