"""Whether routers differ: paired bootstrap over questions, Holm's correction, and ties.

A figure is the mean over folds of a fold's mean over its test questions, which may be in several folds. Questions are
drawn in groups, such as near-duplicates. Intervals are of the questions alone: how another training set would do is the
spread over folds. Knows no routers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

#: Resamples, and those drawn at once, to bound the memory.
DRAWS = 2000
_AT_ONCE = 100
#: A difference counts as real below this.
LEVEL = 0.05
#: A difference of means that is less than this is rounding.
_DUST = 1e-12
#: Of several folds the resamples are spread by this: a router of one fold has learned from questions that another fold
#: tests, which resampling does not see. Without it 92 and 91 % of 220 intervals held the truth in simulated worlds of
#: five folds (a router with and one without a signal), with it 96 and 95 %. Of one fold 96 and 95 % do without.
_OVERLAP = 1.12


@dataclass(frozen=True)
class Resampled:
    """Figures and their resamples."""

    #: (figures,): NaN for one without a question.
    figures: Values
    #: (draws, figures)
    draws: Values

    @property
    def errors(self) -> Values:
        """(figures,): standard errors."""
        errors: Values = self.draws.std(axis=0, ddof=1)
        return errors

    def interval(self, level: float = LEVEL) -> tuple[Values, Values]:
        """The middle 1 − `level` of the resamples."""
        low, high = np.quantile(self.draws, [level / 2, 1 - level / 2], axis=0)
        return low, high

    def p_values(self) -> list[float]:
        """Two-sided, that a figure is 0; 1 for one whose resamples are all 0."""
        return [_p(float(one), float(error)) for one, error in zip(self.figures, self.errors, strict=True)]


def resample(values: Values, groups: npt.NDArray[np.int64], draws: int = DRAWS, seed: int = 0) -> Resampled:
    """Figures of `values` (figures, folds, questions), NaN where a question is not in the fold's test.

    `groups` (questions,) are numbers of groups that are drawn whole.
    """
    figures, folds, questions = values.shape
    flat = values.reshape(figures * folds, questions)
    is_there = ~np.isnan(flat)
    rows = np.ascontiguousarray(np.where(is_there, flat, 0).T)
    counts = np.ascontiguousarray(is_there.T.astype(np.float64))
    random = np.random.default_rng(seed)
    number = int(groups.max()) + 1 if questions else 0
    made = np.empty((draws, figures))
    for first in range(0, draws, _AT_ONCE):
        size = min(_AT_ONCE, draws - first)
        # A tenth of the time of numpy's multinomial with so many outcomes.
        drawn = [np.bincount(random.integers(0, number, number), minlength=number) for _ in range(size)]
        times = np.stack(drawn)[:, groups].astype(np.float64)
        made[first : first + size] = _means(times @ rows, times @ counts, figures, folds)
    once = np.ones((1, questions))
    whole = _means(once @ rows, once @ counts, figures, folds)[0]
    return Resampled(whole, made if folds == 1 else whole + _OVERLAP * (made - whole))


def _means(sums: Values, counts: Values, figures: int, folds: int) -> Values:
    """(draws, figures): means over the folds that have a question."""
    with np.errstate(invalid="ignore", divide="ignore"):
        of_folds = (sums / counts).reshape(len(sums), figures, folds)
    is_there = ~np.isnan(of_folds)
    total = np.where(is_there, of_folds, 0).sum(axis=2)
    found: Values = np.full(total.shape, np.nan)
    np.divide(total, is_there.sum(axis=2), out=found, where=is_there.any(axis=2))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the given order. Source: Holm 1979, step-down."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def ranks(resampled: Resampled, level: float = LEVEL) -> list[int]:
    """(figures,): 1 + how many others are better beyond chance, by paired differences and Holm over the others."""
    found = []
    for one, figure in enumerate(resampled.figures):
        others = np.delete(np.arange(len(resampled.figures)), one)
        ahead = (resampled.figures[others] - figure).tolist()
        errors = (resampled.draws[:, others] - resampled.draws[:, [one]]).std(axis=0, ddof=1).tolist()
        p_values = holm([_p(by, error) for by, error in zip(ahead, errors, strict=True)])
        found.append(1 + sum(by > 0 and p < level for by, p in zip(ahead, p_values, strict=True)))
    return found


def _p(difference: float, error: float) -> float:
    """Of a normal with this standard error. What rounding leaves of 0 is none."""
    if math.isnan(difference) or math.isnan(error) or abs(difference) < _DUST:
        return 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else 0.0
