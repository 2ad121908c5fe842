"""Folds the lake while a run collects into it, so that readers meet few open shards.

Owns when to fold, and the Ray task that does it. The folding itself is collectors.lake.compaction, which is safe beside
collectors, readers and other compactors.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray.exceptions import RayError

from collectors.lake.compaction import compact
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import SHARDS
from collectors.lake.store import Lake
from schemas.failures import RouterlakeError, one_line

logger = logging.getLogger(__name__)

#: A fold begins when so many shards are open, or a tenth of those that are folded, whichever is more, up to MOST.
#: Each one reads the list of all that was folded before, so that a lake that grew large is folded less often.
LEAST, MOST = 1000, 4000


def shards_to_fold(folded: int) -> int:
    """How many open shards begin a fold of a lake with so many folded ones."""
    return max(LEAST, min(MOST, folded // 10))


def _fold(uri: str) -> tuple[int, int]:
    """Returns how many shards were folded now, and are in the newest compaction. Raises StorageError."""
    os.nice(10)  # engines go first
    done = compact(Lake(uri).open_for_writing())
    return done.folded, done.manifest.shards if done.manifest else 0


#: It takes no slot of an engine, and a process of its own, for its priority.
_FOLD = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_fold)


class Folding:
    """Folds the lake in the background, one fold at a time. Does nothing with `on` false."""

    def __init__(self, lake: Lake, *, on: bool) -> None:
        self._lake, self._on = lake, on
        self._open: int | None = None
        self._folded = 0
        self._future: Any = None

    def done(self) -> None:
        """Counts a shard that the run has committed."""
        if self._open is not None:
            self._open += 1

    def tick(self) -> None:
        """Begins a fold if enough shards are open, and takes the result of one that has ended."""
        if not self._on:
            return
        try:
            if self._future is None:
                self._begin()
            elif ray.wait([self._future], timeout=0)[0]:
                self._end()
        except (RayError, RouterlakeError) as error:
            cause = getattr(error, "cause", None)
            logger.warning(
                "the lake is not folded by this run any more: %s; compact.py folds it",
                one_line(cause if isinstance(cause, Exception) else error),
            )
            self._on, self._future = False, None

    def close(self) -> None:
        """Leaves a fold that is under way: the next one uses the files that it has written."""
        if self._future is not None:
            ray.cancel(self._future, force=True)
            self._future = None

    def _begin(self) -> None:
        if self._open is None:
            manifest = newest_manifest(self._lake)
            self._folded = manifest.shards if manifest else 0
            self._open = max(0, sum(1 for _ in self._lake.names(SHARDS)) - self._folded)
        if self._open >= shards_to_fold(self._folded):
            logger.info("folding %d open shards of the lake in the background", self._open)
            self._future, self._open = _FOLD.remote(self._lake.uri), 0

    def _end(self) -> None:
        folded, self._folded = ray.get(self._future)
        self._future = None
        logger.info("%d shards were folded", folded)
