"""A limit of models that are fetched at once, over all nodes of a run.

Owns the gate, an actor that counts, and the pass of a worker. Knows nothing of models or hubs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError

logger = logging.getLogger(__name__)

#: Seconds between two tries to get in.
TRY_SECONDS = 2.0
#: A pass is void after so many seconds: a worker that died inside does not hold it for ever.
PASS_SECONDS = 3600.0


class Gate:
    """Counts who is inside. Calls come one after another."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._inside: dict[str, float] = {}

    def enter(self, who: str) -> bool:
        """Lets `who` in if there is room; who is inside already stays."""
        now = self._clock()
        self._inside = {one: since for one, since in self._inside.items() if now - since < PASS_SECONDS}
        if who not in self._inside and len(self._inside) >= self._most:
            return False
        self._inside[who] = now
        return True

    def leave(self, who: str) -> None:
        self._inside.pop(who, None)


def start(most: int) -> Any:
    """Starts the gate of a run on its cluster. It ends with the run."""
    return ray.remote(num_cpus=0)(Gate).remote(most)


@contextlib.contextmanager
def passing(gate: Any, who: str) -> Iterator[None]:
    """Waits until the gate lets `who` in, and leaves at the end. A gate that was lost with its node holds up nobody."""
    try:
        while not ray.get(gate.enter.remote(who)):
            time.sleep(TRY_SECONDS)
    except RayError as error:
        logger.warning("fleet.downloads is not kept any more: %s", error)
    try:
        yield
    finally:
        with contextlib.suppress(RayError):
            gate.leave.remote(who)
