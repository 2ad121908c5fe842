"""Budgets: how they are spent, when they are reached, and the prices that a dollar budget needs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.store import Lake
from collectors.runs.config import BudgetSpec
from collectors.runs.work import ShardReport
from pipelines.fleet.budget import Budget, GpuPrices, gpu_prices_for
from schemas.failures import ConfigError
from tests.helpers.gpu_prices import name_gpu, sell_gpu
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows

ROOT = Path(__file__).parents[3]


def report(**facts: Any) -> ShardReport:
    unknown = dict.fromkeys(("gpu", "gpu_class", "gpus"))
    base: dict[str, Any] = {**dict.fromkeys(ShardReport.__dataclass_fields__, 0), **unknown}
    return ShardReport(**{**base, "stages": {}, "committed": True, **facts})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_budget_of_nothing_is_never_reached() -> None:
    budget = Budget(BudgetSpec(), GpuPrices())
    budget.spent(report(engine_seconds=1e9), finished=True)
    assert budget.reached() is None
    assert budget.usd == 0


def test_budget_of_cells_counts_those_that_are_finished() -> None:
    budget = Budget(BudgetSpec(cells=2), GpuPrices())
    for finished in (True, False, False):
        budget.spent(report(), finished=finished)
        assert budget.reached() is None
    budget.spent(report(), finished=True)
    assert budget.reached() == "budget.cells: 2 of 2 cells are finished"


def test_budget_of_hours_counts_the_runs_own() -> None:
    clock = Clock()
    budget = Budget(BudgetSpec(hours=1.5), GpuPrices(), clock)
    clock.now += 1.4 * 3600
    assert budget.reached() is None
    clock.now += 0.1 * 3600
    assert budget.reached() == "budget.hours: 1.5 of 1.5 hours have passed"


def test_budget_of_dollars_counts_loading_and_working_at_the_gpus_price_and_share() -> None:
    budget = Budget(BudgetSpec(usd=10), GpuPrices({"l4": 0.36, "h100": 3.6}, dearest=3.6))
    h100: dict[str, Any] = {"gpu": "NVIDIA H100 80GB HBM3", "gpu_class": "H100"}
    budget.spent(report(engine_seconds=900.0, load_seconds=100.0, gpus=4.0, **h100))
    assert budget.usd == pytest.approx(4.0)
    budget.spent(report(engine_seconds=1000.0, gpu="NVIDIA L4", gpu_class="L4", gpus=0.25))
    assert budget.usd == pytest.approx(4.025)
    budget.spent(report(engine_seconds=1000.0))  # a GPU that nobody named: the dearest, whole
    assert budget.usd == pytest.approx(5.025)
    assert budget.reached() is None
    budget.spent(report(engine_seconds=5000.0, gpus=1.0))
    assert budget.reached() == "budget.usd: 10.03 of 10 USD are spent"


def test_budget_of_dollars_counts_the_gpus_of_engines_that_were_lost() -> None:
    budget = Budget(BudgetSpec(usd=10), GpuPrices({"l4": 0.36, "h100": 3.6}, dearest=3.6))
    budget.lost(1000.0, 0.5, "L4")
    assert budget.usd == pytest.approx(0.05)
    budget.lost(1000.0, 2.0, None)  # of a worker that asked for GPUs of any class
    assert budget.usd == pytest.approx(2.05)


def test_budget_of_dollars_counts_what_collection_costs_does(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    for accelerator, usd in (("L4", 0.5), ("H100", 3.0), ("Own name", 7.0)):
        sell_gpu(lake.lake, accelerator, usd)
    name_gpu(lake.lake, "NVIDIA H100 80GB HBM3", "h100")
    budget = Budget(BudgetSpec(usd=1), gpu_prices_for(BudgetSpec(usd=1), lake.lake, {"L4", "h100"}))
    cell = BuiltCell()
    lake.run(cell)
    work: list[dict[str, Any]] = [
        {"gpu": "NVIDIA L4", "gpu_class": "L4", "gpus": 0.25},  # by its class
        {"gpu": "NVIDIA H100 80GB HBM3", "gpu_class": "H100"},  # by the name that price_names gives it
        {"gpu": "OWN NAME", "gpu_class": "H100", "gpus": 2.0},  # by its own name before its class
        {"gpu": None, "gpu_class": "l4", "gpus": 4.0},
    ]
    for item, facts in enumerate(work):
        one = report(run_id="run", engine_seconds=10.0 + item, load_seconds=30.0, **facts)
        budget.spent(one)
        lake.shard(cell, [cell.record(item, score=1.0)], metadata=dataclasses.asdict(one))
    [(usd, priced)] = rows(lake.views(), "SELECT sum(usd), count(usd) FROM collection_costs")
    assert priced == len(work)
    assert usd == pytest.approx(budget.usd, rel=1e-12)
    assert usd == pytest.approx((40 * 0.25 * 0.5 + 41 * 3 + 42 * 2 * 7 + 43 * 4 * 0.5) / 3600)


def test_budget_of_dollars_without_a_price_or_without_gpus_is_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    sell_gpu(lake, "L4", 0.5)
    spec = BudgetSpec(usd=1)
    assert gpu_prices_for(spec, lake, {"L4"}) == GpuPrices({"l4": 0.5}, dearest=0.5)
    assert gpu_prices_for(BudgetSpec(hours=1), lake, {"H100"}) == GpuPrices()
    with pytest.raises(ConfigError, match=r"budget\.usd: the lake has no price for H100: use .* add one:") as error:
        gpu_prices_for(spec, lake, {"L4", "H100"})
    shell = str(error.value).partition("add one: ")[2]
    for example, own in {"PROVIDER": "me", "USD": "2.5", "SOURCE": "a bill", "gpus.csv": f"{tmp_path}/own.csv"}.items():
        shell = shell.replace(example, own)
    shell = shell.replace("python ", f"{sys.executable} ")
    subprocess.run(["bash", "-c", shell], check=True, cwd=ROOT, capture_output=True)
    assert gpu_prices_for(spec, lake, {"L4", "H100"}).dearest == 2.5
    with pytest.raises(ConfigError) as error:
        gpu_prices_for(spec, lake, {"A100-80G"})
    assert str(error.value).endswith(f"python pipelines/prices.py --lake {lake.uri} --shipped gpus price_names")
    with pytest.raises(ConfigError, match="only GPUs have a price"):
        gpu_prices_for(spec, lake, set())
