"""One engine process of a fleet: a Ray actor around a collectors.runs.collector.Collector.

Owns the shards of its process. Every call carries the whole cell, so a new actor loads the model that the call names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import time
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray

from collectors.engines import ModelRef
from collectors.harness.loading import use_datasets
from collectors.harness.own_code import use_code
from collectors.models.weights import Weights
from collectors.runs.collector import Begun, Collector
from collectors.runs.log_lines import log_as_json, quieten
from collectors.runs.work import NO_LIMIT, Allowance, Cell, ShardReport
from pipelines.fleet.downloads import passing
from pipelines.fleet.waiting import Away, pause
from schemas.failures import OVER_BUDGET, EngineError, UnreachableError

M = TypeVar("M", ModelRef, ModelRef | None)


@dataclass(frozen=True)
class WorkerSpec:
    """The arguments of a worker, the same for all workers of a run."""

    run_id: str
    lake: str
    engine: str
    options: dict[str, Any]
    include: list[str]
    datasets: str | None
    #: fleet.disk_gib: GiB of downloaded models that each node keeps; None: a share of its disk.
    disk_gib: float | None
    #: The driver's folder. A worker looks for paths below it in its own folder, where Ray unpacked the job's files.
    base: str
    log_json: bool = False
    #: The actor that limits downloads (pipelines.fleet.downloads); None: no limit.
    gate: Any = None
    #: The run's allow_code.
    allow_code: bool = False


@dataclass
class _Hand:
    """A shard that was begun and not finished."""

    cell: Cell
    first: int
    last: int
    upcoming: ModelRef | None
    #: The shard in the engine, or the error that stopped it.
    begun: Begun | Exception
    #: Calls of `finish` that ended with Away.
    tries: int = 0


@ray.remote(max_restarts=0)
class Worker:
    """One engine process. The driver restarts it, because only the driver knows the shard that was lost."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        if spec.log_json:
            log_as_json(spec.run_id)
            logging.getLogger().setLevel(logging.INFO)
            quieten()
        self.collector: Collector | None = None
        self._hands: deque[_Hand] = deque()
        self._allowance = NO_LIMIT

    def ready(self) -> None:
        """Returns when Ray has started this process."""

    def begin(
        self, cell: Cell, first: int, last: int, upcoming: ModelRef | None, allowance: Allowance = NO_LIMIT
    ) -> None:
        """Begins a shard as Collector.begin does. `finish`, which the driver waits for, raises its errors.

        `allowance` is what its model's endpoint may be paid.
        """
        self._allowance = allowance
        cell, upcoming = dataclasses.replace(cell, model=self._localized(cell.model)), self._localized(upcoming)
        self._hands.append(_Hand(cell, first, last, upcoming, self._begin(cell, first, last, upcoming)))

    def finish(self) -> ShardReport | Away:
        """Finishes the shard that was begun first, as Collector.finish does.

        Returns Away if the store or the hub does not answer. The shard stays here, and the driver calls `finish` again,
        which waits a little before it tries. So the driver decides how long to wait, and can tell an outage from an
        engine that hangs.
        """
        hand = self._hands[0]
        if hand.tries:
            time.sleep(pause(hand.tries))
            if not isinstance(hand.begun, Begun) or hand.begun.judged is None:
                hand.begun = self._begin(hand.cell, hand.first, hand.last, hand.upcoming)
        try:
            if isinstance(hand.begun, Exception):
                raise hand.begun
            report = self._collector(hand.cell.model).finish(hand.begun)
        except UnreachableError as error:
            hand.tries += 1
            return Away(str(error), error.kind)
        except EngineError as error:
            self._hands.popleft()
            if error.kind != OVER_BUDGET:
                raise
            return Away(str(error), error.kind, self._collector(hand.cell.model).unpaid())
        except Exception:
            self._hands.popleft()
            raise
        self._hands.popleft()
        return report

    def _begin(self, cell: Cell, first: int, last: int, upcoming: ModelRef | None) -> Begun | Exception:
        try:
            return self._collector(cell.model).begin(cell, first, last, upcoming, self._allowance)
        except Exception as error:
            return error

    def _collector(self, model: ModelRef) -> Collector:
        """The collector, made for the first shard: an error in __init__ would only leave a dead actor. A worker has
        models of one engine."""
        if self.collector is None:
            spec = self.spec
            use_datasets(self._here(spec.datasets) if spec.datasets else None)
            use_code(spec.allow_code)
            include = [self._here(folder) for folder in spec.include]
            weights = Weights(spec.disk_gib, self._passing)
            engine, options = (model.engine, {}) if model.engine else (spec.engine, spec.options)
            self.collector = Collector(spec.run_id, spec.lake, engine, options, include, weights)
        return self.collector

    def _passing(self) -> AbstractContextManager[None]:
        """The run's gate for downloads, if it has one."""
        if self.spec.gate is None:
            return contextlib.nullcontext()
        return passing(self.spec.gate, f"{platform.node()} {os.getpid()}")

    def _localized(self, model: M) -> M:
        return dataclasses.replace(model, path=self._here(model.path)) if model and model.path else model

    def _here(self, path: str) -> str:
        if not os.path.exists(path) and Path(path).is_relative_to(self.spec.base):
            return str(Path.cwd() / Path(path).relative_to(self.spec.base))
        return path
