"""Files and folders that appear whole or not at all.

Owns the temporary name beside the final one, and that nothing is left of it. Knows nothing of the content. A lake
has its own way, which no other writer can overtake (collectors.lake.store).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, ending: str = ".tmp", locked: bool = False) -> Iterator[Path]:
    """A name beside `path` for a file or folder, which replaces `path` when the block ends well, else is deleted.

    Of several writers the last one wins, and readers see one or the other. A folder replaces none but an empty one.
    `ending`: of that name; by its own no pattern such as *.parquet finds half a file, but some writers go by it.
    `locked`: no other process writes `path` meanwhile; the name is then always the same, so that it replaces a killed
    process's file. Raises OSError, and whatever the block raises.
    """
    token = "" if locked else f".{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[-100:]}{token}{ending}")
    if locked:
        _remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: an older one stays where that fails. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # the error that led here says more
            path.unlink(missing_ok=True)
