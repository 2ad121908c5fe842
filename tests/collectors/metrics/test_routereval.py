"""RouterEval's measures, against scipy, sampling and what its authors published."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collectors.metrics.gaps import NO_CHOICE, Mean
from collectors.metrics.pool import model_means, oracle_mean
from collectors.metrics.routereval import (
    REFERENCE_ACCURACY,
    choice_entropy,
    oracle_probabilities,
    r_o,
    r_o_probabilities,
    random_entropy,
    reference_accuracy,
    selection_entropy,
    v_b,
    v_r,
)

#: Of RouterEval's table of baselines (figure/table1.png and table2.png), means of three groups, to two decimals:
#: data set, models, then μ and E_p of the oracle, of r_o(0.5) and of the random router, and V_R of the oracle.
TABLE = [
    ("arc", 3, 0.80, 1.02, 0.67, 1.47, 0.54, 1.59, 0.94),
    ("arc", 5, 0.85, 1.57, 0.70, 2.16, 0.55, 2.32, 1.00),
    ("hellaswag", 3, 0.80, 1.32, 0.74, 1.53, 0.68, 1.59, 0.84),
    ("hellaswag", 5, 0.81, 2.00, 0.74, 2.25, 0.67, 2.32, 0.85),
    ("mmlu", 3, 0.89, 1.00, 0.75, 1.47, 0.62, 1.59, 1.03),
    ("mmlu", 5, 0.92, 1.49, 0.75, 2.14, 0.58, 2.32, 1.07),
    ("winogrande", 3, 0.95, 1.20, 0.86, 1.51, 0.77, 1.59, 1.09),
    ("winogrande", 5, 0.98, 1.77, 0.85, 2.21, 0.72, 2.32, 1.12),
    ("gsm8k", 3, 0.87, 1.10, 0.76, 1.49, 0.64, 1.59, 0.95),
    ("gsm8k", 5, 0.89, 1.67, 0.74, 2.19, 0.60, 2.32, 0.96),
    ("ifeval", 3, 0.79, 1.04, 0.67, 1.47, 0.54, 1.59, 1.02),
    ("ifeval", 5, 0.81, 1.63, 0.67, 2.17, 0.53, 2.32, 1.06),
    ("bbh", 3, 0.82, 0.97, 0.68, 1.46, 0.53, 1.59, 0.99),
    ("bbh", 5, 0.88, 1.43, 0.70, 2.13, 0.52, 2.32, 1.06),
    ("gpqa", 3, 0.68, 0.72, 0.49, 1.41, 0.30, 1.59, 1.71),
    ("gpqa", 5, 0.87, 0.84, 0.58, 1.99, 0.30, 2.32, 2.18),
    ("musr", 3, 0.74, 0.81, 0.56, 1.43, 0.39, 1.59, 1.05),
    ("musr", 5, 0.82, 1.31, 0.61, 2.10, 0.40, 2.32, 1.17),
    ("math", 3, 0.56, 1.14, 0.45, 1.49, 0.35, 1.59, 1.39),
    ("math", 5, 0.61, 1.60, 0.46, 2.16, 0.32, 2.32, 1.51),
    ("mmlu_pro", 3, 0.67, 1.05, 0.55, 1.48, 0.43, 1.59, 1.05),
    ("mmlu_pro", 5, 0.72, 1.50, 0.56, 2.14, 0.40, 2.32, 1.14),
]
ROUNDED = 0.005 + 1e-9
WEIGHTS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.sampled_from([0.0, 0.25, 1.0, 7.0]),
)


@given(WEIGHTS)
def test_selection_entropy_is_the_mean_of_scipys_entropies(weights: npt.NDArray[Any]) -> None:
    weights[:, 0] += 1
    expected = scipy.stats.entropy(weights, base=2, axis=1).mean()
    assert selection_entropy(weights).value == pytest.approx(expected, abs=1e-12)


def test_selection_entropy_is_per_item_and_unlike_that_of_all_choices() -> None:
    certain = np.eye(4)
    assert selection_entropy(certain) == Mean(0.0, 4, 0)
    assert choice_entropy(np.arange(4), 4) == 2.0
    assert selection_entropy(np.full((4, 4), 0.25)).value == random_entropy(4) == 2.0
    assert choice_entropy(np.array([1, 1, NO_CHOICE]), 4) == 0.0


def test_choice_entropy_passes_over_items_without_a_choice() -> None:
    assert choice_entropy(np.array([0, NO_CHOICE, 1, NO_CHOICE, NO_CHOICE]), 2) == 1.0
    with pytest.raises(ValueError, match="no item has a choice"):
        choice_entropy(np.array([NO_CHOICE]), 2)


def test_selection_entropy_unknown_rows_are_left_out_and_impossible_ones_refused() -> None:
    assert selection_entropy(np.array([[3.0, 3], [np.nan, 1]])) == Mean(1.0, 1, 1)
    for impossible in ([[0.0, 0.0]], [[2.0, -1.0]]):
        with pytest.raises(ValueError, match="negative"):
            selection_entropy(np.array(impossible))


def test_oracle_entropy_of_graded_scores_weighs_models_by_score() -> None:
    """mix_router of RouterEval's r_o_router.py, run on the same numbers."""
    assert selection_entropy(oracle_probabilities(np.array([[0.6, 0.4]]))).value == pytest.approx(0.9709505944546686)
    graded = np.random.default_rng(0).random((5, 132)).T
    assert selection_entropy(oracle_probabilities(graded)).value == pytest.approx(2.0824476655820074)
    assert oracle_probabilities(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, np.nan]]))[:2].tolist() == [[0.5, 0.5], [1, 0]]


@pytest.mark.parametrize(("data_set", "models", "oracle", "e", "half", "e_half", "chance", "e_random", "ratio"), TABLE)
def test_published_baselines_of_routereval_obey_the_formulas(
    data_set: str,
    models: int,
    oracle: float,
    e: float,
    half: float,
    e_half: float,
    chance: float,
    e_random: float,
    ratio: float,
) -> None:
    assert half == pytest.approx(0.5 * oracle + 0.5 * chance, abs=2 * ROUNDED)
    assert random_entropy(models) == pytest.approx(e_random, abs=2 * ROUNDED)  # 1.59 is log2 3 = 1.58496, rounded twice
    reference = REFERENCE_ACCURACY[data_set]
    assert v_r(oracle, reference) == pytest.approx(ratio, abs=ROUNDED + ROUNDED / reference)
    # What E_p of r_o(0.5) can be, given that of the oracle, when items have 1 to all models among the best: each
    # number of best models is a point (E_p of the oracle, of r_o(0.5)); the means lie in the hull of these.
    grades = np.array([[1.0] * k + [0.0] * (models - k) for k in range(1, models + 1)])
    x = [selection_entropy(oracle_probabilities(row[np.newaxis])).value for row in grades]
    y = [selection_entropy(r_o_probabilities(row[np.newaxis], 0.5)).value for row in grades]
    low = np.interp(e, [x[0], x[-1]], [y[0], y[-1]])
    high = np.interp(e, x, y)
    assert low - 1.5 * ROUNDED <= e_half <= high + 1.5 * ROUNDED


def test_v_r_is_what_the_authors_notebook_shows() -> None:
    """The stored output of quick_start.ipynb: gsm8k, nearest neighbours, five models, three groups and their mean."""
    for mu, published in [(0.8258, 0.8976), (0.4545, 0.4941), (0.8485, 0.9223), (0.7096, 0.7713)]:
        assert v_r(mu, REFERENCE_ACCURACY["gsm8k"]) == pytest.approx(published, abs=1.1e-4)


def test_reference_accuracy_is_known_by_routerevals_and_lm_evals_names() -> None:
    assert reference_accuracy("arc") == reference_accuracy("arc_challenge") == 0.852
    assert reference_accuracy("leaderboard_mmlu_pro") == reference_accuracy("mmlu_pro") == 0.637
    assert reference_accuracy("mmlu_anatomy") is None


def test_v_b_is_one_for_the_best_single_model_and_undefined_without_one() -> None:
    means = model_means(np.array([[1.0, 0], [1, 1], [0, 0]]))
    assert v_b(means.means[0], means.best_single.value) == 1.0
    assert v_b(means.means[1], means.best_single.value) == 0.5
    for measure in (v_b, v_r):
        with pytest.raises(ValueError, match="nothing can be measured"):
            measure(0.5, 0.0)


@given(hnp.arrays(np.float64, (5, 3), elements=st.sampled_from([0.0, 1.0])), st.floats(0, 1))
def test_r_o_of_verdicts_is_the_expectation_under_its_probabilities(scores: npt.NDArray[Any], p: float) -> None:
    probabilities = r_o_probabilities(scores, p)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert r_o(scores, p).value == pytest.approx((probabilities * scores).sum(axis=1).mean())


def test_r_o_is_what_drawing_finds() -> None:
    rng = np.random.default_rng(1)
    scores = (rng.random((50, 4)) < 0.4).astype(np.float64)
    drawn = []
    for _ in range(2_000):
        uniform = scores[np.arange(50), rng.integers(0, 4, 50)]
        drawn.append(np.where(rng.random(50) < 0.3, scores.max(axis=1), uniform).mean())
    assert r_o(scores, 0.3).value == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / math.sqrt(2_000))


def test_r_o_ends_are_the_oracle_and_chance_and_leave_out_unknown_items() -> None:
    scores = np.array([[1.0, 0], [0, 0], [np.nan, 1]])
    assert r_o(scores, 1) == oracle_mean(scores) == Mean(0.5, 2, 1)
    assert r_o(scores, 0) == model_means(scores).random == Mean(0.25, 2, 1)
    assert np.isnan(r_o_probabilities(scores, 0.5)[2]).all()
    with pytest.raises(ValueError, match="probability"):
        r_o(scores, 1.1)
