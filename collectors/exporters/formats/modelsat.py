"""Model-SAT's files (Now-Join-Us/CIT-LLM-Routing): capability texts, which answers were right, and training groups.

A capability text is a model's accuracies on a few items of 50 tasks. Owns the sentence, the choice of items, and the
rows that its trainer reads. The keywords of each task are the user's: those of the paper come without a licence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from collectors.exporters.grid import Grid, Options, some
from collectors.exporters.out import write_json
from collectors.exporters.texts import check_names, references, wrong_path_part
from collectors.exporters.thresholds import is_graded, right_answers
from collectors.metrics.splits import SEED
from schemas.failures import YAML_VALUE_ERRORS, ConfigError, one_line

#: A text has accuracies on so many tasks, each over so many items: multiples of 5 %.
TASKS, ITEMS = 50, 20
#: Texts that a training group has of items that the model got wrong, beside the one that it got right; and how many
#: groups there are at most (its contrastive_num_sample).
WRONG, GROUPS = 31, 10_000


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """1_model_reprs.json: a list of {model_repr_id, capability}; core_items.json: task -> the items asked;
    2_interactions.json: of each task and model the ids of right and wrong items; data/<task>.json: the items by id;
    capit.json: its training data, {model_repr, data_repr: {pos, neg}}.

    Raises ConfigError unless there are keywords for TASKS tasks of the pool with ITEMS items each.
    """
    keywords = _read_keywords(options.keywords)
    able = [grid for grid in grids if grid.task in keywords and len(grid.items) >= ITEMS]
    if len(able) < TASKS:
        raise ConfigError(
            f"of {len(grids)} tasks {len(able)} have keywords and {ITEMS} items or more, {TASKS} are needed: see "
            "--keywords and --missing"
        )
    if options.threshold is None:
        odd = [grid.task for grid in able if is_graded(grid)]
        check_names(
            "task", odd, lambda _: "has scores that are neither 0 nor 1: --threshold X counts X and more as right"
        )
    check_names("task", [grid.task for grid in able], wrong_path_part)
    random = np.random.RandomState(SEED)
    chosen = [able[place] for place in sorted(random.choice(len(able), TASKS, replace=False))]
    right = {grid.task: right_answers(grid, options.threshold) for grid in chosen}
    core = {grid.task: core_items(right[grid.task], random) for grid in chosen}
    rows = []
    for column, model in enumerate(grids[0].models):
        accuracy = {grid.task: 100 * float(right[grid.task][core[grid.task], column].mean()) for grid in chosen}
        order = [chosen[place].task for place in random.permutation(TASKS)]
        rows.append({"model_repr_id": model, "capability": sentence([(keywords[t], accuracy[t]) for t in order])})
    (path / "data").mkdir(parents=True)
    asked = {grid.task: [int(grid.items[place]["item"]) for place in core[grid.task]] for grid in chosen}
    groups, notes = training_groups(chosen, right, [row["capability"] for row in rows], random)
    write_json(path / "1_model_reprs.json", rows)
    write_json(path / "core_items.json", asked)
    write_json(path / "2_interactions.json", list(_interactions(chosen, right)))
    write_json(path / "capit.json", groups)
    for grid in chosen:
        write_json(path / f"data/{grid.task}.json", [_item(grid, item) for item in grid.items])
    left = len(grids) - TASKS
    return [*notes, f"{left:,} other tasks are not in the texts"] if left else notes


def sentence(accuracies: Sequence[tuple[str, float]]) -> str:
    """Of (keywords, percent) in their order."""
    parts = [f'accuracy {percent:.1f}% on the task of "{keywords}"' for keywords, percent in accuracies]
    return f"The model achieves {', '.join(parts)}."


def core_items(scores: npt.NDArray[Any], random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Rows of the ITEMS items that separate models best, because about half of these are right; of equals any."""
    order = random.permutation(len(scores))
    distance = np.abs(scores[order].mean(axis=1) - 0.5)
    return np.sort(order[np.argsort(distance, kind="stable")[:ITEMS]])


Right = Mapping[str, npt.NDArray[np.bool_]]


def _interactions(grids: Sequence[Grid], right: Right) -> Iterator[dict[str, Any]]:
    for grid in grids:
        ids = [_id(item) for item in grid.items]
        for column, model in enumerate(grid.models):
            of_model = right[grid.task][:, column]
            yield {
                "dataset_name": grid.task,
                "model_repr_id": model,
                "correct_query_indices": [one for one, is_right in zip(ids, of_model, strict=True) if is_right],
                "incorrect_query_indices": [one for one, is_right in zip(ids, of_model, strict=True) if not is_right],
            }


def _id(item: dict[str, Any]) -> str:
    return str(item["item"])


def _item(grid: Grid, item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": _id(item),
        "category": item["subject"] or grid.task,
        "instruction": item["prompt"],
        "choices": item["choices"],
        "gold": references(item["target"]),
    }


def training_groups(
    grids: Sequence[Grid], right: Right, capabilities: Sequence[str], random: np.random.RandomState
) -> tuple[list[dict[str, Any]], list[str]]:
    """A group for each right answer, GROUPS at most, drawn from all; and lines for the user.

    A group holds the text of an item that a model got right, and up to WRONG texts of items, of any task, that it got
    wrong. Its trainer cannot read a group without a wrong one, so a model that is always right has none.
    """
    prompts = [item["prompt"] for grid in grids for item in grid.items]
    described = np.array([bool(prompt) for prompt in prompts])
    verdicts = np.concatenate([right[grid.task] for grid in grids])
    usable = verdicts & described[:, np.newaxis]
    wrong = [np.flatnonzero(~verdicts[:, column] & described) for column in range(verdicts.shape[1])]
    places = [
        (row, column) for column in range(len(wrong)) if len(wrong[column]) for row in np.flatnonzero(usable[:, column])
    ]
    if len(places) > GROUPS:
        places = [places[n] for n in np.sort(random.choice(len(places), GROUPS, replace=False))]
    groups = []
    for row, column in places:
        drawn = random.choice(wrong[column], min(WRONG, len(wrong[column])), replace=False)
        texts = {"pos": [prompts[row]], "neg": [prompts[n] for n in drawn]}
        groups.append({"model_repr": capabilities[column], "data_repr": texts})
    notes = []
    if len(described) > described.sum():
        notes.append(
            f"{len(described) - described.sum():,} items have no text in the lake and are in no training group"
        )
    if idle := [
        model for column, model in enumerate(grids[0].models) if not len(wrong[column]) or not usable[:, column].any()
    ]:
        notes.append(f"no training group for {some(idle)}: always right, or never")
    return groups, notes


def _read_keywords(path: Path | None) -> Mapping[str, str]:
    if path is None:
        raise ConfigError("--format modelsat needs --keywords, a YAML of task: keywords that describe it")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_VALUE_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"--keywords {path}: {one_line(error, 200)}") from error
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise ConfigError(f"--keywords {path} is not a mapping of tasks to texts")
    if quoted := [task for task, text in value.items() if '"' in text or not text.isprintable()]:
        raise ConfigError(f"--keywords {path}: those of {quoted[0]} hold a quote or a line end")
    return value
