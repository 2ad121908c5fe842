"""Spreads judging over processes: a part is some batches of one lake, and stands for itself.

Owns the parts. pipelines.fleet hands the same parts to a cluster.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized

from collectors.children import end_with_parent
from collectors.harness.own_code import is_allowed, use_code
from collectors.lake.store import Lake
from collectors.verdicts.answers import Batch, Source
from collectors.verdicts.judging import Choice, Report, Sum, Tasks, judge_batches

#: Below so many records a second process takes longer to start than to work: its libraries take 5 s of CPU.
ALONE = 20_000


@dataclass(frozen=True)
class Part:
    """Cells to judge, as any process can."""

    lake: str
    include: str
    choice: Choice
    batch: Batch


def parts_of(lake: Lake, include: str, tasks: Sequence[str] | None, choice: Choice) -> list[Part]:
    """The work: all cells of these tasks, by default of all. Raises ConfigError without any."""
    return [Part(lake.uri, include, choice, batch) for batch in Source(lake, include).batches(tasks)]


def judge_part(part: Part, *, allow_code: bool = False) -> Report:
    """Judges one part, in any process."""
    use_code(allow_code)
    return _judged([part], _tasks(part.choice.include))


@functools.cache
def _tasks(include: tuple[str, ...]) -> Tasks:
    """One for all parts of a process: a judging process takes 5 s of CPU to start. It ends with this process."""
    return Tasks(include)


def _judged(parts: Sequence[Part], tasks: Tasks, progress: Callable[[int], None] = lambda records: None) -> Report:
    lake = Lake(parts[0].lake, is_open=True)
    source = Source(lake, parts[0].include)
    return judge_batches(lake, source, [part.batch for part in parts], parts[0].choice, tasks, progress)


def in_processes(
    parts: Sequence[Part], jobs: int, progress: Callable[[int, int], None] = lambda done, records: None
) -> Report:
    """Judges all parts, in this process and in others where that is faster.

    `progress` gets the numbers of records that are done and of all.
    """
    total = sum(part.batch.rows for part in parts)
    if jobs < 2 or len(parts) < 2 or total < ALONE:
        with Tasks(parts[0].choice.include) as tasks:
            return _judged(parts, tasks, Sum(total, progress))
    context = multiprocessing.get_context("spawn")
    report, done = Report(), context.Value("q", 0)
    with ProcessPoolExecutor(min(jobs, len(parts)), context, _begin, (done, is_allowed())) as pool:
        left = {pool.submit(_judge_part, part) for part in parts}
        while left:
            ended, left = wait(left, timeout=1.0)
            for one in ended:
                report.add(one.result())
            progress(done.value, total)
    return report


#: The counter that the processes of in_processes share, in each of them.
_shared: list[Synchronized[int]] = []


def _begin(done: Synchronized[int], allow_code: bool) -> None:
    end_with_parent()
    _shared[:] = [done]
    use_code(allow_code)
    gc.freeze()  # a collection that walks all libraries takes as long as judging 5,000 answers


def _judge_part(part: Part) -> Report:
    return _judged([part], _tasks(part.choice.include), _add)


def _add(records: int) -> None:
    with _shared[0].get_lock():
        _shared[0].value += records
