"""RouteLLM's measures (lm-sys/RouteLLM, arXiv 2406.18665) of a router between one strong and one weak model.

Knows nothing of pools of more than two models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import Floats
from collectors.metrics.sums import mean


@dataclass(frozen=True)
class Sweep:
    """A router's accuracy against the share of items that go to the strong model."""

    #: (points,) share of items for the strong model, rising.
    strong_share: npt.NDArray[np.float64]
    #: (points,) mean score at that share.
    accuracy: npt.NDArray[np.float64]
    #: Means of the two models on the same items.
    weak: float
    strong: float
    #: Items in the figures above.
    items: int
    #: Items without a win rate or a score.
    left_out: int

    @property
    def apgr(self) -> float:
        """See the function `apgr`."""
        return apgr(self.strong_share, self.accuracy, self.weak, self.strong)

    def cpt(self, recovered: float) -> float:
        """See the function `cpt`."""
        return cpt(self.strong_share, self.accuracy, self.weak, self.strong, recovered)


def sweep(win_rates: Floats, weak_scores: Floats, strong_scores: Floats, bins: int = 10) -> Sweep:
    """Compares a router's win rates of the strong model with thresholds at the edges of `bins` equally full bins.

    All arrays are (items,). An item goes to the strong model if its win rate reaches the threshold. At the lowest
    threshold all items do; the last point sends none. Raises ValueError if no item has a win rate and both scores.
    Source: routellm/evals/benchmarks.py evaluate, which takes the edges of pandas.qcut and fails on win rates with many
    ties; here equal thresholds give equal points.
    """
    used = ~(np.isnan(win_rates) | np.isnan(weak_scores) | np.isnan(strong_scores))
    items = int(used.sum())
    if not items:
        raise ValueError(f"no item of {len(used)} has a win rate and the scores of both models")
    rates, weak, strong = (array[used].astype(np.float64) for array in (win_rates, weak_scores, strong_scores))
    edges = np.quantile(rates, np.linspace(0, 1, bins + 1))
    chosen = [rates >= edge for edge in edges[:-1]] + [rates > edges[-1]]
    share = np.array([which.mean() for which in chosen])
    accuracy = np.array([mean(np.where(which, strong, weak)) for which in chosen])
    return Sweep(share[::-1], accuracy[::-1], mean(weak), mean(strong), items, len(used) - items)


def pgr(accuracy: float, weak: float, strong: float) -> float:
    """Performance gap recovered: (accuracy − weak) / (strong − weak), 0 at the weak model and 1 at the strong one.

    Raises ValueError unless the strong model is the better one. Source: arXiv 2406.18665, PGR.
    """
    if not strong > weak:
        raise ValueError(f"the strong model ({strong}) is not better than the weak one ({weak})")
    return (accuracy - weak) / (strong - weak)


def apgr(strong_share: Floats, accuracy: Floats, weak: float, strong: float) -> float:
    """Average PGR: the mean of the PGR over the shares of strong calls, by trapezoids.

    Both arrays are (points,), with shares from 0 to 1 in rising order. Raises ValueError if the shares do not rise, and
    as `pgr` does. Source: routellm/evals/evaluate.py apgr_metric, (AUC − weak AUC) / (strong AUC − weak AUC); the paper
    sums over ten equal steps instead.
    """
    shares = _rising(strong_share)
    area = float(np.trapezoid(accuracy, shares))
    return pgr(area / float(shares[-1] - shares[0]), weak, strong)


def cpt(strong_share: Floats, accuracy: Floats, weak: float, strong: float, recovered: float) -> float:
    """Call-performance threshold: the least share of strong calls, 0 to 1, that recovers the PGR `recovered`, 0 to 1.

    Both arrays are (points,), by rising share; accuracy between two points is linear. Raises ValueError if no share
    recovers so much, and as `apgr` does. Source: arXiv 2406.18665, CPT. If accuracy rises with the share,
    routellm/evals/evaluate.py pct_call_metric gives the same number times 100; else it calls numpy.interp with
    abscissae out of order.
    """
    shares = _rising(strong_share)
    gaps = np.array([pgr(float(value), weak, strong) for value in accuracy])
    reached = np.flatnonzero(gaps >= recovered)
    if not len(reached):
        raise ValueError(f"no share of strong calls recovers {recovered} of the gap: the most is {gaps.max()}")
    last = int(reached[0])
    if last == 0:
        return float(shares[0])
    return float(np.interp(recovered, gaps[last - 1 : last + 1], shares[last - 1 : last + 1]))


def _rising(strong_share: Floats) -> Floats:
    if not (np.diff(strong_share) >= 0).all() or not strong_share[-1] > strong_share[0]:
        raise ValueError("shares of strong calls must rise")
    return strong_share
