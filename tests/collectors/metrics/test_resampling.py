"""Intervals cover what they promise in simulated worlds, and Holm's correction is Holm's."""

from __future__ import annotations

import numpy as np
import pytest

from collectors.metrics.resampling import Resampled, holm, ranks, resample
from tests.helpers.thorough import often


def test_holm_is_that_of_a_worked_example() -> None:
    """statsmodels' multipletests(p, method='holm') gives these."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_resample_figure_is_the_mean_over_folds_of_their_means() -> None:
    values = np.array([[[1.0, 0.0, np.nan, np.nan], [np.nan, 1.0, 1.0, 1.0]]])
    found = resample(values, np.arange(4), draws=200)
    assert found.figures.tolist() == [0.75]
    assert found.draws.mean() == pytest.approx(0.75, abs=0.1)


@pytest.mark.slow
def test_resample_intervals_of_paired_differences_cover_the_truth() -> None:
    """Binomial differences of 300 questions: 95 % of the intervals hold the true mean, within what chance allows."""
    random = np.random.default_rng(5)
    worlds, covered = often(400, 150), 0
    for world in range(worlds):
        hard = random.random(300)
        values = (random.random(300) < hard).astype(float) - (random.random(300) < hard * 0.9).astype(float)
        low, high = resample(values[np.newaxis, np.newaxis], np.arange(300), draws=500, seed=world).interval()
        covered += bool(low[0] <= 0.05 <= high[0])
    assert 0.91 <= covered / worlds <= 0.985


def test_resample_questions_of_one_group_are_drawn_together() -> None:
    """Ten copies of each of 30 questions tell no more than the 30."""
    random = np.random.default_rng(0)
    once = random.random(30) - 0.5
    few = resample(once[np.newaxis, np.newaxis], np.arange(30)).errors[0]
    copied = resample(np.repeat(once, 10)[np.newaxis, np.newaxis], np.repeat(np.arange(30), 10)).errors[0]
    assert copied == pytest.approx(few, rel=0.1)


def test_ranks_ties_share_one_and_a_real_difference_does_not() -> None:
    noise = np.random.default_rng(0).standard_normal((2000, 3)) * 0.01
    found = Resampled(np.array([0.8, 0.801, 0.5]), np.array([0.8, 0.801, 0.5]) + noise)
    assert ranks(found) == [1, 1, 3]


def test_p_values_of_no_difference_are_one() -> None:
    found = resample(np.zeros((1, 1, 50)) + 1e-17, np.arange(50), draws=100)
    assert found.p_values() == [1.0]
