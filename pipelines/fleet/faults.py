"""Decides about a failed shard: retry it, retry with a smaller batch or elsewhere, give up its cell or its model.

Owns the counts of faults under each model of a run. Knows nothing of Ray or storage: fleet.py reports the faults and
carries out the decisions.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from collectors.engines import Engine, ModelRef
from pipelines.fleet.workqueue import Job
from schemas.failures import JUDGE_DIED, JUDGE_TIMEOUT, OUT_OF_MEMORY, EngineError, ModelError, TaskError, one_line

logger = logging.getLogger(__name__)

#: A model is given up after so many deaths of an engine process without a committed shard in between.
MAX_DEATHS = 2

#: The same for deaths of nodes. Nodes mostly go for reasons of their own, but a model may also bring its node down.
MAX_NODE_DEATHS = 5


@dataclass(frozen=True)
class Again:
    """Retry the shard."""

    job: Job


@dataclass(frozen=True)
class GiveUp:
    """Fail the shard's cell, or with `whole_model` all open cells of its model."""

    error: BaseException
    whole_model: bool


@dataclass
class _Starved:
    """A model that ran out of memory."""

    #: The model with the batch and placement of the next attempt.
    model: ModelRef
    #: Descriptions of the attempts, for the final message.
    tried: list[str]


class Faults:
    """The history of one run's faults.

    `next_placement` returns the model with a placement that has more memory, or None (collectors.models.placement).
    """

    def __init__(self, engine: Engine, next_placement: Callable[[ModelRef], ModelRef | None] | None = None) -> None:
        self._engine = engine
        self._next_placement = next_placement or (lambda model: None)
        self._deaths: Counter[str] = Counter()
        self._node_deaths: Counter[str] = Counter()
        #: Model key -> when the death that was counted last was noticed (monotonic clock).
        self._last_death: dict[str, float] = {}
        self._starved: dict[str, _Starved] = {}
        #: Model key -> messages that a cell was given up with, since its last commit, and the cell.
        self._met: dict[str, dict[str, str]] = {}

    def fitted(self, model: ModelRef) -> ModelRef:
        """`model` with its reduced batch and placement. A smaller batch changes the key: engines reload the model."""
        starved = self._starved.get(model.key)
        return starved.model if starved else model

    def recovered(self, model: ModelRef) -> None:
        """Resets the counts of deaths and errors, because a shard of `model` was committed."""
        self._deaths[model.key] = self._node_deaths[model.key] = 0
        self._met.pop(model.key, None)

    def died(self, job: Job, error: EngineError, begun: float, now: float) -> Again | GiveUp:
        """Decides after the engine's process died at `now` with a shard that it began at `begun` (monotonic clock).

        Deaths of engines that were at work when another death was counted do not count: an operating system that is
        short of memory kills several at once, and that is one fault.
        """
        key = job.planned.cell.model.key
        if begun > self._last_death.get(key, float("-inf")):
            self._last_death[key] = now
            self._deaths[key] += 1
        if self._deaths[key] < MAX_DEATHS:
            return Again(job)
        return GiveUp(
            EngineError(
                f"the engine died {MAX_DEATHS} times under this model without a shard in between: {error}", error.kind
            ),
            whole_model=True,
        )

    def node_died(self, job: Job, error: EngineError) -> Again | GiveUp:
        """Decides after the engine was lost with its node. The shard is not to blame, so its tries do not count up."""
        key = job.planned.cell.model.key
        self._node_deaths[key] += 1
        if self._node_deaths[key] < MAX_NODE_DEATHS:
            return Again(dataclasses.replace(job, tries=job.tries - 1))
        message = f"{MAX_NODE_DEATHS} nodes were lost under this model: {error}"
        return GiveUp(EngineError(message, error.kind), whole_model=True)

    def broke(self, job: Job, error: BaseException, asked: ModelRef) -> Again | GiveUp:
        """Decides after the engine or the judging raised an error; `asked` is the model with the shard's batch.

        An error of the engine that a second cell of a model meets, with no commit in between, awaits its other cells,
        too: each would cost two loads.
        """
        if isinstance(error, EngineError) and error.kind == OUT_OF_MEMORY:
            return self.out_of_memory(job, error, asked)
        if isinstance(error, ModelError):
            return GiveUp(error, whole_model=True)
        if isinstance(error, TaskError):
            return GiveUp(error, whole_model=False)
        cell, text = job.planned.cell, one_line(error)
        met = self._met.setdefault(cell.model.key, {})
        is_of_engine = isinstance(error, EngineError) and error.kind not in (JUDGE_DIED, JUDGE_TIMEOUT)
        if is_of_engine and met.get(text, cell.cell_id) != cell.cell_id:
            return GiveUp(error, whole_model=True)
        if job.tries < 1:
            return Again(job)
        met.setdefault(text, cell.cell_id)
        return GiveUp(error, whole_model=False)

    def out_of_memory(self, job: Job, error: BaseException, asked: ModelRef) -> Again | GiveUp:
        """Tries a smaller batch, then another placement, then gives up.

        Batch and placement are no part of a cell's identity, although in bfloat16 they change answers a little.
        """
        model = job.planned.cell.model
        again = Again(dataclasses.replace(job, tries=job.tries - 1))
        current = self.fitted(model)
        if (asked.key, asked.placements) != (current.key, current.placements):
            return again  # it began before another shard's failure reduced the batch
        starved = self._starved.setdefault(model.key, _Starved(current, ["the batch as configured"]))
        if options := self._engine.smaller_batch(current):
            starved.model = dataclasses.replace(current, options={**current.options, **options})
            starved.tried.append(", ".join(f"{name} {value}" for name, value in options.items()))
            logger.warning(
                "model %s ran out of memory and is asked in smaller batches (%s), which may change answers in bfloat16",
                model.name,
                starved.tried[-1],
            )
            return again
        if placed := self._next_placement(current):
            starved.model = dataclasses.replace(placed, options=model.options)
            starved.tried.append(f"{placed.placement}, the batch as configured")
            return again
        message = f"out of memory after every attempt ({'; '.join(starved.tried)}): {error}"
        return GiveUp(EngineError(message, OUT_OF_MEMORY), whole_model=True)
