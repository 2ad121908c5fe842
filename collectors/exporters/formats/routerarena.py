"""Predictions of RouterArena (RouteWorks/RouterArena): a router's choices, each with the answer and its verdict.

Owns predictions/<router>.json and config/<router>.json, which stand in its folder router_inference. Its scorer takes an
entry that has accuracy and cost as evaluated. Entries of the models that a router did not choose are marked
for_optimality; they count for nothing but the best choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.exporters.grid import Grid, Options
from collectors.exporters.out import write_json
from collectors.exporters.texts import check_names, wrong_path_part
from collectors.metrics.gaps import NO_CHOICE
from schemas.failures import ConfigError

Columns = npt.NDArray[np.int64]


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """The routers of options.choices; without them each model as a router that always chooses it."""
    models = grids[0].models
    indices = global_indices(grids)
    routers = _routers(grids, options)
    files = {router: router.replace("/", "_") for router in routers}
    check_names("router", files, lambda router: wrong_path_part(files[router]))
    if len(set(files.values())) < len(files):
        raise ConfigError("two routers have one file in it, where / is _")
    for folder in ("predictions", "config"):
        (path / folder).mkdir(parents=True)
    unchosen = 0
    for router, chosen in routers.items():
        unchosen += sum(int((of == NO_CHOICE).sum()) for of in chosen)
        entries = [
            entry for grid, of, keys in zip(grids, chosen, indices, strict=True) for entry in _entries(grid, of, keys)
        ]
        write_json(path / f"predictions/{files[router]}.json", entries)
        config = {"pipeline_params": {"router_name": files[router], "router_cls_name": "", "models": models}}
        write_json(path / f"config/{files[router]}.json", config)
    return [f"{unchosen:,} items without a choice are left out"] if unchosen else []


def _routers(grids: Sequence[Grid], options: Options) -> dict[str, list[Columns]]:
    """Router -> of each grid the columns that it chose. Raises ConfigError for a model that is not in the pool."""
    models = grids[0].models
    if options.routers is None:
        return {
            model: [np.full(len(grid.items), column, np.int64) for grid in grids] for column, model in enumerate(models)
        }
    place = {model: column for column, model in enumerate(models)}
    routers = {}
    for router, chosen in options.routers.items():
        if foreign := sorted(set(chosen.values()) - place.keys()):
            raise ConfigError(f"{router} chose {foreign[0]!r}, which is not among the models that are written")
        routers[router] = [
            np.array(
                [place.get(chosen.get((grid.task, item["question"]), ""), NO_CHOICE) for item in grid.items], np.int64
            )
            for grid in grids
        ]
    return routers


def global_indices(grids: Sequence[Grid]) -> list[list[str]]:
    """Of each grid the names of items, from which its scorer and our import read the task: `<task>_<item>`.

    The source's own where all have that form and none stands twice, else task and position.
    """
    own = [[item["source_key"] or "" for item in grid.items] for grid in grids]
    names = [name for of in own for name in of]
    is_of_task = [name.rsplit("_", 1)[0] == grid.task for grid, of in zip(grids, own, strict=True) for name in of]
    if all(is_of_task) and len(set(names)) == len(names):
        return own
    return [[f"{grid.task}_{item['item']}" for item in grid.items] for grid in grids]


def _entries(grid: Grid, chosen: Columns, names: Sequence[str]) -> list[dict[str, Any]]:
    """The chosen model's entry of each item, then those of the others."""
    entries = []
    for row, column in enumerate(chosen.tolist()):
        if column != NO_CHOICE:
            others = [place for place in range(len(grid.models)) if place != column]
            entries += [_entry(grid, row, place, names[row], chosen=place == column) for place in (column, *others)]
    return entries


def _entry(grid: Grid, row: int, column: int, name: str, *, chosen: bool) -> dict[str, Any]:
    texts = grid.responses[row, column]
    answer = "\n".join(texts) if texts is not None else ""
    asked, made = (int(grid.numbers[f"{kind}_tokens"][row, column]) for kind in ("prompt", "completion"))
    return {
        "global index": name,
        "prompt": grid.items[row]["prompt"],
        "prediction": grid.models[column],
        "generated_result": {
            "generated_answer": answer,
            # its check refuses a blank answer that is called a success
            "success": bool(answer.strip()),
            "token_usage": {"input_tokens": asked, "output_tokens": made, "total_tokens": asked + made},
            "provider": "",
            "error": None,
        },
        "cost": float(grid.usd[row, column]),
        "accuracy": float(grid.scores[row, column]),
        "for_optimality": not chosen,
    }
