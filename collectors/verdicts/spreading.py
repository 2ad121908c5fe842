"""Spreads judging over processes: a part is some batches of one lake, and stands for itself.

Owns the parts. pipelines.fleet hands the same parts to a cluster.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from collectors.harness.own_code import is_allowed, use_code
from collectors.lake.store import Lake
from collectors.verdicts.answers import Batch, Source
from collectors.verdicts.judging import Choice, Report, Tasks, judge_batches

#: Below so many records a second process takes longer to start than to work: its libraries take 5 s of CPU.
ALONE = 20_000


@dataclass(frozen=True)
class Part:
    """Cells to judge, as any process can."""

    lake: str
    include: str
    choice: Choice
    batch: Batch
    rows: int


def parts_of(lake: Lake, include: str, tasks: Sequence[str] | None, choice: Choice) -> list[Part]:
    """The work: all cells of these tasks, by default of all. Raises ConfigError without any."""
    batches = Source(lake, include).batches(tasks)
    return [
        Part(lake.uri, include, choice, batch, sum(int(row["rows"]) for row in batch.cells.values()))
        for batch in batches
    ]


def judge_part(part: Part, *, allow_code: bool = False) -> Report:
    """Judges one part, in any process."""
    use_code(allow_code)
    return _judged([part], _tasks(part.choice.include))


@functools.cache
def _tasks(include: tuple[str, ...]) -> Tasks:
    """One for all parts of a process: a judging process takes 5 s of CPU to start. It ends with this process."""
    return Tasks(include)


def _judged(parts: Sequence[Part], tasks: Tasks) -> Report:
    lake = Lake(parts[0].lake, is_open=True)
    source = Source(lake, parts[0].include)
    return judge_batches(lake, source, [part.batch for part in parts], parts[0].choice, tasks)


def in_processes(parts: Sequence[Part], jobs: int) -> Report:
    """Judges all parts, in this process and in others where that is faster."""
    if jobs < 2 or len(parts) < 2 or sum(part.rows for part in parts) < ALONE:
        with Tasks(parts[0].choice.include) as tasks:
            return _judged(parts, tasks)
    report = Report()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(parts)), mp_context=context) as pool:
        for done in pool.map(_judge_part, [(part, is_allowed()) for part in parts]):
            report.add(done)
    return report


def _judge_part(given: tuple[Part, bool]) -> Report:
    part, allow_code = given
    return judge_part(part, allow_code=allow_code)
