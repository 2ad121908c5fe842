"""A cascade whose judge learned when an answer is good enough.

Owns the order of the candidates and the stop. Answers that were asked for and thrown away are paid for: the board adds
their costs and their time to the chosen one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from collectors.metrics.plane import convex_hull
from collectors.routers.constants import filled
from collectors.routers.contract import OBSERVED, Answers, BadChoice, Columns, Floats, Mask, Queries, means_of
from collectors.routers.estimating import with_one

#: Thresholds of the stop that are tried.
_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


class Cascade:
    """Asks the candidates on the training hull from the cheapest on, and stops at an answer that is probably right.

    The probability is a logistic function of the query's vector and of the answer's marks before anybody judges it:
    its tokens, cost and seconds. Its threshold is the one with the best score on half of the training questions, which
    the judges did not see; of equal ones the cheapest. Source: RouterBench's and FrugalGPT's cascade. Differs:
    RouterBench's judge knows the score (routerbench.Cascade), FrugalGPT's reads the answer with a language model.
    """

    def __init__(self, steps: int = 3, seed: int = 0) -> None:
        self.steps, self.seed = steps, seed

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        assert queries.answers is not None
        means, usd = filled(means_of(scores, valid)), means_of(costs)
        self.order = _on_hull(means, usd, self.steps)
        random = np.random.default_rng(self.seed)
        is_first = np.zeros(len(queries), np.bool_)
        is_first[random.permutation(len(queries))[: len(queries) // 2]] = True
        self.judges = [self._judge(queries, column, scores, valid[:, column] & is_first) for column in self.order[:-1]]
        rest = np.flatnonzero(~is_first & valid[:, self.order].all(axis=1))
        beliefs = [
            self._beliefs(queries.vectors[rest], queries.answers, rest, place) for place in range(len(self.judges))
        ]
        self.threshold = self._threshold(beliefs, scores[rest], costs[rest])

    def _judge(self, queries: Queries, column: int, scores: Floats, rows: Mask) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        assert queries.answers is not None
        at = np.flatnonzero(rows)
        is_right = scores[at, column] >= 0.5
        if len(at) < 2 or is_right.all() or not is_right.any():
            return float(is_right.mean()) if len(at) else 0.0
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        return model.fit(_seen(queries.vectors[at], queries.answers, at, column), is_right)

    def _beliefs(self, vectors: Floats, answers: Answers, rows: Columns, place: int) -> Floats:
        """(rows,): the probability that the answers of the candidate at this place are right."""
        judge = self.judges[place]
        if isinstance(judge, float):
            answers.ask(rows, self.order[place])
            return np.full(len(rows), judge)
        found: Floats = judge.predict_proba(_seen(vectors, answers, rows, self.order[place]))[:, 1]
        return found

    def _threshold(self, beliefs: list[Floats], scores: Floats, costs: Floats) -> float:
        best = (-np.inf, -np.inf, 1.0)
        for threshold in _THRESHOLDS:
            is_open = np.ones(len(scores), np.bool_)
            got, paid = np.zeros(len(scores)), np.zeros(len(scores))
            for place, column in enumerate(self.order):
                paid[is_open] += np.nan_to_num(costs[is_open, column])
                got[is_open] = scores[is_open, column]
                if place < len(beliefs):
                    is_open &= beliefs[place] < threshold
            if len(scores):
                best = max(best, (round(float(got.mean()), 12), -round(float(paid.mean()), 15), float(threshold)))
        return best[2]

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        answers = queries.answers
        assert answers is not None
        chosen = np.full(len(queries), self.order[-1], np.int64)
        rows = np.arange(len(queries))
        for place, column in enumerate(self.order[:-1]):
            if not len(rows):
                break
            is_enough = self._beliefs(queries.vectors[rows], answers, rows, place) >= self.threshold
            chosen[rows[is_enough]] = column
            rows = rows[~is_enough]
        return chosen


def _on_hull(means: Floats, usd: Floats, steps: int) -> list[int]:
    """The candidates to ask, the cheapest first: the corners of the hull, at most `steps` of them spread over it."""
    known = np.flatnonzero(~np.isnan(usd))
    if not len(known):
        raise BadChoice("no candidate has a known cost in training")
    points = np.stack([usd[known], means[known]], axis=1).astype(np.float64)
    corners = [int(known[np.flatnonzero((points == corner).all(axis=1))[0]]) for corner in convex_hull(points)]
    places = np.unique(np.linspace(0, len(corners) - 1, min(steps, len(corners))).astype(int))
    return [corners[place] for place in places]


def _seen(vectors: Floats, answers: Answers, rows: Columns, column: int) -> Floats:
    """(rows, features): the query's vector and the marks of its answer; an unknown number counts as 0 and is marked."""
    shown = answers.ask(rows, column)
    numbers = np.stack([np.asarray(shown[name], np.float64) for name in OBSERVED], axis=1)
    is_known = ~np.isnan(numbers)
    return np.concatenate([with_one(vectors), np.log1p(np.where(is_known, numbers, 0)), is_known], axis=1)
