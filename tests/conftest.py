"""What tests of all packages share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.tiny_models import tiny_models as build_tiny_models

# A busy machine is slow for no fault of the code under test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, Path]:
    """Tiny Llama checkpoints by name, kept in .cache between sessions."""
    return build_tiny_models(Path(__file__).parent.parent / ".cache")
