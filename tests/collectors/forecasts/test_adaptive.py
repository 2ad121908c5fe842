"""What to ask next: by the variance that is left, against conditioning a whole covariance, and never twice."""

from __future__ import annotations

import numpy as np
import pytest

from collectors.forecasts.adaptive import _variances, expected_errors, next_items
from collectors.forecasts.choice import goals_of, greedy
from collectors.forecasts.smoothing import Learned, learn
from tests.helpers.foretold_worlds import world

ANSWERED = world(models=120, items=(40, 30), seed=8)


@pytest.fixture(scope="module")
def learned() -> Learned:
    return learn(ANSWERED.answers[:100], ANSWERED.tasks)


@pytest.fixture
def sparse() -> np.ndarray:
    answers = ANSWERED.answers[100:106].copy()
    answers[:, 10:] = np.nan
    return answers


def test_variances_equal_conditioning_the_whole_covariance(learned: Learned) -> None:
    goals, order = goals_of(learned.tasks), np.array([3, 50, 17])
    loadings = learned.factors.loadings.astype(float)
    covariance, left = loadings @ loadings.T + np.diag(learned.factors.noise.astype(float)), goals.astype(float)
    expected = [np.trace(left @ covariance @ left.T)]
    for item in order:
        covariance = covariance - np.outer(covariance[:, item], covariance[:, item]) / covariance[item, item]
        expected.append(np.trace(left @ covariance @ left.T))
    assert np.allclose(_variances(learned.factors, goals, order), expected, rtol=1e-4)


def test_next_items_are_open_ones_and_the_same_again(learned: Learned, sparse: np.ndarray) -> None:
    pairs = next_items(learned, sparse, 12)
    assert len(set(pairs)) == 12
    assert all(np.isnan(sparse[model, item]) for model, item in pairs)
    assert pairs == next_items(learned, sparse, 12)


def test_next_items_leave_out_models_that_are_sure_enough_or_do_not_matter(
    learned: Learned, sparse: np.ndarray
) -> None:
    sparse[2] = ANSWERED.answers[102]
    errors = expected_errors(learned, sparse)
    assert errors[2] == pytest.approx(0, abs=1e-6)
    limit = float(np.sort(errors)[-2])
    assert {model for model, _ in next_items(learned, sparse, 30, until=limit)} == {int(errors.argmax())}
    assert {model for model, _ in next_items(learned, sparse, 30, matters=[0, 1, 1, 0, 0, 0])} == {1}
    assert next_items(learned, sparse, 30, until=1.0) == []


def test_next_items_dear_items_are_asked_last(learned: Learned, sparse: np.ndarray) -> None:
    costs = np.ones(ANSWERED.answers.shape[1])
    first = {item for _, item in next_items(learned, sparse, 6)}
    costs[list(first)] = 1e4
    assert not first & {item for _, item in next_items(learned, sparse, 6, costs=costs)}


def test_next_items_of_a_model_without_an_answer_begin_like_the_probe_set(learned: Learned) -> None:
    nothing = np.full((1, ANSWERED.answers.shape[1]), np.nan, np.float32)
    fixed = greedy(learned.factors, goals_of(learned.tasks), 5).tolist()
    assert [item for _, item in next_items(learned, nothing, 5)] == fixed
