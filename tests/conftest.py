"""What tests of all packages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import tiny_models as build_tiny_models


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, Path]:
    """Tiny Llama checkpoints by name, kept in .cache between sessions."""
    return build_tiny_models(Path(__file__).parent.parent / ".cache")
