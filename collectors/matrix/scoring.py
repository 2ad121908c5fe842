"""Figures of routers on a pool, from their choices.

Owns which questions and costs each figure uses. The formulas are those of collectors.metrics.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.lake.holdings import Holdings
from collectors.lake.store import Lake
from collectors.matrix.described import head, with_more_is_better
from collectors.matrix.luck import luck_lines
from collectors.matrix.pool_arrays import Pool, Pools
from collectors.matrix.pools import read_pools
from collectors.matrix.routed import Choices, elsewhere, read_choices
from collectors.metrics.agreement import Judgement, judge
from collectors.metrics.gaps import NO_CHOICE, row_blocks
from collectors.metrics.plane import Points, aiq_code, aiq_paper, convex_hull, zero_router
from collectors.metrics.pool import oracle
from collectors.metrics.sums import UNITS, USD, ColumnSums, Means, column_means, mean
from schemas.failures import ConfigError, one_line
from schemas.views import PoolChoice

#: Value of --against -> its name in Pool.numbers. Figures in JSON have the same name.
AGAINST = {"usd": "usd", "latency": "latency_s"}
#: Array of costs -> name of the count of choices with an unknown cost.
UNCOSTED = {"usd": "unpriced", "latency_s": "untimed"}


#: Values of Scored.weighted_by.
QUESTIONS, TASKS = "questions", "tasks"


@dataclass(frozen=True)
class Part:
    """What one router chose of a pool."""

    pool: Pool
    #: (questions,): columns, or NO_CHOICE.
    chosen: npt.NDArray[np.int64]
    #: (questions, candidates), NaN for a question without; None: no question has any.
    probabilities: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Scored:
    """The figures of one router on one task. Costs are means over items, and None if some cost is unknown."""

    router: str
    #: Of the pool, whose arrays may be large: as in Pool.
    task: str
    metric: str
    candidates: list[str]
    #: Questions of the pool that do not count.
    left_out_of_pool: int
    #: A value of AGAINST.
    unit: str
    #: Of a row over several tasks: whether each question counts once, or each task. None for a row of one task.
    weighted_by: str | None
    judged: Judgement
    #: Mean cost of the best single model.
    best_cost: float | None
    #: Mean cost of the oracle, which takes the cheapest of the best models for each item.
    oracle_cost: float | None
    #: Score of the Zero router at the router's cost; None also if the router is cheaper than every model.
    hull_score: float | None
    #: AIQ of the pool's single models, as in the paper and as in RouterBench's code; None also if all cost the same.
    aiq_paper: float | None
    aiq_code: float | None
    #: Items of the pool without a choice by the router.
    unchosen: int

    @property
    def left_out(self) -> int:
        """Questions of the task or tasks that are not in the figures."""
        return self.left_out_of_pool + self.judged.left_out

    @property
    def best_model(self) -> str:
        """The best single model."""
        return self.candidates[self.judged.best_model]

    def row(self) -> dict[str, Any]:
        """All figures as one flat row for JSON; costs are per item."""
        judged = self.judged
        return {
            "router": self.router,
            "task": self.task,
            "weighted_by": self.weighted_by,
            "metric": self.metric or None,
            "models": len(self.candidates),
            "items": judged.items,
            "left_out": self.left_out,
            "unchosen": self.unchosen,
            "score": judged.accuracy,
            "best_model": self.best_model,
            "best_score": judged.best_single,
            "random_score": judged.random,
            "oracle_score": judged.oracle,
            "v_b": judged.v_b,
            "gap_closed": judged.gap_closed,
            "choice_entropy": judged.choice_entropy,
            "selection_entropy": judged.selection_entropy,
            self.unit: judged.mean_cost,
            UNCOSTED[self.unit]: judged.uncosted,
            f"best_{self.unit}": self.best_cost,
            f"oracle_{self.unit}": self.oracle_cost,
            "hull_score": self.hull_score,
            "aiq_paper": self.aiq_paper,
            "aiq_code": self.aiq_code,
        }


def score_file(
    con: duckdb.DuckDBPyConnection, lake: Lake, holdings: Holdings, path: Path, choice: PoolChoice, unit: str
) -> tuple[list[Scored], list[str]]:
    """score_choices for a file of choices, and the pool of its tasks; the lines begin with those on the pool.

    `con` was made with `choice`, and has the views of read_choices, read_pools and luck_lines. Raises ConfigError if
    the choices do not fit the pool, or leave no question to score.
    """
    chosen = read_choices(con, path, elsewhere(con, lake, holdings))
    pools = read_pools(con, lake, holdings, chosen.tasks, choice, numbers=[unit])
    scored, notes = score_choices(chosen, pools, unit)
    return scored, [*head(pools), *luck_lines(con, chosen.tasks), *notes]


def score_choices(
    chosen: Choices, pools: Pools, unit: str, only: Collection[tuple[str, str]] | None = None
) -> tuple[list[Scored], list[str]]:
    """The figures of each router on each of its tasks, and over all; `unit` is a value of AGAINST that `pools` holds.

    `only` names the questions that count, as (task, question); None: all of the pool. Also returns a line for the user
    on each router that has no row over all tasks. Raises ConfigError if the choices do not fit the pool, or leave no
    question to score.
    """
    scored, notes = [], []
    wanted = None if only is None else {task for task, _ in only}
    for router in chosen.routers:
        of = [task for task in chosen.tasks_of(router) if wanted is None or task in wanted]
        of, less = with_more_is_better(pools, of)
        notes += [f"{router}: {line}" for line in less]
        scored += [_score(router, _part(chosen, _only(pools.of_task(task), only), router, pools), unit) for task in of]
        if len(of) > 1:
            try:
                part = _part(chosen, _only(pools.over(of), only), router, pools)
                scored += [_score(router, part, unit, QUESTIONS), _score_by_task(router, part, unit)]
            except (ValueError, ConfigError) as error:
                notes.append(f"{router} has no row over all tasks: {one_line(error)}")
    if not scored:
        raise ConfigError(notes[0] if notes else "the choices name no question of the pool")
    return scored, notes


def _only(pool: Pool, only: Collection[tuple[str, str]] | None) -> Pool:
    if only is None:
        return pool
    keys = zip(pool.questions["task"].to_pylist(), pool.questions["question"].to_pylist(), strict=True)
    rows = np.array([key in only for key in keys], np.bool_)
    return replace(pool.taken(rows, np.arange(len(pool.candidates))), left_out=0)  # those of other parts


def _part(chosen: Choices, pool: Pool, router: str, pools: Pools) -> Part:
    return Part(pool, chosen.columns(pool, router, pools.absent), chosen.probabilities(pool, router))


@dataclass(frozen=True)
class _Means:
    """The figures of a part, and means over its questions."""

    judged: Judgement
    #: (candidates, 2): mean cost and mean score; a cost is NaN if one of all answers is unknown.
    points: Points
    #: Mean cost of the best single model, of the oracle; None: unknown.
    best_cost: float | None
    oracle_cost: float | None
    #: (candidates,): share of the questions that each got.
    shares: npt.NDArray[np.float64]


def _score(router: str, part: Part, unit: str, weighted_by: str | None = None) -> Scored:
    return _scored(router, part, unit, weighted_by, _means(router, part, unit))


def _score_by_task(router: str, part: Part, unit: str) -> Scored:
    """The figures over all tasks where each task counts the same: means of the tasks' means."""
    tasks = np.array(part.pool.questions["task"].to_pylist())
    every = np.arange(len(part.pool.candidates))
    of_tasks = []
    for task in sorted(set(tasks.tolist())):
        rows = tasks == task
        probabilities = None if part.probabilities is None else part.probabilities[rows]
        one = Part(replace(part.pool.taken(rows, every), task=task), part.chosen[rows], probabilities)
        of_tasks.append(_means(router, one, unit))
    width, judged = len(every), [one.judged for one in of_tasks]
    scores = column_means([np.stack([one.points[:, 1] for one in of_tasks])], width)
    costs = np.stack([one.points[:, 0] for one in of_tasks])
    costed = np.full(width, np.nan) if np.isnan(costs).any() else column_means([costs], width, USD)
    best = int(scores.argmax())
    items, uncosted = sum(one.items for one in judged), sum(one.uncosted for one in judged)
    accuracy, at_best = (mean(np.array([getattr(one, name) for one in judged])) for name in ("accuracy", "oracle"))
    entropies = [one.selection_entropy for one in judged if one.selection_entropy is not None]
    shares = column_means([np.stack([one.shares for one in of_tasks])], width)
    mean_cost = _mean_known([one.mean_cost for one in judged])
    whole = Judgement(
        items=items,
        left_out=sum(one.left_out for one in judged),
        accuracy=accuracy,
        oracle=at_best,
        gap=at_best - float(scores[best]),
        best_single=float(scores[best]),
        best_model=best,
        random=mean(np.array([one.random for one in judged])),
        v_r=None,
        v_b=accuracy / float(scores[best]) if scores[best] > 0 else None,
        selection_entropy=mean(np.array(entropies)) if len(entropies) == len(judged) else None,
        choice_entropy=_entropy(shares),
        total_cost=None if mean_cost is None else mean_cost * items,
        uncosted=uncosted,
    )
    best_cost = None if np.isnan(costs[:, best]).any() else mean(costs[:, best], USD)
    means = _Means(
        whole, np.stack([costed, scores], axis=1), best_cost, _mean_known([one.oracle_cost for one in of_tasks]), shares
    )
    return _scored(router, part, unit, TASKS, means)


def _means(router: str, part: Part, unit: str) -> _Means:
    pool, chosen = part.pool, part.chosen
    cost = pool.number(unit)
    try:
        judged = judge(chosen, pool.scores, cost, probabilities=part.probabilities)
    except ValueError as error:
        raise ConfigError(f"{router} on {pool.task}: {error}") from error
    best = oracle(pool.scores, cost)
    rows = np.flatnonzero((best != NO_CHOICE) & (chosen != NO_CHOICE))
    width = len(pool.candidates)
    return _Means(
        judged,
        np.stack([_means_over(rows, cost, USD), _means_over(rows, pool.scores, UNITS)], axis=1),
        _mean(cost[rows, judged.best_model]),
        _mean(cost[rows, best[rows]]),
        np.bincount(chosen[rows], minlength=width) / len(rows),
    )


def _means_over(rows: npt.NDArray[np.int64], values: npt.NDArray[np.floating[Any]], scale: float) -> Means:
    """(columns,): the means of `values` over `rows`; all are NaN where one of the values is."""
    sums = ColumnSums(values.shape[1], scale)
    for part in row_blocks((len(rows), values.shape[1])):  # a copy of 8,500 models on 23,529 items is 1.6 GB
        block = values[rows[part]]
        if np.isnan(block).any():
            return np.full(values.shape[1], np.nan)
        sums.add(block)
    return sums.means()


def _scored(router: str, part: Part, unit: str, weighted_by: str | None, means: _Means) -> Scored:
    points, judged = means.points, means.judged
    all_costed = not np.isnan(points).any()
    differ = all_costed and np.ptp(points[:, 0]) > 0
    return Scored(
        router=router,
        task=part.pool.task,
        metric=part.pool.metric,
        candidates=part.pool.candidates,
        left_out_of_pool=part.pool.left_out,
        unit=unit,
        weighted_by=weighted_by,
        judged=judged,
        best_cost=means.best_cost,
        oracle_cost=means.oracle_cost,
        hull_score=_hull_score(points, judged.mean_cost) if all_costed else None,
        aiq_paper=aiq_paper(points) if differ else None,
        aiq_code=aiq_code(points) if differ and convex_hull(points)[-1, 0] > 0 else None,
        unchosen=int((part.chosen == NO_CHOICE).sum()),
    )


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    """In bits, of shares (candidates,) that add up to 1."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum()) + 0.0


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(np.array(known), USD) if len(known) == len(values) else None


def _hull_score(points: Points, cost: float | None) -> float | None:
    """The Zero router's score at a mean cost of `cost`; None if no mixture of the models is so cheap."""
    if cost is None:
        return None
    lowest = float(points[:, 0].min())
    cost = lowest if math.isclose(cost, lowest, rel_tol=1e-9) else cost  # equal but for the order of the sum
    return zero_router(points, cost) if cost >= lowest else None


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """The mean; None if a value is unknown (NaN)."""
    return None if np.isnan(values).any() else mean(values, USD)
