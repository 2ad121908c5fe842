"""A lake opened for writing in a folder and on a real S3 server, and short ways to read it."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.store import Lake
from schemas.identity import ShardName
from tests.helpers.object_store import BUCKET

ROOT = Path(__file__).parents[2]

CELL = "0123456789abcdef"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet."""
    if request.param == "folder":
        return str(tmp_path / "lake")
    request.getfixturevalue("s3_environment")
    return f"s3://{BUCKET}/{tmp_path.name}-{secrets.token_hex(4)}"


@pytest.fixture
def lake(uri: str) -> Lake:
    return Lake(uri).open_for_writing()


def read(lake: Lake, name: str) -> bytes:
    data: bytes = lake.filesystem.cat_file(f"{lake.root}/{name}")
    return data


def shard(first: int, last: int, generation: int = 0, cell: str = CELL) -> ShardName:
    return ShardName(cell, generation, first, last)


def python(code: str, *args: Any) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, **pipes)
