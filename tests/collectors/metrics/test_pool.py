"""What a pool can reach, against plain loops over items."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collectors.metrics import gaps
from collectors.metrics.gaps import NO_CHOICE, Mean, complete_items, mean_of_chosen, with_gaps
from collectors.metrics.pool import cheapest_correct, model_means, oracle, oracle_mean

NAN = math.nan
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
SCORES = st.sampled_from([0.0, 0.5, 1.0, NAN])
USD = st.sampled_from([0.0, 0.1, 0.2, 5.0, NAN])
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(hnp.arrays(np.float64, shape, elements=SCORES), hnp.arrays(np.float64, shape, elements=USD))
)
Array = npt.NDArray[Any]


@pytest.fixture(params=[1, 5, 1 << 22])
def any_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a block, the figures are the same."""
    monkeypatch.setattr(gaps, "BLOCK", request.param)


@pytest.mark.usefixtures("any_block")
def test_oracle_ties_go_to_the_cheapest_then_to_the_first() -> None:
    scores = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 0], [0.2, 0.9, 0.3]])
    usd = np.array([[0.1, 3, 2], [1, 1, 1], [3, 2, 2], [1, 9, 1]])
    assert oracle(scores, usd).tolist() == [2, 0, 1, 1]
    assert oracle(scores).tolist() == [1, 0, 0, 1]


@pytest.mark.usefixtures("any_block")
def test_oracle_unknown_cost_is_not_free_and_unknown_score_is_no_choice() -> None:
    scores = np.array([[1.0, 1, 0], [1, 1, 0], [1, NAN, 0]])
    usd = np.array([[NAN, 7, 0], [NAN, NAN, 0], [1, 1, 1]])
    assert oracle(scores, usd).tolist() == [1, 0, NO_CHOICE]
    assert oracle_mean(scores) == Mean(1.0, 2, 1)


@given(PAIRS)
def test_oracle_is_what_a_loop_over_items_finds(pair: tuple[Array, Array]) -> None:
    scores, usd = pair
    expected = []
    for row, prices in zip(scores.tolist(), usd.tolist(), strict=True):
        best = [j for j, value in enumerate(row) if value == max(row)]
        by_price = sorted(best, key=lambda j: (math.inf if math.isnan(prices[j]) else prices[j], j))
        expected.append(NO_CHOICE if any(map(math.isnan, row)) else by_price[0])
    assert oracle(scores, usd).tolist() == expected


@given(PAIRS, st.sampled_from([0.5, 1.0]))
def test_cheapest_correct_is_what_a_loop_over_items_finds(pair: tuple[Array, Array], threshold: float) -> None:
    scores, cost = pair
    expected, unsolved, left_out, total = [], 0, 0, 0.0
    for row, prices in zip(scores.tolist(), cost.tolist(), strict=True):
        right = [j for j, value in enumerate(row) if value >= threshold]
        if any(map(math.isnan, row)) or any(math.isnan(prices[j]) for j in right):
            left_out += 1
            expected.append(NO_CHOICE)
        elif not right:
            unsolved += 1
            expected.append(NO_CHOICE)
        else:
            expected.append(min(right, key=lambda j: prices[j]))
            total += prices[expected[-1]]
    found = cheapest_correct(scores, cost, threshold)
    assert found.choices.tolist() == expected
    assert (found.unsolved, found.left_out, found.solved) == (unsolved, left_out, len(expected) - unsolved - left_out)
    if found.solved:
        assert found.total_cost == pytest.approx(total)
        assert found.mean_cost == pytest.approx(total / found.solved)
    else:
        assert found.total_cost is found.mean_cost is None


@given(PAIRS)
def test_model_means_are_those_of_complete_items(pair: tuple[Array, Array]) -> None:
    scores, _ = pair
    rows = [row for row in scores.tolist() if not any(map(math.isnan, row))]
    if not rows:
        with pytest.raises(ValueError, match="no item of"):
            model_means(scores)
        return
    found = model_means(scores)
    columns = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    assert found.means == pytest.approx(columns)
    assert (found.items, found.left_out) == (len(rows), len(scores) - len(rows))
    assert found.best == columns.index(max(columns))
    assert found.best_single == Mean(found.means[found.best], len(rows), found.left_out)
    assert found.random.value == pytest.approx(sum(map(sum, rows)) / (len(rows) * scores.shape[1]))


def test_oracle_is_never_below_the_best_single_model_nor_that_below_chance() -> None:
    scores = np.random.default_rng(0).random((200, 7)).astype(np.float32)
    means = model_means(scores)
    assert oracle_mean(scores).value > means.best_single.value > means.random.value
    assert mean_of_chosen(oracle(scores), scores).value == pytest.approx(oracle_mean(scores).value)


def test_mean_of_chosen_leaves_out_what_is_unknown_and_counts_it() -> None:
    scores = np.array([[1, 0], [NAN, 0], [0.5, 0], [1, 1]], np.float32)
    assert mean_of_chosen(np.array([0, 0, 0, NO_CHOICE]), scores) == Mean(0.75, 2, 2)
    with pytest.raises(ValueError, match="no item of 4"):
        mean_of_chosen(np.full(4, NO_CHOICE), scores)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (np.array([0, 1]), "shape"),
        (np.array([0.0, 1, 1]), "float64"),
        (np.array([0, 1, 2]), "choices go from 0 to 2, models from 0 to 1"),
        (np.array([0, 1, -2]), "choices go from -2"),
    ],
)
def test_mean_of_chosen_choices_that_are_no_columns_are_refused(choices: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_of_chosen(choices, np.ones((3, 2)))


def test_complete_items_need_all_matrices_and_one_shape() -> None:
    scores, usd = np.array([[1, 0], [NAN, 0], [1, 1]]), np.array([[1, NAN], [1, 1], [1, 1]])
    assert complete_items(scores, usd).tolist() == [False, False, True]
    with pytest.raises(ValueError, match=r"\(3, 2\), \(3, 3\)"):
        complete_items(scores, np.ones((3, 3)))


def test_with_gaps_makes_invalid_scores_unknown_and_keeps_float32() -> None:
    found = with_gaps(np.array([[0, 1]], np.float32), np.array([[True, False]]))
    assert found.dtype == np.float32
    assert found[0, 0] == 0
    assert np.isnan(found[0, 1])


def test_oracle_of_many_models_needs_little_beside_the_scores() -> None:
    scores = np.random.default_rng(0).random((20_000, 1_000), np.float32)  # 80 MB
    tracemalloc.start()
    oracle(scores)
    oracle_mean(scores)
    model_means(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scores.nbytes
