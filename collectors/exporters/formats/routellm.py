"""Tables that RouteLLM (lm-sys/RouteLLM) evaluates routers on: a row a prompt, and whether each model was right.

Owns the places that its benchmarks read, below its routellm/evals. Any two of the models can be its pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import (
    check_names,
    guard_notes,
    write_csv,
    wrong_pandas_name,
    wrong_pandas_text,
    wrong_path_part,
)
from collectors.exporters.thresholds import is_graded, right_answers, threshold_notes
from schemas.failures import ConfigError

GSM8K, MMLU = "gsm8k", "mmlu_"


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """mmlu/responses/mmlu_<subject>.csv, gsm8k/gsm8k_responses.csv, and other tasks as the latter."""
    models = grids[0].models
    if options.threshold is None:
        graded = [grid.task for grid in grids if is_graded(grid)]
        check_names(
            "task", graded, lambda _: "has scores that are neither 0 nor 1: --threshold X counts X and more as right"
        )
    check_names("task", [grid.task for grid in grids], wrong_path_part)
    check_names("model", models, lambda model: wrong_pandas_name(model) or _taken(model, models))
    odd = [f"item {item['item']} of {grid.task}" for grid in grids for item in grid.items if _is_odd(item)]
    if odd:
        raise ConfigError(f"pandas would not read the text of {len(odd):,} items as it is, such as {odd[0]}")
    for grid in grids:
        place = path / place_of(grid.task)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_csv(place, _columns(grid, options.threshold, texts=not grid.task.startswith(MMLU)))
    others = [grid.task for grid in grids if grid.task != GSM8K and not grid.task.startswith(MMLU)]
    notes = (
        [f"its benchmarks read mmlu and gsm8k alone; {len(others):,} other tasks are laid as gsm8k"] if others else []
    )
    return notes + threshold_notes(grids, options.threshold) + guard_notes(models)


def place_of(task: str) -> str:
    return f"mmlu/responses/{task}.csv" if task.startswith(MMLU) else f"{task}/{task}_responses.csv"


def _taken(model: str, models: Sequence[str]) -> str | None:
    return (
        "is a column's name" if model == "prompt" or model.removesuffix("_response") in set(models) - {model} else None
    )


def _is_odd(item: dict[str, Any]) -> bool:
    return wrong_pandas_text(item["prompt"]) is not None


def _columns(grid: Grid, threshold: float | None, *, texts: bool) -> dict[str, list[Any]]:
    """prompt, and of each model whether it was right; gsm8k's file has the answers, too."""
    right = right_answers(grid, threshold)
    columns: dict[str, list[Any]] = {"prompt": grid.prompts}
    columns |= {model: right[:, column].tolist() for column, model in enumerate(grid.models)}
    if texts:
        for column, model in enumerate(grid.models):
            columns[f"{model}_response"] = ["\n".join(of) if of is not None else "" for of in grid.responses[:, column]]
    return columns
