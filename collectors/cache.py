"""The cache of this machine, for fetched models and prepared data."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.failures import ConfigError, one_line


def cache_dir(name: str = "") -> Path:
    """Returns the folder `name` in this machine's cache of fetched models and prepared data, and makes it if missing.

    The cache is $ROUTERLAKE_CACHE or ~/.cache/routerlake. Raises ConfigError when the folder cannot be made or written.
    """
    folder = Path(os.path.expanduser(os.environ.get("ROUTERLAKE_CACHE") or "~/.cache/routerlake")) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except OSError as error:
        raise ConfigError(f"no cache: {one_line(error)}; set ROUTERLAKE_CACHE to a folder of yours") from error
    return folder
