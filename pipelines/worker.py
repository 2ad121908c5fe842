"""One engine process of a fleet: a Ray actor around a collectors.cell.Collector.

Owns what a process has in hand. Every call carries the whole cell, so a restarted actor loads the model that the call
names instead of answering with whatever its constructor knew.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray

from collectors.cell import Begun, Cell, Collector, ShardReport
from collectors.engines import ModelRef
from collectors.harness.tasks import use_datasets
from collectors.log_lines import log_as_json, quieten
from pipelines.outage import Away, pause
from schemas.failures import UnreachableError

M = TypeVar("M", ModelRef, ModelRef | None)


@dataclass(frozen=True)
class WorkerSpec:
    """What an actor needs to know before its first shard."""

    run_id: str
    lake: str
    engine: str
    options: dict[str, Any]
    include: list[str]
    datasets: str | None
    #: FleetSpec's.
    disk_gib: float | None
    #: The driver's folder: paths below it are looked for below the actor's own, where Ray unpacked the job's files.
    base: str
    log_json: bool = False


@dataclass
class _Hand:
    """A shard that was begun, or has to be begun again."""

    cell: Cell
    first: int
    last: int
    upcoming: ModelRef | None
    begun: Begun | Exception
    tries: int = 0


@ray.remote(max_restarts=0)
class Worker:
    """One engine process. Restarts are the driver's business: only it knows which shard was in hand."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        if spec.log_json:
            log_as_json(spec.run_id)
            logging.getLogger().setLevel(logging.INFO)
            quieten()
        self.collector: Collector | None = None
        self._hands: deque[_Hand] = deque()

    def ready(self) -> None:
        """Answers once Ray has found room for this process and started it."""

    def begin(self, cell: Cell, first: int, last: int, upcoming: ModelRef | None) -> None:
        """See Collector.begin. What goes wrong is said by `finish`, which the driver waits for."""
        cell, upcoming = dataclasses.replace(cell, model=self._found(cell.model)), self._found(upcoming)
        self._hands.append(_Hand(cell, first, last, upcoming, self._begin(cell, first, last, upcoming)))

    def finish(self) -> ShardReport | Away:
        """See Collector.finish: of the shard that was begun first, which stays in hand while `Away` is the answer.

        The driver is told at once, so that it knows the difference from an engine that hangs, and has the patience: a
        worker waits a little before it tries again.
        """
        hand = self._hands[0]
        if hand.tries:
            time.sleep(pause(hand.tries))
            if not isinstance(hand.begun, Begun) or hand.begun.judged is None:
                hand.begun = self._begin(hand.cell, hand.first, hand.last, hand.upcoming)
        try:
            if isinstance(hand.begun, Exception):
                raise hand.begun
            report = self._collector().finish(hand.begun)
        except UnreachableError as error:
            hand.tries += 1
            return Away(str(error), error.kind)
        except Exception:
            self._hands.popleft()
            raise
        self._hands.popleft()
        return report

    def _begin(self, cell: Cell, first: int, last: int, upcoming: ModelRef | None) -> Begun | Exception:
        try:
            return self._collector().begin(cell, first, last, upcoming)
        except Exception as error:
            return error

    def _collector(self) -> Collector:
        """Made by the first shard, not in __init__: its errors then are errors, not a dead actor."""
        if self.collector is None:
            spec = self.spec
            use_datasets(self._here(spec.datasets) if spec.datasets else None)
            include = [self._here(folder) for folder in spec.include]
            self.collector = Collector(spec.run_id, spec.lake, spec.engine, spec.options, include, spec.disk_gib)
        return self.collector

    def _found(self, model: M) -> M:
        return dataclasses.replace(model, path=self._here(model.path)) if model and model.path else model

    def _here(self, path: str) -> str:
        if not os.path.exists(path) and Path(path).is_relative_to(self.spec.base):
            return str(Path.cwd() / Path(path).relative_to(self.spec.base))
        return path
