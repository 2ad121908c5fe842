"""A low-rank picture of how items go together: what one answer teaches about all others.

Owns the estimate of the items' covariance, as loadings and a rest that is each item's own, from models of which some
lack answers. Knows no lake, no tasks and no bands. Scores lie between 0 and 1; NaN is an answer that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Answers = npt.NDArray[np.floating]

#: Components of the covariance. Beyond a few thousand items more of them cost minutes and gain nothing.
RANK, RANK_OF_MANY, MANY = 300, 128, 4_000
#: Added to each item's own variance. Of 1,001 models × 1,075 items .02 to .1 forecast equally well.
NOISE = 0.05
#: A model that lacks fewer answers than this leaves counts as complete: some requests fail in every lake.
WHOLE = 0.98
#: A model with fewer of the answers than this teaches nothing about the others.
FEWEST_ANSWERS = 0.3


@dataclass(frozen=True)
class Factors:
    """Items as `mean` + `loadings` · z + own noise, where z is a model's standard normal vector."""

    #: (items,)
    mean: Floats
    #: (items, rank)
    loadings: Floats
    #: (items,): variance that no other item explains, at least NOISE.
    noise: Floats


def fit_factors(answers: Answers, *, rounds: int = 2, seed: int = 0) -> Factors:
    """The factors of models × items. Missing answers are filled by the factors of the round before.

    Raises ValueError if no model has an answer.
    """
    given = np.asarray(answers, np.float32)
    share = 1 - np.isnan(given).mean(axis=1)
    is_kept = share >= FEWEST_ANSWERS if (share >= FEWEST_ANSWERS).any() else share > 0
    if not is_kept.any():
        raise ValueError("no model has an answer")
    if share.min() == 1:
        return _factors(given, seed)
    kept, whole = given[is_kept], given[share == 1]
    if not np.isnan(kept).any():
        return _factors(kept, seed)
    factors = _factors(whole if len(whole) >= len(kept) // 4 + 2 else _mean_filled(kept), seed)
    for _ in range(rounds):
        factors = _factors(complete(factors, kept), seed)
    return factors


def complete(factors: Factors, answers: Answers) -> Floats:
    """The answers with each missing one replaced by its expected value, between 0 and 1, given the model's others."""
    filled = np.array(answers, np.float32)
    for rows, asked in patterns(filled):
        if len(asked) == filled.shape[1]:
            continue
        seen = filled[np.ix_(rows, asked)]
        expected = np.clip(factors.mean + latent(factors, seen, asked) @ factors.loadings.T, 0, 1)
        expected[:, asked] = seen
        filled[rows] = expected
    return filled


def latent(factors: Factors, seen: Answers, asked: Places) -> Floats:
    """(models, rank): the expected z of models whose answers to the items `asked` are `seen`."""
    loadings = factors.loadings[asked]
    scaled = loadings.T / factors.noise[asked]
    precision = np.eye(loadings.shape[1], dtype=np.float32) + scaled @ loadings
    expected: Floats = np.linalg.solve(precision, scaled @ (seen - factors.mean[asked]).T).T
    return expected


def patterns(answers: Answers) -> Iterator[tuple[Places, Places]]:
    """(rows, items) of the models that have answers to the same items, in the order of their first models."""
    rows: dict[bytes, list[int]] = {}
    for row, seen in enumerate(~np.isnan(answers)):
        rows.setdefault(np.packbits(seen).tobytes(), []).append(row)
    for same in rows.values():
        yield np.array(same), np.flatnonzero(~np.isnan(answers[same[0]]))


def complete_models(answers: Answers) -> npt.NDArray[np.bool_]:
    """(models,): whether a model has answers to WHOLE of the items that anybody has answered."""
    seen = ~np.isnan(answers)
    open_items = seen.any(axis=0)
    if not open_items.any():
        return np.zeros(len(answers), np.bool_)
    return np.asarray(seen[:, open_items].mean(axis=1) >= WHOLE, np.bool_)


def _factors(answers: Floats, seed: int) -> Factors:
    models, items = answers.shape
    mean = answers.mean(axis=0)
    centred = answers - mean
    rank = min(models, items, RANK if items <= MANY else RANK_OF_MANY)
    loadings = _components(centred, rank, seed) / np.float32(np.sqrt(models))
    own = np.maximum(centred.var(axis=0) - np.square(loadings).sum(axis=1), 0) + np.float32(NOISE)
    return Factors(mean, loadings, own.astype(np.float32))


def _components(centred: Floats, rank: int, seed: int) -> Floats:
    """(items, rank): right singular vectors times singular values.

    Of large arrays by a random range finder with two power steps: Halko, Martinsson, Tropp, SIAM Review 53 (2011) 217,
    algorithms 4.4 and 5.1. Of 1,001 × 1,075 an exact one takes .3 s.
    """
    if min(centred.shape) <= 4 * rank:
        _, values, right = np.linalg.svd(centred, full_matrices=False)
        return np.ascontiguousarray((right[:rank].T * values[:rank]).astype(np.float32))
    drawn = np.random.default_rng(seed).standard_normal((centred.shape[1], rank + 10)).astype(np.float32)
    basis = np.linalg.qr(centred @ drawn)[0]
    for _ in range(2):
        basis = np.linalg.qr(centred @ np.linalg.qr(centred.T @ basis)[0])[0]
    _, values, right = np.linalg.svd(basis.T @ centred, full_matrices=False)
    return np.ascontiguousarray((right[:rank].T * values[:rank]).astype(np.float32))


def _mean_filled(answers: Floats) -> Floats:
    """Missing answers as the item's mean, shifted by how much better the model is than those on its other items."""
    seen = ~np.isnan(answers)
    counts = seen.sum(axis=0)
    mean = np.where(counts, np.where(seen, answers, 0).sum(axis=0) / np.maximum(counts, 1), np.float32(0.5))
    better = np.where(seen, answers - mean, 0).sum(axis=1, keepdims=True) / seen.sum(axis=1, keepdims=True)
    return np.where(seen, answers, np.clip(mean + better, 0, 1)).astype(np.float32)
