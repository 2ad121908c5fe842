"""Folders that look like models, and checks of errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.failures import ModelError

FILES = {
    "config.json": b'{"model_type": "llama", "dtype": "bfloat16"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"a model",
}


def write(folder: Path, **changes: bytes | None) -> Path:
    """A model folder; `changes` by file name, None: left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**FILES, **changes}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def refused(kind: str, action: Callable[[], Any]) -> str:
    """The one line of the ModelError of `kind` that `action` has to raise."""
    with pytest.raises(ModelError) as caught:
        action()
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)
