"""Collects one shard: asks an engine the items of one cell, judges the answers, and commits the records.

Owns the order of steps inside one shard, their overlap, and the shard's metadata. Knows nothing of Ray: a worker calls
it inside an actor, tests call it directly.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.engines import Engine, ModelRef, Serving, make_engine
from collectors.engines.gpus import class_of
from collectors.harness.judge import record_table
from collectors.harness.loading import load_like
from collectors.harness.prepared import RequestStore, code_fingerprint
from collectors.harness.requests import Asked, Requester
from collectors.harness.tasks import BoundTask
from collectors.judging.judges import Judges
from collectors.lake import layout
from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from collectors.models.ahead import Ahead
from collectors.models.model_files import model_row
from collectors.models.pinning import tokenizer_fingerprint
from collectors.models.weights import Held, Weights
from collectors.runs.aggregates import covers_of, rows_of_records
from collectors.runs.code import code_version
from collectors.runs.log_lines import about
from collectors.runs.stages import Stages, in_prefill
from collectors.runs.work import NO_LIMIT, Allowance, Cell, ShardReport
from schemas.failures import EngineError, TaskError
from schemas.identity import MODEL_IDENTITY, ShardName, digest
from schemas.records import MODEL, SUSPICION

logger = logging.getLogger(__name__)


@dataclass
class Begun:
    """A shard under way, from Collector.begin to Collector.finish."""

    cell: Cell
    shard: ShardName
    #: None if another run has committed the shard.
    task: BoundTask | None
    stages: Stages
    answers: Future[list[Asked]] | None = None
    #: What an endpoint did for the shard; None: an engine answered.
    served: dict[str, Any] | None = None
    allowance: Allowance = NO_LIMIT
    #: The records and their report, once judged; only the writing is left then.
    judged: tuple[pa.Table, ShardReport] | None = None


class Collector:
    """One engine, with the tasks, requests and judges that were built for it. Use it in one thread.

    The engine works in a thread of its own, shard after shard. So it answers one shard while the caller's thread builds
    requests of the next, or judges and writes answers of the one before.
    """

    def __init__(
        self,
        run_id: str,
        lake: str,
        engine: str,
        options: dict[str, Any],
        include: list[str],
        weights: Weights | None = None,
    ) -> None:
        self.run_id = run_id
        self.lake = Lake(lake, is_open=True)
        self.engine_name = engine
        self.engine = make_engine(engine, options)
        self.include = include
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._weights = weights or Weights()
        self._ahead = Ahead(self.engine, self._weights)
        #: The files of the loaded model.
        self._files: Held | None = None
        #: When the engine finished its last shard (monotonic clock); None before the first and after loading a model.
        self._rested: float | None = None
        #: Seconds to write the shard before. A report cannot have its own, because it is written with the shard.
        self._written = 0.0
        self._requester: Requester | None = None
        self._unreported = 0.0
        self._tasks: dict[str, BoundTask] = {}
        self._item_sets = ItemSets(self.lake)
        self._judges = Judges(include)
        self.requests = RequestStore(self.lake)
        self._tokenizer = ""
        #: Whether the lake holds the run's plan, which every commit then expects to be there.
        self._is_planned = self.lake.has(layout.run_name(run_id))

    def collect(self, cell: Cell, first: int, last: int, upcoming: ModelRef | None = None) -> ShardReport:
        """Collects and commits a shard of `cell`, and reads `upcoming` ahead.

        `first` and `last` (both included) are its items, or their places in the cell's list.

        Raises ModelError, TaskError, EngineError or StorageError, and then writes nothing.
        """
        return self.finish(self.begin(cell, first, last, upcoming))

    def begin(
        self,
        cell: Cell,
        first: int,
        last: int,
        upcoming: ModelRef | None = None,
        allowance: Allowance = NO_LIMIT,
    ) -> Begun:
        """Queues a shard at the engine behind the shards begun before. Raises ModelError, TaskError or EngineError."""
        with about(cell):
            return self._begin(cell, first, last, upcoming, allowance)

    def unpaid(self) -> float:
        """Dollars that the engine's endpoint was paid and no report holds; they are handed out once."""
        usd, self._unreported = self._unreported, 0.0
        return usd

    def _begin(self, cell: Cell, first: int, last: int, upcoming: ModelRef | None, allowance: Allowance) -> Begun:
        asked = self._item_sets.of(cell.item_set)[first : last + 1] if cell.item_set else range(first, last + 1)
        shard = ShardName(cell.cell_id, cell.generation, asked[0], asked[-1], cell.item_set)
        begun = Begun(cell, shard, None, Stages(), allowance=allowance)
        if self.lake.has(layout.shard_name(cell.spec.task, shard)):  # another run was faster
            return begun
        with begun.stages.of("tasks"):
            task = begun.task = self._task(cell)
        if self._requester is None or self._requester.key != cell.model.key:
            self._engine_thread.submit(copy_context().run, self._load, cell.model, begun.stages).result()
        assert self._requester
        if upcoming and self.engine.needs_files:
            self._ahead.start(upcoming)
        with begun.stages.of("build"):
            self._requester.chat_date = cell.chat_date
            self._requester.template_args = json.loads(cell.effort.chat_template_args or "{}")
            prepared = self.requests.get(task, self._requester, self._tokenizer, cell.items)
            instances, encoded = prepared.items(asked)
        begun.answers = self._engine_thread.submit(copy_context().run, self._ask, begun, instances, encoded)
        return begun

    def finish(self, begun: Begun) -> ShardReport:
        """Waits for the engine's answers, judges them and commits the shard. Raises as `collect` does.

        After an UnreachableError call it again: a shard that is judged is then only written.
        """
        with about(begun.cell):
            return self._finish(begun)

    def _finish(self, begun: Begun) -> ShardReport:
        cell, task, stages = begun.cell, begun.task, begun.stages
        if task is None or begun.answers is None:
            return self._report(cell.model, [], stages, committed=False)
        if begun.judged is None:
            asked = begun.answers.result()
            with stages.of("judge"):
                table = record_table(task, asked, cell.cell_id, cell.model.name, self._judges.judge)
            begun.judged = table, self._report(cell.model, asked, stages, committed=True, served=begun.served)
        table, report = begun.judged
        statistics = dataclasses.asdict(report)
        for name in ("committed", "worker", "spans", "aggregates", "scores"):
            del statistics[name]
        with stages.of("write"):
            if self._is_planned:
                self.lake.check_holds(layout.run_name(self.run_id))
            path = layout.shard_name(cell.spec.task, begun.shard)
            created = self.lake.create_table(path, table, {"shard": statistics, "cell": self._identity(cell, task)})
        self._written = stages.seconds["write"]
        if not created:
            logger.warning("cell %s: another worker committed shard %s; dropping this copy", cell.cell_id, begun.shard)
        worker = f"{platform.node()} {os.getpid()}"
        rows = self._aggregates(begun, task, table) if created else []
        if created and begun.served and begun.served["suspicions"]:
            self._write_suspicions(cell, begun.served["suspicions"])
        scores = _scores(table, task.settings.filter) if created else {}
        return dataclasses.replace(
            report, committed=created, worker=worker, spans=stages.spans, aggregates=rows, scores=scores
        )

    def _write_suspicions(self, cell: Cell, suspicions: list[dict[str, str]]) -> None:
        """Names what looked wrong in an endpoint's replies, for the views suspicions and coverage."""
        whose = {"import_id": self.run_id, "imported_from": cell.model.name, "model": cell.model.name}
        rows = [{**whose, "task": cell.spec.task, "cell_id": cell.cell_id, **one} for one in suspicions]
        name = layout.suspicions_name(f"{self.run_id}-{digest(rows)}")
        self.lake.create_table(name, pa.Table.from_pylist(rows, schema=SUSPICION))

    def _aggregates(self, begun: Begun, task: BoundTask, table: pa.Table) -> list[dict[str, Any]]:
        """Returns the values of metrics over the cell, if the shard is the whole of it; else the run's end has them."""
        cell, shard = begun.cell, begun.shard
        if (shard.generation, shard.first, shard.last, shard.item_set) != (0, 0, cell.items - 1, ""):
            return []
        try:
            return rows_of_records(cell, task, self._judges, table, covers_of([shard]))
        except (TaskError, EngineError) as error:
            logger.warning("cell %s: no aggregates: %s", cell.cell_id, error)
            return []

    def _ask(self, begun: Begun, instances: Any, encoded: Any) -> list[Asked]:
        """Runs in the engine's thread. The model is loaded, unless the shard before this one broke the engine."""
        requester = self._load(begun.cell.model, begun.stages)
        if self._rested is not None:
            begun.stages.add("idle", self._rested, time.monotonic())
        answered = False
        if isinstance(self.engine, Serving):
            self.engine.may_spend(begun.allowance.usd, begun.allowance.prices)
        assert begun.task is not None
        requester.prefix_of = begun.task.task.doc_to_prefix
        try:
            with begun.stages.of("engine"):
                cell = begun.cell
                cut = cell.spec.overlong == "truncate"
                asked = requester.ask(
                    instances,
                    cell.cell_id,
                    encoded,
                    cell.generation_config,
                    context=cell.context,
                    cut=cut,
                    effort=cell.effort,
                    owner=f"{cell.cell_id}-g{cell.generation}" if cell.model.endpoint else "",
                )
            answered = True
            return asked
        finally:
            self._rested = time.monotonic()
            if isinstance(self.engine, Serving) and self.engine.model:
                begun.served = self.engine.take_statistics(f"{begun.cell.cell_id}-g{begun.cell.generation}")
                if not answered:
                    self._unreported += begun.served["usd"]

    def _task(self, cell: Cell) -> BoundTask:
        if cell.prompting not in self._tasks:
            task = self._tasks[cell.prompting] = load_like(cell.spec, cell.group, cell.prompting, self.include)
            self._judges.plan(task, cell.group)
        return self._tasks[cell.prompting]

    def _load(self, model: ModelRef, stages: Stages) -> Requester:
        """Loads the model unless the engine has it. Runs in the engine's thread."""
        held = self.engine.model
        if held and held.key == model.key and self._requester and self._requester.key == model.key:
            return self._requester
        with stages.of("fetch"):
            files = self._ahead.take(model) or self._weights.take(model) if self.engine.needs_files else Held(model)
        try:
            with stages.of("load"):
                key = self.engine.load(files.model)
        except BaseException:
            files.release()
            raise
        if self._files:
            self._files.release()  # only now: an engine may still read the former model's files to load the next
        self._files = files
        self._rested = None  # the time to load does not count as idle
        same = self._requester is not None and self._requester.key == key
        self._requester = Requester(self.engine, key)
        if not same:  # the main thread may still use the requests of the same model
            self._tokenizer = self._fingerprint()
            self.requests.forget_model()
        if self.engine.prefix_caching is False:
            logger.warning(
                "model %s: its engine has no prefix cache: it computes the context again for each choice of several "
                "tokens",
                model.name,
            )
        self._write_model_row(model, self.engine)
        logger.info("model %s: loaded", model.name)
        return self._requester

    def _write_model_row(self, model: ModelRef, engine: Engine) -> None:
        """Writes the model's row in models/, once for each revision, from the files that were loaded."""
        if model.has_row:
            return
        name = layout.model_name(model.name, model.revision)
        if engine.model and engine.model.path and not self.lake.has(name):
            row = model_row(dataclasses.replace(model, path=engine.model.path))
            self.lake.create_table(name, pa.Table.from_pylist([row], schema=MODEL))

    def _fingerprint(self) -> str:
        """Fingerprint of the loaded model's tokenizer."""
        path = self.engine.tokenizer_folder or (self.engine.model.path if self.engine.model else None)
        return tokenizer_fingerprint(Path(path)) if path else code_fingerprint(self.engine.tokenizer)

    def _identity(self, cell: Cell, task: BoundTask) -> dict[str, Any]:
        """The cell's identity for the shard's metadata."""
        model = {"source": cell.model.named_source} | {key: getattr(cell.model, key) for key in MODEL_IDENTITY}
        own = {"settings": cell.settings} if cell.settings else {}
        return {"cell_id": cell.cell_id, "model": model, "prompting": dataclasses.asdict(task.settings), **own}

    def _report(
        self,
        model: ModelRef,
        asked: list[Asked],
        stages: Stages,
        *,
        committed: bool,
        served: dict[str, Any] | None = None,
    ) -> ShardReport:
        answers = [answer for one in asked for answers in one.answers for answer in answers]
        usages = [usage for answer in answers for usage in answer.usages]
        tokens = sum(u.tokens or 0 for u in usages)
        cached = [u.cached_tokens for u in usages if u.cached_tokens is not None]
        timed = [(u.scheduled, u.finished) for u in usages if u.scheduled is not None and u.finished is not None]
        engine = stages.seconds.get("engine", 0.0)
        prefill = in_prefill(usages)
        placement = model.placement
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
            wall_seconds=stages.wall(),
            load_seconds=sum(stages.seconds.get(name, 0.0) for name in ("fetch", "load")),
            swapped=self.engine.swapped,
            tokens_per_second=tokens / engine if engine > 0 else None,
            concurrency=_concurrency(timed),
            host=platform.node(),
            gpu=self.engine.gpu,
            gpu_class=placement.gpu if placement else class_of(self.engine.gpu),
            gpus=placement.gpus if placement else None,
            engine=self.engine_name,
            stages=stages.seconds | ({} if prefill is None else {"prefill": prefill}) | {"write": self._written},
            committed=committed,
            code=code_version(),
            served=served,
        )


def _scores(records: pa.Table, primary: str) -> dict[int, float]:
    """Item -> its score by the primary filter; items without one are left out."""
    rows = zip(*(records[name].to_pylist() for name in ("item", "filter", "repeat", "score")), strict=True)
    return {item: score for item, of, repeat, score in rows if (of, repeat) == (primary, 0) and score is not None}


def _concurrency(spans: list[tuple[float, float]]) -> float | None:
    """Mean number of open spans over the time from the first start to the last end; None without spans."""
    if not spans:
        return None
    length = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(end - start for start, end in spans) / length if length > 0 else None
