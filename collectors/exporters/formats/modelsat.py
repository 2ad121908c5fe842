"""Model-SAT's capability texts (Now-Join-Us/CIT-LLM-Routing): a model's accuracies on a few items of 50 tasks.

Owns the sentence and the choice of items. The keywords that stand for each task are the user's: those of the paper come
without a licence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import check_names
from collectors.metrics.splits import SEED
from schemas.failures import ConfigError, one_line

#: A text has accuracies on so many tasks, each over so many items: multiples of 5 %.
TASKS, ITEMS = 50, 20


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """1_model_reprs.json: a list of {model_repr_id, capability}; core_items.json: task -> the items asked.

    Raises ConfigError unless there are keywords for TASKS tasks of the pool with ITEMS items each.
    """
    keywords = _read_keywords(options.keywords)
    able = [grid for grid in grids if grid.task in keywords and len(grid.items) >= ITEMS]
    if len(able) < TASKS:
        raise ConfigError(
            f"of {len(grids)} tasks {len(able)} have keywords and {ITEMS} items or more, {TASKS} are needed: see "
            "--keywords and --missing"
        )
    odd = [grid.task for grid in able if not np.isin(grid.scores, (0, 1)).all()]
    check_names("task", odd, lambda _: "has scores that are neither 0 nor 1")
    random = np.random.RandomState(SEED)
    chosen = [able[place] for place in sorted(random.choice(len(able), TASKS, replace=False))]
    core = {grid.task: core_items(grid.scores, random) for grid in chosen}
    rows = []
    for column, model in enumerate(grids[0].models):
        accuracy = {grid.task: 100 * float(grid.scores[core[grid.task], column].mean()) for grid in chosen}
        order = [chosen[place].task for place in random.permutation(TASKS)]
        rows.append({"model_repr_id": model, "capability": sentence([(keywords[t], accuracy[t]) for t in order])})
    path.mkdir()
    asked = {grid.task: [int(grid.items[place]["item"]) for place in core[grid.task]] for grid in chosen}
    for name, value in (("1_model_reprs.json", rows), ("core_items.json", asked)):
        (path / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    left = len(grids) - TASKS
    return [f"{left:,} other tasks are not in the texts"] if left else []


def sentence(accuracies: Sequence[tuple[str, float]]) -> str:
    """Of (keywords, percent) in their order."""
    parts = [f'accuracy {percent:.1f}% on the task of "{keywords}"' for keywords, percent in accuracies]
    return f"The model achieves {', '.join(parts)}."


def core_items(scores: npt.NDArray[Any], random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Rows of the ITEMS items that separate models best, because about half of these are right; of equals any."""
    order = random.permutation(len(scores))
    distance = np.abs(scores[order].mean(axis=1) - 0.5)
    return np.sort(order[np.argsort(distance, kind="stable")[:ITEMS]])


def _read_keywords(path: Path | None) -> Mapping[str, str]:
    if path is None:
        raise ConfigError("--format modelsat needs --keywords, a YAML of task: keywords that describe it")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"--keywords {path}: {one_line(error, 200)}") from error
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise ConfigError(f"--keywords {path} is not a mapping of tasks to texts")
    if quoted := [task for task, text in value.items() if '"' in text or not text.isprintable()]:
        raise ConfigError(f"--keywords {path}: those of {quoted[0]} hold a quote or a line end")
    return value
