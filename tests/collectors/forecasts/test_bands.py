"""Bands hold the share that they promise, in simulated worlds; and say so where they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from collectors.forecasts import foretelling
from collectors.forecasts.bands import FEWEST_HELD_OUT, check, conformal_quantile, fit_bands
from collectors.forecasts.choice import choose_items
from collectors.forecasts.foretelling import FAMILY, KEPT, RANDOM, REFUSED, Forecaster
from collectors.forecasts.placing import place_by_metadata
from collectors.forecasts.smoothing import learn
from tests.helpers.foretold_worlds import world


def test_conformal_quantile_is_numpys_of_the_next_rank() -> None:
    scores = np.random.default_rng(0).random(99)
    # ⌈100 · 0.9⌉ = 90th of 99 values.
    assert conformal_quantile(scores, 0.9) == np.sort(scores)[89]
    assert conformal_quantile(scores[:8], 0.9) == np.inf


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_bands_of_errors_of_many_sizes_hold_their_level(level: float) -> None:
    random = np.random.default_rng(1)
    held = []
    for _ in range(200):
        variances = random.uniform(0.1, 4, 260)
        errors = np.sqrt(variances) * random.standard_t(4, 260)
        bands = fit_bands(errors[:160], variances[:160], np.zeros(160), level)
        held.append(np.mean(np.abs(errors[160:]) <= bands.half(variances[160:], np.zeros(100))))
    assert np.mean(held) == pytest.approx(level, abs=0.015)


def test_fit_bands_of_too_few_models_is_refused() -> None:
    few = np.zeros(FEWEST_HELD_OUT // 2 - 1)
    with pytest.raises(ValueError, match="9 held-out models are too few for bands"):
        fit_bands(few, few, few)


def test_check_counts_pairs_that_bands_tell_apart() -> None:
    done = check(np.array([0.1, 0.5, 0.52]), np.array([0.05, 0.05, 0.05]), np.array([0.1, 0.6, 0.5]))
    assert (done.models, done.pairs, done.pairs_right) == (3, 2, 1.0)
    assert done.coverage == pytest.approx(2 / 3)
    # The first is above both in truth: the two pairs are wrong.
    assert check(np.array([0.1, 0.5, 0.52]), np.full(3, 0.05), np.array([0.9, 0.6, 0.5])).pairs_right == 0


def test_forecaster_bands_hold_models_that_it_never_saw() -> None:
    held = []
    for seed in range(3):
        made = world(models=260, items=(60, 50), seed=20 + seed)
        learned = learn(made.answers[:160], made.tasks, related=made.families[:160])
        asked = np.sort(choose_items(made.answers[:160], 16, tasks=made.tasks))
        new = made.answers[160:]
        sparse = np.full_like(new, np.nan)
        sparse[:, asked] = new[:, asked]
        forecaster = Forecaster(learned, [asked])
        values, halves = forecaster.means(sparse)
        held.append(np.mean(np.abs(values - new @ learned.goals.T) <= halves, axis=0))
        assert all(goal.verdict == KEPT for goal in forecaster.goals)
        assert all(set(goal.checks) == {RANDOM, FAMILY} for goal in forecaster.goals)
    assert np.mean(held) == pytest.approx(0.9, abs=0.05)


def test_forecaster_items_add_up_to_the_means_but_for_trust() -> None:
    made = world(models=200, items=(50,), seed=5)
    learned = learn(made.answers[:160], made.tasks, related=made.families[:160])
    asked = np.arange(0, 50, 4)
    sparse = np.full((40, 50), np.nan, np.float32)
    sparse[:, asked] = made.answers[160:][:, asked]
    probable = Forecaster(learned, [asked]).items(sparse)
    assert (probable[:, asked] == sparse[:, asked]).all()
    assert probable.min() >= 0
    assert probable.max() <= 1
    truth, others = made.answers[160:], np.setdiff1d(np.arange(50), asked)
    mean = learned.answers.mean(axis=0)
    assert np.square(probable - truth)[:, others].mean() < np.square(mean - truth)[:, others].mean()


@pytest.mark.parametrize("models", [1, 2, 12])
def test_forecaster_of_few_models_refuses_every_goal(models: int) -> None:
    learned = learn(np.random.default_rng(0).integers(0, 2, (models, 30)).astype(float))
    forecaster = Forecaster(learned, [np.arange(3)])
    assert {goal.verdict for goal in forecaster.goals} == {REFUSED}
    sparse = np.full((1, 30), np.nan, np.float32)
    sparse[:, :3] = 1
    values, halves = forecaster.means(sparse)
    assert np.isnan(halves).all()
    assert not np.isnan(values).any()


@pytest.mark.parametrize(
    "answers", [np.ones((40, 30)), np.tile(np.arange(30) % 2, (40, 1))], ids=["constant", "forty copies"]
)
def test_forecaster_of_copies_or_constants_gives_no_false_width(answers: np.ndarray) -> None:
    forecaster = Forecaster(learn(answers.astype(float)), [np.arange(3)])
    sparse = np.full((1, 30), np.nan, np.float32)
    sparse[:, :3] = answers[:1, :3]
    values, halves = forecaster.means(sparse)
    kept = ~np.isnan(halves)
    assert np.allclose(values, answers[0].mean(), atol=0.01)
    assert (halves[kept] < 0.01).all()


def test_forecaster_of_one_large_family_has_endless_bands_where_a_half_has_too_few_models() -> None:
    """25 models are of one family: the four of the other half are too few for bands, and a width of 0 is false."""
    made = world(models=29, items=(40,), seed=6)
    related = np.where(np.arange(29) < 25, 0, np.arange(29))
    forecaster = Forecaster(learn(made.answers, made.tasks, related=related), [np.arange(0, 40, 4)])
    assert {(goal.verdict, goal.reason) for goal in forecaster.goals} == {
        (REFUSED, "one family has most models, and the others are too few for bands of 90%")
    }


def test_forecaster_halves_are_the_same_where_only_some_models_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands are tried on the half of the families that did not calibrate them, for both kinds of errors."""
    monkeypatch.setattr(foretelling, "MOST_MODELS", 60)
    made = world(models=120, items=(30,), seed=7)
    learned = learn(made.answers, made.tasks, related=made.families)
    forecaster = Forecaster(learned, [np.arange(0, 30, 3)])
    half = dict[int, int]()
    for residuals in (one for of_kind in forecaster.residuals.values() for one in of_kind):
        for model, part in zip(residuals.models.tolist(), forecaster._half(residuals).tolist(), strict=True):
            assert half.setdefault(model, part) == part
    assert len(half) == 120


def test_item_check_of_items_that_go_together_by_chance_can_fail() -> None:
    """Trust by the models that it is tried on would never be worse than the items' means."""
    checks = []
    for seed in range(8):
        answers = (np.random.default_rng(seed).random((60, 40)) < 0.5).astype(float)
        [check_] = Forecaster(learn(answers), [np.arange(0, 40, 4)]).item_checks
        assert check_ is not None
        checks.append(check_.brier / check_.brier_of_mean)
    assert max(checks) > 1


def test_place_by_metadata_uses_relatives_then_size() -> None:
    names = [f"lab/m{size}" for size in (1, 3, 7, 13)] + ["other/kin-7b"]
    parameters = np.array([1e9, 3e9, 7e9, 13e9, np.nan])
    means = np.array([[0.2], [0.4], [0.5], [0.6], [0.9]])
    new = [("new/x", None, 5e9), ("other/kin-13b", None, np.nan), ("new/y", "lab/m13", np.nan), ("new/z", None, np.nan)]
    values, errors = place_by_metadata(means, names, [None] * 5, parameters, new)
    assert 0.4 < values[0, 0] < 0.5
    assert values[1, 0] == pytest.approx((2 * 0.9 + means.mean()) / 3)
    assert values[2, 0] == pytest.approx((2 * 0.6 + means.mean()) / 3)
    assert values[3, 0] == pytest.approx(means.mean())
    assert errors.shape == (5, 1)
    assert errors[4, 0] == pytest.approx(0.9 - means[:4].mean())
