"""Fetches and reads the next model's files while the current model answers.

Owns one thread, with at most one model in it. Its caller decides which model comes next. Errors here are only logged:
the load repeats each step and raises them.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from collectors.engines import Engine, ModelRef
from collectors.models.weights import Held, Weights
from schemas.failures import one_line

logger = logging.getLogger(__name__)

#: Name, bytes and change time (ns) of each file of a folder.
_Files = frozenset[tuple[str, int, int]]


class Ahead:
    """Prepares models for one engine. The files stay in the page cache as long as the system leaves them there."""

    def __init__(self, engine: Engine, weights: Weights | None = None) -> None:
        self._engine, self._weights = engine, weights or Weights()
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._key: str | None = None
        self._future: Future[tuple[Held, _Files]] | None = None

    def start(self, model: ModelRef) -> None:
        """Begins to prepare `model`, unless it has begun already or another model is still being prepared."""
        if self._key != model.key and (self._future is None or self._future.done()):
            if self._future and not self._future.exception():
                self._future.result()[0].release()
            self._key, self._future = model.key, self._thread.submit(self._prepare, model)

    def take(self, model: ModelRef) -> Held | None:
        """Waits for `model` and returns it; None if it was not prepared, or its files have changed since."""
        if self._future is None or self._key != model.key:
            return None
        try:
            held, files = self._future.result()
            if _files(held.model) == files:
                return held
            held.release()
            return None
        except Exception as error:
            logger.debug("model %s could not be read ahead: %s", model.name, one_line(error))
            return None
        finally:
            self._key, self._future = None, None

    def _prepare(self, model: ModelRef) -> tuple[Held, _Files]:
        held = self._weights.take(model)
        try:
            files = _files(held.model)
            self._engine.prefetch(held.model)
        except BaseException:
            held.release()
            raise
        return held, files


def _files(model: ModelRef) -> _Files:
    files = [file for file in Path(model.path or "").iterdir() if file.is_file()]
    return frozenset((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
