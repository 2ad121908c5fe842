"""Files of EmbedLLM (richardzhuang0412/EmbedLLM): a row a verdict, split into train, val and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.exporters.grid import Grid, Options
from collectors.exporters.parts import parts_apart
from collectors.exporters.texts import check_names, guard_notes, write_csv, wrong_pandas_name, wrong_pandas_text
from collectors.exporters.thresholds import is_graded, right_answers, threshold_notes
from schemas.failures import ConfigError


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """train, val and test.csv, a row a verdict; question_order.csv and model_order.csv, which number both.

    The split is that of collectors.exporters.parts: EmbedLLM states no rule for its own. A graded score is right from
    options.threshold on.
    """
    models = grids[0].models
    if options.threshold is None:
        odd = [grid.task for grid in grids if is_graded(grid)]
        check_names(
            "task", odd, lambda _: "has scores that are neither 0 nor 1: --threshold X counts X and more as right"
        )
    check_names("model", models, wrong_pandas_name)
    check_names("task", [grid.task for grid in grids], wrong_pandas_name)
    items = [(grid, place) for grid in grids for place in range(len(grid.items))]
    wrong = [f"item {grid.items[place]['item']} of {grid.task}" for grid, place in items if _wrong_prompt(grid, place)]
    if wrong:
        raise ConfigError(
            f"pandas would not read the text of {len(wrong):,} items as it is, such as {wrong[0]}: leave the task out "
            "by --task"
        )
    path.mkdir()
    prompts = [grid.items[place]["prompt"] for grid, place in items]
    write_csv(path / "question_order.csv", {"prompt_id": range(len(prompts)), "prompt": prompts})
    write_csv(path / "model_order.csv", {"model_id": range(len(models)), "model_name": models}, _NAMES)
    parts, notes = parts_apart(grids)
    for split, numbers in parts.items():
        write_csv(path / f"{split}.csv", _rows(grids, items, numbers, options.threshold), _NAMES)
    return [
        "train, val and test are 8:1:1 of each task, shuffled with the seed 42",
        *notes,
        *threshold_notes(grids, options.threshold),
        *guard_notes([*models, *[grid.task for grid in grids]]),
    ]


_NAMES = ("model_name", "category")


def _wrong_prompt(grid: Grid, place: int) -> bool:
    return wrong_pandas_text(grid.items[place]["prompt"]) is not None


def _rows(
    grids: Sequence[Grid], items: Sequence[tuple[Grid, int]], chosen: Sequence[int], threshold: float | None
) -> dict[str, list[Any]]:
    models, categories = grids[0].models, {grid.task: number for number, grid in enumerate(grids)}
    pairs = [(number, column) for number in chosen for column in range(len(models))]
    of = [items[number] for number, _ in pairs]
    labels = {grid.task: right_answers(grid, threshold) for grid in grids}
    return {
        "prompt_id": [number for number, _ in pairs],
        "model_id": [column for _, column in pairs],
        "category_id": [categories[grid.task] for grid, _ in of],
        "label": [int(labels[grid.task][place, column]) for (grid, place), (_, column) in zip(of, pairs, strict=True)],
        "model_name": [models[column] for _, column in pairs],
        "category": [grid.task for grid, _ in of],
        "prompt": [grid.items[place]["prompt"] for grid, place in of],
    }
