"""The progress of a fleet: a live view on a terminal, or a log line every 30 s without one.

Owns the counters of a run and their display. Knows nothing of Ray or storage.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Group
from rich.live import Live
from rich.text import Text

from collectors.runs.listeners import Workers
from collectors.runs.work import Cell, ShardReport
from pipelines.console.plain_console import PlainConsole

logger = logging.getLogger(__name__)

#: Seconds between two log lines without a terminal. tqdm and rich would fill a job's log.
LINE_SECONDS = 30.0
#: Seconds between two updates of a live view.
DRAW_SECONDS = 0.25
#: Most workers and failures in the live view.
MOST_WORKERS, LAST_FAILURES = 16, 3


@dataclass
class Progress:
    """Counters of one run, and their display. `cells` and `items` are totals to collect; rates are of the whole run."""

    cells: int
    items: int
    cells_done: int = 0
    cells_failed: int = 0
    items_done: int = 0
    #: The part of items_done that other runs committed.
    items_elsewhere: int = 0
    shards: int = 0
    dropped_shards: int = 0
    engine_tokens: int = 0
    #: The part of engine_tokens that was read from prefix caches; None once an engine did not report it.
    cached_tokens: int | None = 0
    workers: int = 0
    started: float = field(default_factory=time.monotonic)
    _failures: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_FAILURES))
    _last_line: float = field(default_factory=time.monotonic)
    _last_drawn: float = 0.0
    _live: Live | None = None

    def __enter__(self) -> Progress:
        if sys.stdout.isatty():
            self._live = Live(self._drawn(Workers([], 0, 0)), console=PlainConsole(), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._drawn(Workers([], 0, 0)), refresh=True)
            self._live.stop()
        else:
            logger.info(self.line())

    def on_done(self, cell: Cell, report: ShardReport, items: int, *, last: bool) -> None:
        self.shards += report.committed
        self.dropped_shards += not report.committed
        self.items_done += items
        self.cells_done += last
        self.engine_tokens += report.engine_tokens
        reported = self.cached_tokens is not None and report.cached_tokens is not None
        self.cached_tokens = self.cached_tokens + report.cached_tokens if reported else None  # type: ignore[operator]

    def on_done_elsewhere(self, cell: Cell, items: int, *, last: bool) -> None:
        self.items_done += items
        self.items_elsewhere += items
        self.cells_done += last

    def on_more(self, items: int, *, is_new: bool) -> None:
        self.items += items
        self.cells += is_new
        self.cells_done -= not is_new

    def on_failed(self, cell: Cell, kind: str, message: str, items: int) -> None:
        self.cells_failed += 1
        self.items -= items
        self._failures.append(f"{cell.model.name} on {cell.spec.task}: {message}")

    def on_tick(self, workers: Callable[[], Workers]) -> None:
        """Updates the live view or logs a line if one is due."""
        now = time.monotonic()
        if self._live and now - self._last_drawn >= DRAW_SECONDS:
            self._last_drawn = now
            self._live.update(self._drawn(workers()), refresh=True)
        elif not self._live and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            logger.info(self.line())

    def _drawn(self, workers: Workers) -> Group:
        """The counters, a line for each worker with the slowest first, and the last failures."""
        lines = [Text(self.line(), style="cyan")]
        if workers.starting:
            lines.append(Text(f"  {workers.starting} engines starting", style="yellow"))
        slowest = sorted(workers.working, key=lambda one: -one.seconds)
        for one in slowest[:MOST_WORKERS]:
            waits = f"  waits: {one.waits_for}" if one.waits_for else ""
            lines.append(Text(f"  {duration(one.seconds):>6}  {one.model}  {one.task}{waits}", no_wrap=True))
        if more := len(slowest[MOST_WORKERS:]):
            lines.append(Text(f"  … and {more} more at work"))
        lines += [Text(f"  failed: {failure}", style="red", no_wrap=True) for failure in self._failures]
        return Group(*lines)

    def line(self) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        left = self.items - self.items_done
        others = f" ({self.items_elsewhere} by other runs)" if self.items_elsewhere else ""
        eta = duration(left * elapsed / self.items_done) if self.items_done else "?"
        return (
            f"cells {self.cells_done}/{self.cells} failed {self.cells_failed} "
            f"items {self.items_done}/{self.items}{others} "
            f"tokens/s {short(self.engine_tokens / elapsed)}{self._cached()} workers {self.workers} eta {eta}"
        )

    def _cached(self) -> str:
        has_share = self.cached_tokens is not None and self.engine_tokens
        return f" ({self.cached_tokens / self.engine_tokens:.0%} cached)" if has_share else ""  # type: ignore[operator]


def short(number: float) -> str:
    """A count with a unit, such as 81.3k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A duration with a unit, such as 5.2h."""
    for limit, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= limit:
            return f"{seconds / limit:.1f}{unit}"
    return f"{seconds:.0f}s"


class Counter:
    """A progress callback that prints a line to standard error every `seconds`, for the first time after the first."""

    def __init__(self, what: str, seconds: float = 5.0) -> None:
        self.what, self.seconds, self.last = what, seconds, time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            _note(f"{done:,} of {of:,} {self.what}")


@contextmanager
def beating(first: str, what: str, seconds: float = 5.0) -> Iterator[Callable[[int, int], None]]:
    """Prints `first` to standard error at once, then a line every `seconds`, by a thread: for work that reports rarely.

    Yields the progress callback. Until its first call the line is `first`, with the seconds that have passed.
    """
    started, ended = time.monotonic(), threading.Event()
    counted: list[tuple[int, int]] = []
    counter = Counter(what, seconds=0.0)

    def beat() -> None:
        while not ended.wait(seconds):
            if counted:
                counter(*counted[-1])
            else:
                _note(f"{first}: {duration(time.monotonic() - started)}")

    def progress(done: int, of: int) -> None:
        counted[:] = [(done, of)]

    _note(first)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()


def _note(line: str) -> None:
    print(f"{dt.datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


class LiveLine:
    """A line that changes in place on a terminal. Without a terminal it is logged every LINE_SECONDS."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._live = (
            Live(Text(""), console=PlainConsole(stderr=True), refresh_per_second=4) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> LiveLine:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, line: str) -> None:
        if self._live:
            self._live.update(Text(line, style="cyan"))
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            logger.info(line)
