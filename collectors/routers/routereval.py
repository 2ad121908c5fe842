"""RouterEval's own routers: kNN, k-means, linear and MLP.

Owns their rules as in MilkThink-Lab/RouterEval at 2edf54d (router/PRKnn-knn, router/C-RoBERTa-cluster,
router/MLPR_LinearR), choice for choice, and the probabilities behind its E_p. The last two train with torch, whose
random numbers depend on its version. Differs: a missing score is left out of a mean, where theirs are complete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from collectors.routers.constants import filled
from collectors.routers.contract import BadChoice, Columns, Estimates, Floats, Mask, Queries, means_of


class Knn:
    """The mean score of the `knearest` training questions, by cosine."""

    def __init__(self, knearest: int = 5) -> None:
        self.knearest = knearest

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        from sklearn.neighbors import NearestNeighbors

        k = min(self.knearest, len(queries))
        self.model = NearestNeighbors(n_neighbors=k, metric="cosine").fit(queries.vectors)
        self.scores, self.means = np.where(valid, scores, np.nan), filled(means_of(scores, valid))

    def scores_of(self, queries: Queries) -> Floats:
        near = self.model.kneighbors(queries.vectors)[1]
        found = np.array([means_of(self.scores[rows]) for rows in near]).reshape(len(queries), len(self.means))
        return np.where(np.isnan(found), self.means, found)

    def estimate(self, queries: Queries, candidates: Sequence[str]) -> Estimates:
        return Estimates(self.scores_of(queries))

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return self.scores_of(queries).argmax(axis=1)

    def probabilities(self, queries: Queries, candidates: Sequence[str]) -> Floats:
        return softmax(self.scores_of(queries))


class KMeans:
    """The best model of the nearest cluster of training questions."""

    def __init__(self, numcluster: int = 3, seed: int = 0) -> None:
        self.numcluster, self.seed = numcluster, seed

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        from sklearn.cluster import KMeans as Clusterer

        count = min(self.numcluster, len(queries))
        self.model = Clusterer(n_clusters=count, random_state=self.seed)
        labels = self.model.fit_predict(queries.vectors)
        every = filled(means_of(scores, valid))
        self.best = np.zeros(count, np.int64)
        for cluster in range(count):
            rows = labels == cluster
            of = means_of(scores[rows], valid[rows])
            self.best[cluster] = every.argmax() if np.isnan(of).all() else np.nanargmax(of)

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return self.best[self.model.predict(queries.vectors)]

    def probabilities(self, queries: Queries, candidates: Sequence[str]) -> Floats:
        """1 / the distance to each cluster, for its best model."""
        centres = self.model.cluster_centers_
        near = 1 / (np.stack([np.linalg.norm(queries.vectors - one, axis=1) for one in centres], axis=1) + 1e-10)
        near /= near.sum(axis=1, keepdims=True)
        found = np.zeros((len(queries), len(candidates)))
        for cluster, column in enumerate(self.best):
            found[:, column] += near[:, cluster]
        return found


class Network:
    """One linear layer, or two hidden ones of `hidden` units with ReLU, trained on logits of right and wrong.

    Adam with a cosine schedule down to 0 over all batches; `seed` is torch's, which the original leaves unset.
    """

    def __init__(
        self, hidden: int | None = None, lr: float = 0.1, epochs: int = 10, batch: int = 1024, seed: int = 0
    ) -> None:
        self.hidden, self.lr, self.epochs, self.batch, self.seed = hidden, lr, epochs, batch, seed

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        if not valid.all():
            raise BadChoice("RouterEval's networks need a score of every candidate for each training question")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model = self._layers(torch.nn, queries.vectors.shape[1], scores.shape[1])
            questions = TensorDataset(_tensor(queries.vectors), _tensor(scores))
            loader = DataLoader(questions, batch_size=self.batch, shuffle=True)
            optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr)
            _draw_as_a_test(torch)
            steps = len(loader) * self.epochs
            step = 0
            for _ in range(self.epochs):
                for inputs, targets in loader:
                    optimizer.param_groups[0]["lr"] = 0.5 * self.lr * (math.cos(math.pi * step / steps) + 1)
                    loss = torch.nn.functional.binary_cross_entropy_with_logits(self.model(inputs), targets)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    step += 1
                _draw_as_a_test(torch)

    def _layers(self, nn: Any, inputs: int, outputs: int) -> Any:
        if self.hidden is None:
            return nn.Linear(inputs, outputs)
        first, second = nn.Linear(inputs, self.hidden), nn.Linear(self.hidden, self.hidden)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(self.hidden, outputs))

    def scores_of(self, queries: Queries) -> Floats:
        import torch

        with torch.no_grad():
            logits: Floats = self.model(_tensor(queries.vectors)).numpy()
        return logits

    def route(self, queries: Queries, candidates: Sequence[str]) -> Columns:
        return self.scores_of(queries).argmax(axis=1)

    def estimate(self, queries: Queries, candidates: Sequence[str]) -> Estimates:
        return Estimates(1 / (1 + np.exp(-self.scores_of(queries).astype(np.float64))))

    def probabilities(self, queries: Queries, candidates: Sequence[str]) -> Floats:
        return softmax(self.scores_of(queries))


def softmax(values: Floats) -> Floats:
    """Each row as shares of exp."""
    raised = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _tensor(values: Floats) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _draw_as_a_test(torch: Any) -> None:
    """Draws the random number that the original's pass over its test questions draws."""
    torch.empty((), dtype=torch.int64).random_()
