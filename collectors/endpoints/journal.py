"""Answers that were paid for and are not in the lake yet, on this machine's disk.

Owns the files. A process that is killed loses the requests in flight; the next one reads the others' answers here. A
file holds the answers of one cell and generation. Knows nothing of endpoints.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from collectors.cache import cache_dir
from schemas.failures import one_line
from schemas.identity import digest, safe_name

logger = logging.getLogger(__name__)

#: Files that nobody has written for so many seconds are deleted: their shards are in the lake, or nobody wants them.
KEPT_SECONDS = 14 * 86400.0


class Journal:
    """The answers of one model. Each is written once, whole, before the next request is sent."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir("endpoints")
        self._answers: dict[str, dict[str, Any]] = {}
        self._files: dict[str, Any] = {}
        self._tidy()

    def of(self, owner: str, key: str) -> Any:
        """The answer to a request of a cell, by its key; None: it has none."""
        return self._read(owner).get(key)

    def keep(self, owner: str, key: str, answer: Any) -> None:
        """A full disk is logged, and costs the next process the same request."""
        self._read(owner)[key] = answer
        line = json.dumps([key, answer], ensure_ascii=True, separators=(",", ":")) + "\n"
        try:
            if owner not in self._files:
                self._files[owner] = open(self._path(owner), "ab", buffering=0)  # noqa: SIM115
            self._files[owner].write(line.encode())
        except OSError as error:
            logger.warning("an answer cannot be kept in %s: %s", self.folder, one_line(error))

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._answers.clear()

    def _path(self, owner: str) -> Path:
        return self.folder / f"{safe_name(owner)}.jsonl"

    def _read(self, owner: str) -> dict[str, Any]:
        if owner not in self._answers:
            answers: dict[str, Any] = {}
            with contextlib.suppress(FileNotFoundError), open(self._path(owner), encoding="utf-8") as file:
                for line in file:
                    with contextlib.suppress(ValueError):  # the last line of a process that was killed
                        key, answer = json.loads(line)
                        answers[key] = answer
            self._answers[owner] = answers
        return self._answers[owner]

    def _tidy(self) -> None:
        oldest = time.time() - KEPT_SECONDS
        for path in self.folder.glob("*.jsonl"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    os.unlink(path)


def key_of(body: dict[str, Any], number: int) -> str:
    """The key of a request: its content, and its number among equal ones."""
    return digest([body, number], 32)
