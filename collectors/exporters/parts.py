"""Train, val and test items for formats whose project states no rule of its own.

Knows no format. RouterEval's own split is collectors.metrics.splits'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collectors.exporters.grid import Grid
from collectors.metrics.splits import routereval_split

PARTS = ("train", "val", "test")


def parts_apart(grids: Sequence[Grid]) -> tuple[dict[str, list[int]], list[str]]:
    """Part -> numbers of its items, counted over all grids, in order; and a line for the user on items that were moved.

    8:1:1 of each task, shuffled with a seed of its own, so that a further task moves no item. A prompt that stands
    several times, in one task or in two, goes where its first place does: no two parts share one.
    """
    part_of = _parts(grids)
    first: dict[str, str] = {}
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    moved = 0
    prompts = [prompt for grid in grids for prompt in grid.prompts]
    for number, (prompt, drawn) in enumerate(zip(prompts, part_of, strict=True)):
        part = first.setdefault(prompt, drawn)
        moved += part != drawn
        parts[part].append(number)
    return parts, [f"{moved:,} items with the text of an earlier one stand in its part"] if moved else []


def _parts(grids: Sequence[Grid]) -> list[str]:
    """The part of each item."""
    of_all: list[str] = []
    for grid in grids:
        of_task = np.empty(len(grid.items), object)
        for part, places in zip(PARTS, routereval_split([len(grid.items)]), strict=True):
            of_task[places] = part
        of_all += of_task.tolist()
    return of_all
