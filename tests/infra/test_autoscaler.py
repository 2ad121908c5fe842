"""Every config that infra/ and the READMEs show starts nodes, by Ray's own autoscaler, in every cluster of infra/.

Owns the call of the autoscaler's scheduler: what it would launch for a number of workers on a cluster without nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from collectors.engines.gpus import Placement
from collectors.models.placement import PARALLEL, SHARES
from collectors.runs.config import FleetSpec
from pipelines.fleet.cluster import demand
from tests.helpers.runs import ROOT
from tests.infra.test_manifests import documents

CLUSTERS = ("kuberay/raycluster.yaml", "kuberay/rayjob.yaml", "ray-cluster.yaml")
_FLEET = re.compile(r"fleet: (\{(?:[^{}]|\{[^{}]*\})*\})")


def shown() -> list[tuple[str, str]]:
    """(file, fleet) of every config in infra/, the READMEs and the shipped configs that names GPUs."""
    places = [ROOT / "README.md", ROOT / "pipelines" / "README.md"]
    places += [path for path in (ROOT / "infra").rglob("*") if path.suffix in (".md", ".yaml")]
    places += list((ROOT / "pipelines" / "configs").glob("*.yaml"))
    found = [
        (str(path.relative_to(ROOT)), fleet) for path in sorted(places) for fleet in _FLEET.findall(path.read_text())
    ]
    for path in (ROOT / "pipelines" / "configs").glob("*.yaml"):
        fleet = yaml.safe_load(path.read_text()).get("fleet")
        found += [(str(path.relative_to(ROOT)), yaml.safe_dump(fleet, default_flow_style=True))] if fleet else []
    return [(path, fleet) for path, fleet in found if "gpus" in fleet]


def node_types(name: str) -> dict[str, NodeTypeConfig]:
    """The groups of a cluster as the autoscaler sees them."""
    if name.startswith("kuberay/"):
        [one] = [doc for kind, doc in documents(name.removeprefix("kuberay/")).items() if kind.startswith("Ray")]
        spec = one["spec"].get("rayClusterSpec", one["spec"])
        resource = {"metadata": {"name": "routerlake", "namespace": "default"}, "spec": spec}
        groups = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    else:
        groups = yaml.safe_load((ROOT / "infra" / name).read_text())["available_node_types"]
    return {
        group: NodeTypeConfig(
            name=group,
            min_worker_nodes=0,
            max_worker_nodes=one.get("max_workers", 0),
            resources=one["resources"],
            labels={},
        )
        for group, one in groups.items()
    }


def launched(name: str, wanted: dict[str, float], workers: int = 2) -> tuple[dict[str, int], int]:
    """Group -> nodes that the autoscaler would start, and the number of demands that no group can meet."""
    requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(wanted) for _ in range(workers)])
    reply = ResourceDemandScheduler(MagicMock()).schedule(
        SchedulingRequest(
            node_type_configs=node_types(name),
            resource_requests=requests,
            gang_resource_requests=[],
            cluster_resource_constraints=[],
            current_instances=[],
            idle_timeout_s=300,
            disable_launch_config_check=True,
        )
    )
    return {one.instance_type: one.count for one in reply.to_launch}, len(reply.infeasible_resource_requests)


def demands(fleet: str) -> Iterator[dict[str, float]]:
    """What a run with this fleet may ask for: every placement of a model on its classes."""
    spec = FleetSpec.model_validate(yaml.safe_load(fleet))
    resources: dict[str, Any] = {"num_cpus": spec.cpus_per_worker, "num_gpus": spec.gpus_per_worker}
    if spec.gpus is None:
        yield demand(resources)
    for gpu in spec.gpus or ():
        for share in (*SHARES, *(n for n in (1, *PARALLEL) if n <= gpu.per_node)):
            place = Placement(gpu.name, share, max(1, int(share)), "bfloat16", 1.0)
            yield demand(resources | place.resources)


def test_configs_with_gpus_are_shown() -> None:
    assert {"infra/kuberay/rayjob.yaml", "pipelines/README.md", "pipelines/configs/demo.yaml"} <= {
        p for p, _ in shown()
    }


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize(("path", "fleet"), shown())
def test_every_config_that_is_shown_starts_nodes(cluster: str, path: str, fleet: str) -> None:
    for wanted in demands(fleet):
        nodes, unmet = launched(cluster, wanted)
        assert (sum(nodes.values()) > 0, unmet) == (True, 0), f"{path}: {fleet} asks {cluster} for {wanted}"


@pytest.mark.parametrize("name", ["kuberay/raycluster.yaml", "kuberay/rayjob.yaml"])
def test_kuberay_has_one_group_for_each_class_that_clouds_rent(name: str) -> None:
    types = node_types(name)
    classes = {"T4": 1, "L4": 1, "A10G": 1, "L40S": 1, "A100": 8, "H100": 8, "H200": 8, "B200": 8}
    for gpu, each in classes.items():
        [group] = [one for one in types.values() if f"accelerator_type:{gpu}" in one.resources]
        assert group.resources["GPU"] == each
        place = Placement(gpu, each, each, "bfloat16", 1.0)
        assert launched(name, demand({"num_cpus": 1} | place.resources)) == ({group.name: 2}, 0)


def test_demand_that_no_group_can_meet_starts_nothing() -> None:
    for place in (Placement("V100", 1, 1, "float16", 1.0), Placement("L4", 4, 4, "bfloat16", 1.0)):
        wanted = demand({"num_cpus": 1} | place.resources)
        assert launched("kuberay/rayjob.yaml", wanted) == ({}, 2)


@pytest.mark.parametrize("name", ["A100-40G", "A100-80G", "A100 80GB", "A100"])
def test_a100_of_both_sizes_is_asked_for_as_ray_names_its_nodes(name: str) -> None:
    assert Placement(name, 1, 1, "bfloat16", 1.0).resources == {"num_gpus": 1, "accelerator_type": "A100"}
