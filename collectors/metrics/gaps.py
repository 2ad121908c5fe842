"""Arrays with unknown values: complete items, chosen values, and means that count the items they left out.

Knows nothing of routers: a choice is one column per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.metrics.sums import mean

Floats = npt.NDArray[np.floating[Any]]
#: (items,): the column of the chosen model, or NO_CHOICE.
Choices = npt.NDArray[np.integer[Any]]
NO_CHOICE = -1
#: Elements of a matrix in one block: 4 Mi, to bound the memory beside it.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Mean:
    """A mean over the items with all the inputs that it needs."""

    value: float
    #: Items in the mean.
    items: int
    #: Items with an unknown input.
    left_out: int


def with_gaps(scores: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    """`scores` (items, models) with NaN wherever `valid`, of the same shape, is false. Raises ValueError otherwise."""
    if scores.shape != valid.shape:
        raise ValueError(f"scores have shape {scores.shape}, valid has {valid.shape}")
    return np.where(valid, scores, np.nan)


def complete_items(*matrices: Floats) -> npt.NDArray[np.bool_]:
    """(items,): True for rows without a NaN in any of `matrices`, each (items, models).

    Raises ValueError if the shapes differ, are not of two dimensions, or have no models.
    """
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) != 1 or matrices[0].ndim != 2 or not matrices[0].shape[1]:
        raise ValueError(f"expected arrays of one shape (items, models), got {', '.join(map(str, sorted(shapes)))}")
    complete = np.ones(len(matrices[0]), np.bool_)
    for matrix in matrices:
        for rows in row_blocks(matrix.shape):
            complete[rows] &= ~np.isnan(matrix[rows]).any(axis=1)
    return complete


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows with about BLOCK elements each, over a matrix of this shape."""
    size = max(1, BLOCK // max(1, shape[1]))
    return (slice(first, first + size) for first in range(0, shape[0], size))


def picked(choices: Choices, values: Floats) -> npt.NDArray[np.float64]:
    """(items,): the chosen value of each row of `values` (items, models); NaN for NO_CHOICE.

    Raises ValueError if `choices` have another length, are not integers, or lie outside the columns.
    """
    count, models = values.shape
    if choices.shape != (count,) or not np.issubdtype(choices.dtype, np.integer):
        raise ValueError(
            f"choices are {choices.dtype} of shape {choices.shape}, not one model's column per {count} items"
        )
    if count and (choices.min() < NO_CHOICE or choices.max() >= models):
        raise ValueError(f"choices go from {choices.min()} to {choices.max()}, models from 0 to {models - 1}")
    chosen: npt.NDArray[np.float64] = values[np.arange(count), choices].astype(np.float64)
    chosen[choices == NO_CHOICE] = np.nan
    return chosen


def mean_known(values: Floats) -> Mean:
    """The mean of `values` (items,) without NaN. Raises ValueError if all of them are NaN."""
    is_number = ~np.isnan(values)
    items = int(is_number.sum())
    if not items:
        raise ValueError(f"no item of {len(values)} has everything that is needed")
    return Mean(mean(values[is_number]), items, len(values) - items)


def mean_of_chosen(choices: Choices, values: Floats) -> Mean:
    """μ, the mean of the chosen scores or costs in `values` (items, models).

    Items without a choice, or with NaN as the chosen value, are left out. Raises ValueError as `picked` does, and if no
    item is left. Source: RouterEval (MilkThink-Lab/RouterEval), the mean test score of the chosen models.
    """
    return mean_known(picked(choices, values))
