"""The Ray cluster of a run: joined or started, and how many workers it has room for.

Owns addresses, Ray's settings and the folder of a cluster of our own. Knows nothing of models or shards.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import ActorUnavailableError, RayActorError

from collectors.config import FleetSpec, GpuSpec
from collectors.gpus import Placement
from pipelines.head import HeadWatch
from schemas.failures import ConfigError, EngineError, one_line

logger = logging.getLogger(__name__)

#: How often a cluster of our own is started before the run is given up.
START_TRIES = 3

#: What Ray calls the resource of a node that has GPUs of a class.
ACCELERATOR = "accelerator_type:"

#: How a client opens a connection (RFC 9113, 3.4), and the kind of the frame that each side has to send first.
HTTP2_SETTINGS = b"\x04"
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0" * 5


@dataclass(frozen=True)
class Joined:
    """The cluster of this process."""

    #: Whether it was started for this run.
    own: bool
    head: HeadWatch


@contextmanager
def cluster(address: str | None, *, verbose: bool = False) -> Iterator[Joined]:
    """Connects to Ray: at `address`, inside a Ray job to its own cluster, else to one started for this run only.

    One of our own gets its own folder and `address="local"`, because plain ray.init() would join whatever cluster the
    machine's current-cluster file names.
    """
    settings: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    own = address in (None, "", "local")
    folder = None
    if own:
        folder = _short_folder()
        settings |= {"_temp_dir": folder, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    else:
        _check_address(str(address))
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _init("local" if own else str(address), settings)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints a stack and ends the process with code 15
        with HeadWatch(ray.get_runtime_context().gcs_address) as head:
            try:
                yield Joined(own, head)
            finally:
                ray.shutdown()
    finally:
        ray.shutdown()  # also one that was broken off while it began
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> str:
    """A new folder for Ray's sockets, whose paths may have 107 characters: in /tmp where TMPDIR is too long."""
    folder = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="routerlake-", dir=folder if len(folder) <= 30 else "/tmp")


def _init(address: str, settings: dict[str, Any]) -> None:
    """ray.init(), again where a cluster of our own did not start: Ray gives its processes 30 s, whatever the load."""
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(address=address, **settings)
            return
        except Exception as error:  # Ray raises a bare Exception for it
            ray.shutdown()
            if address != "local":
                raise ConfigError(f"cannot join the Ray cluster at {address}: {one_line(error)}") from error
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise EngineError(f"Ray did not start on this machine: {one_line(error)}") from error
            logger.warning("Ray did not start within its 30 s; trying again")


def _check_address(address: str) -> None:
    """Raises ConfigError where nothing speaks HTTP/2, as gRPC does: ray.init() would try for minutes, past SIGTERM."""
    place = canonicalize_bootstrap_address(address) if address == "auto" else address.removeprefix("ray://")
    host, _, port = str(place).rpartition(":")
    if place is None or not host or not port.isdigit():
        raise ConfigError(f"no Ray cluster at {address!r} (fleet.address or RAY_ADDRESS): give its host:port")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=30) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "1":
                connection.sendall(HTTP2_HELLO)
                if connection.recv(4)[3:] != HTTP2_SETTINGS:
                    raise ConnectionError("something else than Ray answers there")
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster at {address} (fleet.address or RAY_ADDRESS): {one_line(error)}") from error


def node_caused(error: RayActorError) -> bool:
    """Whether an actor was lost with its node, or with the way to it, and not by a fault of its own process.

    Ray says "unavailable" first when a node goes, and later that the node has died, which its error keeps as text.
    """
    return isinstance(error, ActorUnavailableError) or error.preempted or "its node has died" in str(error)


def node_gpus() -> list[GpuSpec]:
    """The classes of GPUs of the connected cluster's nodes, by Ray's accelerator_type, and the most in one node."""
    most: dict[str, int] = {}
    for node in _nodes():
        for name in node:
            if name.startswith(ACCELERATOR) and node.get("GPU", 0) >= 1:
                gpu = name.removeprefix(ACCELERATOR)
                most[gpu] = max(most.get(gpu, 0), int(node["GPU"]))
    return [GpuSpec(name=name, per_node=count) for name, count in sorted(most.items())]


def worker_resources(spec: FleetSpec, *, own: bool, places: Collection[Placement] = ()) -> dict[str, Any]:
    """What Ray gives to each worker for a model that is put nowhere; each of `places` has its own.

    With `workers` set a cluster that is not our `own` may start without room: it may grow. Raises ConfigError when no
    node fits a worker, when not so many fit where nothing grows, and without the GPUs of `places`.
    """
    nodes = _nodes()
    have_gpus = any(node.get("GPU", 0) > 0 for node in nodes)
    gpus = spec.gpus_per_worker if spec.gpus_per_worker is not None else float(have_gpus)
    resources: dict[str, Any] = {"num_cpus": spec.cpus_per_worker, "num_gpus": gpus}
    if not own and spec.workers:
        return resources
    if missing := sorted({place.gpu for place in places} - {gpu.name for gpu in node_gpus()}):
        there = ", ".join(f"{gpu.per_node} × {gpu.name}" for gpu in node_gpus()) or "no GPUs of a class that Ray names"
        raise ConfigError(f"fleet.gpus: models are put on {', '.join(missing)}, and the cluster's nodes have {there}")
    for kind in [resources | place.resources for place in places] or [resources]:
        fit = sum(_fits(node, kind) for node in nodes)
        if fit < 1:
            largest = max(node.get("CPU", 0) for node in nodes), max(node.get("GPU", 0) for node in nodes)
            wanted = f"{kind['num_gpus']:g} GPUs" + (f" of class {kind['accelerator_type']}" if places else "")
            raise ConfigError(
                f"fleet: no node fits a worker of {spec.cpus_per_worker:g} CPUs and {wanted}; the largest of the "
                f"cluster has {largest[0]:g} and {largest[1]:g}"
            )
        if spec.workers and spec.workers > fit:
            raise ConfigError(
                f"fleet.workers: this machine has room for {fit} workers of {spec.cpus_per_worker:g} CPUs and "
                f"{kind['num_gpus']:g} GPUs, not for {spec.workers}; give fewer, or a cluster by fleet.address"
            )
    return resources


def fits(resources: dict[str, Any]) -> int:
    """How many workers the cluster as it is now has room for, were it empty: nodes come and go."""
    return sum(_fits(node, resources) for node in _nodes())


def any_node() -> bool:
    return bool(_nodes())


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(node: dict[str, float], resources: dict[str, Any]) -> int:
    """How many workers a node has room for when it is empty."""
    by_cpu, gpus = int(node.get("CPU", 0) / resources["num_cpus"]), resources["num_gpus"]
    if (accelerator := resources.get("accelerator_type")) and ACCELERATOR + accelerator not in node:
        return 0
    return min(by_cpu, int(node.get("GPU", 0) / gpus)) if gpus else by_cpu
