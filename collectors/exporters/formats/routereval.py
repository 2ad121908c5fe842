"""RouterEval's pickles (MilkThink-Lab/RouterEval): score matrices with prompts, router data sets, arrays of a run.

Owns its names for tasks and the layout of its files. Which items and models these hold is collectors.metrics.splits'.
Pickles name numpy's array and text types only, and need numpy 1.26 or later.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from collectors.exporters.encoders import Array, Encode, encoder_of
from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import check_names, wrong_path_part
from collectors.metrics.splits import POOL_SIZES, routereval_pools, routereval_split, seeded
from schemas.failures import ConfigError

#: The only data set whose scores are not verdicts; from this share of an item's best score on a model counts as right.
CONTINUOUS, NEARLY_BEST = "harness_truthfulqa_mc_0", 0.95
PARTS = ("train", "val", "test")


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """leaderboard_*.pkl, leaderboard_*_prompt.pkl and, with an encoder, sentence_bert_result.pkl; and folders
    router_dataset, with a file a data set, and npz, with one for each pool."""
    return write_files(grids, path, encoder_of(options.encoder) if options.encoder else None)


def write_files(grids: Sequence[Grid], path: Path, encode: Encode | None) -> list[str]:
    """As `write`, with the embeddings that `encode` makes, or without any."""
    named = {grid.task: name_of(grid.task) for grid in grids}
    check_names("task", [name.sub for name in named.values()], wrong_path_part)
    if len({name.sub for name in named.values()}) < len(named):
        raise ConfigError("two tasks have one name in RouterEval: export them apart, by --task")
    by_set: dict[tuple[str, str], dict[str, Grid]] = {}
    for grid in sorted(grids, key=lambda grid: (named[grid.task].place, grid.task)):
        name = named[grid.task]
        by_set.setdefault((name.family, name.data_set), {})[name.sub] = grid
    notes = _notes(grids, by_set)
    embeddings = (
        {sub: encode([str(prompt) for prompt in grid.prompts]) for of in by_set.values() for sub, grid in of.items()}
        if encode
        else {}
    )
    path.mkdir()
    for family in sorted({family for family, _ in by_set}):
        subs = {sub: grid for (one, _), of in by_set.items() if one == family for sub, grid in of.items()}
        _write_raw(path, family, subs)
    if embeddings:
        _dump(path / "sentence_bert_result.pkl", embeddings)
    else:
        notes.append("without embeddings, which its routers train on: --encoder names a sentence-transformers model")
    for (_, data_set), subs in by_set.items():
        notes += _write_router_data(path, data_set, subs, embeddings)
    return notes


@dataclass(frozen=True)
class Name:
    """RouterEval's names of a task."""

    family: str
    data_set: str
    sub: str
    #: Few-shot examples that the name claims.
    shots: int | None = None
    #: Place in RouterEval's order, and sub-scenarios of the data set.
    place: int = 0
    of: int = 1


@functools.cache
def routereval_names() -> dict[str, Name]:
    """lm-eval's name of a task, and RouterEval's own -> RouterEval's names."""
    text = (resources.files("collectors.exporters.formats") / "routereval_names.yaml").read_text(encoding="utf-8")
    names: dict[str, Name] = {}
    for family, data_sets in yaml.safe_load(text).items():
        for data_set, subs in data_sets.items():
            for place, (sub, task) in enumerate(subs.items()):
                number = re.search(r"_(\d+)$", sub) if family == "old" and data_set != CONTINUOUS else None
                name = Name(family, data_set, sub, int(number[1]) if number else None, place, len(subs))
                names |= {sub: name, task: name}
    return names


def name_of(task: str) -> Name:
    """A task that RouterEval does not know is a data set of the family `other`, and keeps its name."""
    return routereval_names().get(task, Name("other", task, task))


def _notes(grids: Sequence[Grid], by_set: dict[tuple[str, str], dict[str, Grid]]) -> list[str]:
    notes = []
    for grid in grids:
        name = name_of(grid.task)
        shots = {cell["num_fewshot"] for cell in grid.cells if cell and cell["num_fewshot"] is not None}
        if name.shots is not None and shots - {name.shots}:
            notes.append(
                f"{name.sub} was asked with {', '.join(map(str, sorted(shots)))} examples, whatever it is called"
            )
    for (_, data_set), subs in by_set.items():
        whole = name_of(next(iter(subs.values())).task).of
        if len(subs) < whole:
            notes.append(f"{data_set} is {len(subs)} of its {whole} sub-scenarios: split and pools are of these alone")
    return notes


def _write_raw(path: Path, family: str, subs: dict[str, Grid]) -> None:
    models = next(iter(subs.values())).models
    data = {sub: {"correctness": grid.scores} for sub, grid in subs.items()}
    _dump(path / f"leaderboard_{family}.pkl", {"model": list(models), "data": data})
    prompts = {sub: _objects([str(prompt) for prompt in grid.prompts]) for sub, grid in subs.items()}
    _dump(path / f"leaderboard_{family}_prompt.pkl", prompts)


# ---- router data sets


def _write_router_data(path: Path, data_set: str, subs: dict[str, Grid], embeddings: dict[str, Array]) -> list[str]:
    scores = np.concatenate([grid.scores for grid in subs.values()])
    models = next(iter(subs.values())).models
    random = seeded()
    indices = split_indices([len(grid.items) for grid in subs.values()], random)
    columns, lacking = routereval_pools(scores, random)
    notes = [f"{data_set}: no pool {group} of {size}: {reason}" for size, group, reason in lacking]
    if not columns:
        return notes
    prompts = _objects([str(prompt) for grid in subs.values() for prompt in grid.prompts])
    value: dict[str, Any] = {difficulty: {size: {} for size in sizes} for difficulty, sizes in POOL_SIZES.items()}
    value["split_index"] = {f"{part}_indices": indices[part] for part in PARTS}
    value["prompt"] = {f"{part}_prompt": prompts[indices[part]] for part in PARTS}
    vectors = {}
    if embeddings:
        whole = np.concatenate([embeddings[sub] for sub in subs])
        vectors = {f"{part}_embed": whole[indices[part]] for part in PARTS}
        value["embedding"] = vectors
    for (difficulty, size, group), chosen in columns.items():
        data = {f"{part}_score": scores[np.ix_(indices[part], chosen)] for part in PARTS}
        folder = path / "npz" / data_set
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {**data, **vectors}
        np.savez(folder / f"{group}_{size}.npz", **arrays)
        if data_set == CONTINUOUS:
            train = data["train_score"]
            data["train_label"] = (train >= NEARLY_BEST * train.max(axis=1, keepdims=True)).astype(np.float64)
        value[difficulty][size][group] = {"data": data, "model": np.array([models[place] for place in chosen])}
    (path / "router_dataset").mkdir(exist_ok=True)
    _dump(path / "router_dataset" / f"{data_set}_router_dataset.pkl", value)
    return notes


def split_indices(
    items: Sequence[int], random: np.random.RandomState | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """Part -> positions in the concatenation of sub-scenarios of so many `items`, as routereval_split."""
    return dict(zip(PARTS, routereval_split(items, random), strict=True))


def _objects(texts: Sequence[str]) -> npt.NDArray[np.object_]:
    """An array of objects: numpy's own texts take the longest one's space for each."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def _dump(path: Path, value: Any) -> None:
    with open(path, "xb") as file:
        pickle.dump(value, file, protocol=4)  # 5 names functions of numpy 2
