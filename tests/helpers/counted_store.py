"""A folder as an object store that counts: which objects a reader opens, how many bytes it reads, what it lists.

Owns the file system counted://, to which DuckDB and the lake come as to any store without a client of DuckDB's own.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem


@dataclass
class Counts:
    """What was asked of the store."""

    #: Path -> bytes that were read of it.
    opened: Counter[str] = field(default_factory=Counter)
    #: Path of a folder -> how often it was listed.
    listed: Counter[str] = field(default_factory=Counter)

    def forget(self) -> None:
        self.opened.clear()
        self.listed.clear()

    def parts(self, kind: str = "records") -> list[str]:
        """The objects of one kind that hold rows of a compaction."""
        return sorted(name for name in self.opened if "/compact/" in name and f"/{kind}-" in name)

    def bytes_of(self, paths: list[str]) -> int:
        return sum(self.opened[path] for path in paths)


_COUNTS = Counts()


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)


class _Counted(AbstractFileSystem):
    protocol = "counted"
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._folder = LocalFileSystem()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("counted://").rstrip("/") or "/"

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        _COUNTS.listed[self._strip_protocol(path)] += 1
        found: list[Any] = self._folder.ls(self._strip_protocol(path), detail=detail)
        return found

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._folder.info(self._strip_protocol(path))
        return found

    def modified(self, path: str) -> dt.datetime:
        when: dt.datetime = self._folder.modified(self._strip_protocol(path))
        return when

    def exists(self, path: str, **_: Any) -> bool:
        return bool(self._folder.exists(self._strip_protocol(path)))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        data = bytes(self._folder.cat_file(self._strip_protocol(path), start, end))
        _COUNTS.opened[self._strip_protocol(path)] += len(data)
        return data

    def _open(self, path: str, mode: str = "rb", **_: Any) -> _File:
        path = self._strip_protocol(path)
        _COUNTS.opened[path] += 0
        return _File(self, path, mode, block_size=1 << 16, cache_type="none", size=self.info(path)["size"])


@contextmanager
def counted(folder: Path | str) -> Iterator[tuple[str, Counts]]:
    """The URI of a lake in a folder, for reading, and what is asked of it from now on."""
    fsspec.register_implementation("counted", _Counted, clobber=True)
    _COUNTS.forget()
    yield f"counted://{folder}", _COUNTS
