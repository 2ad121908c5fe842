"""Judges the answers of a lake again by lm-eval's own task, and writes the verdicts by shard.

Owns the identity of a judge, and resuming: an object with verdicts is named by its judge and shard, created whole, and
never made again. Knows nothing of how work is spread over processes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.harness.stored import bind_stored, judging_digest, verdict_rows
from collectors.harness.tasks import BoundTask, decoding_of
from collectors.judging.judges import Judges
from collectors.lake import layout
from collectors.lake.store import Lake
from collectors.sandbox import bubblewrap
from collectors.specs import TaskSpec
from collectors.verdicts.aggregating import write_aggregates
from collectors.verdicts.answers import Asked, Batch, Source
from schemas.failures import RouterlakeError, one_line
from schemas.identity import digest
from schemas.records import JUDGE, VERDICT

logger = logging.getLogger(__name__)

#: Columns of JUDGE that are its identity, in judge_id.
IDENTITY = JUDGE.names[1 : JUDGE.names.index("made_at")]
_LIBRARIES = ("lm-eval", "sympy", "math-verify", "numpy", "routerlake")


@dataclass(frozen=True)
class Choice:
    """What a person chooses: how the answers are judged again."""

    #: The judge's name in the lake.
    name: str
    #: Metric and filter behind the score; None: the task's first.
    metric: str | None = None
    filter: str | None = None
    #: Folders with tasks of the user's own.
    include: tuple[str, ...] = ()
    #: Whether tasks that run answers do so in the sandbox; for cells that were collected so, always.
    in_sandbox: bool = False


@dataclass
class Report:
    """What was done."""

    judged: int = 0
    shards: int = 0
    #: Items of shards that had verdicts of this judge before.
    known: int = 0
    #: Items without a verdict, by our fault.
    unjudged: int = 0
    #: Task -> why its answers were not judged.
    failed: dict[str, str] = field(default_factory=dict)
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        self.judged, self.shards = self.judged + other.judged, self.shards + other.shards
        self.known, self.unjudged = self.known + other.known, self.unjudged + other.unjudged
        self.failed |= other.failed
        self.judges |= other.judges


class Tasks:
    """Today's tasks over the documents of lakes, and one judging process that knows them. Close it."""

    def __init__(self, include: Sequence[str] = ()) -> None:
        self.include = list(include)
        self.judges = Judges(self.include)
        self._folder = tempfile.TemporaryDirectory(prefix="routerlake-documents-")
        self._tasks: dict[str, BoundTask] = {}

    def __enter__(self) -> Tasks:
        return self

    def __exit__(self, *_: object) -> None:
        self.judges.close()
        self._folder.cleanup()

    def task(self, source: Source, batch: Batch, choice: Choice) -> BoundTask:
        """Raises TaskError where it cannot be loaded over these documents, ConfigError without its metric or filter."""
        spec = TaskSpec(
            task=batch.task,
            metric=choice.metric,
            filter=choice.filter,
            decoding=decoding_of(batch.decoding),
            code="sandbox" if choice.in_sandbox or batch.in_sandbox else None,
        )
        docs = source.documents(batch.task, batch.items_digest)
        key = digest([spec.model_dump(mode="json"), docs])
        if key not in self._tasks:
            task = bind_stored(spec, self.include, docs)
            path = Path(self._folder.name, f"{key}.jsonl")
            path.write_text("".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs), encoding="utf-8")
            self.judges.plan_stored(task, str(path))
            self._tasks[key] = task
        return self._tasks[key]


def judge_batches(
    lake: Lake,
    source: Source,
    batches: Sequence[Batch],
    choice: Choice,
    tasks: Tasks,
    progress: Callable[[int], None] = lambda records: None,
) -> Report:
    """Judges the answers of `batches` that have no verdict of this judge yet. A task that fails costs itself alone.

    `progress` gets the number of records that were done since its last call, judged or not.
    """
    done = set(lake.names(layout.VERDICTS))
    report = Report()
    judged: list[tuple[Batch, BoundTask, str]] = []
    for batch in batches:
        left = Counted(batch.rows, progress)
        try:
            task = tasks.task(source, batch, choice)
            done_here = _judge_batch(lake, source, batch, task, tasks.judges, choice, done, left)
            report.add(done_here)
            judged += [(batch, task, judge_id) for judge_id in done_here.judges]
        except RouterlakeError as error:
            logger.warning("task %s: not judged: %s", batch.task, one_line(error))
            report.failed[batch.task] = one_line(error)
        left.end()
    if judged:
        # With the verdicts that were written since. A listing takes long, and without any the first one is whole.
        newest = Source(lake, source.holdings.include) if report.shards else source
        write_aggregates(lake, newest, judged, tasks.judges)
    return report


class Sum:
    """Turns numbers of records since the last call into those of all that are done, beside their total."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def __call__(self, records: int) -> None:
        self.done += records
        self._progress(self.done, self.total)


class Counted:
    """Reports the records of a batch as they are done. What nobody reports, such as shards of before, comes last."""

    def __init__(self, rows: int, progress: Callable[[int], None]) -> None:
        self._left, self._progress = rows, progress

    def add(self, asked: Sequence[Asked]) -> None:
        rows = min(sum(len(item.rows) for one in asked for item in one.items), self._left)
        self._left -= rows
        self._progress(rows)

    def end(self) -> None:
        self._progress(self._left)
        self._left = 0


def judge_row(task: BoundTask, name: str) -> dict[str, Any]:
    """The row of JUDGE of today's task."""
    settings = task.settings
    runs_answers = bool(getattr(task.task, "UNSAFE_CODE", False))
    row: dict[str, Any] = {
        "judge": name,
        "kind": "code" if runs_answers else "task",
        "task": task.name,
        "version": settings.task_version,
        "digest": judging_digest(task),
        "sandbox": bubblewrap.version() if runs_answers else None,
        "metric": settings.metric,
        "filter": settings.filter,
        "aggregation": settings.aggregation,
        "higher_is_better": settings.higher_is_better,
        "correct_threshold": settings.correct_threshold,
        "model": None,
        "revision": None,
        "settings": "{}",
    }
    return with_id(row)


def with_id(row: dict[str, Any]) -> dict[str, Any]:
    """Completes a row of JUDGE by its id, the time and the versions of libraries."""
    return {
        "judge_id": digest({key: row[key] for key in IDENTITY}),
        "prompt": None,
        **row,
        "made_at": dt.datetime.now(dt.UTC),
        "versions": json.dumps(_versions()),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def write_judge(lake: Lake, row: dict[str, Any]) -> None:
    """Writes the row of a judge, unless the lake has it."""
    name = layout.judge_name(row["judge_id"])
    if not lake.has(name):
        lake.create_table(name, pa.Table.from_pylist([row], schema=JUDGE))


def _judge_batch(
    lake: Lake,
    source: Source,
    batch: Batch,
    task: BoundTask,
    judges: Judges,
    choice: Choice,
    done: set[str],
    left: Counted,
) -> Report:
    row = judge_row(task, choice.name)
    judge_id = row["judge_id"]
    report = Report(judges={judge_id: row})
    of_batch = [shard for cell_id in batch.cells for shard in source.shards.get(cell_id, ())]
    todo = {shard for shard in of_batch if layout.verdicts_name(judge_id, shard) not in done}
    report.known = sum(len(source.item_sets.items_of(shard)) for shard in of_batch if shard not in todo)
    if not todo:
        return report
    write_judge(lake, row)
    asked = [one for one in source.read(batch) if one.shard in todo]
    for some in _together(asked):
        rows = verdict_rows(task, [item for one in some for item in one.items], judges.judge)
        position = 0
        for one in some:
            mine = rows[position : position + len(one.items)]
            position += len(one.items)
            table = verdict_table(judge_id, task.name, one, mine)
            lake.create_table(layout.verdicts_name(judge_id, one.shard), table)
            report.shards += 1
            report.judged += len(mine)
            report.unjudged += sum(any(row["outcome"] == "judge" for row in of) for of in mine)
        left.add(some)
    return report


#: Answers that one request to the judging process holds. The process keeps earlier verdicts within a request.
_TOGETHER = 10_000


def _together(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    some: list[Asked] = []
    size = 0
    for one in asked:
        some.append(one)
        size += len(one.items)
        if size >= _TOGETHER:
            yield some
            some, size = [], 0
    if some:
        yield some


def verdict_table(judge_id: str, task: str, asked: Asked, rows: Sequence[Sequence[dict[str, Any]]]) -> pa.Table:
    """The rows of VERDICT of a shard."""
    shard = asked.shard
    shared = {"judge_id": judge_id, "cell_id": shard.cell_id, "generation": shard.generation, "task": task}
    return pa.Table.from_pylist([{**shared, **row} for of in rows for row in of], schema=VERDICT)
