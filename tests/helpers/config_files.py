"""Config files written and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.runs.config import RunConfig, load_config

LEAST = {"models": ["a/b"], "tasks": ["t"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def load(path: Path, text: str | bytes, **overrides: Any) -> RunConfig:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(str(path), overrides)


def load_keys(path: Path, **keys: Any) -> RunConfig:
    return load(path, yaml.safe_dump({**LEAST, **keys}))
