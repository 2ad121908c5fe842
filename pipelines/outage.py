"""How a store or a hub that is away is waited for, and what a person hears of it meanwhile.

Owns pauses, clocks and lines. Knows nothing of what is away or who noticed.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.failures import UnreachableError

logger = logging.getLogger(__name__)

#: Seconds between two tries: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Seconds from the first line to the second; doubled from line to line.
FIRST_LINE = 15.0
#: Seconds without a word of it after which an outage counts as past, though nobody who waited for it came through.
FORGOTTEN = 900.0


def pause(tries: int) -> float:
    """Seconds to wait after so many failed tries; another number for each who waits, so that not all come at once."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Away:
    """A worker's answer instead of a report: the shard is in hand still, and it is to be asked for again."""

    message: str
    #: kind of the UnreachableError.
    kind: str


class Outage:
    """Tells of one outage at growing intervals, however many wait for its end."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._since = self._heard = self._next_line = 0.0

    def heard(self, message: str) -> None:
        """Somebody found it away."""
        now = time.monotonic()
        if not self._since or now - self._heard > FORGOTTEN:
            self._since, self._next_line = now, FIRST_LINE
            logger.warning("%s; waiting up to %g s (fleet.patience_seconds)", message, self.patience)
        elif now - self._since >= self._next_line:
            self._next_line *= 2
            logger.warning("%s; away for %.0f s, waiting up to %g", message, now - self._since, self.patience)
        self._heard = now

    def over(self) -> None:
        """Somebody who waited for it came through."""
        if self._since:
            logger.warning("it is back after %.0f s: going on", time.monotonic() - self._since)
            self._since = 0.0

    def wait(self, action: Callable[[], None]) -> float:
        """Calls `action` until it works; returns the seconds that were waited. Raises its UnreachableError at the end
        of the patience.
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
