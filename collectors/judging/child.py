"""A child of the judging process: it confines itself, judges items one by one, and writes lines.

A line is an item's number and its result in JSON, or a JSON object that says something else. Owns the form of results.
"""

from __future__ import annotations

import gc
import json
import logging
import mmap
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from collectors.harness.aggregations import Values, aggregate
from collectors.harness.judge import Items, Responses, Verdict, verdicts
from collectors.harness.tasks import BoundTask
from collectors.judging import guard
from schemas.failures import one_line

#: Results that a child keeps before it writes them, and for how long. Those of a child that dies are judged again.
_KEPT, _KEPT_SECONDS = 64, 0.2
#: In place of the item in hand, before the first.
NO_ITEM = -1
_REFUSED = 77
_text = json.encoder.encode_basestring_ascii


#: Work of a child. It begins each item with the first function, which allows CPU seconds, and gives its result in JSON.
Work = Callable[[Callable[[int], None], Callable[[str], None]], None]


def judging(task: BoundTask, responses: Responses, items: Items | None) -> Work:
    def work(begin: Callable[[int], None], give: Callable[[str], None]) -> None:
        for _, found in verdicts(task, responses, begin, items):
            give(f"[{', '.join(_row(*key, one) for key, one in found.items())}]")

    return work


def _row(name: str, repeat: int, one: Verdict | None) -> str:
    """In JSON, three times as fast as json.dumps: that took 5 µs an item, a tenth of the judging."""
    if one is None:
        return f"[{_text(name)}, {repeat}, null]"
    score = "null" if one.score is None else repr(float(one.score))
    return f"[{_text(name)}, {repeat}, [{score}, {_text(one.metrics)}, {_text(one.filtered)}]]"


def aggregating(task: BoundTask, values: Values, pairs: Mapping[int, tuple[str, str]], bootstraps: int) -> Work:
    def work(begin: Callable[[int], None], give: Callable[[str], None]) -> None:
        for number, (metric, name) in pairs.items():
            begin(number)
            give(json.dumps(aggregate(task.task, values, metric, name, bootstraps)))

    return work


def run_child(work: Work, seconds: int, out: int, hand: mmap.mmap) -> None:
    """Works and writes lines to the descriptor `out`; all others but the log are closed. Never returns.

    `hand` holds the item in hand, so that results need not be written one by one: a line for each took 150 µs.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, out)
    os.closerange(out + 1, 4096)
    folder = tempfile.mkdtemp(prefix="routerlake-judge-")
    pipe = os.fdopen(out, "w", encoding="utf-8")

    kept: list[str] = []
    written = time.monotonic()
    allowed = 0.0

    def write(**line: Any) -> None:
        kept.append(json.dumps(line) + "\n")
        flush()

    def flush() -> None:
        nonlocal written
        pipe.write("".join(kept))
        pipe.flush()
        kept.clear()
        written = time.monotonic()

    def give(result: str) -> None:
        item = int.from_bytes(hand[:8], "big", signed=True)
        kept.append(f"{item} {result}\n")
        if len(kept) >= _KEPT or time.monotonic() - written > _KEPT_SECONDS:
            flush()

    def refuse(step: str) -> None:
        write(refused=step)
        os._exit(_REFUSED)

    def begin(item: int) -> None:
        nonlocal allowed
        used = time.process_time()
        if used >= allowed:  # with a second of grace, for the items until the next time: each took 10 µs
            allowed = used + 1
            guard.allow_seconds(seconds + 1)
        hand[:8] = item.to_bytes(8, "big", signed=True)

    try:
        gc.freeze()  # a collection would copy every page of the parent, in the item's CPU time
        logging.getLogger().handlers = [_Lines(write)]
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        guard.allow_seconds(seconds)
        write(folder=folder)
        guard.confine(folder, refuse)
        work(begin, give)
        write(done=True)
    except Exception as error:  # the item in hand is then judge_died; without this nobody would see why
        write(log=[__name__, logging.ERROR, f"the judging child ended: {one_line(error)}"])
    finally:
        os._exit(0)


class _Lines(logging.Handler):
    """Hands log records to the process that asked, whose log has their place."""

    def __init__(self, write: Any) -> None:
        super().__init__(logging.WARNING)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        self.write(log=[record.name, record.levelno, record.getMessage()[:2000]])
