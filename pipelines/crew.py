"""The worker processes of a fleet: how many of which resources, and how they come and go with the cluster's nodes.

Owns Ray's actors, from being asked for to their end. Knows nothing of what a worker has in hand.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from collectors.config import FleetSpec
from collectors.engines import ModelRef
from pipelines.cluster import fits, node_caused
from pipelines.worker import Worker, WorkerSpec
from schemas.failures import EngineError, one_line

logger = logging.getLogger(__name__)

#: How often an engine process is started before the run is given up.
START_TRIES = 3

#: Seconds in which a new worker is expected to start where there is room for it.
COMING_SECONDS = 20.0

#: What Ray's `.options` take for a worker, in order: workers of one kind may answer for the same models.
Kind = tuple[tuple[str, Any], ...]


@dataclass
class Work:
    """What is left for the workers of one kind: models, counting those at work, and shards that nobody has."""

    models: int = 0
    shards: int = 0


@dataclass(frozen=True)
class _Coming:
    """An actor that Ray has found no room for, or has not started yet, and since when (monotonic clock)."""

    actor: Any
    kind: Kind
    since: float


class Crew:
    """The workers that there are and those that are asked for. `resources`: of one for a model that is put nowhere."""

    def __init__(self, spec: FleetSpec, worker: WorkerSpec, resources: Mapping[str, Any]) -> None:
        self._spec = spec
        self._worker = worker
        self._resources = dict(resources)
        self._kinds: dict[Any, Kind] = {}
        #: By the answer that says that it has started.
        self._coming: dict[Any, _Coming] = {}
        self._failed_starts = 0
        #: GPUs of all workers when there was last more work than they had in hand, those included that were asked for.
        self.gpus = 0.0

    def __len__(self) -> int:
        return len(self._kinds) + len(self._coming)

    def kind_for(self, model: ModelRef) -> Kind:
        """That of the workers which the model's placement asks for."""
        place = model.placement
        return tuple(sorted((self._resources | (place.resources if place else {})).items()))

    def kind_of(self, actor: Any) -> Kind:
        return self._kinds[actor]

    def count(self, kind: Kind) -> int:
        """Workers of a kind, those included that are asked for."""
        return self._counts()[kind]

    def _counts(self) -> Counter[Kind]:
        return Counter([*self._kinds.values(), *(coming.kind for coming in self._coming.values())])

    def gpus_of(self, actor: Any) -> float:
        """How many GPUs a worker has, or which part of one."""
        return float(dict(self._kinds[actor]).get("num_gpus", 0.0))

    def gpu_class_of(self, actor: Any) -> str | None:
        """Ray's accelerator_type of a worker's GPUs; None where it was asked for none by class."""
        return dict(self._kinds[actor]).get("accelerator_type")

    @property
    def awaited(self) -> list[Any]:
        """Answers of those that start."""
        return list(self._coming)

    def is_coming(self) -> bool:
        """Whether workers are about to start, for whom shards should be left; others wait for a node."""
        now = time.monotonic()
        return any(now - coming.since < COMING_SECONDS for coming in self._coming.values())

    def has_room(self, model: ModelRef) -> bool:
        """Whether some node could hold a worker for the model, or one may come that can."""
        return bool(self._spec.workers) or fits(dict(self.kind_for(model))) > 0

    def start(self, kind: Kind) -> None:
        actor = Worker.options(**dict(kind)).remote(self._worker)  # type: ignore[attr-defined]
        self._coming[actor.ready.remote()] = _Coming(actor, kind, time.monotonic())

    def started(self, future: Any) -> Any:
        """The worker of an answer in `awaited`; None where it was lost, and another is asked for.

        Raises EngineError where process after process does not start.
        """
        coming = self._coming.pop(future)
        try:
            ray.get(future)
        except RayError as error:
            if not (isinstance(error, RayActorError) and node_caused(error)):
                self._failed_starts += 1
            if self._failed_starts >= START_TRIES:
                raise EngineError(f"no engine process could be started: {one_line(error)}") from error
            self.start(coming.kind)
            return None
        self._failed_starts = 0
        self._kinds[coming.actor] = coming.kind
        return coming.actor

    def stop(self, actor: Any) -> Kind:
        """Ends a worker, also one that is out of reach and may live on with what it holds. Returns its kind."""
        ray.kill(actor)
        return self._kinds.pop(actor)

    def grow(self, work: Mapping[Kind, Work]) -> None:
        """Asks for the workers that the work and the cluster, as they are now, have room for.

        Those with the most GPUs first: what needs several finds them in one node only before the others do.
        """
        counts = self._counts()
        left = (self._spec.workers or 0) - len(self)
        for kind in sorted(work, key=lambda kind: -dict(kind).get("num_gpus", 0.0)):
            wanted = self._wanted(kind, work[kind], counts[kind], left)
            left -= max(0, wanted)
            for _ in range(wanted):
                self.start(kind)
        self.gpus = sum(dict(kind).get("num_gpus", 0.0) * count for kind, count in self._counts().items())

    def _wanted(self, kind: Kind, work: Work, have: int, left: int) -> int:
        """More workers of a kind; `left`: how many more `fleet.workers` allows of all kinds."""
        if self._spec.workers:
            return min(left, work.shards)
        try:
            room = fits(dict(kind))
        except RayError as error:
            logger.debug("the cluster does not tell its nodes: %s", one_line(error))  # HeadWatch says if it is gone
            return 0
        if not dict(kind).get("num_gpus"):
            room = min(room, work.models)
        return min(room - have, work.shards)

    def told(self) -> str:
        """Resources that are waited for."""
        return " or ".join(sorted({str(dict(coming.kind)) for coming in self._coming.values()}))

    def end(self) -> None:
        """Ends those that never started."""
        for coming in self._coming.values():
            ray.kill(coming.actor)
