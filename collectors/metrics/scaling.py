"""The bounds of a model pool by its size: "model-level scaling up" of RouterEval (arXiv 2503.10657).

A pool of size k is a uniform random subset of the models, without replacement. Expectations over all subsets are exact,
from order statistics; only the band around them comes from random draws. Knows no files and no pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import Floats, complete_items, row_blocks
from collectors.metrics.sums import ColumnSums, mean

Sizes = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
#: Items in a block of draws. The scores of 8,500 models on so many items stay in a core's cache.
_DRAWN_ITEMS = 256


@dataclass(frozen=True)
class Scaling:
    """Expectations over all pools of a size, on the items with a score from every model."""

    #: (sizes,) models in the pool, ascending.
    sizes: Sizes
    #: (sizes,) the mean over items of the best score in the pool.
    oracle: Values
    #: (sizes,) the mean of the pool's best single model.
    best_single: Values
    #: The mean of a uniform random choice, the same for every size.
    random: float
    items: int
    #: Items with an unknown score.
    left_out: int

    def r_o(self, p: float) -> Values:
        """(sizes,): the score of r_o(p), the oracle with probability `p`, else a uniform choice.

        Raises ValueError unless `p` is a probability.
        """
        return _mixed(self.oracle, np.full(len(self.sizes), self.random), p)


@dataclass(frozen=True)
class Draws:
    """Random pools. The pools of one row are nested: each adds models to the one before."""

    #: (draws, sizes): means over items of the best score, and of a uniform choice.
    oracle: Values
    random: Values

    def band(self, p: float, low: float = 0.05, high: float = 0.95) -> tuple[Values, Values]:
        """The quantiles `low` and `high` over draws of r_o(p)'s score, each (sizes,)."""
        quantiles = np.quantile(_mixed(self.oracle, self.random, p), [low, high], axis=0)
        return quantiles[0], quantiles[1]


def pool_sizes(models: int, count: int = 40) -> Sizes:
    """At most `count` sizes from 1 to `models`, evenly spaced by logarithm. Raises ValueError without a model."""
    if models < 1:
        raise ValueError("a pool needs a model")
    return np.unique(np.rint(np.geomspace(1, models, count)).astype(np.int64))


def order_weights(models: int, size: int) -> Values:
    """(models,): the probability that the i-th smallest of `models` values is the largest of `size` of them.

    It is C(i−1, k−1) / C(m, k) for i from 1 to m, computed as the product k/m · (m−k)/(m−1) · (m−k−1)/(m−2) · … down
    from i = m. Every factor is at most 1, so nothing overflows, and the error is that of m roundings. Raises ValueError
    unless the size is from 1 to `models`.
    """
    if not 1 <= size <= models:
        raise ValueError(f"no pool of {size} can be taken from {models} models")
    above = np.arange(models - 1, 0, -1)  # i from m − 1 down
    factors = np.concatenate([[size / models], np.maximum(above + 1 - size, 0) / above])
    return np.cumprod(factors)[::-1]


def scaling(scores: Floats, sizes: Sizes | None = None) -> Scaling:
    """The exact expectations for pools of `sizes`, by default pool_sizes, of the models of `scores` (items, models).

    Over uniform subsets of k of m values, E[max] = Σ_i C(i−1, k−1) / C(m, k) · s_(i), where s_(i) is the i-th smallest;
    for binary scores with c ones that is 1 − C(m−c, k) / C(m, k). The mean over items is the same sum over the items'
    mean order statistics. Beside the scores the memory is that of a block. Raises ValueError if no item is complete,
    and as `order_weights` does.
    """
    used = complete_items(scores)
    models, items = scores.shape[1], int(used.sum())
    if not items:
        raise ValueError(f"no item of {len(used)} has a score of every model")
    sizes = pool_sizes(models) if sizes is None else sizes
    ordered, total = ColumnSums(models), ColumnSums(models)
    for rows in row_blocks(scores.shape):
        block = scores[rows][used[rows]]
        total.add(block)
        block.sort(axis=1)
        ordered.add(block)
    weights = np.stack([order_weights(models, int(size)) for size in sizes])
    return Scaling(
        sizes=sizes,
        oracle=weights @ ordered.means(),
        best_single=weights @ np.sort(total.means()),
        random=mean(total.means()),
        items=items,
        left_out=len(used) - items,
    )


def draw_pools(scores: Floats, sizes: Sizes, draws: int, seed: int) -> Draws:
    """`draws` random orders of the models of `scores` (items, models), each cut at `sizes`, ascending from 1.

    Over complete items; time is draws × items × models. The same seed gives the same pools. Raises ValueError when no
    item is complete.
    """
    used = np.flatnonzero(complete_items(scores))
    if not len(used):
        raise ValueError(f"no item of {len(scores)} has a score of every model")
    models = scores.shape[1]
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(models) for _ in range(draws)])
    starts = np.concatenate([[0], sizes[:-1]])
    best, total = np.zeros((draws, len(sizes))), np.zeros(models)
    for first in range(0, len(used), _DRAWN_ITEMS):
        block = _narrow(np.ascontiguousarray(scores[used[first : first + _DRAWN_ITEMS]].T))
        total += block.sum(axis=1, dtype=np.float64)
        for order, sums in zip(orders, best, strict=True):
            grown = np.maximum.reduceat(block[order[: sizes[-1]]], starts, axis=0)
            sums += np.maximum.accumulate(grown, axis=0).sum(axis=1, dtype=np.float64)
    uniform = np.cumsum(total[orders] / len(used), axis=1)[:, sizes - 1] / sizes
    return Draws(best / len(used), uniform)


def _narrow(block: Floats) -> npt.NDArray[np.generic]:
    """Scores of 0 and 1 as bytes, which compare several times as fast; other scores unchanged."""
    return block.astype(np.bool_) if ((block == 0) | (block == 1)).all() else block


def _mixed(oracle: Values, uniform: Values, p: float) -> Values:
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability, not {p}")
    return p * oracle + (1 - p) * uniform
