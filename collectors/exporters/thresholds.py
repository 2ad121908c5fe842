"""Which answers are right, for formats that hold nothing but right and wrong.

Knows no format. Verdicts 0 and 1 need no threshold; for graded scores the user states one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from collectors.exporters.grid import Grid
from schemas.failures import ConfigError


def is_graded(grid: Grid) -> bool:
    """Whether some score is neither 0 nor 1."""
    return not bool(np.isin(grid.scores, (0, 1)).all())


def right_answers(grid: Grid, threshold: float | None) -> npt.NDArray[np.bool_]:
    """(items, models): of a graded grid the scores from `threshold` on, else those of 1."""
    right: npt.NDArray[np.bool_] = grid.scores >= (threshold if threshold is not None and is_graded(grid) else 1)
    return right


def threshold_notes(grids: Sequence[Grid], threshold: float | None) -> list[str]:
    """A line for the user on the tasks that the threshold decided.

    Raises ConfigError where no score of them reaches it: it is of another scale.
    """
    scores = [grid.scores for grid in grids if is_graded(grid)]
    if scores and threshold is not None and (most := max(float(np.nanmax(one)) for one in scores)) < threshold:
        raise ConfigError(f"--threshold {threshold:g}: no graded score is so high; the highest is {most:g}")
    graded = [grid.task for grid in grids if is_graded(grid)]
    return [f"scores of {threshold} and more are right in {', '.join(graded)}"] if graded else []
