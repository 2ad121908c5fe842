"""Models ranked on the questions of a board: those that were sent, beside the version's own candidates.

Owns the rows and their figures; ties are those of a routers' board (collectors.metrics.resampling). A model that lacks
a score on a test question is shown without a rank: the mean of the rest is of other questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collectors.metrics.resampling import Resampled, ranks, resample
from collectors.routers.contract import means_of
from collectors.routers.outcomes import rounded

if TYPE_CHECKING:
    from collectors.routers.checking import Basis, Examined

Values = npt.NDArray[np.float64]

#: Most candidates of the version beside the models that were sent: each is compared with each.
_MOST_OWN = 500


@dataclass(frozen=True)
class Ranking:
    """The rows of a board of models by rank, then score; those without a rank come last."""

    rows: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class _Model:
    """A model on the test questions: arrays (test questions,), NaN where unknown."""

    name: str
    model: str
    scores: Values
    usd: Values
    tokens: Values
    found: Examined | None = None


def rank_models(basis: Basis, sent: Mapping[str, Examined]) -> Ranking:
    """The board of these models, by the names of their submissions."""
    own, left_out = _own(basis)
    models = sorted([*own, *(_sent(name, one, basis) for name, one in sent.items())], key=lambda one: one.name)
    found = resample(_spread(models, basis), basis.questions.groups)
    low, high = found.interval()  # NaN where a resample holds no answer of a model
    whole = [at for at, one in enumerate(models) if not np.isnan(one.scores).any()]
    of_whole = ranks(Resampled(found.figures[whole], found.draws[:, whole]))
    place = {models[at].name: rank for at, rank in zip(whole, of_whole, strict=True)}
    rows = [_row(one, place.get(one.name), low[at], high[at]) for at, one in enumerate(models)]
    rows.sort(key=lambda row: (row["rank"] is None, row["rank"] or 0, -row["score"], row["name"]))
    notes = [f"{left_out:,} candidates of the version with lower scores are not shown"] if left_out else []
    return Ranking(rows, notes)


def _own(basis: Basis) -> tuple[list[_Model], int]:
    """The version's best candidates, and how many others it has."""
    pool, test = basis.questions.pool, basis.fold.test
    means = means_of(pool.scores[test])
    best = np.argsort(-np.where(np.isnan(means), -np.inf, means), kind="stable")[:_MOST_OWN]
    names = dict(zip(pool.cells["candidate"].to_pylist(), pool.cells["model"].to_pylist(), strict=True))
    usd, tokens = pool.number("usd"), pool.number("completion_tokens")
    models = [
        _Model(
            pool.candidates[column],
            names[pool.candidates[column]],
            pool.scores[test, column].astype(np.float64),
            usd[test, column],
            tokens[test, column],
        )
        for column in best.tolist()
        if not np.isnan(means[column])
    ]
    return models, len(pool.candidates) - len(models)


def _sent(name: str, found: Examined, basis: Basis) -> _Model:
    assert found.sent is not None
    test, model = basis.fold.test, found.submission.model or name
    tokens = found.sent.records.numbers["completion_tokens"]
    return _Model(name, model, found.sent.scores[test], found.sent.usd[test], tokens[test], found)


def _spread(models: Sequence[_Model], basis: Basis) -> Values:
    """(models, 1, questions): scores, NaN but for the test questions."""
    spread = np.full((len(models), 1, len(basis.questions.ids)), np.nan)
    for place, one in enumerate(models):
        spread[place, 0, basis.fold.test] = one.scores
    return spread


def _row(one: _Model, place: int | None, low: float, high: float) -> dict[str, Any]:
    has = ~np.isnan(one.scores)
    usd, tokens, scores = one.usd[has], one.tokens[has], one.scores[has]
    is_known = bool((scores != scores[0]).any())  # resamples of equal scores show no interval
    row: dict[str, Any] = {
        "rank": place,
        "name": one.name,
        "model": one.model,
        "sent": one.found is not None,
        "score": rounded(float(scores.mean())),
        "low": rounded(float(low)) if is_known else None,
        "high": rounded(float(high)) if is_known else None,
        "answered": int(has.sum()),
        "usd": None if np.isnan(usd).any() else rounded(float(usd.mean()), 15),
        "unpriced": int(np.isnan(usd).sum()),
        "completion_tokens": None if np.isnan(tokens).any() else rounded(float(tokens.mean())),
    }
    if one.found is None or one.found.sent is None:
        return row
    submission, sent = one.found.submission, one.found.sent
    return row | {
        "revision": submission.revision,
        "by": submission.by,
        "url": submission.url,
        "sha256": submission.sha256,
        "namesakes": sent.namesakes,
        "suspicions": [{"kind": kind, "line": line} for kind, line in sent.suspicions],
    }
