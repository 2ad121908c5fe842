"""The benchmark data that vLLM's semantic router trains its model selection on: a JSON line for each query and model.

Its loader (src/training/model_selection/ml_model_selection/data_loader.py at 14fb3e8) takes a missing `response_time`
for 0 s and a missing `performance` for 0, so a line has both, or with Options.accuracy_only no time in any line. It
knows 14 categories, and takes any other one for "other".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import check_names, references, write_lines

#: Categories of its loader. A subject is one of them to the letter, or "other".
_CATEGORIES = frozenset(
    (
        *("math", "physics", "chemistry", "biology", "computer science", "history", "economics", "business", "law"),
        *("health", "psychology", "philosophy"),
    )
)


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """One file of all tasks. A query that several tasks have stands once for each."""
    check_names("task", [grid.task for grid in grids if _is_out_of_range(grid)], lambda _: "has scores outside 0 to 1")
    write_lines(path, (line for grid in grids for line in _lines(grid, options)))
    other = sum(_category(item) == "other" for grid in grids for item in grid.items)
    return [f"{other:,} questions have a subject that is none of its categories: theirs is other"] if other else []


def _is_out_of_range(grid: Grid) -> bool:
    return bool((grid.scores < 0).any() or (grid.scores > 1).any())


def _lines(grid: Grid, options: Options) -> Iterator[dict[str, Any]]:
    for row, item in enumerate(grid.items):
        right = references(item["target"])
        query = {
            "task_name": grid.task,
            "query": item["prompt"],
            "category": _category(item),
            "ground_truth": right[0] if len(right) == 1 else right or None,
            "metric": grid.metric,
        }
        for column, model in enumerate(grid.models):
            texts = grid.responses[row, column]
            line = {
                **query,
                "model_name": model,
                "response": "\n".join(texts or ()),
                "performance": float(grid.scores[row, column]),
            }
            if not options.accuracy_only:
                line["response_time"] = float(grid.numbers["latency_s"][row, column])
            yield line


def _category(item: dict[str, Any]) -> str:
    subject = str(item["subject"] or "").replace("_", " ").strip().lower()
    return subject if subject in _CATEGORIES else "other"
