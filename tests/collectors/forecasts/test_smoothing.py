"""Forecasts by kernel smoothing against fitting anew, and against scikit-learn; families; the error to expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from collectors.forecasts.choice import choose_items
from collectors.forecasts.expecting import CROSS_VALIDATED, SAMPLING, expected_error, foretold_means
from collectors.forecasts.families import families, folds
from collectors.forecasts.smoothing import RIDGE, Smoother, kernel, learn
from tests.helpers.foretold_worlds import World, world


@pytest.fixture(scope="module")
def answered() -> World:
    return world(models=160, items=(60, 40, 30), seed=4)


def test_smoother_equals_scikit_learns_kernel_ridge(answered: World) -> None:
    ridge = pytest.importorskip("sklearn.kernel_ridge")
    old, new = answered.answers[:120].astype(float), answered.answers[120:].astype(float)
    asked = choose_items(old, 15, tasks=answered.tasks)
    smoother = Smoother(learn(old, answered.tasks), asked)
    target = old.mean(axis=1, keepdims=True)
    model = ridge.KernelRidge(alpha=RIDGE, kernel="precomputed")
    model.fit(kernel(old[:, asked], old[:, asked]), target - target.mean())
    expected = target.mean() + model.predict(kernel(new[:, asked], old[:, asked]))
    assert np.allclose(smoother.expect(new[:, asked], target)[0], expected, atol=1e-6)


def test_kernel_equals_scikit_learns_matern(answered: World) -> None:
    matern = pytest.importorskip("sklearn.gaussian_process.kernels").Matern(length_scale=np.sqrt(3 * 20) / 3, nu=1.5)
    some = answered.answers[:30, :20].astype(float)
    assert np.allclose(kernel(some, some), matern(some), atol=1e-9)


def test_smoother_left_out_equals_fitting_without_the_family(answered: World) -> None:
    learned = learn(answered.answers, answered.tasks, related=answered.families)
    learned = replace(learned, weights=np.linspace(0.2, 1, len(learned.weights)).astype(np.float32))
    asked, targets = np.arange(0, 130, 9), learned.answers.astype(float)[:, :5]
    residuals, variances = Smoother(learned, asked).left_out(targets, learned.families)
    rows = np.flatnonzero(learned.families == 7)
    others = np.setdiff1d(np.arange(len(targets)), rows)
    seen = learned.answers.astype(float)[:, asked]
    weights = learned.weights.astype(float)[others]
    system = kernel(seen[others], seen[others]) + np.diag(RIDGE / weights)
    near = kernel(seen[rows], seen[others])
    centre = np.average(targets[others], axis=0, weights=weights)
    expected = centre + near @ np.linalg.solve(system, targets[others] - centre)
    assert np.allclose(residuals[rows], targets[rows] - expected, atol=1e-8)
    assert np.allclose(variances[rows], 1 - (near @ np.linalg.inv(system) * near).sum(axis=1), atol=1e-8)


def test_foretold_means_items_add_up_and_all_items_are_exact(answered: World) -> None:
    learned = learn(answered.answers[:120], answered.tasks)
    new = answered.answers[120:].astype(float)
    truth = new @ learned.shares.T
    assert np.allclose(foretold_means(learned, np.arange(130), new), truth)
    asked = choose_items(answered.answers[:120], 20, tasks=answered.tasks)
    error = np.abs(foretold_means(learned, asked, new[:, asked]) - truth).mean()
    blind = np.abs(truth - truth.mean(axis=0)).mean()
    assert error < 0.8 * blind


def test_families_join_copies_names_and_bases_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    answers = (random.random((7, 400)) < 0.5).astype(float)
    answers[3] = answers[1]
    answers[3, :30] = 1 - answers[3, :30]
    names = ["org/Alpha-7b", "a/one", "org/alpha-13B-Instruct", "b/two", "c/three", "d/four", "e/five"]
    bases = [None, None, None, None, "e/five", "Meta/X", "meta/x"]
    # 0 and 2 by name, 1 and 3 by answers, 4 is made from 6, and 5 and 6 are made from one model.
    assert families(answers, names, bases).tolist() == [0, 1, 0, 1, 4, 4, 4]
    assert families(np.full((2, 9), np.nan)).tolist() == [0, 1]


def test_families_are_not_joined_by_a_model_that_answered_a_part() -> None:
    random = np.random.default_rng(0)
    answers = (random.random((4, 400)) < 0.5).astype(float)
    answers[2, :200], answers[2, 200:] = answers[0, :200], np.nan
    answers[1, :60], answers[2, :60] = answers[0, :60], answers[0, :60]
    answers[3], answers[3, 60:] = answers[1], np.nan
    # 3 answered like 0, 1 and 2 what it was asked. It is of one family, and no bridge between 0 and 1.
    assert families(answers).tolist() == [0, 1, 0, 0]


def test_families_of_models_that_are_nearly_always_right_are_apart() -> None:
    answers = (np.random.default_rng(1).random((20, 1000)) < 0.97).astype(float)
    assert len(set(families(answers).tolist())) == 20


def test_folds_never_part_a_family() -> None:
    groups = np.array([0, 0, 0, 3, 4, 4, 6, 7, 8, 8])
    part = folds(groups, 3)
    assert all(len(set(part[groups == group].tolist())) == 1 for group in groups)
    assert sorted(np.bincount(part).tolist()) in ([3, 3, 4], [2, 4, 4])


def test_expected_error_falls_with_the_share_and_holds_for_new_models(answered: World) -> None:
    old, new = world(models=240, items=(60, 40, 30), seed=4), np.arange(160, 240)
    expected = expected_error(old.answers[:160], (0.05, 0.25, 1), tasks=old.tasks, names=old.names[:160])
    assert [one.items for one in expected] == [6, 32, 130]
    assert expected[0].of_mean > expected[1].of_mean > expected[2].of_mean
    assert expected[2].of_mean == pytest.approx(0, abs=1e-12)
    assert expected[0].method == CROSS_VALIDATED
    learned = learn(old.answers[:160], old.tasks)
    order = choose_items(old.answers[:160], 32, tasks=old.tasks)
    truth = old.answers[new].astype(float)
    error = (foretold_means(learned, order, truth[:, order]) - truth @ learned.shares.T).mean(axis=1)
    assert 0.7 < np.abs(error).mean() / expected[1].of_mean < 1.3


def test_expected_error_without_complete_models_is_that_of_sampling() -> None:
    [half, all_items] = expected_error(np.full((2, 100), np.nan), (0.5, 1.0))
    # 50 of 100 items, half of them right: the hypergeometric deviation is ½ √(50/99) / √50.
    assert half.of_mean == pytest.approx(0.7979 * 0.5 * np.sqrt(50 / 99 / 50))
    assert (half.method, all_items.of_mean) == (SAMPLING, 0)


@pytest.mark.parametrize(
    "answers",
    [np.ones((30, 12)), np.tile(np.arange(12.0) % 2, (30, 1)), np.ones((1, 12))],
    ids=["constant", "copies", "one model"],
)
def test_learn_degenerate_answers_foretell_what_all_say(answers: np.ndarray) -> None:
    learned = learn(answers)
    assert np.allclose(foretold_means(learned, np.array([0, 1]), answers[:1, :2]), answers[0].mean(), atol=1e-3)


def test_learn_without_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="no model has a third of the answers"):
        learn(np.full((4, 9), np.nan))
