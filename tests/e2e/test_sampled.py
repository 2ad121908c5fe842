"""Runs that ask a part of each task, on a cluster: killed, gone on with, and completed later."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from tests.e2e.conftest import Cluster
from tests.e2e.test_kill import kill_driver
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.own_runs import NAMES, Runs
from tests.helpers.runs import ITEMS, collect_here, query
from tests.helpers.slow_runs import MODELS, assert_undisturbed, committed, shards, slow_config
from tests.helpers.thorough import long_only


def asked(lake: Path) -> list[tuple[str, int]]:
    """Cell and item of all that lies in shard files."""
    sets = ItemSets(Lake(str(lake)))
    return [(shard.cell_id, item) for shard in shards(lake) for item in sets.items_of(shard)]


@pytest.mark.slow
def test_sampled_run_killed_and_gone_on_with_then_completed_asks_each_item_once(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    half = {"sample": {"share": 0.5}}
    kill_driver(slow_config(tmp_path, None, **half), lake, moment=20)
    there = len(asked(lake))
    run = collect_here(capsys, slow_config(tmp_path, cluster, **half))
    assert run.code == 0, run.err
    assert 0 < there < len(asked(lake)) == len(set(asked(lake))) == len(MODELS) * 2 * ITEMS // 2
    run = collect_here(capsys, slow_config(tmp_path, cluster))
    assert (run.code, f"already in the lake: {len(MODELS) * ITEMS}" in run.out) == (0, True), run.out
    assert_undisturbed(lake, undisturbed)


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """A lake with the answers of as many models as a forecast needs, and beside it the tasks."""
    runs = Runs(tmp_path / "lake", write_tasks(tmp_path / "tasks", items=40))
    runs.collect(runs.plan(models=[f"org-{number}/{name}" for number, name in enumerate(NAMES)]), size=40)
    return tmp_path / "lake"


def rounds_config(folder: Path, cluster: Cluster | None) -> Path:
    until = {"tasks": ["mini_choice"], "until": {"error": 0.02}, "datasets": None, "workers": 1}
    return slow_config(folder, cluster, include_tasks=[str(folder / "tasks")], **until)


@pytest.mark.slow
def test_rounds_until_an_error_load_each_model_once(
    taught: Path, tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    config = rounds_config(tmp_path, cluster)
    run = collect_here(capsys, config)
    assert run.code == 0, run.err
    loads = query(
        taught,
        "SELECT model, count(*) FILTER (load_seconds > 0) AS loads, count(DISTINCT item_set) AS rounds "
        "FROM shards INNER JOIN cells USING (cell_id) WHERE model LIKE 'stub/%' GROUP BY model ORDER BY model",
    )
    assert [(row["model"], row["loads"]) for row in loads] == [(model, 1) for model in MODELS], run.out
    assert all(row["rounds"] > 2 for row in loads)
    assert len(asked(taught)) == len(set(asked(taught)))
    # Nothing is left to ask: no engine starts.
    assert "no model was loaded" in collect_here(capsys, config).out


@long_only
@pytest.mark.slow
def test_rounds_of_a_killed_run_go_on_and_ask_each_item_once(
    taught: Path, tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(asked(taught))
    kill_driver(rounds_config(tmp_path, None), taught, moment=committed(taught) + 10)
    there = len(asked(taught))
    config = rounds_config(tmp_path, cluster)
    run = collect_here(capsys, config)
    assert run.code == 0, run.err
    assert before < there < len(asked(taught)) == len(set(asked(taught)))
    assert "no model was loaded" in collect_here(capsys, config).out
