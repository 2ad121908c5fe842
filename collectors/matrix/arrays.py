"""The arrays of a matrix: all cells block by block, as published versions pack them.

Owns the form in memory. Knows nothing of the origin of the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Arrays:
    """All arrays are (rows, columns); shape (0, 0) where they are not asked for."""

    #: float32 or float64, the primary metric's value; NaN where `valid` is false.
    scores: npt.NDArray[np.floating[Any]]
    #: True if the model answered and the answer has a score. False if it was not collected, unanswered or failed, which
    #: does not mean wrong.
    valid: npt.NDArray[np.bool_]
    #: int32 tokens; -1 if unknown. An answer without a score may have tokens although it is not valid.
    prompt_tokens: npt.NDArray[np.int32]
    completion_tokens: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Blocks(Arrays):
    """Axis 0 is items, block after block; axis 1 is models. The scores are float32."""

    #: One row for each item: BLOCK_KEY and `item`, its position in the task's table of items.
    items: pa.Table
    #: One row for each model: COLUMN_KEY.
    models: pa.Table


def empty_arrays(
    rows: int, columns: int, *, tokens: bool = True, valid: bool = True, scores: type[np.floating[Any]] = np.float32
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of undefined values, for a caller that sets every element: the fields of Arrays."""
    counts = (rows, columns) if tokens else (0, 0)
    return {
        "scores": np.empty((rows, columns), scores),
        "valid": np.empty((rows, columns) if valid else (0, 0), np.bool_),
        "prompt_tokens": np.empty(counts, np.int32),
        "completion_tokens": np.empty(counts, np.int32),
    }
