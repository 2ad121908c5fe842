"""Collecting one shard: ask an engine the items of one cell, judge them, and commit the records.

Owns the order of things inside one shard and the facts kept beside it. Knows nothing of Ray: fleet.py calls it inside
an actor, tests call it directly.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.ahead import Ahead
from collectors.catalog import fetch, model_facts, tokenizer_fingerprint
from collectors.config import TaskSpec
from collectors.engines import Engine, ModelRef, make_engine
from collectors.harness.judge import record_table
from collectors.harness.packing import Prepared
from collectors.harness.prepared import RequestStore, code_fingerprint
from collectors.harness.requests import Asked, Requester
from collectors.harness.tasks import BoundTask, load_like
from collectors.lake import Lake
from schemas.identity import MODEL_IDENTITY, ShardName, safe_name
from schemas.records import MODEL

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One planned cell: all that a worker needs to collect any shard of it."""

    cell_id: str
    model: ModelRef
    spec: TaskSpec
    #: Task or group of the config that the task came from.
    group: str
    #: Hash of the prompting (schemas.identity): the worker's task must have the same.
    prompting: str
    generation: int
    #: Items asked for: 0..items-1.
    items: int


@dataclass(frozen=True)
class ShardReport:
    """What one shard took; kept in the shard's Parquet metadata and summed by the driver."""

    run_id: str
    items: int
    #: lm-eval's requests, and the engine's: one may answer several of lm-eval's (choices of one token), and
    #: `asked_again` of them were asked twice, because the prefix cache had reached into what was asked.
    instances: int
    requests: int
    asked_again: int
    failures: int
    engine_tokens: int
    #: Of engine_tokens, those that the prefix cache held; None: the engine does not tell.
    cached_tokens: int | None
    #: Whether the engine keeps one: without, each choice of several tokens has its context computed again.
    prefix_caching: bool | None
    #: Seconds inside the engine, of the whole shard, and of loading the model for it (0: already loaded).
    engine_seconds: float
    wall_seconds: float
    load_seconds: float
    #: Whether the model's weights took the place of another's in a live engine.
    swapped: bool
    tokens_per_second: float | None
    #: Requests in flight, on average over the time that any was.
    concurrency: float | None
    host: str
    #: Name of the GPU that answered; None on CPUs.
    gpu: str | None
    engine: str
    #: False: another worker had committed the shard first, and this one's records were dropped.
    committed: bool


class Collector:
    """One engine with the tasks and requests that it has built so far. For one thread, a process's main one.

    Judges of maths stop themselves by SIGALRM, and lm-eval calls an answer wrong where that cannot be set.
    """

    def __init__(self, run_id: str, lake: str, engine: str, options: dict[str, Any], include: list[str]) -> None:
        self.run_id = run_id
        self.lake = Lake(lake)
        self.engine_name = engine
        self.engine = make_engine(engine, options)
        self.include = include
        self._ahead = Ahead(self.engine)
        self._requester: Requester | None = None
        self._tasks: dict[str, BoundTask] = {}
        self.requests = RequestStore(self.lake)
        self._tokenizer = ""

    def collect(self, cell: Cell, first: int, last: int, upcoming: ModelRef | None = None) -> ShardReport:
        """Collects and commits items first..last (both included) of `cell`; `upcoming` is read ahead meanwhile.

        Raises ModelError, TaskError, EngineError or StorageError; nothing is written then.
        """
        started = time.monotonic()
        shard = ShardName(cell.cell_id, cell.generation, first, last)
        path = Lake.shard_path(cell.spec.task, shard)
        if self.lake.has(path):  # another run was faster: its records stand
            return self._report([], 0.0, 0.0, 0.0, committed=False)
        task = self._task(cell)
        requester, load_seconds = self._load(cell.model)
        if upcoming and self.engine_name != "stub":
            self._ahead.start(upcoming)
        instances, encoded = self._prepared(requester, task, cell).items(first, last)
        asking = time.monotonic()
        asked = requester.ask(instances, cell.cell_id, encoded)
        engine_seconds = time.monotonic() - asking
        table = record_table(task, asked, cell.cell_id, cell.model.name)
        report = self._report(asked, load_seconds, engine_seconds, time.monotonic() - started, committed=True)
        facts = dataclasses.asdict(report)
        facts.pop("committed")
        created = self.lake.create_table(path, table, {"shard": facts, "cell": self._cell_facts(cell, task)})
        if not created:
            logger.warning("cell %s: shard %s was there already; this copy is dropped", cell.cell_id, shard)
        return dataclasses.replace(report, committed=created)

    def _task(self, cell: Cell) -> BoundTask:
        if cell.prompting not in self._tasks:
            self._tasks[cell.prompting] = load_like(cell.spec, cell.group, cell.prompting, self.include)
        return self._tasks[cell.prompting]

    def _load(self, model: ModelRef) -> tuple[Requester, float]:
        """The model loaded in the engine, and the seconds that it took (0: it was loaded already)."""
        started = time.monotonic()
        held = self.engine.model
        if held and held.key == model.key and self._requester and self._requester.key == model.key:
            return self._requester, 0.0
        fetched = model if self.engine_name == "stub" else self._ahead.take(model) or fetch(model)
        key = self.engine.load(fetched)
        self._requester = Requester(self.engine, key)
        self._tokenizer = self._fingerprint()
        self.requests.forget_model()
        if self.engine.prefix_caching is False:
            logger.warning(
                "model %s: its engine keeps no prefix cache: the context of each choice of several tokens is computed "
                "again",
                model.name,
            )
        self._write_facts(model, self.engine)
        return self._requester, time.monotonic() - started

    def _write_facts(self, model: ModelRef, engine: Engine) -> None:
        """The model's row in models/, once per revision, from the files that were loaded."""
        name = f"models/{safe_name(model.name)}-{safe_name(model.revision)}.parquet"
        if engine.model and engine.model.path and not self.lake.has(name):
            row = model_facts(dataclasses.replace(model, path=engine.model.path))
            self.lake.create_table(name, pa.Table.from_pylist([row], schema=MODEL))

    def _fingerprint(self) -> str:
        """Of the loaded model's tokenizer."""
        path = self.engine.model.path if self.engine.model else None
        return tokenizer_fingerprint(Path(path)) if path else code_fingerprint(self.engine.tokenizer)

    def _prepared(self, requester: Requester, task: BoundTask, cell: Cell) -> Prepared:
        return self.requests.get(task, requester, self._tokenizer, cell.items)

    def _cell_facts(self, cell: Cell, task: BoundTask) -> dict[str, Any]:
        model = {key: getattr(cell.model, key) for key in ("source", *MODEL_IDENTITY)}
        return {"cell_id": cell.cell_id, "model": model, "prompting": dataclasses.asdict(task.facts)}

    def _report(self, asked: list[Asked], load: float, engine: float, wall: float, *, committed: bool) -> ShardReport:
        answers = [answer for one in asked for answers in one.answers for answer in answers]
        usages = [usage for answer in answers for usage in answer.usages]
        tokens = sum(u.prompt_tokens + u.generated_tokens for u in usages)
        cached = [u.cached_tokens for u in usages if u.cached_tokens is not None]
        timed = [(u.scheduled, u.finished) for u in usages if u.scheduled is not None and u.finished is not None]
        return ShardReport(
            run_id=self.run_id,
            items=len(asked),
            instances=len(answers),
            requests=len(usages),
            asked_again=sum(answer.asked_again for answer in answers),
            failures=sum(1 for one in asked if one.failure),
            engine_tokens=tokens,
            cached_tokens=sum(cached) if len(cached) == len(usages) else None,
            prefix_caching=self.engine.prefix_caching,
            engine_seconds=engine,
            wall_seconds=wall,
            load_seconds=load,
            swapped=self.engine.swapped,
            tokens_per_second=tokens / engine if engine > 0 else None,
            concurrency=_concurrency(timed),
            host=platform.node(),
            gpu=self.engine.gpu,
            engine=self.engine_name,
            committed=committed,
        )


def _concurrency(spans: list[tuple[float, float]]) -> float | None:
    """Mean number of open spans over the time from the first start to the last end; None without spans."""
    if not spans:
        return None
    length = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(end - start for start, end in spans) / length if length > 0 else None
