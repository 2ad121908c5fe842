"""Whether choices are nearer to the oracle than a rule without the answers plausibly gets.

For each question that some candidates answer better than others, the chance that the chosen candidate is right is
estimated without that answer: from the candidate's answers to the most similar questions and to the rest of the task.
Of scores between right and wrong, whatever their range, a candidate is right by its place between the worst and the
best of the question; and once more by whether it is the best, where places lie so near that they show little. A
rule that knows no answer may be somewhat better than that, because it reads the questions better. How much better these
choices are is one number, the odds ratio: the smallest factor on the odds of all chances at which as many right choices
are no surprise (a sensitivity analysis as Rosenbaum's, Observational Studies, 2002, chapter 4). The same is asked of
each task, with Holm's correction for their number: the answers of one task of many are lost among all.
Knows no routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]

#: Similar questions that are read, and the weight of the task's own rate beside them.
NEIGHBOURS, WEIGHT = 20, 2.0
#: Questions among which the similar ones are looked for: evenly spaced ones of more.
_REFERENCES = 5000
#: Standard deviations: a fair choice exceeds them in one of 1,000 cases.
_DEVIATIONS = 3.09
#: Odds ratio above which choices count as made with the answers. RouterBench's own kNN, MLP and SVM get 1.0 on 945 of
#: its questions, choices with half of the answers 2.4 and the oracle 45; the best reader of a made world gets 1.2.
#: Of scores of any range (1,000 made worlds each of shares, of 0.4 to 0.45, log-likelihoods, points and mixed tasks)
#: 4,914 of 5,000 oracles were refused, the others of 30 questions and two or three candidates, and none of 12,000 fair
#: rules.
LIMIT = 2.0
#: Odds ratio above which choices are suspicious. Half of the answers to 71 questions get 1.5 to 1.9.
SUSPICIOUS = 1.5
#: A fair router exceeds a limit in one task with less than this chance, all tasks together.
_ALARMS = 0.001
#: Exponents at which Chernoff's bound is taken: the least of them counts.
_EXPONENTS = np.linspace(0, 10, 201)[1:]
#: Fewest questions that show anything.
LEAST = 20
_LARGEST = 1e6


@dataclass(frozen=True)
class Leakage:
    """How well choices do on the questions where the choice matters."""

    questions: int
    #: How far the chosen candidates are right, from 0 to 1 for each question, and what was expected of them.
    right: float
    expected: float
    #: Smallest odds ratio that explains `right`; None where there are fewer than LEAST questions.
    odds_ratio: float | None
    #: Tasks of several in which odds of LIMIT, and of SUSPICIOUS, do not explain the right choices.
    refused_tasks: tuple[str, ...] = ()
    suspicious_tasks: tuple[str, ...] = ()

    @property
    def knows_answers(self) -> bool:
        return bool(self.refused_tasks) or (self.odds_ratio is not None and self.odds_ratio > LIMIT)

    @property
    def is_suspicious(self) -> bool:
        """Whether the choices are better than a rule without the answers often gets, which proves nothing."""
        better = self.odds_ratio is not None and self.odds_ratio > SUSPICIOUS
        return not self.knows_answers and (better or bool(self.suspicious_tasks))


def leakage(scores: Values, tasks: npt.NDArray[Any], chosen: npt.NDArray[np.int64], vectors: Values) -> Leakage:
    """`scores` (questions, candidates), NaN where unknown; `chosen` columns, -1 for none."""
    places, matters = _placed(scores)
    found = _of_places(places, matters, tasks, chosen, vectors)
    is_best = np.where(np.isnan(places), places, places == 1).astype(places.dtype)
    if found.odds_ratio is None or np.array_equal(places[matters], is_best[matters], equal_nan=True):
        return found
    by_best = _of_places(is_best, matters, tasks, chosen, vectors)
    return max(found, by_best, key=lambda one: (one.knows_answers, one.is_suspicious, one.odds_ratio or 0))


def _of_places(
    places: Values,
    matters: npt.NDArray[np.bool_],
    tasks: npt.NDArray[Any],
    chosen: npt.NDArray[np.int64],
    vectors: Values,
) -> Leakage:
    rows = np.flatnonzero(matters & (chosen >= 0))
    rows = rows[~np.isnan(places[rows, chosen[rows]])]
    got = places[rows, chosen[rows]].astype(np.float64)
    if len(rows) < LEAST:
        return Leakage(len(rows), float(got.sum()), float("nan"), None)
    chance = _chances(places, tasks, np.flatnonzero(matters), rows, chosen[rows], vectors)
    of_tasks = [_surprising(got, chance, tasks[rows], limit) for limit in (LIMIT, SUSPICIOUS)]
    right = float(got.sum())
    return Leakage(len(rows), right, float(chance.sum()), round(_odds_ratio(right, chance), 3), *of_tasks)


def _placed(scores: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Scores as places from 0, the worst of a question's, to 1, the best; and whether the two differ."""
    low = np.nanmin(scores, axis=1, initial=np.inf, keepdims=True)
    high = np.nanmax(scores, axis=1, initial=-np.inf, keepdims=True)
    matters = high > low
    return np.divide(scores - low, high - low, out=np.zeros_like(scores), where=matters), matters[:, 0]


def _surprising(got: Values, chance: Values, tasks: npt.NDArray[Any], factor: float) -> tuple[str, ...]:
    """The tasks in which odds of `factor` do not explain the right choices, by Holm's procedure."""
    names = [name for name in np.unique(tasks) if (tasks == name).sum() >= LEAST]
    if len(np.unique(tasks)) == 1:
        return ()  # its answers are all answers, which are tested as such
    surprises = [_surprise(float(got[tasks == name].sum()), _raised(chance[tasks == name], factor)) for name in names]
    return tuple(sorted(str(names[place]) for place in _holm(surprises)))


def _holm(surprises: Sequence[float]) -> list[int]:
    """Places of the cases beyond chance."""
    taken: list[int] = []
    for place in np.argsort(surprises, kind="stable").tolist():
        if surprises[place] > _ALARMS / (len(surprises) - len(taken)):
            break
        taken.append(place)
    return taken


def _surprise(right: float, chance: Values) -> float:
    """Chernoff's bound of the chance of `right` or more: it holds for few questions, and for scores between 0 and 1."""
    if right <= chance.sum():
        return 1.0
    logs = np.log1p(chance[np.newaxis] * np.expm1(_EXPONENTS[:, np.newaxis])).sum(axis=1) - _EXPONENTS * right
    return float(np.exp(min(0.0, logs.min())))


def _chances(
    scores: Values,
    tasks: npt.NDArray[Any],
    matters: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    vectors: Values,
) -> npt.NDArray[np.float64]:
    """(rows,): the chance of each chosen candidate, from other questions where the choice matters."""
    rates = np.full(len(rows), 0.5)
    for task in np.unique(tasks[rows]):
        of_task = scores[matters[tasks[matters] == task]].astype(np.float64)
        here = tasks[rows] == task
        own = scores[rows[here], columns[here]]
        counts = (~np.isnan(of_task)).sum(axis=0)[columns[here]]
        sums = np.nansum(of_task, axis=0)[columns[here]]
        rates[here] = (sums - own + 0.5) / (counts - 1 + 1)
    if not vectors.shape[1]:
        return np.clip(rates, 0.02, 0.98)
    step = max(1, -(-len(matters) // _REFERENCES))
    references = matters[::step]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros(vectors.shape), where=length > 0)
    sums, counts = np.zeros(len(rows)), np.zeros(len(rows))
    for first in range(0, len(rows), 1024):
        block = slice(first, first + 1024)
        nearness = np.round(unit[rows[block]] @ unit[references].T, 9)
        nearness[rows[block][:, np.newaxis] == references] = -np.inf
        near = references[np.argsort(-nearness, axis=1, kind="stable")[:, :NEIGHBOURS]]
        seen = scores[near, columns[block][:, np.newaxis]]
        sums[block], counts[block] = np.nansum(seen, axis=1), (~np.isnan(seen)).sum(axis=1)
    return np.clip((sums + WEIGHT * rates) / (counts + WEIGHT), 0.02, 0.98)


def _odds_ratio(right: float, chance: npt.NDArray[np.float64]) -> float:
    """The smallest factor on the odds at which `right` lies within _DEVIATIONS; 1 where the chances explain it."""

    def most(factor: float) -> float:
        raised = _raised(chance, factor)
        return float(raised.sum() + _DEVIATIONS * np.sqrt((raised * (1 - raised)).sum()))

    low, high = 1.0, _LARGEST
    if most(low) >= right:
        return low
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if most(middle) < right else (low, middle)
    return high


def _raised(chance: npt.NDArray[np.float64], factor: float) -> npt.NDArray[np.float64]:
    """The chances with odds of `factor` times theirs."""
    return factor * chance / (1 - chance + factor * chance)
