"""Other runs on the same cluster: which of them wait for slots, and which go first.

Owns a note of each run in the control store of the cluster's head. Ray itself gives slots in the order of requests, so
runs of a lower priority give theirs back between two shards. Knows nothing of work.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from ray.experimental import internal_kv

logger = logging.getLogger(__name__)

#: Seconds between two notes, and the age at which a note of a run that was lost is passed over.
NOTE_SECONDS, OLD_SECONDS = 10.0, 60.0
#: Seconds that the head may take to answer: HeadWatch ends a driver that hangs in a call for ten.
ANSWER_SECONDS = 3
_NAMESPACE = b"routerlake"


class Store(Protocol):
    """A small store of bytes that all runs on a cluster share."""

    def put(self, key: str, value: bytes) -> None: ...

    def remove(self, key: str) -> None: ...

    def all(self) -> list[bytes]: ...


class ClusterStore:
    """The control store of the cluster that this process has joined. Calls end after ANSWER_SECONDS."""

    def put(self, key: str, value: bytes) -> None:
        self._client.internal_kv_put(key.encode(), value, True, _NAMESPACE, timeout=ANSWER_SECONDS)

    def remove(self, key: str) -> None:
        self._client.internal_kv_del(key.encode(), False, _NAMESPACE, timeout=ANSWER_SECONDS)

    def all(self) -> list[bytes]:
        keys = self._client.internal_kv_keys(b"", _NAMESPACE, timeout=ANSWER_SECONDS)
        values = (self._client.internal_kv_get(key, _NAMESPACE, timeout=ANSWER_SECONDS) for key in keys)
        return [value for value in values if value]

    @property
    def _client(self) -> Any:
        return internal_kv.internal_kv_get_gcs_client()


class Neighbours:
    """One run's note, and its view of the others'. Where the store does not answer, the run goes on alone."""

    def __init__(
        self, run_id: str, priority: int, store: Store | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._run_id, self._priority = run_id, priority
        self._store, self._clock = store or ClusterStore(), clock
        self._next = 0.0
        #: The run of a higher priority that waits for slots.
        self.before: str | None = None

    def tick(self, *, waits: bool) -> None:
        """Writes this run's note and reads the others' if it is time to. `waits`: it has work and too few slots."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + NOTE_SECONDS
        note = {"run": self._run_id, "priority": self._priority, "waits": waits, "at": now}
        try:
            self._store.put(self._run_id, json.dumps(note).encode())
            notes = [self._read(data) for data in self._store.all()]
        except Exception as error:  # Ray's client has no error of its own for this; HeadWatch notices a lost head
            logger.debug("other runs on the cluster cannot be seen: %s", error)
            return
        before = self.before
        waiting = [note for note in notes if note and self._goes_first(note, now)]
        self.before = str(max(waiting, key=lambda note: note["priority"])["run"]) if waiting else None
        if self.before and not before:
            logger.info("run %s has a higher priority and waits for slots: giving ours back", self.before)
        elif before and not self.before:
            logger.info("no run of a higher priority waits any more: going on")

    def close(self) -> None:
        try:
            self._store.remove(self._run_id)
        except Exception as error:
            logger.debug("the note of this run stays in the cluster for a minute: %s", error)

    def _goes_first(self, note: dict[str, Any], now: float) -> bool:
        return bool(note["waits"]) and note["priority"] > self._priority and now - note["at"] < OLD_SECONDS

    @staticmethod
    def _read(data: bytes) -> dict[str, Any] | None:
        try:
            note = json.loads(data)
            return note if isinstance(note["priority"], int) and isinstance(note["at"], float) and note["run"] else None
        except (ValueError, KeyError, TypeError):
            return None
