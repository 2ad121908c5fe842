"""Folders for work in progress, which are cleared even if the process that made them is killed.

Owns their names and the lock that shows whether the process is alive. It works across containers that share a folder,
where a process number would mean another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.failures import ConfigError

PREFIX = "routerlake-"
_LOCK = ".in-use"
_WHOLE = ".whole"


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


@contextlib.contextmanager
def shared_scratch(name: str, fill: Callable[[Path], None]) -> Iterator[Path]:
    """A folder below the machine's for temporary files that processes of this user share; the first one fills it.

    A later `scratch` deletes it when all of them are gone. Raises ConfigError where another user has the name.
    """
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}{name}"
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise ConfigError(f"{folder} is another user's: set another TMPDIR")
        with contextlib.suppress(FileNotFoundError):  # cleared meanwhile
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            is_ready = False
            try:
                is_ready = _is_filled(folder, lock, fill)
            finally:
                if not is_ready:
                    os.close(lock)
            if is_ready:
                break
    try:
        yield folder
    finally:
        os.close(lock)


def _is_filled(folder: Path, lock: int, fill: Callable[[Path], None]) -> bool:
    """Shares the lock of the folder once this process or another has filled it. False if it was cleared meanwhile."""
    while True:
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits for whoever fills it
        if not _is_current(folder, lock):
            return False
        if (folder / _WHOLE).exists():
            return True
        fcntl.flock(lock, fcntl.LOCK_UN)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process looks, or has filled it
            time.sleep(random.uniform(0.001, 0.02))
            continue
        if _is_current(folder, lock) and not (folder / _WHOLE).exists():
            fill(folder)
            (folder / _WHOLE).touch()


def _is_current(folder: Path, lock: int) -> bool:
    return (folder / _LOCK).stat().st_ino == os.fstat(lock).st_ino


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
