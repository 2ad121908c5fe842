"""Estimates of plans: by closed forms if nothing was measured, else by the shards of the lake."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.engines.gpus import GpuClass, Placement
from collectors.lake.compaction import compact
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from collectors.prices.tables import usd_per_gpu_hour
from collectors.runs.config import RunConfig
from collectors.runs.estimate import Estimate, estimate, formula_pace, tier_of
from collectors.runs.measured import measured
from collectors.runs.plan import Plan, PlannedCell
from collectors.runs.planning import make_plan
from schemas.identity import ShardName, digest
from schemas.records import MODEL, RECORD
from tests.helpers.gpu_prices import name_gpu, sell_gpu
from tests.helpers.mini_tasks import ITEMS, write_tasks
from tests.helpers.model_shapes import LLAMA_8B, PARAMETERS, SMOL

GPUS = ["L4", {"name": "H100", "per_node": 8}]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def catalog(folder: Path) -> Lake:
    """Two small models and one of 8B, without collected items."""
    import json

    lake = Lake(str(folder)).open_for_writing()
    rows: list[dict[str, Any]] = []
    for name, parameters, config in (
        ("org/one", PARAMETERS["smol"], SMOL),
        ("org/two", PARAMETERS["smol"], SMOL),
        ("org/big", PARAMETERS["8b"], LLAMA_8B),
    ):
        row = {"model": name, "source": name, "revision": digest(name, 40), "config": json.dumps(config)}
        row |= {"listed_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "files_hash": "f", "weights": "safetensors"}
        rows.append(row | {"parameters": parameters, "weight_bytes": 2 * parameters})
    lake.create_table("models/read.parquet", pa.Table.from_pylist(rows, schema=MODEL))
    return lake


def planned(lake: Lake, folder: Path, **keys: Any) -> Plan:
    base = {"models": [{"catalog": "true"}], "tasks": ["mini_choice", "mini_generate"], "include_tasks": [str(folder)]}
    return make_plan(RunConfig.model_validate({**base, "engine": "hf", "fleet": {"gpus": GPUS}, **keys}), lake)


def commit(lake: Lake, plan: Plan, cell: PlannedCell, first: int, last: int, **facts: Any) -> None:
    """A shard with these facts and no rows, which is all that an estimate reads."""
    base = {"engine": plan.config.engine.name, "items": last - first + 1, "gpu": "NVIDIA L4", "gpus": 0.25}
    shard = ShardName(cell.cell.cell_id, 0, first, last)
    table = RECORD.empty_table()
    assert lake.create_table(shard_name(cell.cell.spec.task, shard), table, {"shard": {**base, **facts}})


def cell_of(plan: Plan, model: str, task: str) -> PlannedCell:
    return next(c for c in plan.cells if (c.cell.model.name, c.cell.spec.task) == (model, task))


def rows(found: Estimate) -> dict[tuple[str, str], Any]:
    return {(row.tier, row.place): row for row in found.rows}


# ---- nothing measured


def test_pace_by_formula_is_bound_by_operations_and_by_bandwidth() -> None:
    gpu = GpuClass("H100", 79.1, 8, tflops=989, bandwidth=3350)
    one = formula_pace(8_000_000_000, 16_000_000_000, Placement("H100", 1, 1, "bfloat16", 79.1), gpu)
    four = formula_pace(8_000_000_000, 16_000_000_000, Placement("H100", 4, 4, "bfloat16", 316.4), gpu)
    assert one
    assert four
    # 2 × 8e9 operations at 0.4 × 989e12 a second: 24,725 tokens a second
    assert 1 / one.prompt == pytest.approx(24_725)
    # 64 answers read 16e9 bytes at 0.6 × 3350e9 a second for each token: 8,040 tokens a second
    assert 1 / one.generated == pytest.approx(8_040)
    assert one.load == pytest.approx(60 + 16)
    assert one.prompt / four.prompt == pytest.approx(4)
    assert 1 / four.generated == pytest.approx(12_800)  # 64 answers in a step of 5 ms
    assert formula_pace(1, 1, Placement("X", 1, 1, "bfloat16", 10), GpuClass("X", 10)) is None


def test_pace_of_small_models_is_bound_by_their_width_and_by_steps() -> None:
    """40 % of the peak would be 83,300 tokens a second on a quarter of an H100 for one, 1.5 million for the other."""
    gpu = GpuClass("H100", 79.1, 8, tflops=989, bandwidth=3350)
    half, tenth = (
        formula_pace(size, 2 * size, Placement("H100", share, 1, "bfloat16", 20), gpu)
        for size, share in ((594_000_000, 0.25), (134_000_000, 1))
    )
    assert half
    assert tenth
    assert 1 / half.prompt == pytest.approx(42_721, rel=0.01)
    assert 1 / tenth.prompt == pytest.approx(2048 / 0.005)
    assert 1 / tenth.generated == pytest.approx(64 / 0.005)


def test_tiers_hold_the_sizes_that_their_names_say() -> None:
    sizes = [None, 5e8, 1e9, 8_030_261_248, 7e10, 4.05e11]
    found = [tier_of(None if size is None else int(size)) for size in sizes]
    assert found == ["size unknown", "<1B", "1-4B", "4-10B", "40-80B", ">80B"]


def test_estimate_without_measurements_rests_on_texts_and_formulas_and_says_so(tmp_path: Path, tasks: Path) -> None:
    lake = catalog(tmp_path / "lake")
    plan = planned(lake, tasks)
    found = estimate(plan, lake)
    small, big = rows(found)["<1B", "1/4 × L4"], rows(found)["4-10B", "1/2 × H100"]
    assert (small.models, small.cells, small.items, small.measured) == (2, 4, 4 * ITEMS, 0)
    assert small.tokens == 2 * big.tokens
    [task] = [task for task in plan.items.values() if task.name == "mini_choice"]
    texts = [len(task.question(doc) or "") + sum(map(len, task.choices(doc) or [])) for doc in task.docs[:20]]
    alone = estimate(planned(lake, tasks, tasks=["mini_choice"]), lake)
    assert rows(alone)["4-10B", "1/2 × H100"].tokens == pytest.approx(ITEMS * sum(texts) / len(texts) / 4)
    assert big.hours > 0
    assert big.usd is None is small.usd is found.total.usd
    lines = "\n".join(found.assumptions)
    assert "tokens of 6 cells: assumed, 4 characters a token" in lines
    assert "pace of 6 cells: assumed, 2 operations per parameter" in lines
    assert "measured" not in lines
    assert "USD: unknown for H100, L4" in lines
    assert "left out: nodes that boot, engines that start anew or wait" in lines
    assert "work that is lost with a spot node" in lines


def test_estimate_of_engines_on_cpus_without_measurements_is_unknown_and_no_number(tmp_path: Path, tasks: Path) -> None:
    lake = catalog(tmp_path / "lake")
    found = estimate(planned(lake, tasks, fleet={}), lake)
    assert [(row.tier, row.place, row.hours, row.usd) for row in found.rows] == [
        ("<1B", "", None, None),
        ("4-10B", "", None, None),
    ]
    assert found.total.hours is None
    assert any(line.startswith("pace of 6 cells: unknown") for line in found.assumptions)


def test_estimate_of_a_generating_task_takes_its_own_limit_of_tokens(tmp_path: Path, tasks: Path) -> None:
    lake = catalog(tmp_path / "lake")
    usual, long = (
        estimate(planned(lake, tasks, tasks=["mini_generate"], decoding=decoding), lake).total
        for decoding in ({"max_gen_toks": 10}, {"max_gen_toks": 1010})
    )
    assert long.tokens - usual.tokens == pytest.approx(3 * ITEMS * 1000)
    for wrong in ("lots", [1]):  # a run records it in each shard
        estimate(planned(lake, tasks, tasks=["mini_generate"], decoding={"max_gen_toks": wrong}), lake)


# ---- something measured


def test_estimate_uses_what_was_measured_and_says_of_how_many_cells(tmp_path: Path, tasks: Path) -> None:
    lake = catalog(tmp_path / "lake")
    plan = planned(lake, tasks)
    plan.write(lake)
    assumed = estimate(plan, lake)
    # 100 tokens an item, 40 of them cached, at 30 computed tokens a second; the first shard loaded the model.
    seen = {"engine_tokens": 500, "cached_tokens": 200, "engine_seconds": 10.0, "tokens_per_second": 50.0}
    commit(lake, plan, cell_of(plan, "org/one", "mini_choice"), 0, 4, **seen, load_seconds=36.0)
    plan = planned(lake, tasks)
    found = estimate(plan, lake)
    lines = "\n".join(found.assumptions)
    assert "tokens of 3 cells: measured, by shards of any model" in lines
    assert "tokens of 3 cells: assumed" in lines
    assert "pace of 2 cells: measured, by shards of the same model" in lines
    assert "pace of 2 cells: measured, by shards of other models of the same row" in lines
    assert "pace of 2 cells: assumed" in lines
    small, big = rows(found)["<1B", "1/4 × L4"], rows(found)["4-10B", "1/2 × H100"]
    assert (small.measured, big.measured) == (2, 0)

    alone = planned(lake, tasks, tasks=["mini_choice"])
    measured_alone = estimate(alone, lake)
    small, big = rows(measured_alone)["<1B", "1/4 × L4"], rows(measured_alone)["4-10B", "1/2 × H100"]
    assert small.tokens == pytest.approx(60 * (2 * ITEMS - 5))
    # both load for 36 s, on a quarter of a GPU
    assert small.hours == pytest.approx((60 * (2 * ITEMS - 5) / 30 + 2 * 36) * 0.25 / 3600)
    assert big.tokens == pytest.approx(60 * ITEMS)
    assert small.tokens != rows(assumed)["<1B", "1/4 × L4"].tokens


def test_estimate_of_models_that_nobody_measured_learns_from_those_that_were(tmp_path: Path, tasks: Path) -> None:
    """The cluster is three times slower than the formula for one model, and so it is taken to be for the others."""
    lake = catalog(tmp_path / "lake")
    plan = planned(lake, tasks, tasks=["mini_choice"])
    plan.write(lake)
    paces = {}
    for model, size, name in (("org/one", "smol", "L4"), ("org/big", "8b", "H100")):
        place = cell_of(plan, model, "mini_choice").cell.model.placement
        assert place
        gpu = next(gpu for gpu in plan.gpus if gpu.name == name)
        pace = formula_pace(PARAMETERS[size], None, place, gpu)
        assert pace
        paces[model] = pace.prompt
    seen = {"engine_tokens": 3_000_000, "cached_tokens": 0, "engine_seconds": 9_000_000 * paces["org/one"]}
    commit(lake, plan, cell_of(plan, "org/one", "mini_choice"), 0, 4, **seen)
    found = estimate(planned(lake, tasks, tasks=["mini_choice"]), lake)
    big = rows(found)["4-10B", "1/2 × H100"]
    seconds = big.hours * 3600 / 0.5 - (60 + 16)
    assert seconds / big.tokens == pytest.approx(3 * paces["org/big"], rel=0.01)
    assert any("; times 3, as measured models of this lake are to it" in line for line in found.assumptions)
    assert any(line.startswith("left out: nodes that boot") for line in found.assumptions)


def test_estimate_passes_over_shards_of_other_gpus_and_other_engines(tmp_path: Path, tasks: Path) -> None:
    lake = catalog(tmp_path / "lake")
    plan = planned(lake, tasks, tasks=["mini_choice"])
    plan.write(lake)
    seen = {"engine_tokens": 500, "cached_tokens": None, "engine_seconds": 10.0}
    commit(lake, plan, cell_of(plan, "org/one", "mini_choice"), 0, 4, **seen, gpu="NVIDIA H100 80GB HBM3")
    commit(lake, plan, cell_of(plan, "org/two", "mini_choice"), 0, 4, **{**seen, "engine_tokens": 9, "engine": "stub"})
    [one] = measured(lake, "hf")
    assert (one.model, one.gpu, one.tokens) == ("org/one", "NVIDIA H100 80GB HBM3", 500)
    found = estimate(planned(lake, tasks, tasks=["mini_choice"]), lake)
    lines = "\n".join(found.assumptions)
    assert "tokens of 3 cells: measured" in lines  # an H100 reads the same tokens
    assert "pace of 3 cells: assumed" in lines


def test_estimate_without_classes_of_gpus_takes_pace_and_price_of_the_gpu_that_was_measured(
    tmp_path: Path, tasks: Path
) -> None:
    lake = catalog(tmp_path / "lake")
    plan = planned(lake, tasks, tasks=["mini_choice"], fleet={})
    plan.write(lake)
    for model, tokens in (("org/one", 500), ("org/big", 100)):
        cell = cell_of(plan, model, "mini_choice")
        commit(lake, plan, cell, 0, 4, engine_tokens=tokens, engine_seconds=10.0, load_seconds=0.5, gpus=None)
    sell_gpu(lake, "l4", 3.6)
    name_gpu(lake, "NVIDIA L4", "L4")
    found = estimate(planned(lake, tasks, tasks=["mini_choice"], fleet={}), lake)
    small, big = rows(found)["<1B", ""], rows(found)["4-10B", ""]
    assert big.hours == pytest.approx((60 * (ITEMS - 5) / 10 + 0.5) / 3600)
    assert big.usd == pytest.approx(3.6 * big.hours)
    assert small.usd == pytest.approx(3.6 * small.hours)


def test_measured_is_the_same_after_a_compaction_and_of_a_sample(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = catalog(tmp_path / "a[b]'s lake")
    plan = planned(lake, tasks)
    plan.write(lake)
    for cell in plan.cells:
        for first in range(0, 9, 3):
            commit(lake, plan, cell, first, first + 2, engine_tokens=30, engine_seconds=1.0)
    before = measured(lake, "hf")
    assert sum(one.tokens for one in before) == 30 * 18
    compact(lake)
    assert measured(lake, "hf") == before

    monkeypatch.setattr("collectors.runs.measured.MOST_SHARDS", 6)
    fresh = catalog(tmp_path / "fresh")
    plan.write(fresh)
    for cell in plan.cells:
        for first in range(0, 9, 3):
            commit(fresh, plan, cell, first, first + 2, engine_tokens=30, engine_seconds=1.0)
    few = measured(fresh, "hf")
    assert sum(one.items for one in few) == 6 * 3
    assert len({one.prompting for one in few}) == 2
    wanted = cell_of(plan, "org/two", "mini_choice").cell
    [first] = [one for one in measured(fresh, "hf", {wanted.cell_id}) if one.prompting == wanted.prompting]
    assert (first.model, first.items) == ("org/two", 9)  # its three shards before those of others


# ---- dollars


def test_dollars_are_gpu_hours_at_their_price_and_unknown_without_one(tmp_path: Path, tasks: Path) -> None:
    lake = catalog(tmp_path / "lake")
    sell_gpu(lake, "h100", 2.5)
    found = estimate(planned(lake, tasks), lake)
    small, big = rows(found)["<1B", "1/4 × L4"], rows(found)["4-10B", "1/2 × H100"]
    assert big.usd == pytest.approx(2.5 * big.hours)
    assert small.usd is None
    assert found.total.usd == big.usd
    assert "USD per GPU-hour, by gpu_prices: H100 2.5" in found.assumptions
    [unknown] = [
        line for line in found.assumptions if line.startswith("USD: unknown for L4: no price in the lake; add")
    ]
    assert f"python pipelines/prices.py --lake {lake.uri} --shipped gpus price_names" in unknown


def test_gpu_price_is_found_by_name_and_by_the_name_that_it_is_sold_under(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert usd_per_gpu_hour(lake, ["L4"]) == {}
    lake.open_for_writing()
    sell_gpu(lake, "A100-80GB", 1.5)
    name_gpu(lake, "a100-80g", "a100-80gb")
    assert usd_per_gpu_hour(lake, ["A100-80G", "A100-80GB", "H100"]) == {"A100-80G": 1.5, "A100-80GB": 1.5}
