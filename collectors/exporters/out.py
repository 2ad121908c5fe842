"""Files and folders that appear whole or not at all, and never in place of others.

Knows nothing of their content.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.atomic import replacing
from schemas.failures import ConfigError, StorageError, one_line


@contextlib.contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` for a file or folder, and renames that to `path` when the block ends well.

    Raises ConfigError where `path` is taken or its folder is not there, StorageError where it cannot be written.
    """
    check_free(path)
    try:
        with replacing(path, ending=path.suffix) as temporary:
            yield temporary
            check_free(path)  # it may have taken long
    except OSError as error:
        raise StorageError(f"cannot write {path}: {one_line(error)}") from error


def check_free(path: Path) -> None:
    """Raises ConfigError where nothing can be made at `path`."""
    if os.path.lexists(path):
        raise ConfigError(f"--out {path} is there already: name another, or remove it")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder {path.parent}")


def write_json(path: Path, value: Any) -> None:
    with open(path, "x", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=1)
