"""How many answers of a model are equal to those of others, against what chance makes equal.

Two models that are both right on most questions agree on most, so a share of equal scores says little. What counts is
how many differ for each one that would if nothing but the tasks' frequencies of scores joined them (1 − Cohen's kappa,
Educational and Psychological Measurement 20, 1960, summed over tasks). A copy differs less than half as often as the
next nearest model does. Knows no submissions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]

#: Fewest questions, and fewest differences by chance, that show anything: two models that are right on 2 of 80 are
#: equal in one case of 40 where these questions are the easy ones.
LEAST, _LEAST_EXPECTED = 20, 5
#: So few differences come about by chance in one of 1,000 cases, and a copy has at most half of the usual ones. Of 11
#: models of RouterBench three differ from another less than that one does from its next nearest, by a quarter at most.
_ALARM, _FEW = 0.001, 0.5
#: Scores that are compared at once.
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Likeness:
    """One model's scores against those of each of others: arrays (others,)."""

    #: Questions that both have a score for, and those of them whose scores differ.
    common: npt.NDArray[np.int64]
    different: npt.NDArray[np.int64]
    #: Differences that chance makes.
    expected: npt.NDArray[np.float64]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """(others,): differences for each one that chance makes; NaN where it makes none."""
        found = np.full(len(self.common), np.nan)
        np.divide(self.different, self.expected, out=found, where=self.expected > 0)
        return found


def likeness(own: Values, scores: Values, tasks: npt.NDArray[Any]) -> Likeness:
    """Of `own` (questions,) and each column of `scores` (questions, others), NaN where unknown.

    `tasks` (questions,) are names. Scores are equal to six digits.
    """
    others = scores.shape[1]
    common, different, expected = np.zeros(others, np.int64), np.zeros(others, np.int64), np.zeros(others)
    names, of = np.unique(tasks, return_inverse=True)
    for task in range(len(names)):
        rows = np.flatnonzero((of == task) & ~np.isnan(own))
        if not len(rows):
            continue
        mine = _plain(own[rows])
        values, times = np.unique(mine, return_counts=True)
        for columns in _blocks(others, len(rows)):
            theirs = _plain(scores[rows, columns])
            has = ~np.isnan(theirs)
            place = np.searchsorted(values, np.where(has, theirs, 0)).clip(max=len(values) - 1)
            chance = np.where(has & (values[place] == theirs), times[place] / len(rows), 0)
            common[columns] += has.sum(axis=0)
            different[columns] += (has & (theirs != mine[:, np.newaxis])).sum(axis=0)
            expected[columns] += (has - chance).sum(axis=0)
    return Likeness(common, different, expected)


def _plain(scores: Values) -> npt.NDArray[np.float64]:
    plain: npt.NDArray[np.float64] = scores.astype(np.float64)
    return plain.round(6)


def _blocks(columns: int, rows: int) -> Iterator[slice]:
    size = max(1, _AT_ONCE // max(1, rows))
    return (slice(first, first + size) for first in range(0, columns, size))


@dataclass(frozen=True)
class Copy:
    """A model whose scores these are, as far as chance can tell."""

    column: int
    common: int
    different: int
    #: The column that is next nearest to it, and how that one's scores differ from its own; None without another.
    next_column: int | None = None
    next_common: int = 0
    next_different: int = 0


def copied(own: Values, scores: Values, tasks: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> Copy | None:
    """The column that `own` is a copy of: no score differs, or less than half as often as of its next nearest.

    None if there is none. `known` (others,): columns that are known to be the same model, which are passed over.
    """
    near = likeness(own, scores, tasks)
    shares = np.where(known | (near.common < LEAST) | (near.expected < _LEAST_EXPECTED), np.nan, near.shares)
    if np.isnan(shares).all():
        return None
    column = int(np.nanargmin(shares))
    found = (column, int(near.common[column]), int(near.different[column]))
    among = likeness(scores[:, column], scores, tasks)
    of_others = np.where((np.arange(scores.shape[1]) == column) | (among.common < LEAST), np.nan, among.shares)
    if np.isnan(of_others).all():
        return Copy(*found) if not found[2] else None
    other = int(np.nanargmin(of_others))
    usual = min(1.0, float(of_others[other] * near.expected[column] / near.common[column]))
    if found[2] and _fewer(found[2], found[1], _FEW * usual) >= _ALARM:
        return None
    return Copy(*found, other, int(among.common[other]), int(among.different[other]))


def _fewer(different: int, common: int, usual: float) -> float:
    """Chernoff's bound of the chance of so few differences, where a share of `usual` is expected."""
    share = different / common
    if share >= usual:
        return 1.0
    exponent = sum(p * math.log(p / q) for p, q in ((share, usual), (1 - share, 1 - usual)) if p > 0 and q > 0)
    return math.exp(-common * exponent)
