"""The cluster that the end-to-end tests share, and a home folder of their own.

Owns one `ray start --head` on free ports of 127.0.0.1: a person's cluster, token file and caches are never touched, and
it is ended by its own process ids.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from collectors.harness import index
from pipelines.collect import main
from tests.helpers import runs
from tests.helpers.runs import ITEMS, PATIENCE, ROOT, alive, kill, tree, wait_until
from tests.helpers.slow_runs import MODELS, slow_config
from tests.helpers.thorough import LONG

#: Where this interpreter and its `ray` are: first on PATH, so that a job's `python` is this one.
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of one node."""

    #: host:port of its control store, for `fleet.address`.
    address: str
    #: URL that jobs are submitted to. It answers in `make test-long` alone.
    dashboard: str
    #: URL of its node's Prometheus metrics.
    metrics: str
    pid: int


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches and temporary files of these tests, for this process and all that it starts."""
    short = Path(tempfile.mkdtemp(prefix="rl-"))  # Ray's socket paths may have 107 characters: no pytest folder fits
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))
        index.manager((), True)  # five seconds to make, once for all tests
        shutil.copy(index._kept(), cache)
    settings = {
        "ROUTERLAKE_CACHE": str(cache),
        "TMPDIR": str(short),
        "RAY_TMPDIR": str(short),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        # Ray starts four workers beside every cluster, which no run uses: 200 CPU-seconds of these tests.
        "RAY_prestart_worker_first_driver": "0",
        **({"RAY_metrics_report_interval_ms": "2000"} if LONG else {}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(tempfile, "tempdir", None)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield short
    shutil.rmtree(short, ignore_errors=True)


#: The cluster while it runs.
_SHARED = ExitStack()


@pytest.fixture(scope="session")
def cluster(own_home: Path) -> Iterator[Cluster]:
    """A running cluster with four CPUs, whatever the machine has."""
    with _SHARED:
        yield _SHARED.enter_context(_running(own_home / "cluster"))


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Ends the cluster after the last of these tests, since it would idle beside all others."""
    if not LONG and nextitem and nextitem.path.parent != Path(__file__).parent:  # one that is left to LONG comes later
        _SHARED.close()


@pytest.fixture(scope="module")
def gpu_cluster(own_home: Path) -> Iterator[Cluster]:
    """A running cluster of one node that claims to have two L4s."""
    with _running(own_home / "gpus", **{"num-gpus": 2, "resources": '{"accelerator_type:L4": 1}'}) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The records of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(["--config", str(slow_config(folder, cluster))]) == 0
    records = runs.stored_records(folder / "lake")
    assert records.num_rows == len(MODELS) * (ITEMS + 2 * ITEMS)
    answers = {str(runs.of_model(records, model)["loglikelihoods"].to_pylist()) for model in MODELS}
    assert len(answers) == len(MODELS)  # another model's answers would be seen
    return records


@contextmanager
def _running(folder: Path, **more: Any) -> Iterator[Cluster]:
    """A cluster that keeps its files in `folder`; `more` options of `ray start`."""
    log = folder.with_suffix(".log")
    for _ in range(3):  # Ray gives a node 30 s to start, whatever the load of the machine
        head, cluster = _start_head(folder, log, more)
        if wait_until("the cluster starts or ends", partial(_outcome, head, log)) == "started":
            break
    else:
        raise AssertionError(log.read_text())
    try:
        if LONG:
            wait_until("the dashboard listens", lambda: _listens(cluster.dashboard))
        yield cluster
    finally:
        _end(head)


def _start_head(folder: Path, log: Path, more: dict[str, Any]) -> tuple[subprocess.Popen[bytes], Cluster]:
    port, dashboard, agent, client, metrics = _free_ports(5)
    options: dict[str, Any] = {"port": port, "dashboard-port": dashboard, "dashboard-agent-listen-port": agent}
    options |= {"ray-client-server-port": client, "min-worker-port": 0, "max-worker-port": 0, "num-cpus": 4}
    options |= {"node-ip-address": "127.0.0.1", "dashboard-host": "127.0.0.1", "temp-dir": folder}
    options |= {"object-store-memory": 100 * 2**20, "metrics-export-port": metrics, **more}
    # Jobs alone are submitted to the dashboard, whose ten processes idle for two CPU-seconds a minute.
    options |= {"include-dashboard": str(LONG).lower()}
    command = [str(BIN / "ray"), "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())]
    with open(log, "wb") as output:
        head = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    return head, Cluster(f"127.0.0.1:{port}", *(f"http://127.0.0.1:{p}" for p in (dashboard, metrics)), head.pid)


def _outcome(head: subprocess.Popen[bytes], log: Path) -> str | None:
    if head.poll() is not None:
        return "ended"
    return "started" if "block forever" in log.read_text() else None


def _end(head: subprocess.Popen[bytes]) -> None:
    """Ends a head and all that it started; nothing else on the machine."""
    started = tree(head.pid)
    head.terminate()
    head.wait(PATIENCE)
    for process in started:
        kill(process)
    psutil.wait_procs(started, timeout=PATIENCE)
    assert not [process for process in started if alive(process)]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0
