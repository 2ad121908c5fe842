"""Token counts by one tokenizer, as pipelines/tokens.py writes them, for answers whose own counts are unknown.

An engine's or a provider's own counts win. Knows no format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.exporters.grid import Grid
from schemas.failures import ConfigError, one_line

#: A number of the grid -> its column in the file.
_COLUMNS = {"prompt_tokens": "question_tokens", "completion_tokens": "response_tokens"}


def with_counts(grids: Sequence[Grid], path: Path) -> tuple[list[Grid], list[str]]:
    """The grids with counts of the file in place of unknown ones, and a line for the user. Raises ConfigError."""
    counts, tokenizers = _read(path)
    filled, total = [], 0
    for grid in grids:
        numbers = dict(grid.numbers)
        lacking = [
            (row, column)
            for column, cell in enumerate(grid.cells)
            if cell is not None
            for row in range(len(grid.items))
            if grid.asked[row, column] and (cell["cell_id"], int(grid.own_items[row, column])) in counts
        ]
        for place, name in enumerate(_COLUMNS):
            values = grid.numbers[name].copy()
            for row, column in lacking:
                cell = grid.cells[column] or {}
                count = counts[cell["cell_id"], int(grid.own_items[row, column])][place]
                if np.isnan(values[row, column]) and count is not None:
                    values[row, column] = count
                    total += 1
            numbers[name] = values
        filled.append(replace(grid, numbers=numbers))
    return filled, [f"{total:,} unknown token counts are those of {', '.join(tokenizers)}"] if total else []


def _read(path: Path) -> tuple[dict[tuple[str, int], tuple[int | None, ...]], list[str]]:
    names = ("cell_id", "item", "tokenizer", *_COLUMNS.values())
    try:
        table = pq.read_table(path, columns=list(names))
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"--tokens {path}: {one_line(error, 200)}") from error
    if lacking := [name for name in names if name not in table.column_names]:
        raise ConfigError(f"--tokens {path}: it lacks the column {lacking[0]}; pipelines/tokens.py writes such files")
    columns = [table[name].to_pylist() for name in names]
    counts = {(cell, item): tuple(of) for cell, item, _, *of in zip(*columns, strict=True)}
    return counts, sorted(set(columns[2]))
