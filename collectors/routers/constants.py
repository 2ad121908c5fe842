"""Routers that read no text: bounds that every other one is measured against.

Oracle and the ideal choice see the truth (PEEKS): they bound all routers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.plane import convex_hull
from collectors.metrics.pool import oracle_of_known
from collectors.routers.contract import ABSTAIN, BadChoice, Columns, Estimates, Floats, Mask, Queries, best_of, means_of


class Random:
    """A uniform choice."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        """Learns nothing."""

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return self._random.integers(0, len(candidates), len(queries))

    def probabilities(self, queries: Queries, candidates: Sequence[str]) -> Floats:
        return np.full((len(queries), len(candidates)), 1 / len(candidates))


class Constant:
    """One candidate for all: the best, the cheapest or the dearest in training, the first of equals.

    Of the cheapest and dearest those with an unknown mean cost are left aside. `by`: "score", "least_usd", "most_usd".
    """

    def __init__(self, by: str = "score") -> None:
        if by not in ("score", "least_usd", "most_usd"):
            raise ValueError(f"by: {by!r} is none of score, least_usd, most_usd")
        self.by = by

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.scores, self.usd = means_of(scores, valid), means_of(costs)
        if self.by != "score" and np.isnan(self.usd).all():
            raise BadChoice("no candidate has a known cost in training")
        self.column = {
            "score": lambda: best_of(self.scores),
            "least_usd": lambda: best_of(-self.usd),
            "most_usd": lambda: best_of(self.usd),
        }[self.by]()

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return np.full(len(queries), self.column, np.int64)

    def estimate(self, queries: Queries, candidates: Sequence[str]) -> Estimates:
        shape = (len(queries), len(candidates))
        return Estimates(np.broadcast_to(filled(self.scores), shape), np.broadcast_to(self.usd, shape))


class ConstantPerTask:
    """The best candidate of each task; of a task that was not in training the best over all."""

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        tasks = np.array(queries.tasks, object)
        every, usd = filled(means_of(scores, valid)), means_of(costs)
        self.every = (every, usd)
        self.of_task = {}
        for task in dict.fromkeys(queries.tasks):
            rows = tasks == task
            of, price = means_of(scores[rows], valid[rows]), means_of(costs[rows])
            # A candidate without an answer in this task has no mean here, and is not chosen.
            self.of_task[task] = (np.where(np.isnan(of), -np.inf, of), np.where(np.isnan(price), usd, price))

    def estimate(self, queries: Queries, candidates: Sequence[str]) -> Estimates:
        found = [self.of_task.get(task, self.every) for task in queries.tasks]
        shape = (len(queries), len(candidates))
        scores = np.array([one for one, _ in found]).reshape(shape)
        return Estimates(
            np.where(np.isfinite(scores), scores, np.minimum(0, self.every[0].min())),
            np.array([one for _, one in found]).reshape(shape),
        )

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        best = {task: int(scores.argmax()) for task, (scores, _) in self.of_task.items()}
        every = int(self.every[0].argmax())
        return np.array([best.get(task, every) for task in queries.tasks], np.int64)


class Mixture:
    """A random mixture of the single candidates on the training hull, at a share `at` of its range of costs.

    Source: RouterBench's Zero router, with the hull of the training questions.
    """

    def __init__(self, at: float = 0.5, seed: int = 0) -> None:
        if not 0 <= at <= 1:
            raise ValueError(f"at: {at} is no share")
        self.at, self._random = at, np.random.default_rng(seed)

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.low, self.high, self.share = mixture(means_of(scores, valid), means_of(costs), at=self.at)

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return np.where(self._random.random(len(queries)) < self.share, self.high, self.low)


def mixture(
    scores: Floats, usd: Floats, *, at: float | None = None, cost: float | None = None
) -> tuple[int, int, float]:
    """Two candidates of the hull of (usd, scores), and the share of the second, at a share of its range or at a cost.

    A cost below the hull gives its cheapest candidate alone, one above it the dearest. Raises BadChoice if no candidate
    has a known cost.
    """
    known = np.flatnonzero(~np.isnan(scores) & ~np.isnan(usd))
    if not len(known):
        raise BadChoice("no candidate has a known cost in training")
    points = np.stack([usd[known], scores[known]], axis=1).astype(np.float64)
    hull = convex_hull(points)
    columns = [int(known[np.flatnonzero((points == corner).all(axis=1))[0]]) for corner in hull]
    lowest, highest = float(hull[0, 0]), float(hull[-1, 0])
    wanted = lowest + (at or 0) * (highest - lowest) if cost is None else cost
    place = int(np.searchsorted(hull[:, 0], wanted, side="right"))
    if place == 0:
        return columns[0], columns[0], 0.0
    if place == len(hull):
        return columns[-1], columns[-1], 0.0
    left, right = hull[place - 1, 0], hull[place, 0]
    return columns[place - 1], columns[place], float((wanted - left) / (right - left))


class Oracle:
    """The best candidate of each question that has a score there, the cheapest of equals.

    With one sampled draw per question it is flattered.
    """

    PEEKS = True

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        """Learns nothing."""

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        assert queries.answers is not None
        assert queries.answers.truth is not None
        chosen = oracle_of_known(queries.answers.truth, queries.answers.observed["usd"])
        return np.where(chosen == NO_CHOICE, ABSTAIN, chosen)


def filled(values: Floats) -> Floats:
    """`values` with the least one in place of those that are unknown, so that these are never preferred."""
    if np.isnan(values).all():
        raise BadChoice("no candidate has a score in training")
    return np.where(np.isnan(values), np.nanmin(values), values)
