"""What watches runs and keeps lakes small: alert rules, a PodMonitor, a nightly compaction, the bucket's lifecycle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from pipelines.fleet.prometheus import METRICS
from tests.helpers.iam import listed, read_policy
from tests.helpers.manifests import faults
from tests.helpers.runs import ROOT
from tests.infra.test_manifests import INFRA, documents, groups

RULES = INFRA / "prometheus" / "rules.yaml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
#: Words of PromQL in the rules other than metrics and tags.
WORDS = {"sum", "max", "by", "on", "and", "unless", "rate", "increase", "max_over_time"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_alert_asks_for_metrics_and_tags_that_there_are(alert: dict[str, Any]) -> None:
    expression = alert["expr"]
    names = re.findall(r"\bray_(\w+)", expression)
    assert set(names) <= set(METRICS)
    tags = {"run"}.union(*(METRICS[name].tags for name in names))
    used = {tag for part in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for tag in part.split(", ")}
    used |= set(re.findall(r"(\w+)=\"", expression))
    assert used <= tags
    for name in names:
        is_rate = re.search(rf"(?:rate|increase)\(ray_{name}\b", expression) is not None
        assert is_rate == (METRICS[name].kind == "counter")
    rest = re.sub(r"\{[^}]*\}|\[\d+m\]|(?:by|on) \([^)]*\)|ray_\w+|\b[\d.]+\b", " ", expression)
    assert set(re.findall(r"\w+", rest)) <= WORDS
    assert rest.count("(") == rest.count(")")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_alert_names_a_section_of_the_runbook(alert: dict[str, Any]) -> None:
    page, _, section = alert["annotations"]["runbook"].partition(", ")
    headings = re.findall(r"^## (.*)$", (INFRA / page).read_text(), re.MULTILINE)
    assert section in {heading.replace("`", "") for heading in headings}
    assert alert["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_are_rules_to_promtool() -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)


def test_pod_monitor_scrapes_a_port_that_every_pod_has() -> None:
    monitor = yaml.safe_load((INFRA / "prometheus" / "podmonitor.yaml").read_text())
    assert faults(monitor, "PodMonitor") == []
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    for name, group in groups().items():
        ports = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == 8080, name  # KubeRay's --metrics-export-port


def test_compaction_runs_every_night_as_the_maintainer() -> None:
    found = documents("compact.yaml")
    assert [fault for kind, one in found.items() for fault in faults(one, kind)] == []
    spec = found["CronJob"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    python, flag, module, *rest = pod["containers"][0]["command"]
    assert (python, flag, module) == ("python", "-m", "pipelines.compact")
    assert rest == ["--lake", "s3://EXAMPLE-BUCKET/lake", "--prune"]
    options = subprocess.run(
        [sys.executable, "pipelines/compact.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(option in options for option in rest if option.startswith("--"))
    role = found["ServiceAccount"]["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    statements = read_policy(INFRA / "bucket-policy.json", of_bucket=True)
    assert any(role in listed(s["Principal"]["AWS"]) for s in statements if s["Effect"] == "Allow")
    head = groups()["head"]["template"]["spec"]
    assert pod["securityContext"] == head["securityContext"]
    assert pod["containers"][0]["securityContext"] == head["containers"][0]["securityContext"]


def test_bucket_lifecycle_is_of_s3s_form_and_touches_no_current_object_but_notes() -> None:
    rules = json.loads((INFRA / "bucket-lifecycle.json").read_text())
    operation = (
        botocore.session.get_session().get_service_model("s3").operation_model("PutBucketLifecycleConfiguration")
    )
    assert operation.input_shape
    parameters = {"Bucket": "b", "LifecycleConfiguration": rules}
    assert not ParamValidator().validate(parameters, operation.input_shape).has_errors()
    for rule in rules["Rules"]:
        if "Days" in rule.get("Expiration", {}):
            assert rule["Filter"]["Prefix"].startswith("lake/claims/")
