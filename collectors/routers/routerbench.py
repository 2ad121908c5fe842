"""RouterBench's own routers: kNN, MLP and SVM, and its cascade.

Owns their rules as in withmartian/routerbench at cc67d10 (routers/*.py), choice for choice. A router takes the model
with the largest score · willingness − price, where the price is USD per completion token plus USD per prompt token,
whatever an answer is long. Differs: without `prices` a candidate's price is its mean USD in training, since a lake need
not know prices by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collectors.routers.contract import ABSTAIN, BadChoice, Columns, Estimates, Floats, Mask, Queries, means_of


class _RouterBench:
    """The decision that all three share. `willingness` None: no price counts."""

    def __init__(self, willingness: float | None = None, prices: Mapping[str, float] | None = None) -> None:
        self.willingness, self.given = willingness, prices
        self.prices = np.zeros(0)

    def learn_prices(self, queries: Queries, costs: Floats) -> None:
        if self.given is not None and (lacking := set(queries.candidates) - set(self.given)):
            raise BadChoice(f"prices: none of {sorted(lacking)[0]!r}")
        of_costs = means_of(costs)
        self.prices = (
            of_costs if self.given is None else np.array([self.given[name] for name in queries.candidates], np.float64)
        )

    def scores_of(self, queries: Queries) -> Floats:
        raise NotImplementedError

    def estimate(self, queries: Queries, candidates: Sequence[str]) -> Estimates:
        scores = self.scores_of(queries)
        least = np.nanmin(scores)
        return Estimates(np.where(np.isnan(scores), least, scores), np.broadcast_to(self.prices, scores.shape))

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return self.choose(self.scores_of(queries), self.willingness)

    def choose(self, scores: Floats, willingness: float | None) -> Columns:
        """(queries,):

        the first of the best, by scores (queries, candidates); a candidate without a score is passed over.
        """
        values = scores if not willingness else scores * willingness - self.prices
        known = ~np.isnan(values)
        return np.where(known.any(axis=1), np.where(known, values, -np.inf).argmax(axis=1), ABSTAIN)


class Knn(_RouterBench):
    """The mean score of the `n_neighbors` nearest training questions, by cosine;

    a missing score is left out of a mean.
    """

    def __init__(self, n_neighbors: int = 40, **decision: Any) -> None:
        super().__init__(**decision)
        self.n_neighbors = n_neighbors

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        from sklearn.neighbors import NearestNeighbors

        self.learn_prices(queries, costs)
        k = min(self.n_neighbors, len(queries))
        self.model = NearestNeighbors(n_neighbors=k, metric="cosine", leaf_size=30, n_jobs=1).fit(queries.vectors)
        self.scores = np.where(valid, scores, np.nan)

    def scores_of(self, queries: Queries) -> Floats:
        _, near = self.model.kneighbors(queries.vectors)
        found = np.empty((len(queries), self.scores.shape[1]))
        for row, rows in enumerate(near):
            found[row] = means_of(self.scores[rows])
        return found


class _PerModel(_RouterBench):
    """One regressor for each model, fitted on the questions that have a score of it."""

    def __init__(self, **decision: Any) -> None:
        super().__init__(**decision)
        self.models: list[Any] = []

    def make(self) -> Any:
        raise NotImplementedError

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.learn_prices(queries, costs)
        for column in range(scores.shape[1]):
            rows = valid[:, column]
            if not rows.any():
                raise BadChoice(f"{queries.candidates[column]!r} has no score in training")
            self.models.append(self.make().fit(queries.vectors[rows], scores[rows, column].astype(np.float64)))

    def scores_of(self, queries: Queries) -> Floats:
        return np.column_stack([model.predict(queries.vectors) for model in self.models])


class Mlp(_PerModel):
    """MLPRegressor with RouterBench's seed of 1234."""

    def __init__(
        self, hidden_layer_sizes: Any = 100, activation: str = "relu", learning_rate: float = 0.001, **decision: Any
    ) -> None:
        super().__init__(**decision)
        self.settings = {
            "hidden_layer_sizes": hidden_layer_sizes,
            "activation": activation,
            "learning_rate_init": learning_rate,
            "max_iter": 200,
            "random_state": 1234,
        }

    def make(self) -> Any:
        from sklearn.neural_network import MLPRegressor

        return MLPRegressor(**self.settings)


class Svm(_PerModel):
    """LinearSVR as it comes, with RouterBench's seed of 1234."""

    def make(self) -> Any:
        from sklearn.svm import LinearSVR

        return LinearSVR(random_state=1234)


class Cascade:
    """Asks the models from the cheapest on, until a judge of the answers accepts one or `most_usd` is spent.

    The judge is ideal: it knows the score, and errs with `error_rate`. So this is a bound (PEEKS); the cascade of
    collectors.routers.cascades has a judge that learned. Source: run_cascading_router.py, with its threshold (the .95
    quantile of all scores, here of the training ones) and its rule that the first answer may cost anything. Differs:
    the draws of the error come from `seed`; RouterBench's are not seeded.
    """

    PEEKS = True

    def __init__(self, error_rate: float = 0.0, most_usd: float = 100.0, quantile: float = 0.95, seed: int = 0) -> None:
        self.error_rate, self.most_usd, self.quantile = error_rate, most_usd, quantile
        self._random = np.random.default_rng(seed)

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        prices = means_of(costs)
        if np.isnan(prices).any():
            raise BadChoice("a cascade needs the costs of all candidates")
        self.order = np.argsort(prices, kind="stable")
        self.threshold = float(np.quantile(scores[valid], self.quantile))

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        answers = queries.answers
        assert answers is not None
        assert answers.truth is not None
        chosen = np.full(len(queries), ABSTAIN, np.int64)
        left, spent = np.full(len(queries), self.most_usd), np.zeros(len(queries))
        is_open = np.ones(len(queries), np.bool_)
        for column in self.order:
            usd = answers.observed["usd"][:, column]
            is_open &= ~((usd >= left) & (spent > 0))
            rows = np.flatnonzero(is_open)
            answers.ask(rows, int(column))
            spent[rows] += usd[rows]
            left[rows] -= usd[rows]
            chosen[rows] = column
            is_right = answers.truth[rows, column] >= self.threshold
            is_open[rows] = is_right == (self._random.random(len(rows)) < self.error_rate)
        return chosen
