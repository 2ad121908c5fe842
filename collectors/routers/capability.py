"""A router that knows a candidate by a text on its abilities, so that a new one needs few answers.

Owns the text: the share of 20 probe questions of each of 50 core tasks that the candidate answers rightly. Source:
Model-SAT (CIT-LLM-Routing). Differs: core tasks are clusters of the training questions, named by their most telling
words, where Model-SAT has the subjects of MMLU; and a logistic model weighs the shares by how near a question is to
each core task, where Model-SAT has a language model read the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collectors.routers.contract import BadChoice, Columns, Floats, Mask, Queries
from collectors.routers.estimating import Estimating, unit

#: How sharply nearness falls off, for each of the features.
_SHARPNESS = (2.0, 8.0, 32.0)
#: Answers that count as one of the candidate's mean, so that few probes move little.
_PRIOR = 2.0
#: Most pairs of question and candidate that the weights are fitted on.
_PAIRS = 60_000


class Capability(Estimating):
    """Weighs the shares of a candidate's capability text by the question."""

    def __init__(self, core: int = 50, probes: int = 20, seed: int = 0) -> None:
        self.core, self.probes, self.seed = core, probes, seed

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None:
        from sklearn.cluster import KMeans
        from sklearn.linear_model import LogisticRegression

        self.learn_means(scores, costs, valid)
        if self.means.min() < 0 or self.means.max() > 1:
            raise BadChoice("it learns probabilities, and some scores are beyond 0 to 1")
        vectors = unit(queries.vectors)
        count = min(self.core, len(np.unique(vectors, axis=0)))
        clusters = KMeans(n_clusters=count, random_state=self.seed, n_init=1).fit(vectors)
        self.centres = unit(clusters.cluster_centers_)
        probed = self._probes(clusters.labels_, scores, valid)
        self.shares = self._shares(clusters.labels_, probed, scores, valid)
        self.names = self._names(clusters.labels_, queries.texts, count)
        self.candidates = list(queries.candidates)
        rows, columns = np.nonzero(valid & ~probed[:, np.newaxis])
        if not len(rows):
            rows, columns = np.nonzero(valid)
        if len(rows) > _PAIRS:
            some = np.sort(np.random.default_rng(self.seed).permutation(len(rows))[:_PAIRS])
            rows, columns = rows[some], columns[some]
        targets = scores[rows, columns] >= 0.5
        self.model = None
        if targets.any() and not targets.all():
            features = self._features(vectors)[rows, columns]
            self.model = LogisticRegression(max_iter=300).fit(features, targets)

    def _probes(self, labels: Columns, scores: Floats, valid: Mask) -> Mask:
        """(questions,): the probe questions: of each core task those that about half of the candidates answer rightly.

        Questions that few candidates have answered come last, so that a new candidate's probes are among them.
        """
        share = np.divide(
            np.where(valid, scores, 0).sum(axis=1), valid.sum(axis=1), out=np.ones(len(scores)), where=valid.any(axis=1)
        )
        order = np.lexsort((np.abs(share - 0.5), -valid.sum(axis=1)))
        probed = np.zeros(len(scores), np.bool_)
        for cluster in range(int(labels.max()) + 1):
            probed[order[labels[order] == cluster][: self.probes]] = True
        return probed

    def _shares(self, labels: Columns, probed: Mask, scores: Floats, valid: Mask) -> Floats:
        """(core tasks, candidates): the share of right answers, drawn to the candidate's mean where there are few."""
        counted = valid & probed[:, np.newaxis]
        right = np.where(counted, scores, 0)
        tasks = int(labels.max()) + 1
        sums, counts = np.zeros((tasks, scores.shape[1])), np.zeros((tasks, scores.shape[1]))
        np.add.at(sums, labels, right)
        np.add.at(counts, labels, counted)
        probes = counted.sum(axis=0)
        mean = np.divide(right.sum(axis=0), probes, out=self.means.copy(), where=probes > 0)
        shares: Floats = (sums + _PRIOR * mean) / (counts + _PRIOR)
        return shares

    def _features(self, vectors: Floats) -> Floats:
        """(queries, candidates, features)"""
        near = vectors @ self.centres.T
        found = [np.broadcast_to(self.shares.mean(axis=0), (len(vectors), self.shares.shape[1]))]
        for sharpness in _SHARPNESS:
            weights = np.exp(sharpness * (near - near.max(axis=1, keepdims=True)))
            weights /= weights.sum(axis=1, keepdims=True)
            found.append(weights @ self.shares)
        # How hard the nearest core tasks are for all: equal for every candidate of a question.
        hardness = np.broadcast_to(found[2].mean(axis=1, keepdims=True), found[2].shape)
        return np.stack([*found, hardness], axis=2)

    def scores_of(self, queries: Queries) -> Floats:
        features = self._features(unit(queries.vectors))
        if self.model is None:
            return features[:, :, 0]
        flat = self.model.predict_proba(features.reshape(-1, features.shape[2]))[:, 1]
        found: Floats = flat.reshape(features.shape[:2])
        return found

    def text(self, candidate: str) -> str:
        """The capability text of a candidate, in Model-SAT's words."""
        column = self.candidates.index(candidate)
        parts = [
            f'accuracy {100 * share:.1f}% on the task of "{name}"'
            for name, share in zip(self.names, self.shares[:, column], strict=True)
        ]
        return f"The model achieves {', '.join(parts)}."

    def _names(self, labels: Columns, texts: Sequence[str], count: int) -> list[str]:
        """For each core task its five most telling words."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        joined = [
            " ".join(text for text, label in zip(texts, labels, strict=True) if label == one) for one in range(count)
        ]
        try:
            words = TfidfVectorizer(max_features=20_000, max_df=0.8 if count > 2 else 1.0).fit(joined)
        except ValueError:  # no word at all
            return [f"core task {one}" for one in range(count)]
        names = words.get_feature_names_out()
        best = np.argsort(-words.transform(joined).toarray(), axis=1, kind="stable")[:, :5]
        return [" ".join(names[row]) for row in best]
