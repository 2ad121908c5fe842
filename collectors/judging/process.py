"""The judging process: `python -m collectors.judging.process`. It loads tasks, and judges in forked children.

Owns the two protocols and the lives of children. A request and the frames of its reply are each a length of four bytes
and JSON, on standard input and output: verdicts as they come, then a frame without. A child inherits the loaded tasks
and nothing of a run, judges items one by one, and writes a line for each: its number and JSON, which only the process
that asked reads. If it runs out of CPU time at an item, that item alone is lost and another child goes on; an item at
which it waits too long or dies is tried once more.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import mmap
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from collectors.harness.aggregations import Values, metrics_of
from collectors.harness.judge import Items
from collectors.harness.loading import load_like
from collectors.harness.stored import bind_stored
from collectors.harness.tasks import BoundTask
from collectors.judging import guard
from collectors.judging.child import NO_ITEM, Work, aggregating, judging, run_child
from collectors.specs import TaskSpec
from schemas.failures import JUDGE_DIED, JUDGE_TIMEOUT, RouterlakeError, TaskError, one_line

logger = logging.getLogger(__name__)

#: CPU seconds that the judge may spend on one item, or on the filters of all items of a shard. lm-eval's own judges of
#: maths allow 5 s of wall time.
CPU_SECONDS = 30
#: Wall seconds for the same: only a judge that waits, or a machine that is twenty times too busy, needs them.
WALL_SECONDS = 600.0

#: CPU seconds for one metric's value over all items, with the resamples behind its standard error.
AGGREGATE_SECONDS = 600
#: The fields of an Aggregate after metric and filter, where it has no value.
_NO_VALUE = ("", True, None, None, 0, None)

#: Gets results as they come: items, and JSON that nobody has read yet.
Forward = Callable[[Mapping[int, bytes]], None]
_LOST = "the process that judges ended"


# ---- frames


def write_frame(file: BinaryIO, value: Any) -> None:
    _write(file, json.dumps(value).encode())


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(len(data).to_bytes(4, "big") + data)
    file.flush()


def read_frame(file: BinaryIO) -> Any:
    """Raises EOFError at the end of the file."""
    head = file.read(4)
    size = int.from_bytes(head, "big")
    data = file.read(size)
    if len(head) < 4 or len(data) < size:
        raise EOFError(_LOST)
    return json.loads(data)


# ---- the process


@dataclass
class _Outcome:
    """What one child wrote, and how it ended."""

    #: Item -> its result, in JSON.
    results: dict[int, bytes] = field(default_factory=dict)
    #: The item in hand; None before the first.
    item: int | None = None
    is_done: bool = False
    refused: str | None = None
    is_timeout: bool = False
    #: Whether it spent its CPU time: it would again.
    is_out_of_cpu: bool = False
    folder: str | None = None
    log: list[Any] = field(default_factory=list)

    def take(self, lines: Sequence[bytes]) -> dict[int, bytes]:
        """Takes lines in, and returns the results among them."""
        results = {}
        for text in lines:
            if not text.startswith(b"{"):
                item, _, result = text.partition(b" ")
                results[int(item)] = result
                continue
            line = json.loads(text)
            if "log" in line:
                self.log.append(line["log"])
            self.folder = self.folder or line.get("folder")
            self.is_done |= bool(line.get("done"))
            self.refused = self.refused or line.get("refused")
        self.results |= results
        return results


class JudgingProcess:
    """Loaded tasks, and the children that judge with them. `hangs_up` becomes readable when nobody waits any more."""

    def __init__(self, seconds: int = CPU_SECONDS, wall: float = WALL_SECONDS, hangs_up: int | None = None) -> None:
        self.seconds, self.wall, self.hangs_up = seconds, wall, hangs_up
        self.tasks: dict[str, BoundTask] = {}

    def answer(self, request: Mapping[str, Any], forward: Forward = lambda results: None) -> dict[str, Any]:
        """Returns the end of the reply to a request; {"error": …} for a task that cannot be loaded here, or is refused.

        The verdicts go to `forward`. Those before an error count for nothing.
        """
        try:
            task = self._task(request["task"])
            if "values" in request:
                return self._aggregated(task, request["values"], request["bootstraps"])
            responses = {int(item): requests for item, requests in request["responses"].items()}
            if task.request_kind == "loglikelihood":  # JSON has no tuples
                responses = {i: [list(map(tuple, answers)) for answers in one] for i, one in responses.items()}
            items = request.get("items")
            items = items and {int(number): item for number, item in items.items()}
            return self._judged(task, responses, items, forward)
        except RouterlakeError as error:
            return {"error": [error.kind, str(error)]}

    def _task(self, key: Mapping[str, Any]) -> BoundTask:
        name = json.dumps(key, sort_keys=True)
        if name not in self.tasks:
            spec = TaskSpec.model_validate_json(key["spec"])
            if "docs" in key:
                with open(key["docs"], encoding="utf-8") as file:
                    docs = [json.loads(line) for line in file]
                self.tasks[name] = bind_stored(spec, key["include"], docs)
            else:
                self.tasks[name] = load_like(spec, key["group"], key["prompting"], key["include"])
            # Libraries and tasks stay: a collection that walks all of them took 0.3 s of each 5,000 answers.
            gc.collect()
            gc.freeze()
        return self.tasks[name]

    def _judged(
        self, task: BoundTask, responses: dict[int, Any], items: Items | None, forward: Forward
    ) -> dict[str, Any]:
        work = functools.partial(judging, task, items=items)
        _, failures, log = self._each(task, responses, work, self.seconds, forward)
        log += [[__name__, logging.WARNING, f"task {task.name} item {item}: {kind}"] for item, kind in failures.items()]
        return {"failures": list(failures.items()), "log": log}

    def _aggregated(self, task: BoundTask, values: Values, bootstraps: int) -> dict[str, Any]:
        pairs = dict(enumerate(metrics_of(values)))
        results, failures, log = self._each(
            task,
            pairs,
            lambda some: aggregating(task, values, some, bootstraps),
            AGGREGATE_SECONDS,
            is_task_refused=False,
        )
        rows = [
            json.loads(results[number]) if number in results else [*pair, *_NO_VALUE, failures[number]]
            for number, pair in pairs.items()
        ]
        return {"aggregates": rows, "log": log}

    def _each(
        self,
        task: BoundTask,
        todo: Mapping[int, Any],
        work: Callable[[Any], Work],
        seconds: int,
        forward: Forward = lambda results: None,
        *,
        is_task_refused: bool = True,
    ) -> tuple[dict[int, bytes], dict[int, str], list[Any]]:
        """Returns item -> result, item -> failure kind, and log records. `work` makes the work on some of `todo`.

        Work that goes out of bounds ends with a TaskError, or fails alone without `is_task_refused`.
        """
        results: dict[int, bytes] = {}
        failures: dict[int, str] = {}
        log: list[Any] = []
        tried = set[int]()
        together = True
        left = dict(todo)
        while left := {item: one for item, one in left.items() if item not in results and item not in failures}:
            some = left if together else dict([next(iter(left.items()))])
            outcome = self._child(work(some), seconds, forward)
            results |= outcome.results
            log += outcome.log
            if outcome.refused and (is_task_refused or outcome.item is None):
                raise TaskError(
                    f"task {task.name}: judging an answer went out of bounds ({outcome.refused}), so it is refused",
                    kind="unsafe_code",
                )
            if outcome.refused and outcome.item is not None:
                failures[outcome.item] = f"it went out of bounds ({outcome.refused}), so it is refused"
                continue
            if outcome.is_done:
                continue
            if outcome.item is None and together:  # a filter did not come to an end: each item goes alone
                together = False
                continue
            culprit = next(iter(some)) if outcome.item is None else outcome.item
            if not outcome.is_out_of_cpu and culprit not in tried:  # a crowded or failing machine, not the answer
                tried.add(culprit)
                continue
            failures[culprit] = JUDGE_TIMEOUT if outcome.is_timeout else JUDGE_DIED
        return results, failures, log

    def _child(self, work: Work, seconds: int, forward: Forward) -> _Outcome:
        reading, writing = os.pipe()
        hand = mmap.mmap(-1, 8)
        hand[:8] = NO_ITEM.to_bytes(8, "big", signed=True)
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            run_child(work, seconds, writing, hand)
        os.close(writing)
        outcome = _Outcome()
        try:
            with os.fdopen(reading, "rb") as pipe:
                for lines in self._lines(pipe, pid, outcome):
                    if results := outcome.take(lines):
                        forward(results)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if outcome.folder:
                shutil.rmtree(outcome.folder, ignore_errors=True)
        item = int.from_bytes(hand[:8], "big", signed=True)
        outcome.item = None if item == NO_ITEM else item
        outcome.is_out_of_cpu = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        outcome.is_timeout |= outcome.is_out_of_cpu
        return outcome

    def _lines(self, pipe: BinaryIO, pid: int, outcome: _Outcome) -> Iterator[list[bytes]]:
        """Yields the child's lines, some at a time, until it ends, waits too long or nobody waits for it."""
        rest, deadline = b"", time.monotonic() + self.wall
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        if self.hangs_up is not None:
            poll.register(self.hangs_up, 0)  # an end is reported in any case
        while (left := deadline - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
            if self.hangs_up in ready:
                os.kill(pid, signal.SIGKILL)
                raise EOFError(_LOST)
            if not ready:
                continue
            data = os.read(pipe.fileno(), 2**20)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                deadline = time.monotonic() + self.wall
            yield lines
        outcome.is_timeout = True


def main() -> None:
    os.environ["TQDM_DISABLE"] = "1"  # lm-eval draws a bar for each bootstrap
    # Tasks print: only frames may stand on the output.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this process
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    guard.limit_by_cpu_time_alone()
    process = JudgingProcess(hangs_up=0)

    def forward(results: Mapping[int, bytes]) -> None:
        _write(out, b'{"verdicts": [' + b", ".join(b"[%d, %s]" % one for one in results.items()) + b"]}")

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            request = read_frame(sys.stdin.buffer)
            try:
                reply = process.answer(request, forward)
            except EOFError:
                raise
            except Exception as error:  # task code, while it is loaded
                reply = {"error": ["bad_task", one_line(error)]}
            write_frame(out, reply)


if __name__ == "__main__":
    main()
