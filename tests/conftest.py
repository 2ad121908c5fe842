"""What tests of all packages share."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from tests.helpers.object_store import object_store, s3_environment
from tests.helpers.thorough import load_hypothesis_profile
from tests.helpers.tiny_models import tiny_models as build_tiny_models

__all__ = ["object_store", "s3_environment"]  # fixtures

# Ray reads these when it is first imported, by whichever test module is collected first: a token of the tests' own, and
# 127.0.0.1 as it is written (without the last one Ray turns it into the machine's outer address).
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Threads of several processes on two cores wait for each other by spinning: the engines' tests took 586 CPU-seconds
    # among all tests, and three of them at once 185 with one thread each.
    "OMP_NUM_THREADS": "1",
}

load_hypothesis_profile()


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, Path]:
    """Tiny Llama checkpoints by name, kept in .cache between sessions."""
    return build_tiny_models(Path(__file__).parent.parent / ".cache")


_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Threads of Ray and Arrow outlive their work, and have crashed an interpreter that was winding down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash.get(_STATUS, pytest.ExitCode.INTERNAL_ERROR))
