"""Hulls, AIQ and willingness to pay, against scipy, scikit-learn, brute force and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import ConvexHull
from sklearn.metrics import auc

from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.plane import (
    WILLINGNESS_TO_PAY,
    aiq_code,
    aiq_paper,
    choose_by_willingness,
    convex_hull,
    model_points,
    pareto_frontier,
    willingness_sweep,
    zero_router,
)

Array = npt.NDArray[Any]
#: Quarters and sixteenths: no rounding blurs which points lie on one line.
POINTS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 16)), min_size=1, max_size=9).map(
    lambda points: np.array([(x / 4, y / 16) for x, y in points])
)
KNOWN_PLANE = np.array([[1.0, 0.2], [2.0, 0.6], [3.0, 0.7], [4.0, 0.8], [5.0, 0.5]])


def envelope(points: Array, cost: float) -> float:
    """The best quality that a mixture of any two points reaches at a mean cost of at most `cost`."""
    best = max(y for x, y in points if x <= cost)
    for x1, y1 in points:
        for x2, y2 in points:
            if x1 <= cost < x2:
                best = max(best, y1 + (y2 - y1) * (cost - x1) / (x2 - x1))
    return float(best)


@given(POINTS)
def test_pareto_frontier_is_what_comparing_all_pairs_finds(points: Array) -> None:
    kept = set(pareto_frontier(points).tolist())
    for i, (x, y) in enumerate(points):
        dominated = any(u <= x and v >= y and (u < x or v > y) for u, v in points)
        assert (i in kept) == (not dominated)


def test_pareto_frontier_rises_and_keeps_equals() -> None:
    points = np.array([[3, 0.9], [1, 0.5], [2, 0.5], [1, 0.5], [1, 0.4]])
    assert pareto_frontier(points).tolist() == [1, 3, 0]


@given(POINTS, st.floats(0, 1))
def test_zero_router_is_the_best_mixture_of_two_models(points: Array, at: float) -> None:
    lowest, highest = points[:, 0].min(), points[:, 0].max() + 1
    cost = float(min(highest, lowest + at * (highest - lowest)))
    assert zero_router(points, cost) == pytest.approx(envelope(points, cost))


@given(POINTS)
def test_convex_hull_corners_are_those_that_scipy_finds(points: Array) -> None:
    x, y = points.T
    # Points below and to the right make the non-decreasing hull the upper left side of a convex one.
    far = np.array([[x.min(), -1], [x.max() + 1, -1], [x.max() + 1, y.max()]])
    corners = {tuple(corner) for corner in np.vstack([points, far])[ConvexHull(np.vstack([points, far])).vertices]}
    expected = sorted(corners - {tuple(point) for point in far})
    assert [tuple(corner) for corner in convex_hull(points)] == expected


def test_convex_hull_of_known_points_drops_what_is_on_or_under_a_line() -> None:
    assert convex_hull(KNOWN_PLANE).tolist() == [[1, 0.2], [2, 0.6], [4, 0.8]]
    assert convex_hull(KNOWN_PLANE[:1]).tolist() == [[1, 0.2]]
    assert convex_hull(np.array([[1, 0.25], [2, 0.5], [3, 0.75]])).tolist() == [[1, 0.25], [3, 0.75]]


def test_aiq_of_known_points_is_the_closed_form() -> None:
    # 0.4 on average from 1 to 2, 0.7 from 2 to 4, 0.8 from 4 to 5
    assert aiq_paper(KNOWN_PLANE) == pytest.approx((0.4 + 2 * 0.7 + 0.8) / 4)
    assert aiq_paper(KNOWN_PLANE, 2, 4) == pytest.approx(0.7)
    assert aiq_paper(KNOWN_PLANE, 4, 9) == pytest.approx(0.8)
    assert aiq_code(KNOWN_PLANE) == pytest.approx((0.4 + 2 * 0.7) / 4)
    assert aiq_code(KNOWN_PLANE, 5) == pytest.approx((0.4 + 2 * 0.7 + 0.8) / 5)


@given(POINTS)
def test_aiq_is_the_area_under_the_hull_that_scikit_learn_finds(points: Array) -> None:
    lowest, highest = points[:, 0].min(), points[:, 0].max()
    assume(lowest < highest)
    costs = np.unique(np.concatenate([np.linspace(lowest, highest, 9), points[:, 0]]))
    area = auc(costs, [envelope(points, cost) for cost in costs])
    assert aiq_paper(points) == pytest.approx(area / (highest - lowest))
    assert aiq_code(points, highest) == pytest.approx(area / highest)


@given(POINTS, st.sampled_from([0.001, 1000.0]))
def test_aiq_is_the_same_for_total_and_for_mean_costs(points: Array, factor: float) -> None:
    assume(points[:, 0].min() < points[:, 0].max())
    scaled = points * [factor, 1]
    assert aiq_paper(scaled) == pytest.approx(aiq_paper(points))
    assert aiq_code(scaled) == pytest.approx(aiq_code(points))


def test_aiq_ranges_that_mean_nothing_are_refused() -> None:
    for lowest, highest in [(0.5, 2.0), (2.0, 2.0), (3.0, 2.0), (float("nan"), 2.0)]:
        with pytest.raises(ValueError, match="no range of costs"):
            aiq_paper(KNOWN_PLANE, lowest, highest)
    for highest in (3.9, float("nan")):
        with pytest.raises(ValueError, match="the hull ends at"):
            aiq_code(KNOWN_PLANE, highest)
    with pytest.raises(ValueError, match="no mixture"):
        zero_router(KNOWN_PLANE, 0.9)


@pytest.mark.parametrize(
    "points", [np.empty((0, 2)), np.ones((2, 3)), np.array([[np.nan, 1.0]]), np.array([[1, np.inf]])]
)
def test_points_that_are_not_known_are_refused(points: Array) -> None:
    for measure in (pareto_frontier, convex_hull):
        with pytest.raises(ValueError, match="known cost"):
            measure(points)


def test_model_points_rest_on_items_with_every_score_and_cost() -> None:
    scores = np.array([[1.0, 0], [0, 1], [np.nan, 1], [1, 1]])
    cost = np.array([[1.0, 2], [3, 4], [0, 0], [np.nan, 0]])
    found = model_points(scores, cost)
    assert found.points.tolist() == [[2, 0.5], [3, 0.5]]
    assert (found.items, found.left_out) == (2, 2)
    with pytest.raises(ValueError, match="no item of"):
        model_points(scores[2:], cost[2:])


def test_willingness_to_pay_moves_from_the_cheapest_to_the_best() -> None:
    quality, cost = np.array([[0.2, 0.9], [0.5, 0.5]]), np.array([[0.001, 0.01], [0.001, 0.01]])
    assert choose_by_willingness(quality, cost, WILLINGNESS_TO_PAY[0]).tolist() == [0, 0]
    assert choose_by_willingness(quality, cost, WILLINGNESS_TO_PAY[-1]).tolist() == [1, 0]
    # the break-even of the first item: λ · (0.9 − 0.2) = 0.01 − 0.001
    assert choose_by_willingness(quality, cost, 0.99 * 0.009 / 0.7).tolist() == [0, 0]
    assert choose_by_willingness(quality, cost, 1.01 * 0.009 / 0.7).tolist() == [1, 0]
    quality[0, 0] = np.nan
    assert choose_by_willingness(quality, cost, 1.0).tolist() == [NO_CHOICE, 0]


@given(
    hnp.arrays(np.float64, (6, 3), elements=st.sampled_from([0.0, 0.5, 1.0])),
    hnp.arrays(np.float64, (6, 3), elements=st.sampled_from([0.25, 1.0, 2.0])),
)
def test_willingness_sweep_of_perfect_forecasts_rises_in_cost_and_quality_to_the_oracle(
    scores: Array, cost: Array
) -> None:
    points = willingness_sweep((scores, cost), scores, cost).points
    assert points.shape == (32, 2)
    assert (np.diff(points, axis=0) >= -1e-9).all()
    assert points[0, 0] == pytest.approx(cost.min(axis=1).mean())
    assert points[-1, 1] == pytest.approx(scores.max(axis=1).mean())


def test_willingness_sweep_all_points_rest_on_the_same_known_items() -> None:
    nan = np.nan
    scores = np.array([[1.0, 0], [0, 1], [1, nan], [1, 1], [1, 1], [1, 1]])
    cost = np.array([[1.0, 2], [1, 2], [1, 2], [nan, 2], [1, 2], [1, 2]])
    quality = np.array([[0.0, 1], [0, 1], [0, 1], [0, 1], [nan, 1], [0, 1]])
    price = np.array([[1.0, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, nan]])
    found = willingness_sweep((quality, price), scores, cost, grid=[1e-3, 1e3])
    assert found.points.tolist() == [[1, 0.5], [2, 0.5]]
    assert (found.items, found.left_out) == (2, 4)
    with pytest.raises(ValueError, match="no item of 4"):
        willingness_sweep((quality[2:], price[2:]), scores[2:], cost[2:])
