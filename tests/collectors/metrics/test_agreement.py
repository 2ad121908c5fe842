"""Judgements of routers, by hand, on real records, and against the single figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collectors.metrics.agreement import judge
from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.pool import oracle

Array = npt.NDArray[Any]


def test_judge_of_a_small_matrix_is_the_closed_form() -> None:
    scores = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, np.nan], [1, 1, 1]], np.float32)
    usd = np.array([[1, 2, 3]] * 6, np.float64)
    choices = np.array([0, 1, 1, 2, 0, NO_CHOICE])
    found = judge(choices, scores, usd, reference=0.8)
    assert (found.items, found.left_out) == (4, 2)
    assert (found.accuracy, found.oracle, found.best_single, found.best_model) == (0.5, 0.75, 0.5, 0)
    assert found.random == pytest.approx(4 / 12)
    assert (found.gain, found.gap_closed, found.v_b) == (0, 0, 1)
    assert found.v_r == pytest.approx(0.625)
    assert (found.total_cost, found.mean_cost, found.uncosted) == (8, 2, 0)
    assert found.choice_entropy == pytest.approx(1.5)
    assert found.selection_entropy is None


def test_judge_unknown_costs_are_counted_and_make_the_total_unknown() -> None:
    scores, usd = np.ones((3, 2)), np.array([[1, np.nan], [1, 1], [np.nan, 1]])
    found = judge(np.array([0, 0, 0]), scores, usd)
    assert (found.total_cost, found.mean_cost, found.uncosted) == (None, None, 1)
    assert judge(np.array([0, 0, 1]), scores, usd).total_cost == 3
    assert (judge(np.array([0, 0, 1]), scores).total_cost, judge(np.array([0, 0, 1]), scores).uncosted) == (None, 3)


def test_judge_without_a_way_to_go_has_no_share_of_it() -> None:
    found = judge(np.array([0, 1]), np.array([[1.0, 0], [1, 0]]))
    assert (found.gap_closed, found.gain, found.v_b) == (None, -0.5, 0.5)
    assert judge(np.array([0, 1]), np.zeros((2, 2))).v_b is None


def test_judge_where_one_model_is_best_on_every_item_has_no_way_to_go() -> None:
    scores = np.random.default_rng(0).random((1000, 1)) - np.array([0, 0.1, 0.2])
    found = judge(np.arange(1000) % 3, scores)
    assert (found.gap, found.gap_closed) == (0, None)
    assert found.oracle == pytest.approx(found.best_single)  # two sums of the same numbers: not equal to the last bit


def test_judge_probabilities_of_items_left_out_do_not_count() -> None:
    scores = np.array([[1.0, 0], [0, 1], [np.nan, 1]])
    probabilities = np.array([[0.5, 0.5], [1, 0], [0.5, 0.5]])
    assert judge(np.array([0, 0, 0]), scores, probabilities=probabilities).selection_entropy == 0.5


def test_judge_without_a_known_item_is_refused() -> None:
    with pytest.raises(ValueError, match="no item of 2"):
        judge(np.array([0, NO_CHOICE]), np.array([[1, np.nan], [1, 1]]))


@given(
    hnp.arrays(np.float64, (6, 3), elements=st.sampled_from([0.0, 0.25, 1.0, np.nan])),
    hnp.arrays(np.int64, 6, elements=st.integers(NO_CHOICE, 2)),
)
def test_judge_is_between_the_worst_and_the_oracle_and_the_oracle_closes_the_gap(scores: Array, choices: Array) -> None:
    known = ~np.isnan(scores).any(axis=1) & (choices != NO_CHOICE)
    assume(known.any())
    found = judge(choices, scores)
    kept, taken = scores[known], choices[known]
    assert found.items + found.left_out == 6
    assert found.accuracy == pytest.approx(np.mean([row[j] for row, j in zip(kept, taken, strict=True)]))
    assert found.oracle == pytest.approx(kept.max(axis=1).mean())
    assert found.best_single == pytest.approx(kept.mean(axis=0).max())
    assert kept.min(axis=1).mean() - 1e-9 <= found.accuracy <= found.oracle + 1e-9
    perfect = judge(oracle(kept), kept)
    assert perfect.gap_closed is None or math.isclose(perfect.gap_closed, 1)
