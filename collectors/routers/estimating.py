"""Routers that learn an estimate of score and cost from the queries' vectors, and take the best estimate.

Owns the classes that scikit-learn or a formula fits one after the other. Costs are estimated the same way where all are
known, else by the candidate's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collectors.routers.constants import filled
from collectors.routers.contract import Columns, Estimates, Floats, Mask, Queries, means_of

#: Bytes of one block of estimates.
_BLOCK = 1 << 26


class Estimating:
    """A router by its estimates: a subclass has `fit` and `scores_of`, and may have `usd_of`."""

    #: (candidates,): means in training.
    usd: Floats
    means: Floats

    def scores_of(self, queries: Queries) -> Floats:
        raise NotImplementedError

    def usd_of(self, queries: Queries) -> Floats:
        return np.broadcast_to(self.usd, (len(queries), len(self.usd)))

    def estimate(self, queries: Queries, candidates: Sequence[str]) -> Estimates:
        return Estimates(self.scores_of(queries), self.usd_of(queries))

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        columns = np.zeros(len(queries), np.int64)
        size = max(1, _BLOCK // (8 * max(1, len(candidates))))
        for first in range(0, len(queries), size):
            rows = np.arange(first, min(first + size, len(queries)))
            columns[rows] = self.scores_of(queries.take(rows)).argmax(axis=1)
        return columns

    def learn_means(self, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.means, self.usd = filled(means_of(scores, valid)), means_of(costs)


class Neighbours(Estimating):
    """The mean of the `k` most similar training questions, by cosine.

    A neighbour without an answer of a candidate does not count for it; without any its mean over all counts. Of equally
    similar ones the first counts. Source: kNN of RouterBench and RouterEval, which have their own classes.
    """

    def __init__(self, k: int = 40) -> None:
        self.k = k

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.learn_means(scores, costs, valid)
        self.vectors, self.scores, self.costs = unit(queries.vectors), scores, costs
        self.is_whole = bool(valid.all())

    def scores_of(self, queries: Queries) -> Floats:
        return self._mean_of(self.scores, self._near(queries), self.means, is_whole=self.is_whole)

    def usd_of(self, queries: Queries) -> Floats:
        return self._mean_of(self.costs, self._near(queries), self.usd, is_whole=False)

    def _near(self, queries: Queries) -> Columns:
        k = min(self.k, len(self.vectors))
        near = np.zeros((len(queries), k), np.int64)
        asked = unit(queries.vectors)
        size = max(1, _BLOCK // (8 * len(self.vectors)))
        for first in range(0, len(queries), size):
            # Rounded, so that neighbours do not depend on the last bit of a product of matrices.
            alike = np.round(asked[first : first + size] @ self.vectors.T, 10)
            some = np.argpartition(-alike, k - 1, axis=1)[:, :k] if k < alike.shape[1] else None
            near[first : first + size] = _first_best(alike, k, some)
        return near

    def _mean_of(self, values: Floats, near: Columns, others: Floats, *, is_whole: bool) -> Floats:
        sums, counts = np.zeros((len(near), values.shape[1])), np.zeros((len(near), values.shape[1]))
        for place in range(near.shape[1]):
            taken = values[near[:, place]]
            if is_whole:
                sums += taken
            else:
                is_known = ~np.isnan(taken)
                sums += np.where(is_known, taken, 0)
                counts += is_known
        if is_whole:
            return sums / near.shape[1]
        return np.where(counts > 0, sums / np.maximum(counts, 1), others)


def _first_best(alike: Floats, k: int, some: Columns | None) -> Columns:
    """The `k` columns of the largest values of each row, the first of equals."""
    if some is None:
        return np.argsort(-alike, axis=1, kind="stable")[:, :k]
    least = np.take_along_axis(alike, some, axis=1).min(axis=1, keepdims=True)
    best = np.empty((len(alike), k), np.int64)
    for row in range(len(alike)):
        at = np.flatnonzero(alike[row] >= least[row])
        best[row] = at[np.argsort(-alike[row, at], kind="stable")[:k]]
    return best


class Clusters(Estimating):
    """The ranks of the candidates in the nearest clusters of questions.

    k-means over unit vectors; each of the `top` nearest clusters gives a candidate 1 / rank, weighed by
    softmax(-beta · cosine distance). Source: Avengers and Avengers-Pro's SimpleClusterRouter, which counts a missing
    answer as 0; here it is left out of the cluster's mean. Of equal means the earlier candidate ranks first.
    """

    def __init__(self, clusters: int = 64, top: int = 1, beta: float = 6.0, seed: int = 0) -> None:
        self.clusters, self.top, self.beta, self.seed = clusters, top, beta, seed

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        from sklearn.cluster import KMeans

        self.learn_means(scores, costs, valid)
        count = min(self.clusters, len(np.unique(queries.vectors, axis=0)))
        model = KMeans(n_clusters=count, random_state=self.seed, n_init=10)
        labels = model.fit_predict(unit(queries.vectors))
        self.centres = model.cluster_centers_
        self.merits = np.zeros((count, scores.shape[1]))
        for cluster in range(count):
            rows = labels == cluster
            of = means_of(scores[rows], valid[rows])
            # A candidate without an answer in the cluster ranks behind all that have one.
            order = np.argsort(-np.where(np.isnan(of), -np.inf, of), kind="stable")
            self.merits[cluster, order] = 1 / np.arange(1, len(order) + 1)

    def scores_of(self, queries: Queries) -> Floats:
        distances = 1 - unit(queries.vectors) @ self.centres.T
        top = min(self.top, distances.shape[1])
        near = np.argsort(distances, axis=1, kind="stable")[:, :top]
        logits = -self.beta * np.take_along_axis(distances, near, axis=1)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        found = np.zeros((len(queries), self.merits.shape[1]))
        for place in range(top):
            found += weights[:, place, np.newaxis] * self.merits[near[:, place]]
        return found


class Ridge(Estimating):
    """A linear estimate of score and cost; the penalty is scaled by the questions. Closed form."""

    def __init__(self, penalty: float = 1.0) -> None:
        self.penalty = penalty

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.learn_means(scores, costs, valid)
        inputs = with_one(queries.vectors)
        self.weights = _solved(inputs, scores, valid, self.means, self.penalty)
        has_cost = ~np.isnan(costs)
        self.is_costed = ~np.isnan(self.usd)
        self.prices = _solved(inputs, costs, has_cost, np.nan_to_num(self.usd), self.penalty)

    def scores_of(self, queries: Queries) -> Floats:
        found: Floats = with_one(queries.vectors) @ self.weights
        return found

    def usd_of(self, queries: Queries) -> Floats:
        found = with_one(queries.vectors) @ self.prices
        return np.where(self.is_costed, np.maximum(found, 0), np.nan)


def _solved(inputs: Floats, targets: Floats, valid: Mask, means: Floats, penalty: float) -> Floats:
    """(inputs, columns): ridge weights around each column's mean; a column without values has its mean alone."""
    centred = np.where(valid, targets - means, 0.0)
    eye = penalty * np.eye(inputs.shape[1])
    eye[-1, -1] = 1e-9
    if valid.all():
        weights = np.linalg.solve(inputs.T @ inputs + eye, inputs.T @ centred)
    else:
        weights = np.zeros((inputs.shape[1], targets.shape[1]))
        for column in np.flatnonzero(valid.any(axis=0)):
            rows = inputs[valid[:, column]]
            weights[:, column] = np.linalg.solve(rows.T @ rows + eye, rows.T @ centred[valid[:, column], column])
    weights[-1] += means
    return weights


class PerCandidate(Estimating):
    """A regressor or classifier of scikit-learn for each candidate, on the questions it has answered.

    `model` is one of MODELS. A candidate whose scores are all equal has them for an estimate. A classifier learns
    whether the score reaches the candidates' middle of 0 and 1, and estimates its probability.
    """

    def __init__(self, model: str = "logistic", seed: int = 0, **parameters: Any) -> None:
        self.make = MODELS[model]
        self.seed, self.parameters = seed, parameters

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.learn_means(scores, costs, valid)
        self.models: list[Any] = []
        for column in range(scores.shape[1]):
            rows = valid[:, column]
            targets = scores[rows, column].astype(np.float64)
            if len(targets) < 2 or np.ptp(targets) == 0:
                self.models.append(None)
                continue
            model = self.make(self.seed, self.parameters)
            if hasattr(model, "predict_proba"):
                targets = targets >= 0.5
                if targets.all() or not targets.any():
                    self.models.append(None)
                    continue
            self.models.append(model.fit(queries.vectors[rows], targets))

    def scores_of(self, queries: Queries) -> Floats:
        found = np.empty((len(queries), len(self.models)))
        for column, model in enumerate(self.models):
            if model is None:
                found[:, column] = self.means[column]
            elif hasattr(model, "predict_proba"):
                found[:, column] = model.predict_proba(queries.vectors)[:, 1]
            else:
                found[:, column] = model.predict(queries.vectors)
        return found


def _logistic(seed: int, parameters: dict[str, Any]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**{"C": 1.0, "max_iter": 300, "random_state": seed} | parameters)


def _forest(seed: int, parameters: dict[str, Any]) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    given = {"n_estimators": 40, "min_samples_leaf": 10, "max_features": "sqrt", "random_state": seed, "n_jobs": 1}
    return RandomForestRegressor(**given | parameters)


def _mlp(seed: int, parameters: dict[str, Any]) -> Any:
    from sklearn.neural_network import MLPRegressor

    given = {"hidden_layer_sizes": (100,), "early_stopping": True, "max_iter": 200, "random_state": seed}
    return MLPRegressor(**given | parameters)


def _svm(seed: int, parameters: dict[str, Any]) -> Any:
    from sklearn.svm import LinearSVR

    return LinearSVR(**{"random_state": seed, "max_iter": 2000} | parameters)


#: Name -> a function of the seed and parameters that gives an unfitted model.
MODELS: dict[str, Callable[[int, dict[str, Any]], Any]] = {
    "logistic": _logistic,
    "forest": _forest,
    "mlp": _mlp,
    "svm": _svm,
}


def unit(vectors: Floats) -> Floats:
    """The rows at length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float64), where=lengths > 0)


def with_one(vectors: Floats) -> Floats:
    return np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1)
