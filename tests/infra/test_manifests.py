"""Manifests of infra/: of the published form, of the versions that the lock has, and consistent with each other."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from collectors.models.weights import DISK
from collectors.runs.config import load_config
from pipelines.collect import parse_args
from tests.helpers.locks import pinned, project_version
from tests.helpers.manifests import faults
from tests.helpers.runs import ROOT

INFRA = ROOT / "infra"
KUBERAY = ["raycluster.yaml", "rayjob.yaml", "guards.yaml"]


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The documents of a manifest by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((INFRA / "kuberay" / name).read_text(encoding="utf-8"))}


def cluster() -> dict[str, Any]:
    spec: dict[str, Any] = documents("raycluster.yaml")["RayCluster"]["spec"]
    return spec


def groups() -> dict[str, dict[str, Any]]:
    spec = cluster()
    return {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_manifests_have_the_published_fields(name: str) -> None:
    assert [fault for kind, one in documents(name).items() for fault in faults(one, kind)] == []


def test_fields_planted_faults_are_reported() -> None:
    job = copy.deepcopy(documents("rayjob.yaml")["RayJob"])
    spec = job["spec"]["rayClusterSpec"]
    spec["authOptions"]["mode"] = "none"
    spec["workerGroupSpecs"][0]["maxReplicas"] = "16"
    del spec["workerGroupSpecs"][1]["groupName"]
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["volumemounts"] = []
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "16 GB"
    assert faults(job, "RayJob") == [
        "RayJob.spec.rayClusterSpec.authOptions.mode: 'none' is no disabled|token",
        "RayJob.spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].volumemounts: unknown",
        "RayJob.spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].resources.limits.memory: '16 GB' is no "
        "quantity",
        "RayJob.spec.rayClusterSpec.workerGroupSpecs[0].maxReplicas: '16' is no integer",
        "RayJob.spec.rayClusterSpec.workerGroupSpecs[1].groupName: missing",
    ]


def test_kuberay_job_makes_the_same_cluster_as_raycluster() -> None:
    job = documents("rayjob.yaml")
    assert job["RayJob"]["spec"]["rayClusterSpec"] == cluster()
    assert job["ServiceAccount"] == documents("raycluster.yaml")["ServiceAccount"]


def test_kuberay_cluster_is_guarded_autoscaled_and_of_the_locked_ray() -> None:
    spec = cluster()
    assert spec["rayVersion"] == pinned("cpu", "ray") == pinned("gpu", "ray")
    assert spec["authOptions"] == {"mode": "token", "secretName": "routerlake-ray"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}  # no engine beside the driver


WORKERS = [name for name in groups() if name != "head"]


@pytest.mark.parametrize("name", ["head", *WORKERS])
def test_kuberay_pods_are_bounded_and_unprivileged(name: str) -> None:
    pod = groups()[name]["template"]["spec"]
    [container] = pod["containers"]
    assert (
        container["image"] == f"REGISTRY/routerlake:{project_version()}-{'cpu' if name in ('head', 'cpu') else 'gpu'}"
    )
    assert pod["securityContext"]["runAsUser"] == 10001  # of the images
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/cache"]["emptyDir"]["sizeLimit"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert mounts["/tmp"]["emptyDir"]["sizeLimit"]
    assert mounts["/home/routerlake"]["emptyDir"]["sizeLimit"]  # the images' home, and their working directory
    assert set(volumes) == {mount["name"] for mount in container["volumeMounts"]}
    if name != "head":  # models that stay leave a fifth of the cache to what is being fetched
        [most] = [int(one["value"]) for one in container["env"] if one["name"] == DISK]
        assert mounts["/cache"]["emptyDir"]["sizeLimit"] == f"{most * 5 // 4}Gi"


@pytest.mark.parametrize("name", WORKERS)
def test_kuberay_workers_have_an_account_without_a_token(name: str) -> None:
    """KubeRay binds a role that may patch pods and clusters to the head's account, for the autoscaler."""
    pod, account = groups()[name]["template"]["spec"], documents("guards.yaml")["ServiceAccount"]
    assert pod["serviceAccountName"] == account["metadata"]["name"] != documents("rayjob.yaml")["ServiceAccount"]
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False
    assert groups()["head"]["template"]["spec"]["serviceAccountName"] == "routerlake"


def test_kuberay_pods_are_reached_by_named_peers_at_their_ports_alone() -> None:
    spec = documents("guards.yaml")["NetworkPolicy"]["spec"]
    assert spec["podSelector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    own, *others = spec["ingress"]
    assert own["from"] == [{"podSelector": spec["podSelector"]}]
    assert [[port["port"] for port in rule["ports"]] for rule in others] == [[8265], [8080]]
    assert all(list(peer.values()) != [{}] for rule in spec["ingress"] for peer in rule["from"])


@pytest.mark.parametrize("name", WORKERS)
def test_kuberay_workers_have_time_to_drain(name: str) -> None:
    pod = groups()[name]["template"]["spec"]
    [drain] = [
        int(one["value"])
        for one in pod["containers"][0]["env"]
        if one["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    ]
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S  # Ray knows it by this name

    assert 0 < RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S < drain < pod["terminationGracePeriodSeconds"] <= 120


def test_kuberay_job_runs_a_config_that_is_right_and_mounted(tmp_path: Any) -> None:
    job = documents("rayjob.yaml")
    args = parse_args(command_of(job["RayJob"]["spec"]["entrypoint"]))
    config = groups()["head"]["template"]["spec"]["containers"][0]["volumeMounts"][0]
    folder, _, name = args.config.rpartition("/")
    assert (folder, config["name"]) == (config["mountPath"], "config")
    (tmp_path / name).write_text(job["ConfigMap"]["data"][name])
    run = load_config(str(tmp_path / name))
    # Without both a run on a cluster that is still without GPUs would take CPUs, or be refused.
    assert run.fleet.workers == groups()["l4"]["maxReplicas"]
    assert [gpu.name for gpu in run.fleet.gpus or ()] == ["L4"]
    assert args.exit_zero  # KubeRay starts every failed job anew


def command_of(line: str) -> list[str]:
    """The arguments in a line `python -m pipelines.collect …`."""
    python, flag, module, *args = line.split()
    assert (python, flag, module) == ("python", "-m", "pipelines.collect")
    return args


def test_ray_up_file_is_of_rays_own_schema() -> None:
    config = yaml.safe_load((INFRA / "ray-cluster.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(copy.deepcopy(config)))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    for name in ("gpu_spot", "gpus_spot"):
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert f"boto3=={pinned('gpu', 'botocore')}" in " ".join(config["head_setup_commands"])
    planted = {**config, "setup_comands": []}
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config(planted))


def test_sky_task_has_the_published_fields_and_runs_collect() -> None:
    task = yaml.safe_load((INFRA / "skypilot.yaml").read_text(encoding="utf-8"))
    assert faults(task, "Task") == []
    [line] = re.findall(r"python -m pipelines\.collect .*", task["run"])
    assert parse_args(command_of(line)).lake == '"$LAKE"'
    assert "RAY_AUTH_MODE=token" in task["run"]
    assert "ray stop" not in task["run"]  # would end SkyPilot's own Ray


def test_infra_holds_no_secret() -> None:
    keys = re.compile(r"AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{30}|BEGIN [A-Z ]*PRIVATE KEY")
    named = re.compile(r"(auth_token|secret_access_key|password)\s*[:=]\s*[\"']?[a-z0-9+/]{12}", re.IGNORECASE)
    for path in (path for path in INFRA.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        text = path.read_text(encoding="utf-8")
        assert not keys.search(text), path
        assert not named.search(text), path
