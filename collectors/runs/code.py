"""The code that this process runs, for the shards that it makes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import subprocess
from pathlib import Path

#: Environment variable of an image: its commit or digest.
CODE = "ROUTERLAKE_CODE"

_ROOT = Path(__file__).parents[2]


@functools.cache
def code_version() -> str:
    """Returns $ROUTERLAKE_CODE, else the checkout's commit (with "+" if files differ), else the release's number."""
    if stated := os.environ.get(CODE):
        return stated
    if (_ROOT / ".git").exists():
        try:
            commit, changes = (
                subprocess.run(
                    ["git", "-C", str(_ROOT), *command], capture_output=True, text=True, check=True, timeout=30
                ).stdout
                for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
            )
            return commit.strip() + ("+" if changes.strip() else "")
        except (OSError, subprocess.SubprocessError):
            pass  # a checkout without git, or of another user
    try:
        return f"routerlake {importlib.metadata.version('routerlake')}"
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
