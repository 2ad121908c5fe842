"""How many workers a crew requests, and which of its requests the cluster can never meet; Ray's part is replaced."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from collectors.engines import ModelRef
from collectors.engines.gpus import Placement
from collectors.lake.store import Lake
from collectors.runs.config import FleetSpec, RunConfig
from collectors.runs.plan import Plan
from pipelines.fleet import crew as module
from pipelines.fleet.cluster import Joined
from pipelines.fleet.crew import Crew, Kind, Work, _Coming
from pipelines.fleet.fleet import Fleet
from pipelines.fleet.head_watch import HeadWatch

SMALL: Kind = (("accelerator_type", "L4"), ("num_cpus", 1.0), ("num_gpus", 1.0))
LARGE: Kind = (("accelerator_type", "H100"), ("num_cpus", 1.0), ("num_gpus", 8.0))


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """The kinds that were requested. A node of a kind in `fits` has room for eight."""
    kinds: list[Kind] = []

    def start(crew: Crew, kind: Kind) -> None:
        kinds.append(kind)
        crew._coming[object()] = _Coming(None, kind, time.monotonic())

    monkeypatch.setattr(Crew, "start", start)
    monkeypatch.setattr(module, "fits", lambda resources: 8 if resources["accelerator_type"] == "L4" else 0)
    monkeypatch.setattr(module, "can_come", lambda resources: None)
    return kinds


def crew_of(own: bool = False, **fleet: Any) -> Crew:
    resources = {"num_cpus": 1.0, "num_gpus": 1.0}
    return Crew(FleetSpec(**fleet), None, resources, own=own)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fleet", "count"),
    [({}, 8), ({"slots": 3}, 3), ({"workers": 12}, 12), ({"workers": 12, "slots": 5}, 5), ({"slots": 30}, 8)],
)
def test_crew_requests_at_most_its_slots(requested: list[Kind], fleet: dict[str, int], count: int) -> None:
    crew = crew_of(**fleet)
    for _ in range(2):
        crew.grow({SMALL: Work(models=40, shards=100)})
    assert requested == [SMALL] * count


def test_crew_names_kinds_that_no_node_and_no_group_can_hold_once_it_is_time(
    requested: list[Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = crew_of(workers=2)
    crew.start(SMALL)
    crew.start(LARGE)
    assert crew.unmet(60) == []
    assert crew.unmet(0) == [LARGE]
    monkeypatch.setattr(module, "can_come", lambda resources: True)  # a group has it: the node may come
    assert crew.unmet(0) == []
    assert (crew.late(60), crew.late(0)) == ([], [SMALL, LARGE])


def test_placement_that_no_node_holds_may_come_to_a_growing_cluster_and_never_to_a_runs_own(
    requested: list[Kind],
) -> None:
    large = Placement("H100", 8.0, 8, "bfloat16", 640.0)
    model = ModelRef("m", "m", "r", None, placements=(large,))
    assert dict(crew_of().kind_for(model))["accelerator_type"] == "H100"
    rooms = {
        (own, workers): crew_of(own, workers=workers).has_room(model) for own in (True, False) for workers in (None, 2)
    }
    assert rooms == {(True, None): False, (True, 2): False, (False, None): False, (False, 2): True}


@pytest.mark.parametrize("own", [True, False])
def test_fleet_speaks_of_lacking_room_only_in_a_cluster_that_others_use_or_that_grows(
    requested: list[Kind], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, own: bool
) -> None:
    monkeypatch.setattr("pipelines.fleet.fleet.COMING_SECONDS", 0.0)
    monkeypatch.setattr("pipelines.fleet.fleet.any_node", lambda: True)
    empty = Plan("run", RunConfig(models=["stub/a"], tasks=["t"], engine={"name": "stub"}), [])
    fleet = Fleet(empty, Lake(str(tmp_path)), crew_of(own), Joined(own, HeadWatch("127.0.0.1:1")))
    fleet.crew.start(SMALL)
    fleet._warn_of_waiting()
    warned = ["the cluster has no room yet for an engine with 1 CPUs and 1 × L4; waiting"]
    assert caplog.messages == ([] if own else warned)
