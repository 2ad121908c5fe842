"""The numbers of the two headline figures of a pool: its bounds by size, and cost against quality.

Owns the choice of numbers and their names in files. Knows no lake and no drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import NO_CHOICE, Choices, Floats, complete_items, picked, row_blocks
from collectors.metrics.plane import Plane, Points, aiq_code, aiq_paper, convex_hull, pareto_frontier
from collectors.metrics.pool import model_means, oracle
from collectors.metrics.scaling import Draws, Scaling, draw_pools, scaling
from collectors.metrics.sums import UNITS, USD, column_means, mean

#: The p of the drawn routers r_o(p): the oracle, half oracle, chance.
ORACLES = (1.0, 0.5, 0.0)


@dataclass(frozen=True)
class RouterCurve:
    """Routers of one name, such as knn@0.1 and knn@1, as points of mean cost per item and mean score, by cost."""

    name: str
    routers: list[str]
    points: Points
    #: Items of each point: those of the figure that the router chose for.
    items: list[int]


@dataclass(frozen=True)
class CostFigure:
    """Models as points of mean cost per item and mean score, on the same items."""

    #: "usd" or "latency_s"
    kind: str
    models: list[str]
    plane: Plane
    #: Rows of plane.points on the Pareto frontier, by rising cost.
    frontier: npt.NDArray[np.int64]
    hull: Points
    #: (cost, score) of the oracle that takes the cheapest of equals.
    oracle: tuple[float, float]
    #: (cost, score) of a uniform random choice.
    random: tuple[float, float]
    #: None if all models cost the same; aiq_code also if the best models are free.
    aiq_paper: float | None
    aiq_code: float | None
    #: Models of the pool that are left out because their cost is unknown on too many items.
    uncosted: int
    #: Of the routers whose choices were given, and the routers without a point: a choice's cost is unknown.
    curves: tuple[RouterCurve, ...] = ()
    unplaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headline:
    """The numbers of one task's figures."""

    task: str
    metric: str
    models: list[str]
    #: (models,) mean scores on the items of `scaling`.
    scores: npt.NDArray[np.float64]
    scaling: Scaling
    draws: Draws
    reference: float | None
    #: None if there is none; then `no_cost` has the reason.
    cost: CostFigure | None
    no_cost: str

    def record(self) -> dict[str, Any]:
        """All numbers as values for JSON; costs are per 1,000 items."""
        scaled = self.scaling
        curves: dict[str, Any] = {"models": scaled.sizes.tolist(), "best_single": scaled.best_single.tolist()}
        for p in ORACLES:
            low, high = self.draws.band(p)
            curves |= {f"r_o({p:g})": scaled.r_o(p).tolist(), f"r_o({p:g}) 5 %": low.tolist()}
            curves[f"r_o({p:g}) 95 %"] = high.tolist()
        return {
            "task": self.task,
            "metric": self.metric,
            "items": scaled.items,
            "items_left_out": scaled.left_out,
            "draws": len(self.draws.oracle),
            "reference": self.reference,
            "curves": curves,
            "models": {"model": self.models, "score": self.scores.tolist()},
            "cost": self.cost and _cost_record(self.cost),
            "no_cost": self.no_cost,
        }


def headline(
    task: str,
    metric: str,
    models: list[str],
    scores: Floats,
    costs: Mapping[str, Floats | None],
    *,
    least: float = 0.9,
    reference: float | None = None,
    draws: int = 100,
    seed: int = 0,
    chosen: Mapping[str, Choices] | None = None,
) -> Headline:
    """The numbers of the figures for `models` with `scores` (items, models).

    `costs` maps "usd" and "latency_s" to costs per item in USD or seconds, in the shape of `scores` with NaN for
    unknown values, or to None. The figure uses the first kind with enough known values. It leaves out models that have
    a cost on less than the share `least` of the complete items. `draws` is the number of random pools for a band.
    `chosen` maps routers to their choices (items,). Raises ValueError if no item has a score from every model.
    """
    curve = scaling(scores)
    chosen = chosen or {}
    given = ((kind, cost) for kind, cost in costs.items() if cost is not None)
    figures = (cost_figure(kind, models, scores, cost, least, chosen) for kind, cost in given)
    figure = next((figure for figure in figures if figure), None)
    return Headline(
        task=task,
        metric=metric,
        models=models,
        scores=model_means(scores).means,
        scaling=curve,
        draws=draw_pools(scores, curve.sizes, draws, seed),
        reference=reference,
        cost=figure,
        no_cost="" if figure else _why_not(costs),
    )


def cost_figure(
    kind: str, models: Sequence[str], scores: Floats, cost: Floats, least: float, chosen: Mapping[str, Choices]
) -> CostFigure | None:
    """The figure of the models that have a known cost on the share `least` of the complete items.

    `scores` and `cost` are (items, models). The figure uses the items with all scores and costs of these models.
    Returns None without such models or items.
    """
    complete = complete_items(scores)
    known = np.zeros(cost.shape[1], np.int64)
    for rows in row_blocks(cost.shape):
        known += (~np.isnan(cost[rows][complete[rows]])).sum(axis=0)
    share = known / complete.sum()
    columns = np.flatnonzero((share >= least) & (share > 0))
    if not len(columns):
        return None
    used = complete.copy()
    for rows in row_blocks(cost.shape):
        used[rows] &= ~np.isnan(cost[rows][:, columns]).any(axis=1)
    if not used.any():
        return None

    def blocks(values: Floats) -> Iterator[Floats]:  # a copy of 8,500 models on 23,529 items is 2 GB
        return (values[rows][used[rows]][:, columns] for rows in row_blocks(values.shape))

    means = [column_means(blocks(values), len(columns), scale) for values, scale in ((cost, USD), (scores, UNITS))]
    items = int(used.sum())
    plane = Plane(np.stack(means, axis=1), items, len(used) - items)
    chosen_cost, chosen_score = [], []
    for of_score, of_cost in zip(blocks(scores), blocks(cost), strict=True):
        best = oracle(of_score, of_cost)
        assert (best != NO_CHOICE).all()
        chosen_cost.append(picked(best, of_cost))
        chosen_score.append(picked(best, of_score))
    hull = convex_hull(plane.points)
    has_range = np.ptp(plane.points[:, 0]) > 0
    middle = plane.points.mean(axis=0)
    return CostFigure(
        kind=kind,
        models=[models[column] for column in columns],
        plane=plane,
        frontier=pareto_frontier(plane.points),
        hull=hull,
        oracle=(mean(np.concatenate(chosen_cost), USD), mean(np.concatenate(chosen_score))),
        random=(float(middle[0]), float(middle[1])),
        aiq_paper=aiq_paper(plane.points) if has_range else None,
        aiq_code=aiq_code(plane.points) if has_range and hull[-1, 0] > 0 else None,
        uncosted=len(models) - len(columns),
        **_routers(chosen, scores, cost, used),
    )


def _routers(
    chosen: Mapping[str, Choices], scores: Floats, cost: Floats, used: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """The fields of CostFigure for routers, over the `used` items that each chose for."""
    of_name: dict[str, list[tuple[float, float, str, int]]] = {}
    unplaced = []
    for router, choices in chosen.items():
        rows = used & (choices != NO_CHOICE)
        costs = picked(choices[rows], cost[rows])
        if not len(costs) or np.isnan(costs).any():
            unplaced.append(router)
            continue
        point = (mean(costs, USD), mean(picked(choices[rows], scores[rows])), router, len(costs))
        of_name.setdefault(router.rpartition("@")[0] or router, []).append(point)
    curves = []
    for name, points in of_name.items():
        points.sort()
        places = np.array([point[:2] for point in points])
        curves.append(RouterCurve(name, [point[2] for point in points], places, [point[3] for point in points]))
    return {"curves": tuple(curves), "unplaced": tuple(unplaced)}


def _why_not(costs: Mapping[str, Floats | None]) -> str:
    names = " and no ".join({"usd": "cost", "latency_s": "latency"}[kind] for kind in costs)
    some = any(cost is not None for cost in costs.values())
    return f"no {names} is known" + (" for the answers to enough items" if some else "")


def _cost_record(figure: CostFigure) -> dict[str, Any]:
    unit = f"{figure.kind}_per_1000"
    cost, score = figure.plane.points.T
    on_frontier = np.isin(np.arange(len(figure.models)), figure.frontier)
    return {
        "kind": figure.kind,
        "items": figure.plane.items,
        "items_left_out": figure.plane.left_out,
        "models_left_out": figure.uncosted,
        "models": {
            "model": figure.models,
            unit: (1000 * cost).tolist(),
            "score": score.tolist(),
            "pareto": on_frontier.tolist(),
        },
        "hull": {unit: (1000 * figure.hull[:, 0]).tolist(), "score": figure.hull[:, 1].tolist()},
        "routers": {
            "router": [router for curve in figure.curves for router in curve.routers],
            unit: [1000 * float(cost) for curve in figure.curves for cost in curve.points[:, 0]],
            "score": [float(score) for curve in figure.curves for score in curve.points[:, 1]],
            "items": [items for curve in figure.curves for items in curve.items],
        },
        "oracle": {unit: 1000 * figure.oracle[0], "score": figure.oracle[1]},
        "random": {unit: 1000 * figure.random[0], "score": figure.random[1]},
        "aiq_paper": figure.aiq_paper,
        "aiq_code": figure.aiq_code,
    }
