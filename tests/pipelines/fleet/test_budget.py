"""Budgets: how they are spent, when they are reached, and the prices that a dollar budget needs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.layout import SPEND, spend_name
from collectors.lake.spend import Accounts, Spent
from collectors.lake.store import Lake
from collectors.runs.config import BudgetSpec
from collectors.runs.work import ShardReport
from pipelines.fleet.budget import ACCOUNT_SECONDS, Budget, GpuPrices, gpu_prices_for
from schemas.failures import ConfigError, StorageError, UnreachableError
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


PRICES = GpuPrices({"l4": 0.36, "h100": 3.6}, dearest=3.6)
RUNS = ("20260101T000000-00000001", "20260101T000000-00000002", "20260101T000000-00000003")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake")).open_for_writing()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spent_on(lake: Lake, run: int, spec: BudgetSpec, clock: Clock) -> Budget:
    return Budget(spec, PRICES, Accounts(lake, spec.name, RUNS[run]), clock)


def test_budget_of_nothing_is_never_reached(clock: Clock) -> None:
    budget = Budget(BudgetSpec(), GpuPrices(), clock=clock)
    budget.hold("engine", 8, "H100")
    clock.now += 1e9
    budget.finished()
    assert budget.reached() is None
    assert budget.own.usd == 0
    assert budget.own.unpriced == pytest.approx(8e9 / 3600)


def test_budget_of_cells_counts_those_that_are_finished() -> None:
    budget = Budget(BudgetSpec(cells=2), GpuPrices())
    budget.finished()
    assert budget.reached() is None
    budget.finished()
    assert budget.reached() == "budget.cells: 2 of 2 cells are finished"


def test_budget_of_hours_counts_the_runs_own(clock: Clock) -> None:
    budget = Budget(BudgetSpec(hours=1.5), GpuPrices(), clock=clock)
    clock.now += 1.4 * 3600
    assert budget.reached() is None
    clock.now += 0.1 * 3600
    assert budget.reached() == "budget.hours: 1.5 of 1.5 hours have passed"


def test_budget_of_dollars_counts_all_the_time_that_an_engine_holds_its_gpus(clock: Clock) -> None:
    """Start-up, loading, work and the idle tail."""
    budget = Budget(BudgetSpec(usd=10), PRICES, clock=clock)
    budget.hold("large", 4.0, "H100")
    clock.now += 1000
    assert budget.own.usd == pytest.approx(4.0)
    budget.free("large")
    budget.hold("part", 0.25, "L4")
    clock.now += 1000
    assert budget.own.usd == pytest.approx(4.025)
    budget.free("part")
    clock.now += 1000  # nothing is held
    assert budget.own.usd == pytest.approx(4.025)
    budget.hold("unnamed", 1.0, None)  # a GPU that nobody named: the dearest
    clock.now += 1000
    assert budget.own.usd == pytest.approx(5.025)
    assert budget.reached() is None
    clock.now += 5000
    assert budget.reached() == "budget.usd: 10.03 of 10 USD are spent"


def test_budget_takes_the_price_of_the_name_that_the_engine_reports(clock: Clock) -> None:
    budget = Budget(BudgetSpec(usd=10), PRICES, clock=clock)
    budget.hold("engine", 1.0, None)
    clock.now += 500
    budget.named("engine", "NVIDIA L4", "L4")
    clock.now += 500
    assert budget.own.usd == pytest.approx(0.1)
    budget.named("engine", "a name without a price", None)
    clock.now += 1000
    assert budget.own.usd == pytest.approx(0.2)


def test_budget_counts_what_earlier_runs_of_its_name_spent(lake: Lake, clock: Clock) -> None:
    """KubeRay starts a failed job anew: three processes spend one budget."""
    total = 0.0
    for run in range(3):
        budget = spent_on(lake, run, BudgetSpec(usd=1, name="sweep"), clock)
        budget.hold("engine", 1.0, "H100")
        while not budget.reached() and budget.own.usd < 0.4:  # killed without a last account
            clock.now += 20
            budget.tick()
        total += budget.own.usd
    assert 1 <= total <= 1 + 2 * 80 * 3.6 / 3600  # of each process a minute at most is not in its last account
    assert (budget.reached() or "").endswith("of 1 USD are spent by all runs under the name 'sweep'")
    other = spent_on(lake, 0, BudgetSpec(usd=1, name="another"), clock)
    assert other.reached() is None


def test_budget_counts_runs_at_once_within_a_minute(lake: Lake, clock: Clock) -> None:
    first, second = (spent_on(lake, run, BudgetSpec(cells=3), clock) for run in (0, 1))
    first.finished(2)
    second.finished()
    assert second.reached() is None
    clock.now += ACCOUNT_SECONDS
    first.tick()
    second.tick()
    assert second.reached() == "budget.cells: 3 of 3 cells are finished by all runs under the name 'lake'"


def test_budget_keeps_one_account_of_a_run(lake: Lake, clock: Clock) -> None:
    budget = spent_on(lake, 0, BudgetSpec(), clock)
    budget.finished(7)
    for _ in range(3):
        budget.account()
    [name] = lake.names(SPEND)
    assert name == spend_name("lake", RUNS[0], 2)
    assert Accounts(lake, "lake", RUNS[1]).others()[RUNS[0]].cells == 7


@pytest.mark.parametrize("content", [b"", b'{"usd": -1}', b"[" * 100_000])
def test_budget_with_a_damaged_account_does_not_count_it_as_nothing(lake: Lake, clock: Clock, content: bytes) -> None:
    spent_on(lake, 0, BudgetSpec(cells=9), clock).account()
    running = spent_on(lake, 1, BudgetSpec(cells=9), clock)
    lake.create(spend_name("lake", RUNS[0], 9), content)
    with pytest.raises(StorageError, match=r"nobody knows what run \S+ spent of the budget 'lake'"):
        spent_on(lake, 2, BudgetSpec(cells=9), clock)
    running.account()  # goes on with the amounts that it has read
    assert spent_on(lake, 2, BudgetSpec(), clock).total.cells == 0, "a run without a limit needs no account"


def test_budget_of_others_without_a_price_counts_as_the_dearest(lake: Lake, clock: Clock) -> None:
    Accounts(lake, "lake", RUNS[0]).write(Spent(unpriced=2.0))
    assert spent_on(lake, 1, BudgetSpec(usd=10), clock).total.usd == pytest.approx(7.2)


def test_budget_waits_for_a_store_that_is_away(
    lake: Lake, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    budget = spent_on(lake, 0, BudgetSpec(cells=1), clock)

    def away(*_: object, **__: object) -> None:
        raise UnreachableError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "create", away)
        budget.account()
    assert "waits for the store: the store is away" in caplog.text
    budget.account()
    assert len(lake.names(SPEND)) == 1


def test_budget_warns_once_at_four_fifths(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(BudgetSpec(hours=10), GpuPrices(), clock=clock)
    clock.now += 7.9 * 3600
    budget.tick()
    assert caplog.text == ""
    clock.now += 0.2 * 3600
    budget.tick()
    budget.tick()
    assert caplog.messages == ["budget.hours: 8.1 of 10 hours have passed, 81 %"]


def test_budget_of_one_model_is_reached_by_the_engines_that_have_it(clock: Clock) -> None:
    budget = Budget(BudgetSpec(model_usd=0.1, model_hours=2), PRICES, clock=clock)
    for engine in ("a", "b"):
        budget.hold(engine, 1.0, "L4")
    clock.now += 10_000  # starting: of no model
    for engine in ("a", "b"):
        budget.works(engine, "dear")
    clock.now += 400
    assert budget.over_cap("dear") is None
    clock.now += 200
    assert budget.over_cap("dear") == "budget.model_usd: the model has spent 0.12 of 0.1 USD"
    budget.works("a", "slow")
    budget.free("b")
    assert budget.over_cap("slow") is None
    budget.hold("c", 0.0, None)  # without a GPU
    budget.works("c", "slow")
    clock.now += 3600
    message = budget.over_cap("slow") or ""
    assert message.startswith("budget.model_usd: the model has spent 0.36")
    assert Budget(BudgetSpec(), PRICES).over_cap("slow") is None


def test_budget_is_priced_as_collection_costs_are(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    for accelerator, usd in (("L4", 0.5), ("H100", 3.0), ("Own name", 7.0)):
        sell_gpu(lake.lake, accelerator, usd)
    name_gpu(lake.lake, "NVIDIA H100 80GB HBM3", "h100")
    prices = gpu_prices_for(BudgetSpec(usd=1), lake.lake, {"L4", "h100"})
    cell = BuiltCell()
    lake.run(cell)
    work: list[dict[str, Any]] = [
        {"gpu": "NVIDIA L4", "gpu_class": "L4", "gpus": 0.25},  # by its class
        {"gpu": "NVIDIA H100 80GB HBM3", "gpu_class": "H100"},  # by the name that price_names gives it
        {"gpu": "OWN NAME", "gpu_class": "H100", "gpus": 2.0},  # by its own name before its class
        {"gpu": None, "gpu_class": "l4", "gpus": 4.0},
    ]
    usd = 0.0
    for item, facts in enumerate(work):
        one = report(run_id="run", engine_seconds=10.0 + item, load_seconds=30.0, **facts)
        usd += (one.engine_seconds + one.load_seconds) * (one.gpus or 1) * (prices.of(one.gpu, one.gpu_class) or 0)
        lake.shard(cell, [cell.record(item, score=1.0)], metadata=dataclasses.asdict(one))
    [(costs, priced)] = rows(lake.views(), "SELECT sum(usd), count(usd) FROM collection_costs")
    assert priced == len(work)
    assert costs == pytest.approx(usd / 3600, rel=1e-12)
    assert costs == pytest.approx((40 * 0.25 * 0.5 + 41 * 3 + 42 * 2 * 7 + 43 * 4 * 0.5) / 3600)


def test_budget_of_dollars_without_a_price_or_without_gpus_is_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    sell_gpu(lake, "L4", 0.5)
    spec = BudgetSpec(usd=1)
    assert gpu_prices_for(spec, lake, {"L4"}) == GpuPrices({"l4": 0.5}, dearest=0.5)
    assert gpu_prices_for(BudgetSpec(hours=1), lake, {"H100"}) == GpuPrices({"l4": 0.5})  # what is priced is counted
    with pytest.raises(ConfigError, match=r"budget\.usd: the lake has no price for RTX4090: use .* add one:") as error:
        gpu_prices_for(spec, lake, {"L4", "RTX4090"})
    shell = str(error.value).partition("add one: ")[2]
    for example, own in {"PROVIDER": "me", "USD": "2.5", "SOURCE": "a bill", "gpus.csv": f"{tmp_path}/own.csv"}.items():
        shell = shell.replace(example, own)
    shell = shell.replace("python ", f"{sys.executable} ")
    subprocess.run(["bash", "-c", shell], check=True, cwd=ROOT, capture_output=True)
    assert gpu_prices_for(spec, lake, {"L4", "RTX4090"}).dearest == 2.5
    with pytest.raises(ConfigError) as error:
        gpu_prices_for(spec, lake, {"A100-80G"})
    assert str(error.value).endswith(f"python pipelines/prices.py --lake {lake.uri} --shipped gpus price_names")
    with pytest.raises(ConfigError, match="only GPUs have a price"):
        gpu_prices_for(spec, lake, set())
