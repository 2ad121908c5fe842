"""Pools of all tasks at once: the same scores and costs as the pool of one task, and the models that are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collectors.matrix.pools import load_pool
from collectors.matrix.wide_pools import WidePool, joined, load_wide_pools, without_sparse
from schemas.failures import ConfigError
from tests.helpers.lake_builder import BuiltCell, LakeBuilder


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    builder = LakeBuilder(tmp_path / "lake")
    # Item 3 was asked of nobody, and b was asked under another prompting: another block of the matrix.
    builder.planned(BuiltCell(model="a"), [1, 0, 1, None, 0.25])
    builder.planned(BuiltCell(model="b", prompting="p1"), [0, None, 1, None, 1])
    builder.planned(BuiltCell(model="c", task="other"), [1, 1, 0])
    builder.planned(BuiltCell(model="a", task="other"), [0, 1, 1])
    builder.planned(BuiltCell(model="b", task="other"), [1])
    stated = [BuiltCell(model="c").record(item, score=1, stated_usd=item / 8, latency_s=None) for item in (0, 1, 2)]
    builder.run(BuiltCell(model="c"))
    builder.shard(BuiltCell(model="c"), stated)
    return builder


def test_wide_pools_hold_what_the_pool_of_one_task_holds(lake: LakeBuilder) -> None:
    pools, why = load_wide_pools(lake.lake)
    assert why == {}
    assert [pool.task for pool in pools] == ["other", "quiz"]
    for pool in pools:
        other = load_pool(lake.views().having("cells costs"), pool.task)
        assert (pool.models, pool.cells, pool.metric) == (other.models, other.cells, other.metric)
        assert pool.items.tolist() == other.items.tolist()
        np.testing.assert_array_equal(pool.scores, other.scores)
        np.testing.assert_array_equal(pool.costs["latency_s"], other.latency_s)
        if pool.task == "quiz":
            np.testing.assert_array_equal(pool.costs["usd"], other.usd)
        else:
            assert "usd" not in pool.costs


def test_wide_pools_of_a_condition_or_task_are_only_those(lake: LakeBuilder) -> None:
    [pool], why = load_wide_pools(lake.lake, ["quiz"], "model <> 'b'")
    assert (pool.models, pool.items.tolist(), why) == (["a", "c"], [0, 1, 2, 4], {})
    np.testing.assert_array_equal(pool.scores, [[1, 1], [0, 1], [1, 1], [0.25, np.nan]])


def test_wide_pools_of_cells_that_cannot_be_compared_are_named(lake: LakeBuilder) -> None:
    lake.planned(BuiltCell(model="a", task="other", prompting="p2"), [1])
    lake.run(BuiltCell(task="planned only"))
    pools, why = load_wide_pools(lake.lake)
    assert [pool.task for pool in pools] == ["quiz"]
    assert "other: a has 2 cells, which differ in prompting" in why["other"]
    assert why["planned only"] == "planned only: its cells have no scores"
    for tasks, where, said in (
        (["nowhere"], "true", "the pool holds no cell of task nowhere"),
        (None, "false", "has no collected cell that meets --pool"),
        (None, "nonsense = 1", "the pool's condition"),
        (["planned only"], "true", "its cells have no scores"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_wide_pools(lake.lake, tasks, where)


def test_sparse_models_are_left_out_and_counted(lake: LakeBuilder) -> None:
    pools, _ = load_wide_pools(lake.lake)
    kept, left_out = without_sparse(pools[0], 0.9)
    assert (kept.models, left_out) == (["a", "c"], 1)
    assert kept.scores.shape == kept.costs["latency_s"].shape == (3, 2)
    assert without_sparse(pools[0], 0.3) == (pools[0], 0)


def test_joined_pools_are_the_models_that_all_have(lake: LakeBuilder) -> None:
    pools, _ = load_wide_pools(lake.lake)
    whole = joined(pools, "all")
    assert whole is not None
    assert (whole.models, whole.metric, list(whole.costs)) == (["a", "b", "c"], "acc", ["latency_s"])
    np.testing.assert_array_equal(whole.scores, np.concatenate([pool.scores for pool in pools]))
    swapped = pools[0].of_models(np.array([2, 0]))
    pair = joined([swapped, pools[1]], "all")
    assert pair is not None
    np.testing.assert_array_equal(pair.scores[:3], swapped.scores[:, [1, 0]])
    assert joined([pools[0].of_models(np.array([1])), pools[1]], "all") is None


@pytest.mark.parametrize(("scores", "metric"), [([0.0, 1.0], "score"), ([0.0, 7.0], None)])
def test_joined_metrics_go_together_from_0_to_1_only(scores: list[float], metric: str | None) -> None:
    pools = [
        WidePool(name, name, ["a", "b"], ["", ""], np.arange(1), np.array([values], np.float32), {})
        for name, values in (("acc", [1.0, 0.0]), ("rating", scores))
    ]
    found = joined(pools, "all")
    assert (found and found.metric) == metric
