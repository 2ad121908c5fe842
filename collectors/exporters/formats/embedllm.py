"""Files of EmbedLLM (richardzhuang0412/EmbedLLM): a row a verdict, split into train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import check_names, write_csv, wrong_pandas_name, wrong_pandas_text
from collectors.metrics.splits import routereval_split
from schemas.failures import ConfigError

SPLITS = ("train", "val", "test")


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """train, val and test.csv, a row a verdict; question_order.csv and model_order.csv, which number both.

    The split is RouterEval's 8:1:1 of each task: EmbedLLM states no rule for its own.
    """
    models = grids[0].models
    odd = [grid.task for grid in grids if not np.isin(grid.scores, (0, 1)).all()]
    check_names("task", odd, lambda _: "has scores that are neither 0 nor 1")
    check_names("model", models, wrong_pandas_name)
    check_names("task", [grid.task for grid in grids], wrong_pandas_name)
    items = [(grid, place) for grid in grids for place in range(len(grid.items))]
    wrong = [f"item {grid.items[place]['item']} of {grid.task}" for grid, place in items if _wrong_prompt(grid, place)]
    if wrong:
        raise ConfigError(
            f"pandas would not read the text of {len(wrong):,} items as it is, such as {wrong[0]}: leave the task out "
            "by --tasks"
        )
    path.mkdir()
    prompts = [grid.items[place]["prompt"] for grid, place in items]
    write_csv(path / "question_order.csv", {"prompt_id": range(len(prompts)), "prompt": prompts})
    write_csv(path / "model_order.csv", {"model_id": range(len(models)), "model_name": models})
    for split, chosen in _split(grids).items():
        write_csv(path / f"{split}.csv", _rows(grids, items, chosen))
    return ["train, val and test are 8:1:1 of each task, shuffled with the seed 42"]


def _wrong_prompt(grid: Grid, place: int) -> bool:
    return wrong_pandas_text(grid.items[place]["prompt"]) is not None


def _split(grids: Sequence[Grid]) -> dict[str, list[int]]:
    """Split -> numbers of its prompts, in order."""
    chosen: dict[str, list[int]] = {split: [] for split in SPLITS}
    first = 0
    for grid in grids:
        for split, places in zip(SPLITS, routereval_split([len(grid.items)]), strict=True):
            chosen[split] += (np.sort(places) + first).tolist()
        first += len(grid.items)
    return chosen


def _rows(grids: Sequence[Grid], items: Sequence[tuple[Grid, int]], chosen: Sequence[int]) -> dict[str, list[Any]]:
    models, categories = grids[0].models, {grid.task: number for number, grid in enumerate(grids)}
    pairs = [(number, column) for number in chosen for column in range(len(models))]
    of = [items[number] for number, _ in pairs]
    return {
        "prompt_id": [number for number, _ in pairs],
        "model_id": [column for _, column in pairs],
        "category_id": [categories[grid.task] for grid, _ in of],
        "label": [int(grid.scores[place, column]) for (grid, place), (_, column) in zip(of, pairs, strict=True)],
        "model_name": [models[column] for _, column in pairs],
        "category": [grid.task for grid, _ in of],
        "prompt": [grid.items[place]["prompt"] for grid, place in of],
    }
