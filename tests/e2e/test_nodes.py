"""Nodes that come and go, and a head that is lost, on a real cluster of several raylets with pretended GPUs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.fleet.head_watch import NOTICE, SILENCE
from tests.e2e.conftest import Cluster
from tests.helpers import runs
from tests.helpers.raylets import Raylets, raylets, workers_of
from tests.helpers.runs import collect_here, wait_until
from tests.helpers.slow_runs import TOTAL, assert_undisturbed, committed, slow_config
from tests.helpers.thorough import long_only


@pytest.fixture
def nodes(own_home: Path) -> Iterator[Raylets]:
    with raylets(own_home / "nodes") as cluster:
        yield cluster


@long_only
@pytest.mark.slow
def test_work_moves_with_the_nodes_and_the_loss_of_the_head_ends_the_run_in_one_line(
    tmp_path: Path,
    nodes: Raylets,
    cluster: Cluster,
    undisturbed: pa.Table,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lake, logged = tmp_path / "lake", tmp_path / "log"
    first = nodes.add(gpus=1)
    path = slow_config(tmp_path, None, address=nodes.address, workers=None, options={"latency_s": 0.05})
    with open(logged, "w") as log:
        driver = subprocess.Popen([*runs.COLLECT, "--config", str(path)], cwd=runs.ROOT, stdout=log, stderr=log)
    try:
        wait_until("work", lambda: committed(lake) or driver.poll() is not None)
        second = nodes.add(gpus=1)
        wait_until("the new node gets a worker", lambda: workers_of(second) or driver.poll() is not None)
        held = committed(lake)
        nodes.take(first)
        wait_until("work goes on", lambda: committed(lake) > held + 20 or driver.poll() is not None)
        assert driver.poll() is None, logged.read_text()[-3000:]
        assert committed(lake) < TOTAL
        nodes.kill_head()
        lost = time.monotonic()
        assert driver.wait(runs.PATIENCE) == 1
        assert time.monotonic() - lost < SILENCE + NOTICE + 15
    finally:
        driver.kill()
    text = logged.read_text()
    [line] = [line for line in text.splitlines() if line.startswith("error: ")]
    assert line == f"error: the head of the Ray cluster at {nodes.address} is gone: no answer for {SILENCE:g} s"
    assert "Traceback" not in text
    assert runs.failures(lake) == []

    last = collect_here(capsys, slow_config(tmp_path, cluster))
    assert last.code == 0
    assert_undisturbed(lake, undisturbed)
