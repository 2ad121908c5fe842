"""Cost and quality of models and routers as points in a plane, after RouterBench (arXiv 2403.12031).

A point is (cost, quality): less cost is better, more quality is better. The cost may be USD, seconds of latency or
anything else that adds up. Knows nothing of how a router decides, but for the argmax over willingness to pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.known import NO_CHOICE, Floats, complete_items, picked
from collectors.metrics.pool import model_means

#: λ of RouterBench's sweeps, in USD per unit of quality (withmartian/routerbench, utils.WILLINGNESS_TO_PAY).
WILLINGNESS_TO_PAY = (
    *(1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 10.0),
    *(50.0, 100.0, 500.0, 1e3, 2e3, 3e3, 4e3, 5e3, 7.5e3, 1e4, 2.5e4, 5e4, 7.5e4, 1e5, 1e6, 1e9),
)

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Points that rest on the same items."""

    #: (points, 2): mean cost per item and mean quality.
    points: Points
    items: int
    left_out: int


def model_points(scores: Floats, cost: Floats) -> Plane:
    """A point per model, over the items of which every score and every cost, both (items, models), is known.

    Raises ValueError when there is none. Source: RouterBench, the cost-quality plane.
    """
    used = complete_items(scores, cost)
    quality = model_means(scores, used)
    points = np.stack([model_means(cost, used).means, quality.means], axis=1)
    return Plane(points, quality.items, quality.left_out)


def pareto_frontier(points: Points) -> npt.NDArray[np.int64]:
    """Indices of the points (k, 2) that no other dominates, by rising cost; equal points stay together.

    One dominates another when it costs no more and is no worse, and is better in one of the two.
    """
    cost, quality = _checked(points).T
    costs, at = np.unique(cost, return_inverse=True)
    best = np.full(len(costs), -np.inf)
    np.maximum.at(best, at, quality)
    cheaper = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])  # the best that any lower cost reaches
    kept = np.flatnonzero((quality == best[at]) & (quality > cheaper[at]))
    return kept[np.argsort(cost[kept], kind="stable")]


def convex_hull(points: Points) -> Points:
    """Corners (k, 2) of the non-decreasing convex hull of `points`, by rising cost.

    From the best of the cheapest points to the cheapest of the best ones; beyond it the hull goes on level. What lies
    on it between two corners is reached by choosing between the two at random. Source: RouterBench, section on the
    non-decreasing convex hull; evaluation/AIQ.py get_non_descreasing_convex_hull_of, which also returns points that are
    no corners, fails below three different costs, and keeps any one of several points of the lowest cost.
    """
    corners: list[tuple[float, float]] = []
    for x, y in np.unique(points[pareto_frontier(points)], axis=0).tolist():
        while len(corners) > 1 and _is_below(corners[-1], corners[-2], (x, y)):
            corners.pop()
        corners.append((x, y))
    return np.array(corners)


def zero_router(points: Points, cost: float) -> float:
    """Quality of the Zero router, which mixes models at random, at a mean `cost` per item.

    `points` are those of single models; the Zero router interpolates linearly along their hull and is level beyond it.
    Raises ValueError for a cost below the cheapest model's. Source: RouterBench, Zero router.
    """
    hull = convex_hull(points)
    if not cost >= hull[0, 0]:
        raise ValueError(f"no mixture of these models costs {cost}: the cheapest costs {hull[0, 0]}")
    return float(np.interp(cost, hull[:, 0], hull[:, 1]))


def aiq_paper(points: Points, lowest: float | None = None, highest: float | None = None) -> float:
    """AIQ as RouterBench's paper defines it: the mean height of the hull over a range of costs.

    The integral of the hull from `lowest` to `highest`, divided by their distance; by default the range of the costs of
    `points` (k, 2). Routers are compared over one range: give it. The hull goes on level beyond its last corner. Raises
    ValueError for an empty range and for one that begins below the cheapest point. Source: arXiv 2403.12031, AIQ.
    """
    hull = convex_hull(points)
    lowest = float(points[:, 0].min()) if lowest is None else lowest
    highest = float(points[:, 0].max()) if highest is None else highest
    if not hull[0, 0] <= lowest < highest:
        raise ValueError(f"no range of costs: from {lowest} to {highest}, where the cheapest point costs {hull[0, 0]}")
    return _area(hull, lowest, highest) / (highest - lowest)


def aiq_code(points: Points, highest: float | None = None) -> float:
    """AIQ as RouterBench's repository computes it: the area under the hull divided by the highest cost.

    The area begins at the cheapest point of `points` (k, 2), yet the divisor is the distance from cost 0: what is left
    of the cheapest point counts as quality 0, and a router without cheap points gets less than by `aiq_paper`. Its
    points are total, not mean, costs; the value is the same. `highest` is the largest cost at which the hull of any of
    the compared routers ends, by default this one's. Raises ValueError for a `highest` of 0 or below this hull's end.
    Source: withmartian/routerbench, evaluation/AIQ.py calc_AIQ.
    """
    hull = convex_hull(points)
    highest = float(hull[-1, 0]) if highest is None else highest
    if not highest >= hull[-1, 0] or not highest > 0:
        raise ValueError(f"the highest cost is {highest}, the hull ends at {hull[-1, 0]}")
    return _area(hull, float(hull[0, 0]), highest) / highest


def choose_by_willingness(quality: Floats, cost: Floats, willingness: float) -> npt.NDArray[np.int64]:
    """(items,): argmax over models of willingness · quality − cost, the first of equals; NO_CHOICE in rows with a NaN.

    Both arrays are (items, models): what a router expects. Source: RouterBench, predictive routers.
    """
    known = complete_items(quality, cost)
    value = willingness * quality.astype(np.float64) - cost
    return np.where(known, np.where(known[:, np.newaxis], value, 0).argmax(axis=1), NO_CHOICE)


def willingness_sweep(
    expected: tuple[Floats, Floats],
    scores: Floats,
    cost: Floats,
    grid: Sequence[float] = WILLINGNESS_TO_PAY,
) -> Plane:
    """A point per willingness to pay of `grid`, in its order: what the choices cost and reach.

    `expected`: the quality and the cost that a router expects, each (items, models) as are `scores` and `cost`. All
    points rest on the items of which all four are known for every model. Raises ValueError when there is none.
    """
    used = complete_items(*expected, scores, cost)
    if not used.any():
        raise ValueError(f"no item of {len(used)} has an expectation, a score and a cost of every model")
    quality, price = (array[used] for array in expected)
    points = np.empty((len(grid), 2))
    for point, willingness in zip(points, grid, strict=True):
        choices = choose_by_willingness(quality, price, willingness)
        point[:] = picked(choices, cost[used]).mean(), picked(choices, scores[used]).mean()
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
