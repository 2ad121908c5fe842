"""Strong and weak model, against pandas, scikit-learn and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc

from collectors.metrics.routellm import apgr, cpt, pgr, sweep

Array = npt.NDArray[Any]


def pool(seed: int, items: int = 200) -> tuple[Array, Array, Array]:
    """Informative win rates, and the scores of a weak and a strong model."""
    rng = np.random.default_rng(seed)
    weak, strong = (rng.random(items) < 0.5).astype(float), (rng.random(items) < 0.8).astype(float)
    return rng.random(items) + 0.3 * (strong - weak), weak, strong


@pytest.mark.parametrize("bins", [4, 10])
def test_sweep_is_that_of_pandas_quantiles_threshold_by_threshold(bins: int) -> None:
    rates, weak, strong = pool(0)
    _, edges = pd.qcut(rates, bins, retbins=True)
    found = sweep(rates, weak, strong, bins)
    for i, edge in enumerate(edges):
        chosen = rates >= edge if i < bins else rates > edge
        assert found.strong_share[-1 - i] == pytest.approx(chosen.mean())
        assert found.accuracy[-1 - i] == pytest.approx(np.where(chosen, strong, weak).mean())
    assert (found.strong_share[0], found.strong_share[-1]) == (0, 1)
    assert (found.accuracy[0], found.accuracy[-1]) == (found.weak, found.strong)


def test_sweep_leaves_out_what_is_unknown_and_counts_it() -> None:
    rates, weak, strong = pool(1)
    expected = sweep(rates[3:], weak[3:], strong[3:])
    rates[0], weak[1], strong[2] = np.nan, np.nan, np.nan
    found = sweep(rates, weak, strong)
    assert (found.items, found.left_out) == (197, 3)
    assert (found.apgr, found.cpt(0.5)) == (expected.apgr, expected.cpt(0.5))
    with pytest.raises(ValueError, match="no item of 3"):
        sweep(rates[:3], weak[:3], strong[:3])


def test_apgr_is_the_ratio_of_areas_that_scikit_learn_finds() -> None:
    found = sweep(*pool(2))
    x, flat = found.strong_share, np.ones_like(found.strong_share)
    weak, strong = auc(x, flat * found.weak), auc(x, flat * found.strong)
    assert found.apgr == pytest.approx((auc(x, found.accuracy) - weak) / (strong - weak))
    assert found.apgr > 0.5  # the win rates are informative


@given(st.floats(0.05, 1))
def test_random_router_has_apgr_one_half_and_cpt_the_recovered_share(recovered: float) -> None:
    shares = np.linspace(0, 1, 11)
    accuracy = 0.6 + 0.2 * shares
    assert apgr(shares, accuracy, 0.6, 0.8) == pytest.approx(0.5)
    assert cpt(shares, accuracy, 0.6, 0.8, recovered) == pytest.approx(recovered)


def test_perfect_router_of_two_models_has_the_closed_form() -> None:
    # of ten items the weak model solves 4, the strong one these and 4 more: those 4 go to it first
    weak, strong = np.repeat([1.0, 0, 0], [4, 4, 2]), np.repeat([1.0, 1, 0], [4, 4, 2])
    found = sweep(strong - weak + np.linspace(0, 0.1, 10), weak, strong)
    assert found.accuracy == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    assert found.apgr == pytest.approx(0.5 * 0.4 + 0.6)
    assert [found.cpt(x) for x in (0.2, 0.5, 0.8)] == pytest.approx([0.08, 0.2, 0.32])


def test_cpt_is_numpys_interpolation_where_accuracy_rises_and_the_first_crossing_where_it_does_not() -> None:
    shares = np.array([0, 0.25, 0.5, 0.75, 1])
    rising = np.array([0.4, 0.5, 0.55, 0.7, 0.8])
    for recovered in (0.0, 0.2, 0.5, 0.8, 1.0):
        expected = np.interp(0.4 + recovered * 0.4, rising, shares)
        assert cpt(shares, rising, 0.4, 0.8, recovered) == pytest.approx(expected)
    falling = np.array([0.4, 0.7, 0.5, 0.9, 0.8])
    assert cpt(shares, falling, 0.4, 0.8, 0.5) == pytest.approx(0.25 * 0.2 / 0.3)
    with pytest.raises(ValueError, match="the most is"):
        cpt(shares, falling, 0.4, 0.8, 1.3)


def test_pgr_is_zero_at_the_weak_and_one_at_the_strong_model() -> None:
    assert [pgr(x, 0.5, 0.75) for x in (0.5, 0.625, 0.75, 1.0, 0.25)] == [0, 0.5, 1, 2, -1]
    with pytest.raises(ValueError, match="not better"):
        pgr(0.5, 0.75, 0.75)


@pytest.mark.parametrize("shares", [[0, 0.5, 0.4], [0.5, 0.5, 0.5], [0, float("nan"), 1]])
def test_shares_that_do_not_rise_are_refused(shares: list[float]) -> None:
    for measure in (lambda x, y: apgr(x, y, 0.1, 0.2), lambda x, y: cpt(x, y, 0.1, 0.2, 0.5)):
        with pytest.raises(ValueError, match="must rise"):
            measure(np.array(shares), np.array([0.1, 0.2, 0.2]))
