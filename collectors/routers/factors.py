"""Routers that give each candidate a vector of its own: matrix factorisation and item response theory.

Owns their training in numpy: Adam over blocks of questions on the answers that there are, stopped at the least loss on
a tenth of the questions that is held back. Both estimate a probability of a right answer; scores between 0 and 1 are
taken as such probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collectors.routers.contract import BadChoice, Floats, Mask, Queries
from collectors.routers.estimating import Estimating

#: Questions of a step, the share that is held back, and the epochs without a gain after which training ends.
_BATCH, _HELD_BACK, _PATIENCE = 256, 0.1, 6


class _Factors(Estimating):
    """Weights by name, and the training that the two share."""

    def __init__(
        self, dimensions: int, epochs: int, rate: float, decay: float, noise: float = 0.0, seed: int = 0
    ) -> None:
        self.dimensions, self.epochs, self.rate, self.decay, self.noise = dimensions, epochs, rate, decay, noise
        self.seed = seed

    def first_weights(self, random: np.random.Generator, inputs: int, logits: Floats) -> dict[str, Floats]:
        raise NotImplementedError

    def logits(self, weights: dict[str, Floats], inputs: Floats) -> tuple[Floats, Any]:
        """(queries, candidates), and the steps that `gradients` needs."""
        raise NotImplementedError

    def gradients(self, weights: dict[str, Floats], inputs: Floats, kept: Any, of: Floats) -> dict[str, Floats]:
        raise NotImplementedError

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        self.learn_means(scores, costs, valid)
        if self.means.min() < 0 or self.means.max() > 1:
            raise BadChoice("it learns probabilities, and some scores are beyond 0 to 1")
        random = np.random.default_rng(self.seed)
        self.middle, self.spread = queries.vectors.mean(axis=0), queries.vectors.std(axis=0)
        inputs = self._scaled(queries.vectors)
        order = random.permutation(len(inputs))
        cut = int(len(order) * _HELD_BACK)
        held, rows = order[:cut], order[cut:]
        targets = np.where(valid, np.clip(scores, 0, 1), 0).astype(np.float64)
        share = np.clip(self.means, 0.01, 0.99)
        weights = self.first_weights(random, inputs.shape[1], np.log(share / (1 - share)))
        self.weights, least, waited = {name: one.copy() for name, one in weights.items()}, np.inf, 0
        steps = _Adam(weights, self.rate)
        for _ in range(self.epochs):
            for first in range(0, len(rows), _BATCH):
                at = rows[first : first + _BATCH]
                noisy = inputs[at] + self.noise * random.standard_normal((len(at), inputs.shape[1]))
                found, kept = self.logits(weights, noisy)
                error = np.where(valid[at], _sigmoid(found) - targets[at], 0) / max(1, int(valid[at].sum()))
                steps.step(self.gradients(weights, noisy, kept, error), self.decay)
            loss = self._loss(weights, inputs[held], targets[held], valid[held]) if cut else -1.0
            if not cut or loss < least - 1e-5:
                self.weights, least, waited = {name: one.copy() for name, one in weights.items()}, loss, 0
            else:
                waited += 1
                if waited > _PATIENCE:
                    break

    def _loss(self, weights: dict[str, Floats], inputs: Floats, targets: Floats, valid: Mask) -> float:
        found = self.logits(weights, inputs)[0]
        losses = np.logaddexp(0, found) - targets * found
        return float(losses[valid].mean()) if valid.any() else 0.0

    def _scaled(self, vectors: Floats) -> Floats:
        scaled: Floats = (vectors - self.middle) / np.where(self.spread > 0, self.spread, 1)
        return scaled

    def scores_of(self, queries: Queries) -> Floats:
        return _sigmoid(self.logits(self.weights, self._scaled(queries.vectors))[0])


class MatrixFactorisation(_Factors):
    """A projected question times a candidate's vector, plus the candidate's own level.

    Source: EmbedLLM's TextMF, with its noise on questions. Differs: one logit in place of two classes, the classifier
    is part of the candidates' vectors, which begin at each candidate's mean, and fewer dimensions.
    """

    def __init__(
        self,
        dimensions: int = 32,
        epochs: int = 60,
        rate: float = 0.01,
        decay: float = 1e-4,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(dimensions, epochs, rate, decay, noise, seed)

    def first_weights(self, random: np.random.Generator, inputs: int, logits: Floats) -> dict[str, Floats]:
        return {
            "project": random.standard_normal((inputs, self.dimensions)) / np.sqrt(inputs),
            "candidates": 0.1 * random.standard_normal((len(logits), self.dimensions)),
            "level": logits.copy(),
        }

    def logits(self, weights: dict[str, Floats], inputs: Floats) -> tuple[Floats, Any]:
        projected = inputs @ weights["project"]
        return projected @ weights["candidates"].T + weights["level"], projected

    def gradients(self, weights: dict[str, Floats], inputs: Floats, kept: Any, of: Floats) -> dict[str, Floats]:
        return {
            "project": inputs.T @ (of @ weights["candidates"]),
            "candidates": of.T @ kept,
            "level": of.sum(axis=0),
        }


class ItemResponse(_Factors):
    """Two parameters of each question from its text: its difficulty, and how much it asks of each ability.

    The probability is sigmoid(discrimination · ability − difficulty), with discriminations above 0. Source: IRT-
    Router's multidimensional model. Differs: abilities are free parameters, not a function of a text about the model.
    """

    def __init__(
        self, dimensions: int = 8, epochs: int = 60, rate: float = 0.01, decay: float = 1e-4, seed: int = 0
    ) -> None:
        super().__init__(dimensions, epochs, rate, decay, seed=seed)

    def first_weights(self, random: np.random.Generator, inputs: int, logits: Floats) -> dict[str, Floats]:
        start = 0.1 * random.standard_normal((len(logits), self.dimensions))
        # softplus(0.54) is 1: the abilities' sum begins at the candidate's own level.
        return {
            "asks": 0.1 * random.standard_normal((inputs, self.dimensions)) / np.sqrt(inputs),
            "level": np.full(self.dimensions, 0.5413),
            "abilities": start + logits[:, np.newaxis] / self.dimensions,
            "difficulty": np.zeros(inputs),
            "every": np.zeros(1),
        }

    def logits(self, weights: dict[str, Floats], inputs: Floats) -> tuple[Floats, Any]:
        raw = inputs @ weights["asks"] + weights["level"]
        asked = np.logaddexp(0, raw)
        difficulty = inputs @ weights["difficulty"] + weights["every"]
        return asked @ weights["abilities"].T - difficulty[:, np.newaxis], (raw, asked)

    def gradients(self, weights: dict[str, Floats], inputs: Floats, kept: Any, of: Floats) -> dict[str, Floats]:
        raw, asked = kept
        of_raw = (of @ weights["abilities"]) * _sigmoid(raw)
        of_rows = of.sum(axis=1)
        return {
            "asks": inputs.T @ of_raw,
            "level": of_raw.sum(axis=0),
            "abilities": of.T @ asked,
            "difficulty": -(inputs.T @ of_rows),
            "every": -of_rows.sum(keepdims=True),
        }


class _Adam:
    """Adam with decoupled weight decay; it changes the weights in place."""

    def __init__(self, weights: dict[str, Floats], rate: float) -> None:
        self.weights, self.rate, self.count = weights, rate, 0
        self.first = {name: np.zeros_like(one) for name, one in weights.items()}
        self.second = {name: np.zeros_like(one) for name, one in weights.items()}

    def step(self, gradients: dict[str, Floats], decay: float) -> None:
        self.count += 1
        for name, gradient in gradients.items():
            self.first[name] += 0.1 * (gradient - self.first[name])
            self.second[name] += 0.001 * (gradient**2 - self.second[name])
            first = self.first[name] / (1 - 0.9**self.count)
            second = self.second[name] / (1 - 0.999**self.count)
            self.weights[name] *= 1 - self.rate * decay
            self.weights[name] -= self.rate * first / (np.sqrt(second) + 1e-8)


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 0.5 * (1 + np.tanh(0.5 * values))
    return found
