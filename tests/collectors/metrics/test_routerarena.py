"""RouterArena's score, against the harmonic mean and its clamps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.metrics.routerarena import arena_score, cost_score


def test_cost_score_is_linear_in_the_logarithm_between_its_clamps() -> None:
    assert cost_score(0.0044) == cost_score(0.001) == 1
    assert cost_score(200) == cost_score(5000) == 0
    assert cost_score(math.sqrt(0.0044 * 200)) == pytest.approx(0.5)
    assert cost_score(1.0) == pytest.approx((math.log2(200) - 0) / (math.log2(200) - math.log2(0.0044)))


@given(st.floats(0.01, 1), st.floats(0.01, 100), st.floats(0, 10))
def test_arena_score_is_a_weighted_harmonic_mean(accuracy: float, cost: float, beta: float) -> None:
    expected = (1 + beta) / (1 / accuracy + beta / cost_score(cost))
    assert arena_score(accuracy, cost, beta) == pytest.approx(expected)


def test_arena_score_of_known_values() -> None:
    assert arena_score(0.5, 0.0044) == pytest.approx(1.1 * 0.5 / 1.05)
    assert arena_score(0.7, 0.0044, beta=0) == pytest.approx(0.7)
    assert arena_score(0, 1) == arena_score(1, 200) == arena_score(0, 200) == 0


@pytest.mark.parametrize("cost", [0.0, -1.0, float("nan")])
def test_arena_score_cost_that_nobody_recorded_is_refused(cost: float) -> None:
    with pytest.raises(ValueError, match="unknown, not free"):
        arena_score(0.5, cost)


@pytest.mark.parametrize("accuracy", [-0.1, 50.0, float("nan")])
def test_arena_score_accuracy_in_percent_or_unknown_is_refused(accuracy: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        arena_score(accuracy, 1.0)
