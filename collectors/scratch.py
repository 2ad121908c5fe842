"""Folders for work in progress, which are cleared even if the process that made them is killed.

Owns their names and the lock that shows whether the process is alive. It works across containers that share a folder,
where a process number would mean another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "routerlake-"
_LOCK = ".in-use"


@contextlib.contextmanager
def scratch(name: str, parent: str | None = None) -> Iterator[Path]:
    """A new folder below `parent`, by default the machine's for temporary files; only this user can read it.

    It is deleted at the end, and so are those that killed processes of this user left there before.
    """
    place = Path(parent or tempfile.gettempdir())
    clear_left(place)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}", dir=place))
    lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int:
    """Locks a file in the folder. It gets its name when it is locked: no other process may lock it before."""
    made = folder / f"{_LOCK}.new"
    lock = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    made.rename(folder / _LOCK)
    return lock


def clear_left(place: Path) -> None:
    """Deletes folders of `scratch` in `place` whose process is gone."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or deleted meanwhile
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
