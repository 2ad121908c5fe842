"""Which items to ask: the greedy order against a plain design over the whole covariance, and odd inputs."""

from __future__ import annotations

import numpy as np
import pytest

from collectors.forecasts import choice
from collectors.forecasts.adaptive import _variances
from collectors.forecasts.choice import METHODS, choose_items, goals_of, greedy, stratified
from collectors.forecasts.factors import complete, complete_models, fit_factors
from tests.helpers.foretold_worlds import World, world


@pytest.fixture(scope="module")
def answered() -> World:
    return world(models=120, items=(60, 40, 30), seed=3)


def test_greedy_is_the_design_over_the_whole_covariance(answered: World) -> None:
    """Conditioning the full matrix step by step, as a textbook does, gives the same items."""
    factors, goals = fit_factors(answered.answers), goals_of(answered.tasks)
    covariance = factors.loadings.astype(float) @ factors.loadings.T.astype(float) + np.diag(
        factors.noise.astype(float)
    )
    left, expected = goals.astype(float), list[int]()
    for _ in range(15):
        gains = np.square(covariance @ left.T).sum(axis=1) / np.maximum(np.diag(covariance), 1e-9)
        gains[expected] = -1
        item = int(gains.argmax())
        expected.append(item)
        covariance = covariance - np.outer(covariance[:, item], covariance[:, item]) / covariance[item, item]
        left[:, item] = 0
    assert greedy(factors, goals, 15).tolist() == expected
    assert greedy(factors, goals, 6, asked=np.array(expected[:9])).tolist() == expected[9:]


def test_greedy_that_follows_few_candidates_takes_as_much_off_as_with_all(
    answered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors, goals = fit_factors(answered.answers), goals_of(answered.tasks)
    whole = greedy(factors, goals, 60)
    monkeypatch.setattr(choice, "CANDIDATES", 6)
    few = greedy(factors, goals, 60)
    left = _variances(factors, goals, whole), _variances(factors, goals, few)
    assert few[:10].tolist() == whole[:10].tolist()
    assert np.allclose(left[1], left[0], rtol=0.05)
    assert sorted(greedy(factors, goals, len(answered.tasks)).tolist()) == list(range(len(answered.tasks)))


@pytest.mark.parametrize("method", METHODS)
def test_choose_items_any_method_gives_distinct_items_and_the_same_again(answered: World, method: str) -> None:
    order = choose_items(answered.answers, 20, tasks=answered.tasks, method=method, seed=5)
    assert len(order) == len(set(order.tolist())) == 20
    assert set(order.tolist()) <= set(range(len(answered.tasks)))
    assert order.tolist() == choose_items(answered.answers, 20, tasks=answered.tasks, method=method, seed=5).tolist()


def test_choose_items_a_shorter_order_begins_the_longer_one(answered: World) -> None:
    for method in ("greedy", "random"):
        longer = choose_items(answered.answers, 40, tasks=answered.tasks, method=method)
        assert choose_items(answered.answers, 10, tasks=answered.tasks, method=method).tolist() == longer[:10].tolist()


def test_choose_items_without_complete_models_spreads_over_tasks_and_strata() -> None:
    answers = np.full((3, 100), np.nan)
    tasks = ["a"] * 80 + ["b"] * 20
    strata = ["x", "y"] * 50
    order = choose_items(answers, 20, tasks=tasks, strata=strata, seed=1)
    drawn = [(tasks[item], strata[item]) for item in order]
    assert {cell: drawn.count(cell) for cell in drawn} == {("a", "x"): 8, ("a", "y"): 8, ("b", "x"): 2, ("b", "y"): 2}
    assert order.tolist() != choose_items(answers, 20, tasks=tasks, strata=strata, seed=2).tolist()


def test_choose_items_costly_items_come_later(answered: World) -> None:
    costs = np.ones(len(answered.tasks))
    dear = choose_items(answered.answers, 10, tasks=answered.tasks)[:5]
    costs[dear] = 1000
    assert not set(dear.tolist()) & set(choose_items(answered.answers, 10, tasks=answered.tasks, costs=costs).tolist())


@pytest.mark.parametrize(
    "answers",
    [np.full((30, 6), np.nan), np.ones((30, 6)), np.zeros((1, 6)), np.zeros((0, 6)), np.tile([0.0, 1.0], (40, 3))],
    ids=["nothing", "constant", "one model", "no model", "copies"],
)
def test_choose_items_degenerate_answers_still_give_items(answers: np.ndarray) -> None:
    assert sorted(choose_items(answers, 6).tolist()) == list(range(6))
    assert choose_items(answers, 0).tolist() == []


def test_choose_items_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="7 of 6 items"):
        choose_items(np.zeros((2, 6)), 7)
    with pytest.raises(ValueError, match="'best' is none of greedy"):
        choose_items(np.zeros((2, 6)), 1, method="best")


def test_stratified_of_every_item_is_a_permutation() -> None:
    assert sorted(stratified(np.array([0, 0, 1]), None, 3, 0).tolist()) == [0, 1, 2]


def test_complete_of_hidden_answers_is_nearer_than_the_items_mean(answered: World) -> None:
    hidden = answered.answers.copy()
    hole = np.random.default_rng(0).random(hidden.shape) < 0.2
    hidden[hole] = np.nan
    filled = complete(fit_factors(hidden), hidden)
    means = np.broadcast_to(np.nanmean(hidden, axis=0), hidden.shape)
    truth = answered.answers
    assert np.square(filled - truth)[hole].mean() < 0.9 * np.square(means - truth)[hole].mean()
    assert (filled[~hole] == hidden[~hole]).all()


def test_complete_models_items_that_nobody_answered_count_for_nothing() -> None:
    answers = np.array([[1, np.nan, 0], [1, np.nan, np.nan], [np.nan] * 3])
    assert complete_models(answers).tolist() == [True, False, False]
