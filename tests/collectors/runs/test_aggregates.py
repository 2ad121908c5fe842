"""aggregates/ after a run: values of whole cells and groups, made again only where shards changed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.judging.judges import Judges
from collectors.lake.compaction import compact
from collectors.lake.pruning import prune
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.runs.aggregates import Aggregator
from collectors.runs.collector import Collector
from collectors.runs.config import RunConfig
from collectors.runs.plan import Plan
from collectors.runs.planning import make_plan
from schemas.views import named_in
from tests.helpers.mini_tasks import own_caches, write_tasks
from tests.helpers.thorough import long_only

__all__ = ["own_caches"]

ITEMS = 12


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    metric = {"metric": "acc", "aggregation": "mean", "weight_by_size": False}
    group = {"group": "by_tasks", "task": ["mini_letters", "mini_alike"], "aggregate_metric_list": [metric]}
    (folder / "by_tasks.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def judges(tasks: Path) -> Iterator[Judges]:
    judges = Judges([str(tasks)])
    yield judges
    judges.close()


class Runs:
    """Runs of a stub engine into one lake, in this process."""

    def __init__(self, lake: Path, tasks: Path, judges: Judges) -> None:
        self.lake, self.include, self.judges = Lake(str(lake)).open_for_writing(), str(tasks), judges

    def plan(self, **changes: Any) -> Plan:
        keys = {"models": ["stub/a", "stub/b"], "tasks": ["mini_group"], "engine": {"name": "stub"}}
        config = RunConfig.model_validate({**keys, "include_tasks": [self.include], "allow_code": True, **changes})
        plan = make_plan(config, self.lake)
        plan.write(self.lake)
        return plan

    def collect(self, plan: Plan, *, whole: bool = True, cells: int | None = None) -> list[dict[str, Any]]:
        """Collects the open items, each cell in one shard or (`whole` False) two. Returns workers' aggregates."""
        worker = Collector(plan.run_id, self.lake.uri, "stub", {}, [self.include])
        worker._judges = self.judges  # each judging process imports for 1.4 CPU-seconds
        reported: list[dict[str, Any]] = []
        for planned in plan.cells[:cells]:
            for first, last in planned.todo:
                cuts = [(first, last)] if whole else [(first, first + 3), (first + 4, last)]
                for cut in cuts:
                    reported += worker.collect(planned.cell, *cut).aggregates
        return reported

    def complete(self, plan: Plan, reported: list[dict[str, Any]] | None = None) -> int:
        return Aggregator(plan, self.lake, self.judges).complete(reported or [])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with connect(self.lake, only=named_in(sql)) as con:
            return con.execute(sql).fetchall()


@pytest.fixture
def runs(tmp_path: Path, tasks: Path, judges: Judges) -> Runs:
    return Runs(tmp_path / "lake", tasks, judges)


def test_cells_in_one_shard_come_from_workers_and_others_are_computed_alike(
    runs: Runs, tmp_path: Path, tasks: Path, judges: Judges
) -> None:
    query = "SELECT * EXCLUDE (covers, computed_at) FROM aggregates ORDER BY ALL"
    other = Runs(tmp_path / "other", tasks, judges)
    plan, second = runs.plan(), other.plan()
    reported = runs.collect(plan)
    assert {row["task"] for row in reported} == {"mini_choice", "mini_likelihood"}
    assert runs.complete(plan, reported) == len(reported) + 2
    assert other.collect(second, whole=False) == []
    assert other.complete(second) == len(reported) + 2
    assert runs.rows(query) == other.rows(query)


def test_group_is_lm_evals_weighted_mean_with_its_pooled_error(runs: Runs) -> None:
    plan = runs.plan(tasks=["mini_group", "by_tasks"], limit=10)
    runs.complete(plan, runs.collect(plan))
    members = {"mini_group": ["mini_choice", "mini_likelihood"], "by_tasks": ["mini_letters", "mini_alike"]}
    for group, tasks in members.items():
        of_tasks = f"model = 'stub/a' AND metric = 'acc' AND task IN ({str(tasks)[1:-1]})"
        query = f"SELECT value, stderr, items FROM aggregates WHERE {of_tasks}"
        parts = runs.rows(query)
        [(value, error, items)] = runs.rows(
            f"SELECT value, stderr, items FROM aggregates WHERE is_group AND model = 'stub/a' AND task = '{group}'"
        )
        assert items == sum(n for _, _, n in parts) == 20
        assert value == pytest.approx(sum(v for v, _, _ in parts) / 2, abs=1e-12)
        pooled = math.sqrt(sum((n - 1) * e**2 * n for _, e, n in parts) / (items - 2) / items)
        plain = math.sqrt(sum(e**2 for _, e, _ in parts)) / 2
        assert error == pytest.approx(plain if group == "by_tasks" else pooled, abs=1e-12)
        [(score, rank)] = runs.rows(f"SELECT score, rank FROM leaderboard WHERE model = 'stub/a' AND task = '{group}'")
        assert (score, rank in (1, 2)) == (pytest.approx(value), True)


def test_nothing_is_computed_twice_and_a_cell_that_grew_is_again(runs: Runs) -> None:
    plan = runs.plan(limit=6)
    runs.complete(plan, runs.collect(plan))
    assert runs.complete(runs.plan(limit=6)) == 0
    grown = runs.plan()
    assert grown.items_todo == 4 * (ITEMS - 6)
    runs.collect(grown, cells=1)
    stale = runs.rows("SELECT task, is_group, model, stale FROM aggregates WHERE value IS NULL AND stale IS NOT NULL")
    assert {(task, group) for task, group, _, _ in stale} == {("mini_choice", False), ("mini_group", True)}
    assert runs.complete(grown) == 3  # the metrics of the cell that grew: its group is not whole
    rest = runs.plan()
    runs.complete(rest, runs.collect(rest))
    assert runs.rows("SELECT count(*), count(stale), min(items), max(items) FROM aggregates WHERE NOT is_group") == [
        (10, 0, ITEMS, ITEMS)
    ]


@long_only
def test_values_stand_after_a_compaction_and_prune_and_are_made_from_it(runs: Runs) -> None:
    plan = runs.plan()
    reported = runs.collect(plan)
    runs.complete(plan, reported)
    before = runs.rows("SELECT task, model, metric, value, stderr FROM aggregates ORDER BY ALL")
    compact(runs.lake)
    prune(runs.lake, dt.timedelta())
    assert runs.rows("SELECT task, model, metric, value, stderr FROM aggregates ORDER BY ALL") == before
    runs.lake.remove(runs.lake.names("aggregates"))
    assert runs.complete(runs.plan()) == len(before)
    assert runs.rows("SELECT task, model, metric, value, stderr FROM aggregates ORDER BY ALL") == before


def test_set_level_metric_ranks_by_its_value_and_never_in_the_matrix(runs: Runs) -> None:
    plan = runs.plan(tasks=[{"task": "mini_likelihood", "metric": "perplexity"}, "mini_rolling"])
    runs.complete(plan, runs.collect(plan))
    board = runs.rows(
        "SELECT task, metric, rank, score, value, stderr, scored, ok FROM leaderboard ORDER BY task, rank"
    )
    assert [(task, rank, score) for task, _, rank, score, *_ in board] == [
        ("mini_likelihood", 1, None),
        ("mini_likelihood", 2, None),
        ("mini_rolling", 1, None),
        ("mini_rolling", 2, None),
    ]
    assert all(one[4] < other[4] for one, other in (board[:2], board[2:]))  # less is better
    assert {(scored, ok) for *_, scored, ok in board} == {(0, ITEMS)}
    assert runs.rows("SELECT DISTINCT score, correct, failure, outcome FROM matrix") == [
        (None, None, "set_level", "ok")
    ]
    assert runs.rows("FROM oracle") == []
    assert runs.rows("FROM failures") == []


@long_only
def test_damaged_aggregates_are_computed_again(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    plan = runs.plan(limit=6)
    runs.complete(plan, runs.collect(plan))
    [name] = [name for name in runs.lake.names("aggregates") if "schema" not in name]
    path = Path(runs.lake.root) / name
    path.write_bytes(path.read_bytes()[:-40])
    assert runs.complete(runs.plan(limit=6)) == 12
    assert "cannot be read" in caplog.text


@long_only
def test_groups_of_one_model_under_two_names_are_two(runs: Runs) -> None:
    """Names of the same weights have one key of a loaded model."""
    plan = runs.plan(limit=4)
    runs.complete(plan, runs.collect(plan))
    for planned in plan.cells:
        planned.cell = dataclasses.replace(
            planned.cell, model=dataclasses.replace(planned.cell.model, revision="the same")
        )
    assert len({planned.cell.model.key for planned in plan.cells}) == 1
    aggregator = Aggregator(plan, runs.lake, runs.judges)
    runs.lake.remove([name for name in runs.lake.names("aggregates") if "schema" not in name])
    aggregator.plan.run_id = "again"
    aggregator.complete([])
    assert runs.rows("SELECT model FROM aggregates WHERE is_group ORDER BY model") == [("stub/a",), ("stub/b",)]
