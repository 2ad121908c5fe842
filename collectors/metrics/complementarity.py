"""For each pair of models: how often both are right, only one of them, or neither.

Knows neither costs nor routers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import Floats, row_blocks

#: Models to pair with all others in one product.
MODELS_AT_ONCE = 512

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Complementarity:
    """Counts of items, each (models, models). A pair is counted on the items with a score from both models."""

    both: Counts
    #: Row: the model that is right; column: the one that is wrong.
    only_row: Counts
    #: Items with a score from both models.
    scored: Counts
    #: All items of the matrix.
    items: int

    @property
    def only_column(self) -> Counts:
        """Row: the model that is wrong; column: the one that is right. A view of `only_row`."""
        return self.only_row.T

    @property
    def neither(self) -> Counts:
        """Items that both models have a score for and neither answers right."""
        return self.scored - self.both - self.only_row - self.only_column

    @property
    def left_out(self) -> Counts:
        """Items without a score from one model of the pair, or from both."""
        return self.items - self.scored


def complementarity(scores: Floats, threshold: float = 1.0) -> Complementarity:
    """Counts over all pairs of models in `scores` (items, models); a score of at least `threshold` is right.

    The counts are products of 0/1 matrices, block by block. Beside the scores and the three results (12 bytes per pair)
    memory does not grow with the items. Sums within a block stay below 2**24, so float32 counts exactly. Raises
    ValueError unless `scores` has two dimensions.
    """
    if scores.ndim != 2:
        raise ValueError(f"expected scores of shape (items, models), got {scores.shape}")
    items, models = scores.shape
    both, only_row, scored = (np.zeros((models, models), np.int32) for _ in range(3))
    for rows in row_blocks(scores.shape):
        right = (scores[rows] >= threshold).astype(np.float32)
        has_score = ~np.isnan(scores[rows])
        has_gaps = not has_score.all()
        asked = has_score.astype(np.float32)
        for first in range(0, models, MODELS_AT_ONCE):
            some = slice(first, first + MODELS_AT_ONCE)
            block_both = right[:, some].T @ right
            both[some] += block_both.astype(np.int32)
            # Without gaps the other two products, 2/3 of the time, follow from the counts of right answers.
            right_and_asked = right[:, some].T @ asked if has_gaps else right[:, some].sum(axis=0)[:, np.newaxis]
            only_row[some] += (right_and_asked - block_both).astype(np.int32)
            scored[some] += (asked[:, some].T @ asked).astype(np.int32) if has_gaps else len(right)
    return Complementarity(both, only_row, scored, items)
