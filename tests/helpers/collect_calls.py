"""collect.py called in this process, on the tests' cluster or planning only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.runs import Run, collect_here

#: Nothing listens here: a run that tries Ray is refused instead of passing by accident.
NO_RAY = "127.0.0.1:1"

Collect = Callable[..., Run]


@pytest.fixture
def collect(cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Collect:
    """Runs a config on the shared cluster."""

    def run(path: Path, *flags: str) -> Run:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        return collect_here(capsys, path, *flags)

    return run


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Collect:
    """Runs a config where no Ray can be reached."""

    def run(path: Path, *flags: str) -> Run:
        monkeypatch.setenv("RAY_ADDRESS", NO_RAY)
        return collect_here(capsys, path, *flags)

    return run


def own_tasks(folder: Path) -> Path:
    """The tests' own lm-eval tasks, and `no_items`, whose filter leaves nothing of its data set."""
    write_tasks(folder)
    (folder / "nothing.py").write_text("def nothing(docs):\n    return docs.select([])\n", encoding="utf-8")
    text = "include: mini_choice.yaml\ntask: no_items\nprocess_docs: !function nothing.nothing\n"
    (folder / "no_items.yaml").write_text(text, encoding="utf-8")
    return folder
