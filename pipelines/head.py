"""Whether the head of a Ray cluster is still there.

Owns a thread that asks its port. Ray itself ends a driver without a word for a person 60 s after it lost the head, and
some of its calls do not come back before. Knows nothing else of Ray.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time

from schemas.failures import EngineError

logger = logging.getLogger(__name__)

#: Seconds between two looks.
INTERVAL = 2.0
#: Seconds without an answer after which the head counts as lost: one that is restarted in its place is back by then.
SILENCE = 35.0
#: Seconds in which the driver has to notice; past them it hangs in a call, and is ended here.
NOTICE = 10.0


class HeadWatch:
    """Watches `address`, host:port, inside a with block. Leave it last: a driver may hang on its way out, too."""

    def __init__(self, address: str, *, silence: float = SILENCE, notice: float = NOTICE) -> None:
        self.address, self._silence, self._notice = address, silence, notice
        host, _, port = address.rpartition(":")
        self._place = (host.strip("[]"), int(port))
        self._lost, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="head", daemon=True)

    def __enter__(self) -> HeadWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def check(self) -> None:
        """Raises EngineError once the head is lost."""
        if self._lost.is_set():
            raise EngineError(self._message())

    def blame(self, error: EngineError) -> EngineError:
        """The error to tell of where `error` came up: if the head does not answer, that is the reason."""
        if self._answers():
            return error
        return EngineError(f"the head of the Ray cluster at {self.address} is gone: it does not answer")

    def _message(self) -> str:
        return f"the head of the Ray cluster at {self.address} is gone: no answer for {self._silence:g} s"

    def _watch(self) -> None:
        heard = time.monotonic()
        while not self._stopped.wait(INTERVAL):
            if self._answers():
                heard = time.monotonic()
            elif time.monotonic() - heard > self._silence:
                break
        else:
            return
        self._lost.set()
        if not self._stopped.wait(self._notice):
            safe = "Committed shards are safe: on a new cluster the same command goes on."
            print(f"error: {self._message()}\n{safe}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(1)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self._place, timeout=INTERVAL):
                return True
        except OSError as error:
            logger.debug("the head at %s: %s", self.address, error)
            return False
