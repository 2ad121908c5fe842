"""Forecasts for models without a single answer, from their relatives and size.

Owns the rule and the errors that its bands are made of. Knows no kernel. Such a forecast is rough, as its bands say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collectors.forecasts.families import stem
from collectors.forecasts.smoothing import Reals

#: A relative's mean counts as this many means by size.
WEIGHT_OF_RELATIVES = 2.0


def place_by_metadata(
    means: Reals,
    names: Sequence[str],
    bases: Sequence[str | None],
    parameters: Reals,
    new: Sequence[tuple[str, str | None, float]],
) -> tuple[Reals, Reals]:
    """(new, goals) of expected means; and (learned, goals) of true minus expected, had each learned model been new.

    `means` (learned, goals) are those of complete models, with their names, base models and parameters (NaN: unknown).
    `new` are name, base model and parameters.
    """
    learned = list(zip(names, bases, parameters.tolist(), strict=True))
    values = np.array([_place(means, learned, one, None) for one in new]).reshape(len(new), means.shape[1])
    errors = np.array([means[row] - _place(means, learned, one, row) for row, one in enumerate(learned)])
    return values, errors.reshape(means.shape)


def _place(
    means: Reals,
    learned: Sequence[tuple[str, str | None, float]],
    new: tuple[str, str | None, float],
    left_out: int | None,
) -> Reals:
    others = [row for row in range(len(learned)) if row != left_out]
    if not others:
        return np.full(means.shape[1], 0.5)
    by_size = _by_size(means[others], np.array([learned[row][2] for row in others]), new[2])
    relatives = [row for row in others if _are_related(learned[row], new)]
    if not relatives:
        return by_size
    weight = WEIGHT_OF_RELATIVES * len(relatives)
    placed: Reals = (weight * means[relatives].mean(axis=0) + by_size) / (weight + 1)
    return placed


def _by_size(means: Reals, parameters: Reals, size: float) -> Reals:
    """A line over the logarithm of the parameters; the mean where sizes are unknown."""
    has_size = ~np.isnan(parameters) & (parameters > 0)
    if np.isnan(size) or size <= 0 or len(set(parameters[has_size].tolist())) < 3:
        return np.asarray(means.mean(axis=0), np.float64)
    logs = np.log(parameters[has_size])
    at = np.clip(np.log(size), logs.min(), logs.max())
    design = np.stack([np.ones_like(logs), logs], axis=1)
    line = np.linalg.lstsq(design, means[has_size], rcond=None)[0]
    return np.asarray(np.clip(line[0] + line[1] * at, 0, 1), np.float64)


def _are_related(one: tuple[str, str | None, float], other: tuple[str, str | None, float]) -> bool:
    if stem(one[0]) == stem(other[0]):
        return True
    of_one = {name.lower() for name in (one[0], one[1]) if name}
    of_other = {name.lower() for name in (other[0], other[1]) if name}
    return bool(of_one & of_other)
