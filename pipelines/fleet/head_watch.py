"""Notices the loss of a Ray cluster's head.

Owns a thread that connects to the head's port. Ray itself kills a driver without a message 60 s after it lost the head,
and some of its calls hang until then. Knows nothing else of Ray.
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
#: The head counts as lost after so many seconds without an answer. A head that is restarted in place is back by then.
SILENCE = 35.0
#: Seconds that the driver has to notice the loss. A driver that takes longer hangs in a call, and the thread ends it.
NOTICE = 10.0


class HeadWatch:
    """Watches the head at `address` (host:port) inside a with block. Clean up inside it, because that may hang, too."""

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
        """The error to raise after `error`: a lost head if the head does not answer now, else `error` itself."""
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
            safe = "Committed shards are safe: run the same command on a new cluster to continue."
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
