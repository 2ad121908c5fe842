"""What to do about a shard that failed: try it again, with less at once, elsewhere, or give it or its model up.

Owns the counts of what went wrong under each model of a run. Knows nothing of Ray or storage: fleet.py tells it what
happened and does what it says.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from collectors.engines import Engine, ModelRef
from pipelines.workqueue import Job
from schemas.failures import OUT_OF_MEMORY, EngineError, ModelError, TaskError

#: Deaths of an engine process under one model, without a committed shard between them, after which it is given up.
MAX_DEATHS = 2

#: The same for nodes: they go for reasons of their own, but a model may also be what takes its node down.
MAX_NODE_DEATHS = 5


@dataclass(frozen=True)
class Again:
    """The shard is tried once more."""

    job: Job


@dataclass(frozen=True)
class GiveUp:
    """The shard's cell fails, or with `whole_model` all open cells of its model."""

    error: BaseException
    whole_model: bool


@dataclass
class _Starved:
    """A model that ran out of memory, as it is tried now, and what was tried."""

    model: ModelRef
    tried: list[str]


class Faults:
    """The history of one run's faults. `next_placement`: see collectors.placement; None where there is no other."""

    def __init__(self, engine: Engine, next_placement: Callable[[ModelRef], ModelRef | None] | None = None) -> None:
        self._engine = engine
        self._next_placement = next_placement or (lambda model: None)
        self._deaths: Counter[str] = Counter()
        self._node_deaths: Counter[str] = Counter()
        #: When the engine of the death that was counted last was found dead (monotonic clock).
        self._last_death: dict[str, float] = {}
        self._starved: dict[str, _Starved] = {}

    def fitted(self, model: ModelRef) -> ModelRef:
        """`model` with the batch and where it is down to. Its key differs with a batch: an engine opens it anew."""
        starved = self._starved.get(model.key)
        return starved.model if starved else model

    def recovered(self, model: ModelRef) -> None:
        """A shard of it was committed."""
        self._deaths[model.key] = self._node_deaths[model.key] = 0

    def died(self, job: Job, error: EngineError, begun: float, now: float) -> Again | GiveUp:
        """The engine's process was lost, in which the shard was begun at `begun`; it is now `now`.

        Engines that were at work when another one's death was counted are not counted: what took several at once, as
        an operating system short of memory does, is one fault.
        """
        key = job.planned.cell.model.key
        if begun > self._last_death.get(key, float("-inf")):
            self._last_death[key] = now
            self._deaths[key] += 1
        if self._deaths[key] < MAX_DEATHS:
            return Again(job)
        return GiveUp(
            EngineError(
                f"the engine was lost {MAX_DEATHS} times under this model, with no shard between: {error}", error.kind
            ),
            whole_model=True,
        )

    def node_died(self, job: Job, error: EngineError) -> Again | GiveUp:
        """The node went, with the engine's process on it; the shard is not to blame."""
        key = job.planned.cell.model.key
        self._node_deaths[key] += 1
        if self._node_deaths[key] < MAX_NODE_DEATHS:
            return Again(dataclasses.replace(job, tries=job.tries - 1))
        message = f"{MAX_NODE_DEATHS} nodes were lost under this model: {error}"
        return GiveUp(EngineError(message, error.kind), whole_model=True)

    def broke(self, job: Job, error: BaseException, asked: ModelRef) -> Again | GiveUp:
        """The engine, or who judged its answers, raised; `asked` is the model as this shard's engine had it."""
        if isinstance(error, EngineError) and error.kind == OUT_OF_MEMORY:
            return self.out_of_memory(job, error, asked)
        if isinstance(error, ModelError):
            return GiveUp(error, whole_model=True)
        if isinstance(error, TaskError) or job.tries >= 1:
            return GiveUp(error, whole_model=False)
        return Again(job)

    def out_of_memory(self, job: Job, error: BaseException, asked: ModelRef) -> Again | GiveUp:
        """A smaller batch, then another placement, then nothing more. No answer depends on either."""
        model = job.planned.cell.model
        again = Again(dataclasses.replace(job, tries=job.tries - 1))
        current = self.fitted(model)
        if (asked.key, asked.placements) != (current.key, current.placements):
            return again  # it was begun before the others made the batch smaller
        starved = self._starved.setdefault(model.key, _Starved(current, ["the batch as configured"]))
        if options := self._engine.smaller_batch(current):
            starved.model = dataclasses.replace(current, options={**current.options, **options})
            starved.tried.append(", ".join(f"{name} {value}" for name, value in options.items()))
            return again
        if placed := self._next_placement(current):
            starved.model = dataclasses.replace(placed, options=model.options)
            starved.tried.append(f"{placed.placement}, the batch as configured")
            return again
        message = f"out of memory, and nothing is left to try ({'; '.join(starved.tried)}): {error}"
        return GiveUp(EngineError(message, OUT_OF_MEMORY), whole_model=True)
