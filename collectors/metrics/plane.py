"""Cost and quality of models and routers as points in a plane, after RouterBench (arXiv 2403.12031).

A point is (cost, quality): less cost is better, more quality is better. The cost may be USD, seconds of latency or any
other quantity that adds up. The only router that it knows is the argmax over willingness to pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import NO_CHOICE, Floats, complete_items, picked
from collectors.metrics.pool import model_means
from collectors.metrics.sums import USD, mean

#: λ of RouterBench's sweeps, in USD per unit of quality (withmartian/routerbench, utils.WILLINGNESS_TO_PAY).
WILLINGNESS_TO_PAY = (
    *(1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 10.0),
    *(50.0, 100.0, 500.0, 1e3, 2e3, 3e3, 4e3, 5e3, 7.5e3, 1e4, 2.5e4, 5e4, 7.5e4, 1e5, 1e6, 1e9),
)

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Points over the same items."""

    #: (points, 2): mean cost per item and mean quality.
    points: Points
    #: Items in the means.
    items: int
    #: Items with an unknown score or cost.
    left_out: int


def model_points(scores: Floats, cost: Floats) -> Plane:
    """A point for each model, over the items with all scores and all costs; both arrays are (items, models).

    Raises ValueError without such items. Source: RouterBench, the cost-quality plane.
    """
    used = complete_items(scores, cost)
    quality = model_means(scores, used)
    points = np.stack([model_means(cost, used, USD).means, quality.means], axis=1)
    return Plane(points, quality.items, quality.left_out)


def pareto_frontier(points: Points) -> npt.NDArray[np.int64]:
    """Indices of the points (k, 2) that no other point dominates, by rising cost; equal points are all kept.

    A point dominates another if it is at least as good in cost and in quality, and better in one of them. Raises
    ValueError without points, or if a value is not finite.
    """
    cost, quality = _checked(points).T
    costs, at = np.unique(cost, return_inverse=True)
    best = np.full(len(costs), -np.inf)
    np.maximum.at(best, at, quality)
    cheaper = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])  # the best quality at any lower cost
    kept = np.flatnonzero((quality == best[at]) & (quality > cheaper[at]))
    return kept[np.argsort(cost[kept], kind="stable")]


def convex_hull(points: Points) -> Points:
    """Corners (k, 2) of the non-decreasing convex hull of `points`, by rising cost.

    It runs from the best of the cheapest points to the cheapest of the best ones and is level beyond. A random choice
    between two neighbouring corners reaches any point between them. Raises ValueError as `pareto_frontier` does.
    Source: RouterBench, section on the non-decreasing convex hull; evaluation/AIQ.py
    get_non_descreasing_convex_hull_of, which also returns points between corners, fails below three different costs,
    and keeps an arbitrary one of several points of the lowest cost.
    """
    corners: list[tuple[float, float]] = []
    for x, y in np.unique(points[pareto_frontier(points)], axis=0).tolist():
        while len(corners) > 1 and _is_below(corners[-1], corners[-2], (x, y)):
            corners.pop()
        corners.append((x, y))
    return np.array(corners)


def zero_router(points: Points, cost: float) -> float:
    """Quality of the Zero router, which mixes models at random, at a mean `cost` per item.

    `points` (k, 2) are those of single models. The Zero router interpolates linearly along their hull and is level
    beyond it. Raises ValueError for a cost below the cheapest model's. Source: RouterBench, Zero router.
    """
    hull = convex_hull(points)
    if not cost >= hull[0, 0]:
        raise ValueError(f"no mixture of these models costs {cost}: the cheapest costs {hull[0, 0]}")
    return float(np.interp(cost, hull[:, 0], hull[:, 1]))


def aiq_paper(points: Points, lowest: float | None = None, highest: float | None = None) -> float:
    """AIQ as RouterBench's paper defines it: the mean height of the hull over a range of costs.

    That is the integral of the hull from `lowest` to `highest`, divided by their distance. The default is the range of
    costs in `points` (k, 2); give one range to compare routers. The hull is level beyond its last corner. Raises
    ValueError for an empty range or one that begins below the cheapest point. Source: arXiv 2403.12031, AIQ.
    """
    hull = convex_hull(points)
    lowest = float(points[:, 0].min()) if lowest is None else lowest
    highest = float(points[:, 0].max()) if highest is None else highest
    if not hull[0, 0] <= lowest < highest:
        raise ValueError(f"no range of costs: from {lowest} to {highest}, where the cheapest point costs {hull[0, 0]}")
    return _area(hull, lowest, highest) / (highest - lowest)


def aiq_code(points: Points, highest: float | None = None) -> float:
    """AIQ as RouterBench's repository computes it: the area under the hull divided by the highest cost.

    The area begins at the cheapest point of `points` (k, 2), but the divisor is the distance from cost 0. So costs
    below the cheapest point count as quality 0, and a router without cheap points gets less than from `aiq_paper`. The
    original takes total costs in place of means, which gives the same value. `highest` is where the last hull of all
    compared routers ends, by default this one's end. Raises ValueError if `highest` is 0 or below the end of this hull.
    Source: withmartian/routerbench, evaluation/AIQ.py calc_AIQ.
    """
    hull = convex_hull(points)
    highest = float(hull[-1, 0]) if highest is None else highest
    if not highest >= hull[-1, 0] or not highest > 0:
        raise ValueError(f"the highest cost is {highest}, the hull ends at {hull[-1, 0]}")
    return _area(hull, float(hull[0, 0]), highest) / highest


def choose_by_willingness(quality: Floats, cost: Floats, willingness: float) -> npt.NDArray[np.int64]:
    """(items,): argmax over models of willingness · quality − cost, the first of equals; NO_CHOICE in rows with a NaN.

    Both arrays are (items, models) and hold a router's expectations. `willingness` is USD per unit of quality. Source:
    RouterBench, predictive routers.
    """
    complete = complete_items(quality, cost)
    value = willingness * quality.astype(np.float64) - cost
    return np.where(complete, np.where(complete[:, np.newaxis], value, 0).argmax(axis=1), NO_CHOICE)


def willingness_sweep(
    expected: tuple[Floats, Floats],
    scores: Floats,
    cost: Floats,
    grid: Sequence[float] = WILLINGNESS_TO_PAY,
) -> Plane:
    """A point for each willingness to pay in `grid`: the mean cost and score of the router's choices.

    `expected` is the quality and the cost that a router expects. These two, `scores` and `cost` are (items, models).
    All points use the items where every value of all four is known. Raises ValueError if there is none.
    """
    used = complete_items(*expected, scores, cost)
    if not used.any():
        raise ValueError(f"no item of {len(used)} has an expectation, a score and a cost of every model")
    quality, price = (array[used] for array in expected)
    points = np.empty((len(grid), 2))
    for point, willingness in zip(points, grid, strict=True):
        choices = choose_by_willingness(quality, price, willingness)
        point[:] = mean(picked(choices, cost[used]), USD), mean(picked(choices, scores[used]))
    return Plane(points, int(used.sum()), int((~used).sum()))


def _area(hull: Points, lowest: float, highest: float) -> float:
    inner = hull[(hull[:, 0] > lowest) & (hull[:, 0] < highest), 0]
    costs = np.concatenate([[lowest], inner, [highest]])
    return float(np.trapezoid(np.interp(costs, hull[:, 0], hull[:, 1]), costs))


def _is_below(middle: tuple[float, float], left: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether `middle` lies on or under the line from `left` to `right`."""
    return (middle[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (middle[0] - left[0])


def _checked(points: Points) -> Points:
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError("expected one point or more, each a known cost and a known quality")
    return points
