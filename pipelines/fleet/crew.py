"""The worker processes of a fleet: starts and ends them as the work and the cluster's nodes change.

Owns Ray's actors, from the request to the end of the process. Knows nothing of the shards that a worker has.
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

from collectors.engines import ModelRef
from collectors.runs.config import FleetSpec
from pipelines.fleet.cluster import can_come, fits, node_caused
from pipelines.fleet.worker import Worker, WorkerSpec
from schemas.failures import EngineError, one_line

logger = logging.getLogger(__name__)

#: Failed starts of an engine process, one after another, before the run fails.
START_TRIES = 3

#: Seconds that a new worker may take to start if a node has room for it.
COMING_SECONDS = 20.0

#: The resources of a worker as sorted arguments of Ray's `.options`. Workers of one kind take the same models.
Kind = tuple[tuple[str, Any], ...]


#: Workers of endpoints: one for each model, beside those that take the cluster's CPUs and GPUs.
HOSTED: Kind = (("num_cpus", 0), ("num_gpus", 0))


@dataclass
class Work:
    """The work left for the workers of one kind."""

    #: Models with open shards, including those that workers have now.
    models: int = 0
    #: Shards that no worker has.
    shards: int = 0


@dataclass(frozen=True)
class _Coming:
    """An actor that was requested at `since` (monotonic clock) and has not started."""

    actor: Any
    kind: Kind
    since: float


def in_words(kind: Kind) -> str:
    """The resources of a kind, for a message."""
    resources = dict(kind)
    gpus, gpu = resources.get("num_gpus") or 0, resources.get("accelerator_type")
    return f"{resources['num_cpus']:g} CPUs" + (f" and {gpus:g} × {gpu or 'any GPU'}" if gpus else "")


class Crew:
    """The running workers and the requested ones. `resources` are those of a worker whose model has no placement.

    A cluster of the run's `own` gets no more nodes.
    """

    def __init__(self, spec: FleetSpec, worker: WorkerSpec, resources: Mapping[str, Any], *, own: bool = False) -> None:
        self._spec = spec
        self._own = own
        self._worker = worker
        self._resources = dict(resources)
        self._kinds: dict[Any, Kind] = {}
        #: Future of Worker.ready -> the actor.
        self._coming: dict[Any, _Coming] = {}
        self._failed_starts = 0
        #: GPUs of all workers, running and requested, when the crew last grew.
        self.gpus = 0.0

    def __len__(self) -> int:
        return len(self._kinds) + len(self._coming)

    def kind_for(self, model: ModelRef) -> Kind:
        """The kind of worker that the model's placement needs."""
        if model.endpoint:
            return HOSTED
        place = model.placement
        return tuple(sorted((self._resources | (place.resources if place else {})).items()))

    def kind_of(self, actor: Any) -> Kind:
        return self._kinds[actor]

    def count(self, kind: Kind) -> int:
        """How many workers of a kind run or are requested."""
        return self._counts()[kind]

    def _counts(self) -> Counter[Kind]:
        return Counter([*self._kinds.values(), *(coming.kind for coming in self._coming.values())])

    def gpus_of(self, actor: Any) -> float:
        """How many GPUs a worker has; a fraction if workers share one."""
        return float(dict(self._kinds[actor]).get("num_gpus", 0.0))

    def gpu_class_of(self, actor: Any) -> str | None:
        """Ray's accelerator_type of a worker's GPUs; None if it was requested without a class."""
        return dict(self._kinds[actor]).get("accelerator_type")

    @property
    def awaited(self) -> list[Any]:
        """Futures of the workers that are starting. Pass one that is ready to `started`."""
        return list(self._coming)

    def is_coming(self) -> bool:
        """Whether a worker will start soon, so that shards should be left for it. One that waits for a node is not."""
        now = time.monotonic()
        return any(now - coming.since < COMING_SECONDS for coming in self._coming.values())

    def has_room(self, model: ModelRef) -> bool:
        """Whether a node could hold a worker for the model, or such a node may still come."""
        may_come = bool(self._spec.workers) and not self._own
        return may_come or fits(dict(self.kind_for(model))) > 0

    def start(self, kind: Kind) -> None:
        """Requests a worker of a kind. `awaited` has its future until it has started."""
        actor = Worker.options(**dict(kind)).remote(self._worker)  # type: ignore[attr-defined]
        self._coming[actor.ready.remote()] = _Coming(actor, kind, time.monotonic())

    def started(self, future: Any) -> Any:
        """The worker of a future in `awaited`. Returns None and requests another if it was lost before it started.

        Raises EngineError if START_TRIES processes in a row do not start.
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
        """Ends a worker and returns its kind. A worker that cannot be reached may live on with its GPU memory."""
        ray.kill(actor)
        return self._kinds.pop(actor)

    def grow(self, work: Mapping[Kind, Work]) -> None:
        """Requests as many workers as the work needs and the cluster has room for at this moment.

        Workers with the most GPUs come first: several free GPUs in one node exist only before smaller workers start.
        """
        counts = self._counts()
        left = min(self._spec.workers or 10**6, self._spec.slots or 10**6) - len(self) + counts[HOSTED]
        for kind in sorted(work, key=lambda kind: -dict(kind).get("num_gpus", 0.0)):
            if kind == HOSTED:
                wanted = min(work[kind].models - counts[kind], work[kind].shards)
            else:
                wanted = self._wanted(kind, work[kind], counts[kind], left)
                left -= max(0, wanted)
            for _ in range(wanted):
                self.start(kind)
        self.gpus = sum(dict(kind).get("num_gpus", 0.0) * count for kind, count in self._counts().items())

    def _wanted(self, kind: Kind, work: Work, have: int, left: int) -> int:
        """How many more workers of a kind to request; `left` is how many more of any kind the config allows."""
        if self._spec.workers:
            return min(left, work.shards)
        try:
            room = fits(dict(kind))
        except RayError as error:
            logger.debug("the cluster does not list its nodes: %s", one_line(error))  # HeadWatch notices a lost head
            return 0
        if not dict(kind).get("num_gpus"):
            room = min(room, work.models)
        return min(room - have, work.shards, left)

    def late(self, seconds: float) -> list[Kind]:
        """Kinds of which a worker was requested so long ago and has not started."""
        now = time.monotonic()
        return list(dict.fromkeys(c.kind for c in self._coming.values() if now - c.since >= seconds))

    def unmet(self, seconds: float) -> list[Kind]:
        """The late kinds that no node could hold, nor any group of the autoscaler."""
        try:
            return [kind for kind in self.late(seconds) if not fits(dict(kind)) and not can_come(dict(kind))]
        except RayError as error:
            logger.debug("the cluster does not list its nodes: %s", one_line(error))  # HeadWatch notices a lost head
            return []

    def drop(self, kind: Kind | None = None) -> None:
        """Takes back the requests for workers of a kind. None: of all kinds."""
        for future, coming in list(self._coming.items()):
            if kind in (None, coming.kind):
                ray.kill(coming.actor)
                del self._coming[future]

    def end(self) -> None:
        """Ends the actors that never started."""
        for coming in self._coming.values():
            ray.kill(coming.actor)
