"""Scores and costs of routers on the test questions of each fold, and the bases that they are measured against.

Owns the arrays (folds, questions), NaN where a question is not in a fold's test, and their means. Knows no chance
(collectors.routers.comparing).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.matrix.pool_arrays import Pool
from collectors.routers.boards import Trial
from collectors.routers.contract import ABSTAIN, best_of, means_of
from collectors.routers.trial import Fold

Values = npt.NDArray[np.float64]
#: Digits of figures: sums of many numbers differ in their last bits between processors.
DIGITS = 10


class Outcomes:
    """A router's scores and costs on each fold's test questions: (folds, questions), NaN elsewhere."""

    def __init__(self, pool: Pool, folds: Sequence[Fold], trials: Sequence[Trial], constants: Sequence[int]) -> None:
        shape = (len(folds), len(pool.scores))
        self.score, self.usd, self.seconds = (np.full(shape, np.nan) for _ in range(3))
        self.answered = np.full(shape, np.nan)
        self.abstained = self.unscored = self.unpriced = self.untimed = 0
        usd, seconds = pool.numbers.get("usd"), pool.numbers.get("latency_s")
        for number, (fold, trial) in enumerate(zip(folds, trials, strict=True)):
            chosen = trial.made["chosen"]
            is_none = chosen == ABSTAIN
            columns = np.where(is_none, constants[number], chosen)
            rows = fold.test
            self.score[number, rows] = pool.scores[rows, columns]
            self.answered[number, rows] = np.where(is_none, np.nan, pool.scores[rows, columns])
            if usd is not None:
                self.usd[number, rows] = usd[rows, columns] + trial.made["more_usd"]
            if seconds is not None:
                self.seconds[number, rows] = seconds[rows, columns] + trial.made["more_s"]
            self.abstained += int(is_none.sum())
            self.unscored += int(np.isnan(self.score[number, rows]).sum())
            self.unpriced += int(np.isnan(self.usd[number, rows]).sum())
            self.untimed += int(np.isnan(self.seconds[number, rows]).sum())


# ---- bases of all rows


def best_constant(pool: Pool, fold: Fold) -> int:
    """The column with the best mean in training, of the candidates that are seen there."""
    means = means_of(pool.scores[fold.train])
    if fold.unseen is not None:
        means = np.where(fold.unseen, np.nan, means)
    return int(np.nanargmax(means))


def cheapest_constant(pool: Pool, fold: Fold) -> int | None:
    """The column with the least mean of its known costs in training, as Constant("least_usd") chooses; None without."""
    usd = pool.numbers.get("usd")
    means = means_of(usd[fold.train]) if usd is not None else np.full(len(pool.candidates), np.nan)
    return None if np.isnan(means).all() else best_of(-means)


def constant_scores(pool: Pool, folds: Sequence[Fold], constants: Sequence[int]) -> Values:
    found = np.full((len(folds), len(pool.scores)), np.nan)
    for number, fold in enumerate(folds):
        found[number, fold.test] = pool.scores[fold.test, constants[number]]
    return found


def oracle_scores(pool: Pool, folds: Sequence[Fold]) -> Values:
    best = np.full(len(pool.scores), np.nan)
    for first in range(0, len(best), 4096):
        block = pool.scores[first : first + 4096]
        has = ~np.isnan(block)
        top = np.where(has, block, -np.inf).max(axis=1)
        best[first : first + 4096] = np.where(has.any(axis=1), top, np.nan)
    found = np.full((len(folds), len(best)), np.nan)
    for number, fold in enumerate(folds):
        found[number, fold.test] = best[fold.test]
    return found


def singles_of(pool: Pool, folds: Sequence[Fold]) -> list[tuple[Values, Values]]:
    """For each fold the candidates' mean scores and USD on its test questions."""
    usd = pool.numbers.get("usd")
    nothing = np.full(len(pool.candidates), np.nan)
    return [
        (means_of(pool.scores[fold.test]), nothing if usd is None else _whole_means(usd[fold.test])) for fold in folds
    ]


def _whole_means(values: Values) -> Values:
    """(columns,): means; NaN for a column with an unknown value."""
    return np.where(np.isnan(values).any(axis=0), np.nan, means_of(values))


# ---- means


def of_folds(values: Values) -> list[float]:
    counts = (~np.isnan(values)).sum(axis=1)
    sums = np.where(np.isnan(values), 0, values).sum(axis=1)
    return [float(one / count) if count else float("nan") for one, count in zip(sums, counts, strict=True)]


def mean_of_folds(values: Values) -> float:
    """The mean over folds of a fold's mean."""
    found = [one for one in of_folds(values) if not np.isnan(one)]
    return float(np.mean(found)) if found else float("nan")


def rounded(value: float, digits: int = DIGITS) -> Any:
    """As a board has it; null for NaN."""
    return None if np.isnan(value) else round(float(value), digits) + 0.0
