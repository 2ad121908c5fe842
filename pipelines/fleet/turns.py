"""Whether a run may hand out shards now: not while it is paused, nor while a run of a higher priority waits for slots.

Owns the looks for both. Knows nothing of workers or shards.
"""

from __future__ import annotations

import logging
import time

from collectors.lake.store import Lake
from collectors.runs.signals import is_paused
from pipelines.fleet.neighbours import Neighbours
from schemas.failures import StorageError, one_line

logger = logging.getLogger(__name__)

#: Seconds between two looks for signals to the run.
SIGNAL_SECONDS = 15.0


class Turns:
    """One run's turns. A store that does not answer changes nothing."""

    def __init__(self, lake: Lake, run_id: str, neighbours: Neighbours) -> None:
        self._lake, self._run_id, self._neighbours = lake, run_id, neighbours
        self._is_paused = False
        #: When the lake was last asked for signals (monotonic clock).
        self._looked = time.monotonic()

    @property
    def holds_back(self) -> bool:
        return self._is_paused or self._neighbours.before is not None

    def tick(self, *, waits: bool) -> None:
        """Looks if it is time to. `waits`: the run has requested workers that have not started."""
        self._neighbours.tick(waits=waits and not self.holds_back)
        if time.monotonic() - self._looked < SIGNAL_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            paused = is_paused(self._lake, self._run_id)
        except StorageError as error:
            logger.debug("no signals can be heard: %s", one_line(error))
            return
        if paused != self._is_paused:
            self._is_paused = paused
            logger.info("paused: engines end after the shards in hand" if paused else "resumed")

    def close(self) -> None:
        self._neighbours.close()
