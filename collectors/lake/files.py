"""Files of a lake in a folder: exclusive creation, and listings that leave nothing out in silence.

Owns the temporary names beside final ones. Knows nothing of their content.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

#: A temporary file of `create_file`, and the age in seconds at which no writer is at work on it any more.
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.tmp")
LEFTOVER_AGE = 24 * 3600


def files_below(folder: str, depth: int = 3) -> Iterator[str]:
    return (entry.path for entry in entries_below(folder, depth))


def entries_below(folder: str, depth: int = 3) -> Iterator[os.DirEntry[str]]:
    """Yields the files below `folder`, also through links, as the views do; the depth of a lake limits loops.

    fsspec's find() silently leaves out folders that it may not read: their shards would be collected again.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    yield entry
                elif depth > 1 and entry.is_dir():
                    yield from entries_below(entry.path, depth - 1)
    except FileNotFoundError:
        return


def made(entry: os.DirEntry[str]) -> float | None:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:  # pruned since
        return None


def is_file(path: Path) -> bool:
    """Whether the file exists. Raises FileExistsError if something else has its name."""
    if path.is_file():
        return True
    if not os.path.lexists(path):
        return False
    if path.is_file():  # another process made it meanwhile
        return True
    raise FileExistsError(f"{path} is in the way: it is not a file; remove it")


def create_file(path: Path, data: bytes) -> bool:
    """Writes a temporary file and links it: link() is atomic and fails if the name exists, over NFS, too."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # not an object that exists already
        raise NotADirectoryError(f"{path.parent} is a file") from error
    if is_file(path):
        return False
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            if not is_file(path):
                raise FileExistsError(f"{path} vanished while it was written") from None
            return False
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def every_file(root: str) -> list[str]:
    """Returns the names of all files below `root` at any depth, of links and special files, too, in byte order."""
    names = []
    for folder, folders, files in os.walk(root, onerror=_raise):
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
        names += [f"{folder}/{name}"[len(root) :].lstrip("/") for name in (*files, *links)]
    return sorted(names)


def empty_folders(root: str) -> list[str]:
    """Returns the names of folders below `root` that hold nothing."""
    walked = os.walk(root, onerror=_raise)
    return sorted(folder[len(root) :].lstrip("/") for folder, folders, files in walked if not (folders or files))


def is_plain_file(root: str, name: str) -> bool:
    """Whether `name` below `root` is a file, without a link on the way."""
    parts = name.split("/")
    folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    if any(os.path.islink(f"{root}/{folder}") for folder in folders):
        return False
    try:
        return stat.S_ISREG(os.lstat(f"{root}/{name}").st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _raise(error: OSError) -> None:
    raise error
