"""Which items a figure may rest on, and means that say how many items they left out.

Knows nothing of routers: arrays, gaps in them, and one chosen column per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
#: One model per item, as its column; NO_CHOICE where there is none.
Choices = npt.NDArray[np.integer[Any]]
NO_CHOICE = -1
#: Elements of a matrix that are worked on at a time.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Mean:
    value: float
    #: Items that the value rests on.
    items: int
    #: Items that lack what the value needs.
    left_out: int


def with_gaps(scores: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    """`scores` (items, models) with NaN wherever `valid`, of the same shape, is false."""
    if scores.shape != valid.shape:
        raise ValueError(f"scores have shape {scores.shape}, valid has {valid.shape}")
    return np.where(valid, scores, np.nan)


def complete_items(*matrices: Floats) -> npt.NDArray[np.bool_]:
    """(items,): whether every element of the row is known in all of `matrices`, each (items, models)."""
    shapes = {matrix.shape for matrix in matrices}
    if len(shapes) != 1 or matrices[0].ndim != 2 or not matrices[0].shape[1]:
        raise ValueError(f"expected arrays of one shape (items, models), got {', '.join(map(str, sorted(shapes)))}")
    known = np.ones(len(matrices[0]), np.bool_)
    for matrix in matrices:
        for rows in row_blocks(matrix.shape):
            known[rows] &= ~np.isnan(matrix[rows]).any(axis=1)
    return known


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Runs of rows of about BLOCK elements each."""
    size = max(1, BLOCK // max(1, shape[1]))
    return (slice(first, first + size) for first in range(0, shape[0], size))


def picked(choices: Choices, values: Floats) -> npt.NDArray[np.float64]:
    """(items,): from each row of `values` (items, models) the chosen one; NaN where nothing is chosen.

    Raises ValueError for choices of another length, not whole numbers, or of a model that is not there.
    """
    count, models = values.shape
    if choices.shape != (count,) or not np.issubdtype(choices.dtype, np.integer):
        raise ValueError(
            f"choices are {choices.dtype} of shape {choices.shape}, not one model's column per {count} items"
        )
    if count and (choices.min() < NO_CHOICE or choices.max() >= models):
        raise ValueError(f"choices go from {choices.min()} to {choices.max()}, models from 0 to {models - 1}")
    found: npt.NDArray[np.float64] = values[np.arange(count), choices].astype(np.float64)
    found[choices == NO_CHOICE] = np.nan
    return found


def mean_known(values: Floats) -> Mean:
    """The mean of what is known of `values` (items,). Raises ValueError when nothing is."""
    known = ~np.isnan(values)
    items = int(known.sum())
    if not items:
        raise ValueError(f"no item of {len(values)} has everything that is needed")
    return Mean(float(values[known].mean(dtype=np.float64)), items, len(values) - items)


def mean_of_chosen(choices: Choices, values: Floats) -> Mean:
    """μ, the mean of what was chosen: of `values` (items, models), scores or costs, over the items where it is known.

    An item without a choice, or whose chosen element is NaN, is left out. Raises ValueError as `picked` does, and when
    no item is left. Source: RouterEval (MilkThink-Lab/RouterEval), the mean test score of the chosen models.
    """
    return mean_known(picked(choices, values))
