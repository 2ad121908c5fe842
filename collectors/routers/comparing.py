"""Whether routers are better than the best constant, than a mixture at their own cost, and than each other.

Owns which questions are compared. The statistics are those of collectors.metrics.resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.matrix.pool_arrays import Pool
from collectors.metrics.resampling import LEVEL, Resampled, holm, ranks, resample
from collectors.routers.constants import mixture
from collectors.routers.contract import BadChoice, means_of
from collectors.routers.outcomes import Outcomes, Values, rounded
from collectors.routers.trial import Fold


@dataclass(frozen=True)
class Comparison:
    """A router against another way to choose, on the same questions."""

    difference: float
    low: float
    high: float
    #: After Holm over all routers.
    p: float

    @property
    def verdict(self) -> str:
        """better, worse or tie."""
        return "tie" if self.p >= LEVEL else "better" if self.difference > 0 else "worse"

    def row(self) -> dict[str, Any]:
        return {
            "difference": rounded(self.difference),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "p_holm": rounded(self.p),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Place:
    """Where one row stands against others."""

    constant: Comparison
    #: None where a cost is unknown.
    mixture: Comparison | None
    #: None for a bound.
    rank: int | None


def compare(
    outcomes: Mapping[str, Outcomes],
    bounds: Sequence[str],
    base: Values,
    pool: Pool,
    folds: Sequence[Fold],
    groups: npt.NDArray[np.int64],
    seed: int = 0,
) -> dict[str, Place]:
    """Name -> its place. `base` (folds, questions) are the best constant's scores; `groups` are drawn whole."""
    names = list(outcomes)
    is_bound = [name in bounds for name in names]
    scores = np.stack([outcomes[name].score for name in names])
    constant = _comparisons(resample(scores - base, groups, seed=seed), is_bound)
    mixed = [_mixture_scores(pool, folds, outcomes[name]) for name in names]
    priced = [place for place, values in enumerate(mixed) if values is not None]
    at_cost: dict[int, Comparison] = {}
    if priced:
        differences = np.stack([scores[place] - mixed[place] for place in priced])
        found = _comparisons(resample(differences, groups, seed=seed), [is_bound[place] for place in priced])
        at_cost = dict(zip(priced, found, strict=True))
    rank = _ranks(scores, [place for place, one in enumerate(is_bound) if not one], groups, seed)
    return {name: Place(constant[at], at_cost.get(at), rank.get(at)) for at, name in enumerate(names)}


def _ranks(scores: Values, routers: Sequence[int], groups: npt.NDArray[np.int64], seed: int) -> dict[int, int]:
    """Place of a router -> its rank, over the questions that all routers have a score for."""
    if not routers:
        return {}
    common = ~np.isnan(scores[list(routers)]).any(axis=0)
    if not common.any():
        return {}
    found = resample(np.where(common, scores[list(routers)], np.nan), groups, seed=seed)
    return dict(zip(routers, ranks(found), strict=True))


def _comparisons(found: Resampled, bounds: Sequence[bool]) -> list[Comparison]:
    """Holm counts the routers; a bound has its own p."""
    low, high = found.interval()
    p_values = found.p_values()
    places = [place for place, is_bound in enumerate(bounds) if not is_bound]
    for place, p in zip(places, holm([p_values[place] for place in places]), strict=True):
        p_values[place] = p
    return [
        Comparison(float(figure), float(low[place]), float(high[place]), p_values[place])
        for place, figure in enumerate(found.figures)
    ]


def _mixture_scores(pool: Pool, folds: Sequence[Fold], of: Outcomes) -> Values | None:
    """(folds, questions): the expected score of the mixture at the router's own cost; None where a cost is unknown.

    The two candidates are chosen on the training questions, their shares so that mixture and router cost the same on
    the test questions. A router that is cheaper than every candidate is compared with the cheapest one.
    """
    usd = pool.numbers.get("usd")
    if usd is None or of.unpriced:
        return None
    found = np.full(of.score.shape, np.nan)
    for number, fold in enumerate(folds):
        cost = float(np.nanmean(of.usd[number]))
        scores, prices = means_of(pool.scores[fold.train]), means_of(usd[fold.train])
        if fold.unseen is not None:
            scores = np.where(fold.unseen, np.nan, scores)
        try:
            low, high, share = mixture(scores, prices, cost=cost)
        except BadChoice:
            return None
        least, most = float(usd[fold.test, low].mean()), float(usd[fold.test, high].mean())
        if low != high and most > least:
            share = min(1.0, max(0.0, (cost - least) / (most - least)))
        worse, better = (pool.scores[fold.test, column].astype(np.float64) for column in (low, high))
        found[number, fold.test] = (1 - share) * worse + share * better
    return found
