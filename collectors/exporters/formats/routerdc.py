"""Files of RouterDC (shuhao02/RouterDC): one JSON a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collectors.exporters.grid import Grid, Options
from collectors.exporters.out import write_json
from collectors.exporters.texts import check_names, wrong_path_part


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """<task>.json: a list of {question, scores: {model: score in [0, 1]}}."""
    check_names("task", [grid.task for grid in grids], wrong_path_part)
    check_names("task", [grid.task for grid in grids if _outside(grid)], lambda _: "has scores outside 0 to 1")
    path.mkdir()
    for grid in grids:
        rows = [
            {"question": item["prompt"], "scores": dict(zip(grid.models, map(float, scores), strict=True))}
            for item, scores in zip(grid.items, grid.scores, strict=True)
        ]
        write_json(path / f"{grid.task}.json", rows)
    return []


def _outside(grid: Grid) -> bool:
    return bool(((grid.scores < 0) | (grid.scores > 1)).any())
