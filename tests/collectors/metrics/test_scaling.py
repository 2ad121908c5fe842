"""What pools of a size can reach: closed forms against all subsets and draws, and at sizes of real leaderboards."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collectors.metrics.pool import model_means, oracle_mean
from collectors.metrics.routereval import r_o
from collectors.metrics.scaling import draw_pools, order_weights, pool_sizes, scaling

Array = npt.NDArray[Any]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
#: Few values, so that scores tie.
SCORES = hnp.arrays(np.float64, SHAPES, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0, 1e6]))


def every_size(models: int) -> npt.NDArray[np.int64]:
    return np.arange(1, models + 1)


@given(SCORES)
def test_scaling_is_the_mean_over_all_subsets(scores: Array) -> None:
    models = scores.shape[1]
    found = scaling(scores, every_size(models))
    for size, best, single in zip(found.sizes, found.oracle, found.best_single, strict=True):
        pools = [list(pool) for pool in itertools.combinations(range(models), int(size))]
        assert best == pytest.approx(np.mean([scores[:, pool].max(axis=1).mean() for pool in pools]))
        assert single == pytest.approx(np.mean([scores[:, pool].mean(axis=0).max() for pool in pools]))


@given(hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0.0, 1.0])))
def test_scaling_of_verdicts_is_the_hypergeometric_chance_of_a_right_one(scores: Array) -> None:
    models = scores.shape[1]
    found = scaling(scores, every_size(models))
    for size, best in zip(found.sizes.tolist(), found.oracle, strict=True):
        rights = scores.sum(axis=1).astype(int).tolist()
        chances = [1 - Fraction(math.comb(models - right, size), math.comb(models, size)) for right in rights]
        assert best == pytest.approx(float(sum(chances) / len(chances)))


@given(SCORES)
def test_scaling_rises_from_the_mean_of_means_to_the_oracle(scores: Array) -> None:
    found = scaling(scores, every_size(scores.shape[1]))
    slack = 1e-9 * max(1.0, float(np.abs(scores).max()))
    assert (np.diff(found.oracle) >= -slack).all()
    assert (np.diff(found.best_single) >= -slack).all()
    assert (found.oracle >= found.best_single - slack).all()
    means = model_means(scores)
    assert found.oracle[0] == pytest.approx(means.means.mean())
    assert found.best_single[0] == pytest.approx(means.means.mean())
    assert found.oracle[-1] == pytest.approx(oracle_mean(scores).value)
    assert found.best_single[-1] == pytest.approx(means.best_single.value)


@given(SCORES, st.floats(0, 1))
def test_r_o_of_the_whole_pool_is_routerevals(scores: Array, p: float) -> None:
    assert scaling(scores).r_o(p)[-1] == pytest.approx(r_o(scores, p).value)


def test_r_o_of_a_pool_lies_between_chance_and_oracle() -> None:
    found = scaling(np.array([[1.0, 0.0, 0.0, 0.0]]), every_size(4))
    assert found.r_o(1).tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found.r_o(0.5).tolist() == pytest.approx([0.25, 0.375, 0.5, 0.625])
    assert found.r_o(0).tolist() == pytest.approx([0.25] * 4)
    with pytest.raises(ValueError, match="p is a probability"):
        found.r_o(1.5)


def test_scaling_leaves_out_items_with_a_missing_score() -> None:
    scores = np.array([[1, 0, 0], [np.nan, 1, 1], [0, 0, 0], [1, 1, np.nan]])
    found = scaling(scores, every_size(3))
    assert (found.items, found.left_out) == (2, 2)
    assert found.oracle.tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    draws = draw_pools(scores, every_size(3), draws=5, seed=0)
    assert draws.oracle[:, -1].tolist() == [0.5] * 5
    for nothing in (scores[[1, 3]], scores[:0]):
        with pytest.raises(ValueError, match="no item of"):
            scaling(nothing)
        with pytest.raises(ValueError, match="no item of"):
            draw_pools(nothing, every_size(3), draws=1, seed=0)


@pytest.mark.parametrize("binary", [True, False])
def test_draws_scatter_around_the_expectation(binary: bool) -> None:
    scores = np.random.default_rng(3).random((400, 30), dtype=np.float32)
    scores = (scores < np.linspace(0.1, 0.6, 30)).astype(np.float32) if binary else scores
    found = scaling(scores)
    draws = draw_pools(scores, found.sizes, draws=4000, seed=1)
    for drawn, expected in ((draws.oracle, found.oracle), (draws.random, np.full(len(found.sizes), found.random))):
        error = drawn.std(axis=0) / math.sqrt(len(drawn))
        assert (np.abs(drawn.mean(axis=0) - expected) <= 4 * error + 1e-7).all()
    low, high = draws.band(0.5)
    assert (low <= high).all()
    assert (low[-1], high[-1]) == pytest.approx((found.r_o(0.5)[-1],) * 2)
    assert low[0] < found.random < high[0]


def test_draws_are_pools_that_can_be_checked_one_by_one() -> None:
    scores = np.random.default_rng(0).random((7, 6))
    draws = draw_pools(scores, every_size(6), draws=20, seed=5)
    again = draw_pools(scores, every_size(6), draws=20, seed=5)
    assert (draws.oracle == again.oracle).all()
    assert (draws.oracle != draw_pools(scores, every_size(6), draws=20, seed=6).oracle).any()
    pairs = {
        round(scores[:, list(pair)].max(axis=1).mean(), 9): round(scores[:, list(pair)].mean(), 9)
        for pair in itertools.combinations(range(6), 2)
    }
    for best, uniform in zip(draws.oracle[:, 1], draws.random[:, 1], strict=True):
        assert pairs[round(best, 9)] == round(uniform, 9)


@pytest.mark.parametrize("models", [1, 2, 8500])
def test_order_weights_are_exact_at_any_size(models: int) -> None:
    for size in {1, 2, 10, 100, 4000, models - 1, models} & set(range(1, models + 1)):
        weights = order_weights(models, size)
        assert weights.sum() == pytest.approx(1, abs=1e-11)
        for rank in {size, (size + models) // 2, models - 1, models} & set(range(size, models + 1)):
            exact = Fraction(math.comb(rank - 1, size - 1), math.comb(models, size))
            assert weights[rank - 1] == pytest.approx(float(exact), rel=1e-10)
        assert not weights[: size - 1].any()
    for wrong in (0, models + 1):
        with pytest.raises(ValueError, match="no pool of"):
            order_weights(models, wrong)


@given(st.integers(1, 10_000))
def test_pool_sizes_go_from_one_to_all(models: int) -> None:
    sizes = pool_sizes(models).tolist()
    assert (sizes[0], sizes[-1]) == (1, models)
    assert sizes == sorted(set(sizes))
    assert len(sizes) <= 40
    with pytest.raises(ValueError, match="needs a model"):
        pool_sizes(0)


def test_scaling_does_not_change_the_scores() -> None:
    scores = np.random.default_rng(0).random((50, 9))
    before = scores.copy()
    draw_pools(scores, scaling(scores).sizes, draws=3, seed=0)
    assert (scores == before).all()
