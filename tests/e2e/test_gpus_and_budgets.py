"""Runs that a budget ends, and GPUs that are refused before anything starts; on nodes that claim to have GPUs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.engines.gpus import Placement
from collectors.lake.store import Lake
from collectors.runs.config import FleetSpec
from collectors.specs import GpuSpec
from pipelines.fleet.cluster import cluster as joined
from pipelines.fleet.cluster import fits, node_gpus, worker_resources
from schemas.failures import ConfigError
from schemas.records import MODEL
from tests.e2e.conftest import Cluster
from tests.helpers.gpu_prices import sell_gpu
from tests.helpers.model_shapes import LLAMA_8B
from tests.helpers.runs import CHOICE, ITEMS, Run, collect_here, config, query, shard_files
from tests.helpers.thorough import long_only

#: Small shards, so that a budget is spent in the middle.
SMALL = {"workers": 2, "first_shard_items": 5, "shard_seconds": 0.001}
L4 = [{"name": "L4", "per_node": 2}]


@pytest.fixture
def collect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def run(cluster: Cluster, path: Path, *flags: str) -> Run:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        return collect_here(capsys, path, *flags)

    return run


def items(lake: Path) -> int:
    return int(query(lake, "SELECT count(*) AS items FROM (SELECT DISTINCT cell_id, item FROM records)")[0]["items"])


@long_only
@pytest.mark.slow
def test_budget_of_cells_ends_a_run_cleanly_and_the_next_goes_on(
    tmp_path: Path, cluster: Cluster, collect: Callable[..., Run]
) -> None:
    lake = tmp_path / "lake"
    run = collect(cluster, config(tmp_path, fleet=SMALL, budget={"cells": 1}))
    assert run.code == 3, run.err
    reached = r"budget\.cells: [12] of 1 cells are finished"  # the other worker may have had a last shard in hand
    assert re.search(f"^stopped: {reached}; ", run.out, re.MULTILINE)
    assert "run the same command to continue" in run.out
    [end] = query(lake, "SELECT outcome, message FROM runs")
    assert end["outcome"] == "budget"
    assert re.fullmatch(reached, end["message"])
    done = items(lake)
    assert ITEMS <= done < 4 * ITEMS
    committed = shard_files(lake)
    again = collect(cluster, config(tmp_path, fleet=SMALL))
    assert again.code == 0, again.err
    assert f"to collect: {4 * ITEMS - done} items" in again.out  # shards at work are committed, nothing is lost
    assert committed.items() <= shard_files(lake).items()
    assert items(lake) == 4 * ITEMS


@long_only
@pytest.mark.slow
def test_budget_of_one_model_gives_it_up_and_later_runs_leave_it_out(
    tmp_path: Path, cluster: Cluster, collect: Callable[..., Run]
) -> None:
    slow = {"source": "stub/slow", "engine": {"latency_s": 0.2}}
    keys: dict[str, Any] = {"models": ["stub/alpha", slow], "tasks": [CHOICE], "fleet": SMALL}
    budget = {"model_hours": 0.003}  # eleven seconds
    run = collect(cluster, config(tmp_path, **keys, budget=budget))
    assert (run.code, run.out.count(f"failed: stub/slow on {CHOICE}: budget.model_hours: ")) == (1, 1), run.err
    counts = query(tmp_path / "lake", "SELECT model, sum(attempted) AS items FROM coverage GROUP BY 1 ORDER BY 1")
    assert counts[0] == {"model": "stub/alpha", "items": ITEMS}
    assert 0 < counts[1]["items"] < ITEMS
    again = collect(cluster, config(tmp_path, **keys, budget=budget))
    assert "nothing to collect" in again.out
    assert "quarantined: 1 cells of 1 models that broke engines or their cap before (stub/slow)" in again.out
    code = query(tmp_path / "lake", "SELECT DISTINCT facts ->> '$.code' AS code FROM shards")
    assert re.fullmatch(r"[0-9a-f]{40}\+?", code[0]["code"])


@long_only
@pytest.mark.slow
def test_budget_of_dollars_on_gpus_is_spent_by_the_price_and_refused_without_one(
    tmp_path: Path, gpu_cluster: Cluster, collect: Callable[..., Run]
) -> None:
    models = [{"source": f"stub/{name}", "memory_gib": 4} for name in ("alpha", "beta")]
    keys: dict[str, Any] = {
        "models": models,
        "tasks": [CHOICE],
        "budget": {"usd": 0.6},  # of half a dollar a second, and a shard takes one
        "fleet": {**SMALL, "gpus": L4},
        "engine": {"name": "stub", "options": {"latency_s": 0.1}},
    }
    refused = collect(gpu_cluster, config(tmp_path, **keys))
    assert refused.code == 2
    assert refused.err.splitlines()[-1].startswith("error: budget.usd: the lake has no price for L4: use budget.hours")
    assert not (tmp_path / "lake").exists()
    assert collect(gpu_cluster, config(tmp_path, **keys), "--dry-run").code == 2

    sell_gpu(Lake(str(tmp_path / "lake")).open_for_writing(), "L4", 3600.0)
    plan = collect(gpu_cluster, config(tmp_path, **keys), "--dry-run")
    assert "size unknown  1/4 × L4" in plan.out
    stopped = collect(gpu_cluster, config(tmp_path, **keys))
    assert stopped.code == 3, stopped.err
    assert "stopped: budget.usd: " in stopped.out
    assert {row["gpus"] for row in query(tmp_path / "lake", "SELECT facts ->> '$.gpus' AS gpus FROM shards")} == {
        "0.25"
    }
    assert 0 < items(tmp_path / "lake") < 2 * ITEMS
    spent = collect(gpu_cluster, config(tmp_path, **keys), "--exit-zero")
    assert spent.code == 0, spent.err
    assert "USD are spent by all runs under the name 'lake'; " in spent.out
    free = {**keys, "budget": {"usd": 1000}, "engine": {"name": "stub"}}
    whole = collect(gpu_cluster, config(tmp_path, **free))
    assert whole.code == 0, whole.err
    assert items(tmp_path / "lake") == 2 * ITEMS
    again = collect(gpu_cluster, config(tmp_path, **keys))
    assert again.code == 0, again.err
    assert "every planned item is in the lake already" in again.out


@long_only
@pytest.mark.slow
def test_budget_of_dollars_is_spent_by_an_engine_that_died_and_hides_no_failure(
    tmp_path: Path, gpu_cluster: Cluster, collect: Callable[..., Run]
) -> None:
    sell_gpu(Lake(str(tmp_path / "lake")).open_for_writing(), "L4", 3600.0)
    models: list[dict[str, Any]] = [
        {"source": "stub/unknown"},
        {"source": "stub/dies", "memory_gib": 4, "engine": {"crash_after": 3, "latency_s": 0.1}},
    ]
    keys: dict[str, Any] = {"models": models, "tasks": [CHOICE], "fleet": {**SMALL, "workers": 1, "gpus": L4}}
    run = collect(gpu_cluster, config(tmp_path, **keys, budget={"usd": 0.05}))  # 0.3 s of a quarter at 1 USD/s
    assert "cannot be planned: stub/unknown: " in run.out
    assert "stopped: budget.usd: " in run.out  # and the model is not asked again, to its second death
    assert (run.code, items(tmp_path / "lake")) == (1, 0)


@pytest.mark.slow
def test_gpus_that_no_node_has_and_dollars_without_gpus_are_refused_in_one_line(
    tmp_path: Path, cluster: Cluster, gpu_cluster: Cluster, collect: Callable[..., Run]
) -> None:
    models = [{"source": "stub/alpha", "memory_gib": 60}]
    asked = {"models": models, "tasks": [CHOICE], "fleet": {"gpus": ["H100"]}}
    for where, there in ((gpu_cluster, "2 × L4"), (cluster, "no GPU class that Ray reports")):
        run = collect(where, config(tmp_path, **asked))
        assert run.code == 2
        message = f"error: fleet.gpus: models are placed on H100; the cluster's nodes have {there}"
        assert run.err.splitlines()[-1] == message
        assert not list((tmp_path / "lake").glob("runs/2*"))
    run = collect(cluster, config(tmp_path, budget={"usd": 1}))
    assert run.code == 2
    assert run.err.splitlines()[-1].startswith("error: budget.usd: only GPUs have a price")
    assert shard_files(tmp_path / "lake") == {}


@long_only
@pytest.mark.slow
def test_nodes_that_never_come_fail_their_models_and_end_a_run_with_no_others(
    tmp_path: Path, gpu_cluster: Cluster, collect: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.fleet.fleet.WAITING_SECONDS", 1.0)
    models = [{"source": "stub/alpha", "memory_gib": 4}, {"source": "stub/large", "memory_gib": 60}]
    fleet = {**SMALL, "gpus": [*L4, "H100"], "node_seconds": 2}
    keys: dict[str, Any] = {"tasks": [CHOICE], "fleet": fleet}
    run = collect(gpu_cluster, config(tmp_path, models=models, **keys))
    line = "no node has 1 CPUs and 1 × H100 for an engine, no group of the cluster's autoscaler has them"
    assert (run.code, run.out.count(f"failed: stub/large on {CHOICE}: {line}")) == (1, 1), run.err
    assert items(tmp_path / "lake") == ITEMS
    alone = collect(gpu_cluster, config(tmp_path, models=models[1:], **keys))
    assert alone.code == 1
    assert line in alone.err.splitlines()[-2]
    assert alone.err.splitlines()[-1].startswith("Committed shards are safe")


@pytest.mark.slow
def test_workers_get_the_gpus_of_their_placements(gpu_cluster: Cluster) -> None:
    part = Placement("L4", 0.25, 1, "bfloat16", 5.5, 0.23)
    whole, both = Placement("L4", 1, 1, "bfloat16", 22.0), Placement("L4", 2, 2, "bfloat16", 44.0)
    four = Placement("L4", 4, 4, "bfloat16", 88.0)
    with joined(gpu_cluster.address) as here:
        assert not here.own
        assert node_gpus() == [GpuSpec(name="L4", per_node=2)]
        one = worker_resources(FleetSpec(), own=False, places=[part, both])
        assert [fits(one | place.resources) for place in (part, whole, both, four)] == [4, 2, 1, 0]  # four cores
        with pytest.raises(ConfigError, match="no node fits a worker of 1 CPUs and 4 GPUs of class L4"):
            worker_resources(FleetSpec(), own=False, places=[part, four])
        assert worker_resources(FleetSpec(workers=3), own=False, places=[four]) == one  # it may grow
        with pytest.raises(ConfigError, match=r"fleet.workers: this machine has room for 4 workers .* not for 5"):
            worker_resources(FleetSpec(workers=5, gpus_per_worker=0), own=True)


@long_only
@pytest.mark.slow
def test_models_get_workers_of_their_own_placement_and_more_gpus_when_memory_runs_out(
    tmp_path: Path, gpu_cluster: Cluster, collect: Callable[..., Run]
) -> None:
    """A quarter of an L4, one, and two; the last two models die on their GPUs, one of them for good."""
    models: list[dict[str, Any]] = [
        {"source": "stub/small", "memory_gib": 4},
        {"source": "stub/large", "memory_gib": 15},
        {"source": "stub/huge", "memory_gib": 30},
        {"source": "stub/hungry", "memory_gib": 4, "engine": {"needs_gpus": 2}},
        {"source": "stub/never", "memory_gib": 15, "engine": {"needs_gpus": 3}},
    ]
    fleet = {"gpus": L4, "first_shard_items": ITEMS}
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    config_json = json.dumps(LLAMA_8B)  # of an unknown shape they would get one GPU only
    for name in ("huge", "hungry", "never"):
        row = {"model": name, "source": f"stub/{name}", "revision": "r", "parameters": 1, "config": config_json}
        lake.create_table(f"models/{name}.parquet", pa.Table.from_pylist([row], schema=MODEL))
    run = collect(gpu_cluster, config(tmp_path, models=models, tasks=[CHOICE], fleet=fleet))
    assert (run.code, run.out.count("failed: stub/never on ")) == (1, 1), run.err
    sql = "SELECT DISTINCT model, facts ->> '$.gpus' AS gpus FROM shards JOIN cells USING (cell_id) ORDER BY ALL"
    found = {(row["model"], row["gpus"]) for row in query(tmp_path / "lake", sql)}
    expected = {("small", "0.25"), ("large", "1.0"), ("huge", "2.0"), ("hungry", "2.0")}
    assert found == {(f"stub/{name}", gpus) for name, gpus in expected}
    [row] = query(tmp_path / "lake", "SELECT kind, message FROM failures WHERE level = 'cell'")
    assert row["kind"] == "out_of_memory"
    tried = "max_num_seqs 16, max_num_batched_tokens 512; 2 × L4, the batch as configured; max_num_seqs 64"
    assert tried in row["message"]
