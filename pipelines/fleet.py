"""Engines on a Ray cluster: who works on which shard, and what happens when one breaks.

Owns actors, placement, retries and the order of work. The only module that imports Ray; an actor holds a
collectors.cell.Collector and knows nothing else. State lives in the lake alone: an actor or driver that dies loses at
most the shard in hand. Every call carries the whole cell, so a restarted actor loads the model that the call names
instead of answering with whatever its constructor knew.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from collectors.cell import Cell, Collector, ShardReport
from collectors.config import FleetSpec
from collectors.harness.tasks import use_datasets
from collectors.lake import Lake
from collectors.planning import Plan, PlannedCell, failure_row, write_failure
from pipelines.progress import Progress
from schemas.failures import ConfigError, EngineError, ModelError, RouterlakeError, StorageError, TaskError, one_line
from schemas.identity import MAX_SHARD_ITEMS

logger = logging.getLogger(__name__)

#: Deaths of an engine process under one model, without a committed shard between them, after which it is given up.
MAX_DEATHS = 2

#: How often a cluster of our own is started before the run is given up.
START_TRIES = 3


@dataclass(frozen=True)
class WorkerSpec:
    """What an actor needs to know before its first shard."""

    run_id: str
    lake: str
    engine: str
    options: dict[str, Any]
    include: list[str]
    datasets: str | None
    #: The driver's folder: paths below it are looked for below the actor's own, where Ray unpacked the job's files.
    base: str


@ray.remote(max_restarts=0)
class Worker:
    """One engine process. Restarts are the driver's business: only it knows which shard was in hand."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.collector: Collector | None = None

    def collect(self, cell: Cell, first: int, last: int) -> ShardReport:
        """See Collector.collect. It is made here, not in __init__: its errors then are errors, not a dead actor."""
        if self.collector is None:
            spec = self.spec
            use_datasets(self._here(spec.datasets) if spec.datasets else None)
            include = [self._here(folder) for folder in spec.include]
            self.collector = Collector(spec.run_id, spec.lake, spec.engine, spec.options, include)
        if cell.model.path:
            cell = dataclasses.replace(cell, model=dataclasses.replace(cell.model, path=self._here(cell.model.path)))
        return self.collector.collect(cell, first, last)

    def _here(self, path: str) -> str:
        if not os.path.exists(path) and Path(path).is_relative_to(self.spec.base):
            return str(Path.cwd() / Path(path).relative_to(self.spec.base))
        return path


@dataclass
class Job:
    """A shard in hand."""

    planned: PlannedCell
    first: int
    last: int
    tries: int = 0


class WorkQueue:
    """The shards that are left, cut as they are taken. A worker keeps its model as long as that has work."""

    def __init__(self, cells: list[PlannedCell], spec: FleetSpec) -> None:
        self._spec = spec
        self._cells: dict[str, list[PlannedCell]] = {}
        self._gaps: dict[str, deque[tuple[int, int]]] = {}
        self._retries: dict[str, deque[Job]] = {}
        self._seconds_per_item: dict[str, float] = {}
        for planned in cells:
            if planned.todo:
                self._cells.setdefault(planned.cell.model.key, []).append(planned)
                self._gaps[planned.cell.cell_id] = deque(planned.todo)

    def take(self, current: str | None, busy: Counter[str]) -> Job | None:
        """The next shard: of the model that the worker holds, else of the fullest model with the fewest workers."""
        if current and (job := self._take_from(current)):
            return job
        for model in sorted(self._cells, key=lambda m: (busy[m], -self._items_left(m))):
            if job := self._take_from(model):
                return job
        return None

    def _take_from(self, model: str) -> Job | None:
        if retries := self._retries.get(model):
            return retries.popleft()
        for planned in self._cells.get(model, []):
            gaps = self._gaps[planned.cell.cell_id]
            if gaps:
                first, last = gaps.popleft()
                cut = min(last, first + self._shard_items(planned.cell.cell_id) - 1)
                if cut < last:
                    gaps.appendleft((cut + 1, last))
                return Job(planned, first, cut)
        return None

    def _shard_items(self, cell_id: str) -> int:
        pace = self._seconds_per_item.get(cell_id)
        if pace is None:
            return self._spec.first_shard_items
        return max(1, min(MAX_SHARD_ITEMS, int(self._spec.shard_seconds / max(pace, 1e-9))))

    def _items_left(self, model: str) -> int:
        return sum(b - a + 1 for planned in self._cells[model] for a, b in self._gaps[planned.cell.cell_id])

    def learn(self, job: Job, report: ShardReport) -> None:
        """Takes the pace of a finished shard as that of the cell's next; loading the model is not part of it."""
        if report.items:
            pace = (report.wall_seconds - report.load_seconds) / report.items
            self._seconds_per_item[job.planned.cell.cell_id] = pace

    def retry(self, job: Job) -> None:
        self._retries.setdefault(job.planned.cell.model.key, deque()).append(
            dataclasses.replace(job, tries=job.tries + 1)
        )

    def drop_cell(self, cell_id: str) -> None:
        self._gaps[cell_id] = deque()
        for model, jobs in self._retries.items():
            self._retries[model] = deque(j for j in jobs if j.planned.cell.cell_id != cell_id)


class Fleet:
    """Runs a plan's open shards on `workers` actors until none is left. See `run`."""

    def __init__(self, plan: Plan, lake: Lake, worker: WorkerSpec, workers: int, resources: dict[str, float]) -> None:
        self.plan = plan
        self.lake = lake
        self.worker_spec = worker
        self.workers = workers
        self.resources = resources
        open_cells = [p for p in plan.cells if p.todo]
        self.queue = WorkQueue(open_cells, plan.config.fleet)
        self.left = {p.cell.cell_id: p.items_todo for p in open_cells}
        self.failed: dict[str, str] = {}
        self.progress = Progress(cells=len(open_cells), items=plan.items_todo, workers=workers)
        self._deaths: Counter[str] = Counter()
        self._holds: dict[Any, str | None] = {}
        self._jobs: dict[Any, tuple[Any, Job]] = {}

    def run(self) -> None:
        """Works until every cell is collected or failed. Raises StorageError when the lake cannot be written."""
        with self.progress:
            for _ in range(self.workers):
                self._start_worker()
            while self._jobs:
                ready, _ = ray.wait(list(self._jobs), num_returns=1, timeout=1.0)
                for future in ready:
                    self._finish(future)
                self.progress.tick()

    def _start_worker(self) -> None:
        actor = Worker.options(**self.resources).remote(self.worker_spec)  # type: ignore[attr-defined]
        self._holds[actor] = None
        self._give(actor)

    def _give(self, actor: Any) -> None:
        busy = Counter(job.planned.cell.model.key for _, job in self._jobs.values())
        job = self.queue.take(self._holds[actor], busy)
        model = job.planned.cell.model.key if job else None
        held = self._holds[actor]
        if held is not None and model != held and self.resources.get("num_gpus") and job:
            # On a GPU a process gives its memory back only by ending: a new model gets a new one.
            self.queue.retry(dataclasses.replace(job, tries=job.tries - 1))
            self._stop_worker(actor)
            self._start_worker()
            return
        if job is None:
            self._stop_worker(actor)
            return
        self._holds[actor] = model
        self._jobs[actor.collect.remote(job.planned.cell, job.first, job.last)] = (actor, job)

    def _stop_worker(self, actor: Any) -> None:
        ray.kill(actor)
        del self._holds[actor]

    def _finish(self, future: Any) -> None:
        actor, job = self._jobs.pop(future)
        moot = job.planned.cell.cell_id in self.failed  # failed while this shard was under way
        try:
            report: ShardReport = ray.get(future)
        except RayActorError as error:
            del self._holds[actor]
            if not moot:
                self._died(job, error)
            self._start_worker()
            return
        except RayError as error:
            cause = getattr(error, "cause", None)
            if not moot:
                self._broke(job, cause if isinstance(cause, Exception) else error)
        else:
            if not moot:
                self._done(job, report)
        self._give(actor)

    def _done(self, job: Job, report: ShardReport) -> None:
        cell = job.planned.cell
        items = job.last - job.first + 1
        self._deaths[cell.model.key] = 0
        self.queue.learn(job, report)
        self.progress.shards += report.committed
        self.progress.dropped_shards += not report.committed
        self.progress.items_done += items
        self.progress.engine_tokens += report.engine_tokens
        self.left[cell.cell_id] -= items
        if self.left[cell.cell_id] == 0:
            self.progress.cells_done += 1
        logger.debug("cell %s %s: items %d-%d %s", cell.cell_id, cell.spec.task, job.first, job.last, report)

    def _died(self, job: Job, error: Exception) -> None:
        model = job.planned.cell.model
        self._deaths[model.key] += 1
        logger.warning("model %s: its engine process died (%s)", model.name, one_line(error, 160))
        if self._deaths[model.key] >= MAX_DEATHS:
            message = f"the engine process died {MAX_DEATHS} times under this model: {one_line(error)}"
            self._fail_model(job, EngineError(message, "engine_died"))
        else:
            self.queue.retry(job)

    def _broke(self, job: Job, error: BaseException) -> None:
        if isinstance(error, StorageError):
            raise error
        if isinstance(error, ModelError):
            self._fail_model(job, error)
        elif isinstance(error, TaskError) or job.tries >= 1:
            self._fail_cell(job.planned, job, error)
        else:
            logger.warning("cell %s: %s; trying the shard once more", job.planned.cell.cell_id, one_line(error))
            self.queue.retry(job)

    def _fail_model(self, job: Job, error: BaseException) -> None:
        key = job.planned.cell.model.key
        for planned in self.plan.cells:
            if planned.cell.model.key == key and self.left.get(planned.cell.cell_id, 0) > 0:
                self._fail_cell(planned, job if planned is job.planned else None, error)

    def _fail_cell(self, planned: PlannedCell, job: Job | None, error: BaseException) -> None:
        cell = planned.cell
        if cell.cell_id in self.failed:
            return
        self.failed[cell.cell_id] = one_line(error)
        self.queue.drop_cell(cell.cell_id)
        self.progress.cells_failed += 1
        self.progress.items -= self.left[cell.cell_id]
        place = {"first_item": job.first, "last_item": job.last} if job else {}
        row = failure_row(
            self.plan.run_id, error, model=cell.model.name, task=cell.spec.task, cell_id=cell.cell_id, **place
        )
        write_failure(self.lake, row)
        log = logger.error if isinstance(error, RouterlakeError) else logger.exception
        log("cell %s (%s, %s) failed: %s", cell.cell_id, cell.model.name, cell.spec.task, row["message"])


@contextmanager
def cluster(address: str | None, *, verbose: bool = False) -> Iterator[None]:
    """Connects to Ray: at `address`, inside a Ray job to its own cluster, else to one started for this run only.

    A cluster of our own gets its own folder and `address="local"`: plain ray.init() would join whatever cluster the
    machine's current-cluster file names.
    """
    settings: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    folder = None
    if address:
        _check_address(address)
    else:
        folder = tempfile.mkdtemp(prefix="routerlake-")
        settings |= {"_temp_dir": folder, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    _init(address or "local", settings)
    try:
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _init(address: str, settings: dict[str, Any]) -> None:
    """ray.init(), again where a cluster of our own did not start: Ray gives its processes 30 s, whatever the load."""
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(address=address, **settings)
            return
        except Exception as error:  # Ray raises a bare Exception for it
            ray.shutdown()
            if address != "local":
                raise ConfigError(f"cannot join the Ray cluster at {address}: {one_line(error)}") from error
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise EngineError(f"Ray did not start on this machine: {one_line(error)}") from error
            logger.warning("Ray did not start within its 30 s; trying again")


def _check_address(address: str) -> None:
    """Raises ConfigError where nothing listens at host:port: ray.init() would try for many minutes, past SIGTERM."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # "auto", "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster at {address} (fleet.address or RAY_ADDRESS): {one_line(error)}") from error


def placement(spec: FleetSpec, models: int) -> tuple[int, dict[str, float]]:
    """How many workers the connected cluster gets, and the resources of each. Raises ConfigError when none fits.

    With `workers` set the count stands: a cluster that scales up may start without room.
    """
    total = ray.cluster_resources()
    gpus = spec.gpus_per_worker if spec.gpus_per_worker is not None else float(total.get("GPU", 0) > 0)
    on_cpus = min(int(total.get("CPU", 1) / spec.cpus_per_worker), models)
    fits = int(total.get("GPU", 0) / gpus) if gpus else on_cpus
    resources = {"num_cpus": spec.cpus_per_worker, "num_gpus": gpus}
    if fits < 1 and not spec.workers:
        have = f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
        raise ConfigError(f"fleet: no node fits a worker of {resources}; the cluster has {have}")
    return spec.workers or fits, resources


def run_plan(plan: Plan, lake: Lake, *, verbose: bool = False) -> Fleet:
    """Collects what `plan` left open on a Ray cluster. Raises StorageError, or ConfigError without a cluster."""
    config = plan.config
    worker = WorkerSpec(
        run_id=plan.run_id,
        lake=lake.uri,
        engine=config.engine.name,
        options=config.engine.options,
        include=[str(Path(folder).expanduser().absolute()) for folder in config.include_tasks],
        datasets=str(Path(config.datasets).expanduser().absolute()) if config.datasets else None,
        base=os.getcwd(),
    )
    with cluster(config.fleet.address, verbose=verbose):
        models = len({p.cell.model.key for p in plan.cells if p.todo})
        workers, resources = placement(config.fleet, models)
        fleet = Fleet(plan, lake, worker, workers, resources)
        logger.info("starting %d engines; each first load of a model takes a minute or so", workers)
        fleet.run()
    return fleet
