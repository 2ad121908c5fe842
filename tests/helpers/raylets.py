"""Ray clusters of several nodes on this machine, for tests that take nodes away.

Owns their processes: a head without CPUs, where the driver is, and nodes with pretended GPUs, ended by their own ids.
Knows nothing of what runs on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster as RayCluster

from tests.helpers.runs import PATIENCE, is_worker, kill

#: How fast a node that is gone is noticed: within seconds instead of half a minute.
_FAST = {"initial_delay_ms": 1000, "period_ms": 1000, "timeout_ms": 3000, "failure_threshold": 3}
_STORE = 80 * 2**20


class Raylets:
    """A head and the nodes that were added."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.nodes: list[Any] = []

    def add(self, cpus: int = 1, gpus: int = 0) -> Any:
        self.nodes.append(self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=_STORE))
        return self.nodes[-1]

    def take(self, node: Any) -> None:
        """A node goes as by a power cut."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        for process in _processes(self._cluster.head_node):
            kill(process)

    def end(self) -> None:
        processes = [p for node in (self._cluster.head_node, *self.nodes) if node for p in _processes(node)]
        children = [child for process in processes for child in _children(process)]
        for process in [*processes, *children]:
            kill(process)
        psutil.wait_procs([*processes, *children], timeout=PATIENCE)


def _processes(node: Any) -> list[psutil.Process]:
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def workers_of(node: Any) -> list[psutil.Process]:
    """The engine processes on a node."""
    return [child for parent in _processes(node) for child in _children(parent) if is_worker(child)]


@contextmanager
def raylets(folder: Path) -> Iterator[Raylets]:
    """A cluster whose files lie in `folder`, which has to have a short path: Ray's sockets are there."""
    (folder / "ray").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _FAST.items():
            patch.setenv(f"RAY_health_check_{name}", str(value))
        patch.setenv("RAY_TMPDIR", str(folder))
        cluster = Raylets()
        try:
            yield cluster
        finally:
            cluster.end()
