"""Nothing about how answers are come by changes one: swapped weights, batches, order, prefix cache, restarts."""

from __future__ import annotations

import itertools
import random
import secrets
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.runs.collector import Collector
from collectors.runs.config import RunConfig
from collectors.runs.plan import Plan
from collectors.runs.planning import make_plan
from collectors.runs.work import Cell
from tests.helpers.mini_tasks import ITEMS, write_tasks
from tests.helpers.parity import TOLERANCE, close
from tests.helpers.thorough import long_only

pytestmark = pytest.mark.slow

TASKS = ["mini_choice", "mini_letters", "mini_alike", "mini_generate"]
#: Columns about the making of an answer, which may differ.
HOW = {"engine_tokens", "cached_tokens", "ttft_s", "latency_s"}


@pytest.fixture(scope="module")
def models(tiny_models: dict[str, Path]) -> list[Path]:
    return [tiny_models[name] for name in ("good", "weak", "other")]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def planned(models: list[Path], tasks: Path, root: Path) -> tuple[Plan, Lake]:
    settings = {"tasks": TASKS, "include_tasks": [str(tasks)], "dtype": "float32", "max_length": 2048}
    config = RunConfig.model_validate({"models": [str(model) for model in models], **settings})
    lake = Lake(str(root)).open_for_writing()
    return make_plan(config, lake), lake


def collect(work: list[tuple[Cell, int, int]], plan: Plan, lake: Lake, **options: Any) -> list[bool]:
    """By one engine; whether each shard's weights were swapped in."""
    collector = Collector(plan.run_id, lake.uri, "vllm", options, plan.config.include_tasks)
    swapped = [collector.collect(cell, first, last).swapped for cell, first, last in work]
    collector.engine.close()
    return swapped


def records(root: Path) -> list[dict[str, Any]]:
    tables = [pq.ParquetFile(file).read() for file in root.glob("shards/task=*/*.parquet")]
    order = [(name, "ascending") for name in ("cell_id", "item", "filter", "repeat")]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).sort_by(order).to_pylist()
    return rows


@long_only
def test_shuffled_ways_to_the_answers_change_no_answer(models: list[Path], tasks: Path, tmp_path: Path) -> None:
    plan, lake = planned(models, tasks, tmp_path / "plain")
    for _, cells in itertools.groupby(plan.cells, lambda p: p.cell.model.key):
        work = [(p.cell, 0, ITEMS - 1) for p in cells]
        assert not any(collect(work, plan, lake, swap_weights=False, enable_prefix_caching=False))
    expected = records(tmp_path / "plain")
    assert len({str(row["loglikelihoods"]) for row in expected if row["item"] == 0 and row["task"] == TASKS[0]}) == 3

    seed = secrets.randbelow(10**6)  # `random` itself is seeded anew by whatever loads a task
    print(f"seed {seed}")
    dice = random.Random(seed)
    for caching, batch in ((True, 3), (False, None)):
        plan, lake = planned(models, tasks, root := tmp_path / f"{caching}-{batch}")
        work = []
        for one in plan.cells:
            cuts = sorted({0, ITEMS, *dice.sample(range(1, ITEMS), 1)})
            work += [(one.cell, first, after - 1) for first, after in itertools.pairwise(cuts)]
        dice.shuffle(work)
        stop = dice.randrange(len(work))
        swapped = []
        for part in (work[:stop], work[stop:]):  # by two engines, the second as after a restart
            swapped += collect(part, plan, lake, enable_prefix_caching=caching, max_num_seqs=batch)
        assert any(swapped)
        found = records(root)
        assert len(found) == len(expected)
        for row, other in zip(found, expected, strict=True):
            different = [name for name in row.keys() - HOW if not close(row[name], other[name], TOLERANCE)]
            assert not different, (row["task"], row["model"], row["item"], different)
