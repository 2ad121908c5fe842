"""What a pool of models can reach on the items: each model alone, the oracle, chance, the cheapest that is right.

Knows nothing of any router. All of it rests on the items of which every model's score is known: elsewhere an unknown
score might have been the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.known import NO_CHOICE, Floats, Mean, complete_items, mean_known, row_blocks


@dataclass(frozen=True)
class ModelMeans:
    """Each model's mean over the same items."""

    #: (models,) float64
    means: npt.NDArray[np.float64]
    items: int
    left_out: int

    @property
    def best(self) -> int:
        """Column of the best single model, the first of equals."""
        return int(self.means.argmax())

    @property
    def best_single(self) -> Mean:
        """What the best single model reaches."""
        return Mean(float(self.means[self.best]), self.items, self.left_out)

    @property
    def random(self) -> Mean:
        """What uniform choice is expected to reach: the mean of all elements."""
        return Mean(float(self.means.mean()), self.items, self.left_out)


@dataclass(frozen=True)
class CheapestCorrect:
    """Of each item the cheapest model that is right."""

    #: (items,); NO_CHOICE where no model is right and where the item is left out.
    choices: npt.NDArray[np.int64]
    solved: int
    #: Items that no model solves. Nothing is spent on them.
    unsolved: int
    #: Items on which some model's score, or the cost of a model that is right, is unknown.
    left_out: int
    #: Over the solved items; None when there are none.
    total_cost: float | None

    @property
    def mean_cost(self) -> float | None:
        """Per solved item."""
        return None if self.total_cost is None else self.total_cost / self.solved


def model_means(scores: Floats, used: npt.NDArray[np.bool_] | None = None) -> ModelMeans:
    """Mean of each model over `used` (items,), by default over the complete items of `scores` (items, models).

    Raises ValueError when there are no such items. Of costs or latencies in place of scores: the same.
    """
    used = complete_items(scores) if used is None else used
    items = int(used.sum())
    if not items:
        raise ValueError(f"no item of {len(used)} has a value of every model")
    sums = np.zeros(scores.shape[1])
    for rows in row_blocks(scores.shape):
        sums += scores[rows][used[rows]].sum(axis=0, dtype=np.float64)
    return ModelMeans(sums / items, items, len(used) - items)


def oracle(scores: Floats, usd: Floats | None = None) -> npt.NDArray[np.int64]:
    """(items,): the model with the best score; of equals the cheapest by `usd`, then the first.

    Both arrays are (items, models). NO_CHOICE where some score is unknown. A model of unknown cost stands behind every
    priced one among equals. Source: RouterBench (withmartian/routerbench), the column oracle_model_to_route_to, which
    names no model where the best score is 0; here one is named.
    """
    known = complete_items(scores)
    choices = np.full(len(scores), NO_CHOICE, np.int64)
    if usd is not None and usd.shape != scores.shape:
        raise ValueError(f"scores have shape {scores.shape}, usd has {usd.shape}")
    for rows in row_blocks(scores.shape):
        block = scores[rows]
        candidates = block == block.max(axis=1, keepdims=True)
        if usd is not None:
            cost = np.where(candidates & ~np.isnan(usd[rows]), usd[rows], np.inf)
            candidates &= cost == cost.min(axis=1, keepdims=True)
        choices[rows] = np.where(known[rows], candidates.argmax(axis=1), NO_CHOICE)
    return choices


def best_scores(scores: Floats) -> npt.NDArray[np.float64]:
    """(items,): the best of each row of `scores` (items, models), the oracle's; NaN where some score is unknown."""
    best = np.full(len(scores), np.nan)
    known = complete_items(scores)
    for rows in row_blocks(scores.shape):
        best[rows] = np.where(known[rows], scores[rows].max(axis=1), np.nan)
    return best


def oracle_mean(scores: Floats) -> Mean:
    """Mean of the best score, over the complete items of `scores` (items, models)."""
    return mean_known(best_scores(scores))


def cheapest_correct(scores: Floats, cost: Floats, threshold: float = 1.0) -> CheapestCorrect:
    """The cheapest model, the first of equals, among those with a score of at least `threshold`.

    Both arrays are (items, models); `cost` is in USD, seconds or anything of which less is better. Source: the oracle
    of RouterBench (withmartian/routerbench), whose cost of an item that nobody solves is 0.
    """
    known = complete_items(scores)
    choices = np.full(len(scores), NO_CHOICE, np.int64)
    paid = np.zeros(len(scores))
    if cost.shape != scores.shape:
        raise ValueError(f"scores have shape {scores.shape}, cost has {cost.shape}")
    for rows in row_blocks(scores.shape):
        right = scores[rows] >= threshold
        known[rows] &= ~(right & np.isnan(cost[rows])).any(axis=1)
        price = np.where(right, cost[rows], np.inf)
        solved = known[rows] & right.any(axis=1)
        choices[rows] = np.where(
            solved, (right & (price == price.min(axis=1, keepdims=True))).argmax(axis=1), NO_CHOICE
        )
        paid[rows] = np.where(solved, price.min(axis=1), 0)
    count, solved_items = int(known.sum()), int((choices != NO_CHOICE).sum())
    return CheapestCorrect(
        choices=choices,
        solved=solved_items,
        unsolved=count - solved_items,
        left_out=len(scores) - count,
        total_cost=float(paid.sum()) if solved_items else None,
    )
