"""The Ray cluster of a run: joins or starts one, and counts the workers that it has room for.

Owns addresses, Ray's settings and the folder of a cluster of our own. Knows nothing of models or shards.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.exceptions import ActorUnavailableError, RayActorError

from collectors.engines.gpus import Placement, ray_name
from collectors.runs.config import FleetSpec
from collectors.scratch import scratch
from collectors.specs import GpuSpec
from pipelines.fleet.head_watch import HeadWatch
from schemas.failures import ConfigError, EngineError, one_line

logger = logging.getLogger(__name__)

#: Attempts to start a cluster of our own before the run fails.
START_TRIES = 3

#: Prefix of the resource that Ray gives to a node with GPUs of a class.
ACCELERATOR = "accelerator_type:"
#: Amount of that resource that an actor takes.
ACCELERATOR_SHARE = 0.001

#: What Ray puts behind the place of its sockets, whose paths may have 107 bytes.
_LONGEST_PLACE = 107 - len("/routerlake-12345678/r/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store")

#: The type of each side's first frame, and a client's first bytes (RFC 9113, 3.4).
HTTP2_SETTINGS = b"\x04"
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0" * 5


@dataclass(frozen=True)
class Joined:
    """The cluster that this process is connected to."""

    #: True if it was started for this run alone.
    own: bool
    head: HeadWatch


@contextmanager
def cluster(address: str | None, *, verbose: bool = False) -> Iterator[Joined]:
    """Connects to the Ray cluster at `address`, else to the job's own inside a Ray job, else to a new one for this run.

    A new cluster gets its own folder and `address="local"`: plain ray.init() would join whatever cluster the machine's
    current-cluster file names.
    """
    settings: dict[str, Any] = {"log_to_driver": verbose, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    own = address in (None, "", "local")
    if own:
        with scratch("", _short_place()) as folder, _on_loopback():
            yield from _joined("local", {**settings, **_own_settings(str(folder / "r"))}, own=True)
    else:
        _check_address(str(address))
        yield from _joined(str(address), settings, own=False)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Lets Ray take 127.0.0.1 for this machine's address, so that none of its servers listens elsewhere.

    Ray replaces that address by the one that other machines reach, unless clusters are off, as they are on macOS.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _own_settings(folder: str) -> dict[str, Any]:
    """Settings of a cluster for this run alone. `folder` lies in one of this user's: Ray opens it to all users."""
    return {
        "_temp_dir": folder,
        "_node_ip_address": "127.0.0.1",
        "include_dashboard": False,
        "object_store_memory": 100 * 2**20,
    }


def _joined(address: str, settings: dict[str, Any], *, own: bool) -> Iterator[Joined]:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _init(address, settings)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler prints a stack and exits with code 15
        with HeadWatch(ray.get_runtime_context().gcs_address) as head:
            try:
                yield Joined(own, head)
            finally:
                ray.shutdown()
    finally:
        ray.shutdown()  # a start that was interrupted leaves processes, too


def _short_place() -> str:
    """The place of the folder for Ray's sockets. Their paths may have 107 characters: /tmp if TMPDIR is too long.

    Raises ConfigError where another user could put a folder of their own in its place.
    """
    place = tempfile.gettempdir()
    place = place if len(os.fsencode(place)) <= _LONGEST_PLACE else "/tmp"
    found = os.stat(place)
    open_to_all = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if open_to_all or found.st_uid not in (0, os.getuid()):
        raise ConfigError(f"other users can replace what is in {place}: chmod +t {place}, or set another TMPDIR")
    return place


def _init(address: str, settings: dict[str, Any]) -> None:
    """Calls ray.init(), again if our own cluster did not start: Ray allows its processes 30 s, whatever the load."""
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(address=address, **settings)
            return
        except Exception as error:  # Ray raises a bare Exception after a slow start
            ray.shutdown()
            if address != "local":
                raise ConfigError(f"cannot join the Ray cluster at {address}: {one_line(error)}") from error
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise EngineError(f"Ray did not start on this machine: {one_line(error)}") from error
            logger.warning("Ray did not start within its 30 s; trying again")


def _check_address(address: str) -> None:
    """Raises ConfigError unless a server at `address` speaks HTTP/2, as gRPC does.

    ray.init() would try for minutes, and SIGTERM does not end it.
    """
    place = canonicalize_bootstrap_address(address) if address == "auto" else address.removeprefix("ray://")
    host, _, port = str(place).rpartition(":")
    if place is None or not host or not port.isdigit():
        raise ConfigError(f"no Ray cluster at {address!r} (fleet.address or RAY_ADDRESS): give its host:port")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=30) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "1":
                connection.sendall(HTTP2_HELLO)
                if connection.recv(4)[3:] != HTTP2_SETTINGS:
                    raise ConnectionError("another server than Ray answers there")
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster at {address} (fleet.address or RAY_ADDRESS): {one_line(error)}") from error


def node_caused(error: RayActorError) -> bool:
    """True if an actor was lost with its node or its network, False if its own process failed.

    When a node goes, Ray first reports the actor as unavailable. Later it reports the dead node, but only in the text.
    """
    return isinstance(error, ActorUnavailableError) or error.preempted or "its node has died" in str(error)


def node_gpus() -> list[GpuSpec]:
    """The GPU classes of the connected cluster, by Ray's accelerator_type, with the largest count in one node."""
    most: dict[str, int] = {}
    for node in _nodes():
        for name in node:
            if name.startswith(ACCELERATOR) and node.get("GPU", 0) >= 1:
                gpu = name.removeprefix(ACCELERATOR)
                most[gpu] = max(most.get(gpu, 0), int(node["GPU"]))
    return [GpuSpec(name=name, per_node=count) for name, count in sorted(most.items())]


def worker_resources(spec: FleetSpec, *, own: bool, places: Collection[Placement] = ()) -> dict[str, Any]:
    """The Ray resources of a worker whose model has no placement; each of `places` has resources of its own.

    With fleet.workers set, a cluster that is not our `own` may have no room yet, because it may grow. Raises
    ConfigError if no node fits a worker, if a cluster that cannot grow fits too few, or if it lacks the GPUs of
    `places`.
    """
    nodes = _nodes()
    have_gpus = any(node.get("GPU", 0) > 0 for node in nodes)
    gpus = spec.gpus_per_worker if spec.gpus_per_worker is not None else float(have_gpus)
    resources: dict[str, Any] = {"num_cpus": spec.cpus_per_worker, "num_gpus": gpus}
    if not own and spec.workers:
        return resources
    if missing := sorted({ray_name(place.gpu) for place in places} - {gpu.name for gpu in node_gpus()}):
        there = ", ".join(f"{gpu.per_node} × {gpu.name}" for gpu in node_gpus()) or "no GPU class that Ray reports"
        raise ConfigError(f"fleet.gpus: models are placed on {', '.join(missing)}; the cluster's nodes have {there}")
    for kind in [resources | place.resources for place in places] or [resources]:
        fit = sum(_fits(node, kind) for node in nodes)
        if fit < 1:
            largest = max(node.get("CPU", 0) for node in nodes), max(node.get("GPU", 0) for node in nodes)
            wanted = f"{kind['num_gpus']:g} GPUs" + (f" of class {kind['accelerator_type']}" if places else "")
            raise ConfigError(
                f"fleet: no node fits a worker of {spec.cpus_per_worker:g} CPUs and {wanted}; the cluster's largest "
                f"node has {largest[0]:g} CPUs and {largest[1]:g} GPUs"
            )
        if spec.workers and spec.workers > fit:
            raise ConfigError(
                f"fleet.workers: this machine has room for {fit} workers of {spec.cpus_per_worker:g} CPUs and "
                f"{kind['num_gpus']:g} GPUs, not for {spec.workers}; give fewer, or a cluster by fleet.address"
            )
    return resources


def fits(resources: dict[str, Any]) -> int:
    """How many workers with these resources the cluster would hold if it were empty, with its nodes of this moment."""
    return sum(_fits(node, resources) for node in _nodes())


def can_come(resources: dict[str, Any]) -> bool | None:
    """Whether the cluster's autoscaler has a group of nodes for a worker with these resources.

    None if there is no autoscaler, or it does not answer.
    """
    try:
        reply = GetClusterStatusReply()
        reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=5))
    except Exception as error:  # Ray's client has no error of its own for this
        logger.debug("the cluster's autoscaler does not answer: %s", one_line(error))
        return None
    state = reply.autoscaling_state
    if not state.autoscaler_state_version:
        return None
    wanted = demand(resources)
    return not any(
        {name: amount for name, amount in one.resources_bundle.items() if amount} == wanted
        for one in state.infeasible_resource_requests
    )


def demand(resources: dict[str, Any]) -> dict[str, float]:
    """What Ray asks its autoscaler for, for a worker with these resources."""
    wanted = {"CPU": float(resources["num_cpus"]), "GPU": float(resources["num_gpus"])}
    if accelerator := resources.get("accelerator_type"):
        wanted[ACCELERATOR + accelerator] = ACCELERATOR_SHARE
    return {name: amount for name, amount in wanted.items() if amount}


def any_node() -> bool:
    return bool(_nodes())


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(node: dict[str, float], resources: dict[str, Any]) -> int:
    """How many workers with these resources an empty node would hold."""
    cpus, gpus = resources["num_cpus"], resources["num_gpus"]
    by_cpu = int(node.get("CPU", 0) / cpus) if cpus else 10**6
    if (accelerator := resources.get("accelerator_type")) and ACCELERATOR + accelerator not in node:
        return 0
    return min(by_cpu, int(node.get("GPU", 0) / gpus)) if gpus else by_cpu
