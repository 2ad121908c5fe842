"""The bounds of a model pool: each model alone, the oracle, chance, and the cheapest correct model.

Knows no routers. All figures use the items with a score from every model: an unknown score might be the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import NO_CHOICE, Floats, Mean, complete_items, mean_known, row_blocks
from collectors.metrics.sums import UNITS, USD, column_means, mean, total


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
        """The mean of the best single model."""
        return Mean(float(self.means[self.best]), self.items, self.left_out)

    @property
    def random(self) -> Mean:
        """The expected score of a uniform random choice: the mean of all elements."""
        return Mean(mean(self.means), self.items, self.left_out)


@dataclass(frozen=True)
class CheapestCorrect:
    """The cheapest correct model of each item."""

    #: (items,): columns; NO_CHOICE if no model is correct or the item is left out.
    choices: npt.NDArray[np.int64]
    #: Items with a correct model.
    solved: int
    #: Items without a correct model. They cost nothing.
    unsolved: int
    #: Items with an unknown score, or an unknown cost of a correct model.
    left_out: int
    #: Sum over the solved items; None if there are none.
    total_cost: float | None

    @property
    def mean_cost(self) -> float | None:
        """`total_cost` per solved item."""
        return None if self.total_cost is None else self.total_cost / self.solved


def model_means(scores: Floats, used: npt.NDArray[np.bool_] | None = None, scale: float = UNITS) -> ModelMeans:
    """Mean of each model over the items in the mask `used` (items,), by default the complete items of `scores`.

    `scores` is (items, models) and may hold costs or latencies; `scale` is that of their sums. Raises ValueError if the
    mask selects no item.
    """
    used = complete_items(scores) if used is None else used
    items = int(used.sum())
    if not items:
        raise ValueError(f"no item of {len(used)} has a value of every model")
    blocks = (scores[rows][used[rows]] for rows in row_blocks(scores.shape))
    return ModelMeans(column_means(blocks, scores.shape[1], scale), items, len(used) - items)


def oracle(scores: Floats, usd: Floats | None = None) -> npt.NDArray[np.int64]:
    """(items,): the model with the best score; among equals the cheapest by `usd`, then the first.

    Both arrays are (items, models). NO_CHOICE if a score is unknown. Among equals a model with an unknown cost comes
    after all with a known one. Raises ValueError if the shapes differ. Source: RouterBench (withmartian/routerbench),
    the column oracle_model_to_route_to, which names no model if the best score is 0; this function does.
    """
    complete = complete_items(scores)
    choices = np.full(len(scores), NO_CHOICE, np.int64)
    if usd is not None and usd.shape != scores.shape:
        raise ValueError(f"scores have shape {scores.shape}, usd has {usd.shape}")
    for rows in row_blocks(scores.shape):
        block = scores[rows]
        candidates = block == block.max(axis=1, keepdims=True)
        if usd is not None:
            cost = np.where(candidates & ~np.isnan(usd[rows]), usd[rows], np.inf)
            candidates &= cost == cost.min(axis=1, keepdims=True)
        choices[rows] = np.where(complete[rows], candidates.argmax(axis=1), NO_CHOICE)
    return choices


def oracle_of_known(scores: Floats, usd: Floats | None = None) -> npt.NDArray[np.int64]:
    """As `oracle`, but among the known scores of each item: NO_CHOICE if there are none."""
    is_known = ~np.isnan(scores)
    return np.where(is_known.any(axis=1), oracle(np.where(is_known, scores, -np.inf), usd), NO_CHOICE)


def best_scores(scores: Floats) -> npt.NDArray[np.float64]:
    """(items,): the best score of each row of `scores` (items, models); NaN if a score of the row is unknown."""
    best = np.full(len(scores), np.nan)
    complete = complete_items(scores)
    for rows in row_blocks(scores.shape):
        best[rows] = np.where(complete[rows], scores[rows].max(axis=1), np.nan)
    return best


def oracle_mean(scores: Floats) -> Mean:
    """Mean of the best score over the complete items of `scores` (items, models). Raises ValueError without any."""
    return mean_known(best_scores(scores))


def cheapest_correct(scores: Floats, cost: Floats, threshold: float = 1.0) -> CheapestCorrect:
    """The cheapest model, the first of equals, among those with a score of at least `threshold`.

    Both arrays are (items, models); `cost` may be USD, seconds or another quantity where less is better. Raises
    ValueError if the shapes differ. Source: the oracle of RouterBench (withmartian/routerbench), where an item without
    a correct model costs 0.
    """
    usable = complete_items(scores)
    choices = np.full(len(scores), NO_CHOICE, np.int64)
    paid = np.zeros(len(scores))
    if cost.shape != scores.shape:
        raise ValueError(f"scores have shape {scores.shape}, cost has {cost.shape}")
    for rows in row_blocks(scores.shape):
        right = scores[rows] >= threshold
        usable[rows] &= ~(right & np.isnan(cost[rows])).any(axis=1)
        price = np.where(right, cost[rows], np.inf)
        solved = usable[rows] & right.any(axis=1)
        choices[rows] = np.where(
            solved, (right & (price == price.min(axis=1, keepdims=True))).argmax(axis=1), NO_CHOICE
        )
        paid[rows] = np.where(solved, price.min(axis=1), 0)
    count, solved_items = int(usable.sum()), int((choices != NO_CHOICE).sum())
    return CheapestCorrect(
        choices=choices,
        solved=solved_items,
        unsolved=count - solved_items,
        left_out=len(scores) - count,
        total_cost=total(paid, USD) if solved_items else None,
    )
