"""For each pair of models: how often both are right, only one of them, or neither.

Knows neither costs nor routers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.known import Floats, row_blocks

#: Models whose pairs with all models are counted at a time.
MODELS_AT_ONCE = 512

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Complementarity:
    """Counts of items, each (models, models); a pair is counted on the items of which both scores are known."""

    both: Counts
    #: Row: the model that is right; column: the one that is wrong.
    only_row: Counts
    #: Items of which both scores are known.
    known: Counts
    #: Items of the matrix, whether a pair knows them or not.
    items: int

    @property
    def only_column(self) -> Counts:
        """Row: the model that is wrong; column: the one that is right. A view of `only_row`."""
        return self.only_row.T

    @property
    def neither(self) -> Counts:
        return self.known - self.both - self.only_row - self.only_column

    @property
    def left_out(self) -> Counts:
        """Items of which a pair's scores are not both known."""
        return self.items - self.known


def complementarity(scores: Floats, threshold: float = 1.0) -> Complementarity:
    """Counts over all pairs of the models of `scores` (items, models); right is a score of at least `threshold`.

    By products of 0/1 matrices, block by block: beside the three counts (12 bytes per pair) and the scores, memory is
    bounded whatever the number of items. Sums within a block stay below 2**24, where float32 still counts exactly.
    """
    if scores.ndim != 2:
        raise ValueError(f"expected scores of shape (items, models), got {scores.shape}")
    items, models = scores.shape
    both, only_row, known = (np.zeros((models, models), np.int32) for _ in range(3))
    for rows in row_blocks(scores.shape):
        right = (scores[rows] >= threshold).astype(np.float32)
        has_score = ~np.isnan(scores[rows])
        has_gaps = not has_score.all()
        asked = has_score.astype(np.float32)
        for first in range(0, models, MODELS_AT_ONCE):
            some = slice(first, first + MODELS_AT_ONCE)
            block_both = right[:, some].T @ right
            both[some] += block_both.astype(np.int32)
            # Without gaps the two other products, of 2/3 of the time, are known beforehand.
            right_and_asked = right[:, some].T @ asked if has_gaps else right[:, some].sum(axis=0)[:, np.newaxis]
            only_row[some] += (right_and_asked - block_both).astype(np.int32)
            known[some] += (asked[:, some].T @ asked).astype(np.int32) if has_gaps else len(right)
    return Complementarity(both, only_row, known, items)
