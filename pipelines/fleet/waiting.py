"""Waits for a store or a hub that is out of reach, and logs the outage.

Owns the pauses between tries and the log lines. Knows nothing of stores, hubs or workers.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from schemas.failures import UnreachableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that commands other than a run wait, unless --patience has another number.
PATIENCE = 900.0

#: Seconds between two tries, the first and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Seconds from the first log line to the second. The interval doubles from line to line.
FIRST_LINE = 15.0
#: An outage counts as past after so many seconds without a report of it, even if `over` was never called.
FORGOTTEN = 900.0


def pause(tries: int) -> float:
    """Seconds to wait after `tries` failed tries. They are random, so that not everyone comes back at once."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Away:
    """A worker's answer instead of a report: it still has the shard, so call `finish` again."""

    message: str
    #: The kind of the UnreachableError; or OVER_BUDGET, and then the worker has the shard no more.
    kind: str
    #: What the worker's endpoint was paid for it.
    usd: float = 0.0


class Outage:
    """One outage, which is logged at growing intervals, however many wait for its end."""

    def __init__(self, patience: float, setting: str = "fleet.patience_seconds") -> None:
        """`patience` is the number of seconds to wait, and `setting` the name under which a person sets it."""
        self.patience, self.setting = patience, setting
        self._since = self._heard = self._next_line = 0.0

    def heard(self, message: str) -> None:
        """Reports a failed try; logs it if a line is due."""
        now = time.monotonic()
        if not self._since or now - self._heard > FORGOTTEN:
            self._since, self._next_line = now, FIRST_LINE
            logger.warning("%s; waiting up to %g s (%s)", message, self.patience, self.setting)
        elif now - self._since >= self._next_line:
            self._next_line *= 2
            logger.warning("%s; away for %.0f s, waiting up to %g", message, now - self._since, self.patience)
        self._heard = now

    def over(self) -> None:
        """Reports a try that succeeded, which ends the outage."""
        if self._since:
            logger.warning("it is back after %.0f s: going on", time.monotonic() - self._since)
            self._since = 0.0

    def result(self, action: Callable[[], T]) -> T:
        """Calls `action` as `wait` does, and returns its result. Each call must be able to follow a failed one."""
        results: list[T] = []
        self.wait(lambda: results.append(action()))
        return results[0]

    def wait(self, action: Callable[[], None]) -> float:
        """Calls `action` until it succeeds and returns the seconds that it took, or 0 if the first call succeeded.

        Raises the last UnreachableError when the patience is over.
        """
        started, tries = time.monotonic(), 0
        while True:
            try:
                action()
                break
            except UnreachableError as error:
                if time.monotonic() - started >= self.patience:
                    raise
                self.heard(str(error))
                tries += 1
                time.sleep(pause(tries))
        if not tries:
            return 0.0
        self.over()
        return time.monotonic() - started


def add_patience(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=seconds,
        default=PATIENCE,
        help="how long to wait for a store or hub that does not answer, or a full disk (default: %(default)g)",
    )


def seconds(text: str) -> float:
    """The argument of --patience."""
    if not 0 <= float(text) < 1e9:
        raise argparse.ArgumentTypeError(f"{text} must be a number of seconds")
    return float(text)
