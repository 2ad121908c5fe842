"""The dashboard asks Prometheus for metrics and tags that pipelines/fleet/prometheus.py has, and for all of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pipelines.fleet.prometheus import METRICS
from tests.helpers.runs import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "infra" / "grafana" / "routerlake.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
#: Words of PromQL in the dashboard other than metrics and tags.
WORDS = {"by", "max", "sum", "rate"}


def queries() -> list[str]:
    variables = [variable["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    return EXPRESSIONS + [query["query"] for query in variables]


def test_dashboard_asks_for_every_metric_and_no_other() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bray_(\w+)", query)}
    assert asked == set(METRICS)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_dashboard_expressions_name_tags_that_their_metric_has(expression: str) -> None:
    names = re.findall(r"ray_(\w+)\{", expression)
    for name, selector in zip(names, re.findall(r"\{([^}]*)\}", expression), strict=True):
        tags = re.findall(r"(\w+)\s*(?:=~|!=|=)", selector)
        assert set(tags) <= {"run", *METRICS[name].tags}
        assert "run" in tags  # two runs are never added up
        if METRICS[name].kind == "counter" and "rate(" in expression:
            assert f"rate(ray_{name}{{{selector}}}[5m])" in expression
    grouped = {tag for tags in re.findall(r"by \(([^)]*)\)", expression) for tag in tags.split(", ")}
    assert all(grouped <= set(METRICS[name].tags) for name in names)
    rest = re.sub(r"\{[^}]*\}|\[5m\]|by \([^)]*\)|ray_\w+|[\d.]+", " ", expression)
    assert set(re.findall(r"\w+", rest)) <= WORDS
    assert rest.count("(") == rest.count(")")


def test_dashboard_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        squares = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not squares & taken
        assert place["x"] + place["w"] <= 24
        taken |= squares
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
