"""How much of a random test runs: a few of its examples and kills in `make test`, all of them in `make test-long`."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

#: `make test-long` sets it.
LONG = os.environ.get("ROUTERLAKE_TESTS") == "long"


#: Marks a test whose property another test holds in `make test`, in fewer ways.
long_only = pytest.mark.skipif(not LONG, reason="make test-long")


def often(full: int, few: int | None = None) -> int:
    """Returns how many examples or kills to run: `full` or, in `make test`, `few`: a fifth of them, at least three."""
    return full if LONG else few or max(3, full // 5)


def load_hypothesis_profile() -> None:
    """Sets the examples of properties that name no number. A busy machine is slow, so there are no deadlines."""
    settings.register_profile(
        "routerlake", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=often(100)
    )
    settings.load_profile("routerlake")
