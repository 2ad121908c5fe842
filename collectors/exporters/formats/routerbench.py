"""RouterBench's tables (withmartian/routerbench): wide, a column a model, and long.

Owns their columns, RouterBench's encoding of texts, and the names that its code misreads. Prompts and responses are
Python lists written as text, because its readers evaluate any text in brackets.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.exporters.grid import Grid, Grids, Objects, Options, renamed_models
from collectors.exporters.texts import (
    Values,
    as_python_list,
    check_names,
    csv_file,
    guard_notes,
    is_python_list,
    listed,
    write_csv,
    write_frame_pickle,
    wrong_pandas_name,
)
from collectors.metrics.pool import oracle

#: Parts of columns' names. Its code takes columns with one of them for a router, a cost or a text.
TAKEN = ("knn", "mlp", "svm", "oracle", "total_cost", "model_response", "no_model_correct")
OWN_COLUMNS = ("sample_id", "prompt", "eval_name", "source", "embedding", "index", "model_name", "performance", "cost")
NOBODY = "no_model_correct"

Columns = dict[str, list[Any]]


def write_wide(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """routerbench_*: sample_id, prompt, eval_name, each model's score, responses, USD, and the oracle's choice."""
    grids = Grids.of(grids)
    notes = _check(grids)
    if path.suffix.lower() == ".csv":
        unknown = 0
        with csv_file(path, _NAMES) as write:
            for grid in grids:
                unknown += _unknown_texts(grid)
                write(_wide(grid))
    else:
        columns: Columns = {}
        unknown = 0
        for grid in grids:
            unknown += _unknown_texts(grid)
            for name, values in _wide(grid).items():
                columns.setdefault(name, []).extend(listed(values))
        write_frame_pickle(path, columns)
    return [*notes, *_unknown_notes(unknown), *_guard_notes(grids, path)]


def _wide(grid: Grid) -> dict[str, Values]:
    columns: dict[str, Values] = {**_items_of([grid])}
    for place, model in enumerate(grid.models):
        columns[model] = grid.scores[:, place]
    for place, model in enumerate(grid.models):
        columns[f"{model}|model_response"] = _responses(grid, place)
    for place, model in enumerate(grid.models):
        columns[f"{model}|total_cost"] = grid.usd[:, place]
    columns["oracle_model_to_route_to"] = oracle_names(grid)
    return columns


def write_long(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """routerbench_raw: a row for each model and sample; performance is a text there."""
    grids = Grids.of(grids)
    notes = [*_check(grids), *_unknown_notes(sum(map(_unknown_texts, grids)))]
    per_model = []
    for place, model in enumerate(grids[0].models):
        rows = _items_of(grids)
        rows["performance"] = [str(float(score)) for grid in grids for score in grid.scores[:, place]]
        rows["model_response"] = [text for grid in grids for text in _responses(grid, place)]
        rows["model_name"] = [model] * len(rows["sample_id"])
        rows["cost"] = [float(usd) for grid in grids for usd in grid.usd[:, place]]
        per_model.append(rows)
    names = list(per_model[0])
    columns: Columns = {name: list(itertools.chain.from_iterable(rows[name] for rows in per_model)) for name in names}
    columns = {"index": list(range(len(columns["sample_id"]))), **columns}
    if path.suffix.lower() == ".csv":
        write_csv(path, columns, _NAMES)
    else:
        write_frame_pickle(path, columns)
    return notes + _guard_notes(grids, path)


def oracle_names(grid: Grid) -> list[str]:
    """oracle_model_to_route_to: the best score, of equals the cheapest, then the first; NOBODY where all are 0."""
    best = oracle(grid.scores, grid.usd)
    right = grid.scores.max(axis=1) > 0
    return [grid.models[place] if any_right else NOBODY for place, any_right in zip(best, right, strict=True)]


#: Columns of models' and tasks' names.
_NAMES = ("sample_id", "eval_name", "model_name", "oracle_model_to_route_to")


def _guard_notes(grids: Grids, path: Path) -> list[str]:
    return guard_notes([*grids.models, *grids.tasks]) if path.suffix.lower() == ".csv" else []


# ---- names


def _check(grids: Grids) -> list[str]:
    check_names("model", grids.models, _wrong_model)
    tasks = grids.tasks
    check_names("task", tasks, _wrong_task)
    notes = [
        f"its evaluate_routers.py takes {other} for part of {task}, by the beginning of the name"
        for task, other in itertools.permutations(tasks, 2)
        if other.startswith(task)
    ]
    if renamed := renamed_models(grids):
        notes.append(
            f"its evaluate_routers.py has prices of its own names alone; {len(renamed):,} models have other names "
            f"in their source, such as {renamed[0]}: --names source"
        )
    return notes


def _unknown_texts(grid: Grid) -> int:
    """Answers without a text."""
    return int((grid.responses == None).sum())  # noqa: E711 - of each element


def _unknown_notes(unknown: int) -> list[str]:
    return [f"{unknown:,} answers have no text in the lake; their model_response is ['']"] if unknown else []


def _wrong_task(name: str) -> str | None:
    return "has a dot, where the names of samples end theirs" if "." in name else wrong_pandas_name(name)


def _wrong_model(name: str) -> str | None:
    if parts := [part for part in ("|", ":") if part in name]:
        return f"holds {parts[0]!r}"
    if parts := [part for part in TAKEN if part in name.lower()]:
        return f"holds {parts[0]!r}"
    if name in OWN_COLUMNS or not name.isprintable() or name != name.strip() or not name:
        return "is a column's name or not plain text"
    return wrong_pandas_name(name)


# ---- items and texts


def _items_of(grids: Sequence[Grid]) -> Columns:
    return {
        "sample_id": [name for grid in grids for name in sample_ids(grid)],
        "prompt": [_encoded([prompt], _is_encoded(grid)) for grid in grids for prompt in grid.prompts],
        "eval_name": [grid.task for grid in grids for _ in grid.items],
    }


def sample_ids(grid: Grid) -> list[str]:
    """`<eval_name>.<rest>`: the source's own where all of the task are such, else with the position of the item."""
    own = [item["source_key"] or "" for item in grid.items]
    if len(set(own)) == len(own) and all(key.startswith(f"{grid.task}.") for key in own):
        return own
    return [f"{grid.task}.{item['item']}" for item in grid.items]


def _is_encoded(grid: Grid) -> bool:
    """Whether the items' texts came from RouterBench and are lists already, as in lakes of earlier releases.

    Today's importer unwraps them. A text that looks like a list is one only where all of them do.
    """
    if not all(_from_routerbench(grid, cell) for cell in grid.cells if cell):
        return False
    return all(is_python_list(prompt) for prompt in grid.prompts)


def _responses(grid: Grid, place: int) -> list[str]:
    column: Objects = grid.responses[:, place]
    if (column == None).all():  # noqa: E711 - of each element
        return [as_python_list([""])] * len(column)
    kept = [text for texts in column if texts is not None for text in texts]
    encoded = _from_routerbench(grid, grid.cells[place]) and all(map(is_python_list, kept))
    return [_encoded([""] if texts is None else texts, encoded) for texts in column]


def _from_routerbench(grid: Grid, cell: dict[str, Any] | None) -> bool:
    """A source's second run of a task is `<name>#2` there."""
    return cell is not None and (cell["imported_from"] or "").partition("#")[0] in grid.encoded


def _encoded(texts: Sequence[str], already: bool) -> str:
    if already and len(texts) == 1 and is_python_list(texts[0]):
        return texts[0]
    return as_python_list(texts)
