"""Pickles of RouterEval (MilkThink-Lab/RouterEval): score matrices with prompts beside them, and router data sets.

A router data set holds pools of models, and of each the scores on the same train, validation and test items. It was
made of a leaderboard's tasks, one after another, so it holds no verdict that the leaderboard lacks: one of a single
task is that task, and one of several is left out where their leaderboard is imported with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.importers.files import BadFile
from collectors.importers.pickles import load_pickle
from collectors.importers.raw_tables import RAW_VERDICT
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from collectors.importers.values import content_of

_ROUTER_DATA = "_router_dataset.pkl"
PATTERNS = ("leaderboard_*.pkl", f"*{_ROUTER_DATA}")
#: The parts of a router data set, and its groups of pools.
_PARTS, _GROUPS = ("train", "val", "test"), ("easy", "hard")
#: Router data sets of one task, and that task's name in the leaderboard.
_TASKS = {
    "arc": "harness_arc_challenge_25",
    "gsm8k": "harness_gsm8k_5",
    "hellaswag": "harness_hellaswag_10",
    "winogrande": "harness_winogrande_5",
}
#: Verdicts in one table: fewer of them cost more as tables than as rows.
_BATCH = 100_000

_Scores = npt.NDArray[np.float64]


def read(staging: Staging, source: ImportSource) -> None:
    """leaderboard_<family>.pkl: {'model': names, 'data': {sub: {'correctness': items × models}}}; prompts beside it.

    Prompts are in leaderboard_<family>_prompt.pkl: {sub: texts}. <data set>_router_dataset.pkl needs no other file.
    """
    prompts: dict[str, Any] = {}
    values: dict[int, Any] = {}
    router_data: list[int] = []
    staging.default = CellDescription(metric="correctness")
    for number, file in enumerate(staging.files):
        if file.stem.endswith(_ROUTER_DATA):
            router_data.append(number)
            continue
        with staging.one_file(number):
            value = load_pickle(file)
            if isinstance(value, dict) and {"model", "data"} <= value.keys():
                values[number] = value
            elif isinstance(value, dict) and all(isinstance(texts, np.ndarray | list) for texts in value.values()):
                prompts |= {str(sub): texts for sub, texts in value.items()}
                staging.describing.add(number)
            else:
                raise BadFile("unknown_layout", "neither models and data, nor prompts by task")
    for number, value in values.items():
        with staging.one_file(number):
            _matrices(staging, number, value, prompts)
    for number in router_data:
        with staging.one_file(number):
            _router_data(staging, number, list(values.values()))


def _matrices(staging: Staging, number: int, value: Mapping[str, Any], prompts: Mapping[str, Any]) -> None:
    models = [str(model) for model in value["model"]]
    if not models or not isinstance(value["data"], dict):
        raise BadFile("unknown_layout", "no models, or data is not a mapping of tasks")
    row = 0
    for sub, content in value["data"].items():
        scores = _matrix(_correctness(content), len(models), str(sub))
        task = _Task(staging, number, str(sub), [str(item) for item in range(len(scores))])
        texts = prompts.get(str(sub))
        task.take_items(texts if texts is not None and len(texts) == len(scores) else [None] * len(scores), fixed=True)
        row = task.take(models, scores, row)


def _matrix(value: Any, many: int, name: str) -> _Scores:
    try:
        scores = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise BadFile("unknown_layout", f"{name}: not a matrix of numbers") from error
    if scores.ndim != 2 or scores.shape[1] != many:
        raise BadFile("unknown_layout", f"{name}: a matrix of {scores.shape}, not of items × {many} models")
    return scores


@dataclass(frozen=True)
class _Task:
    staging: Staging
    number: int
    task: str
    keys: Sequence[str]

    def take_items(self, texts: Sequence[Any], *, fixed: bool) -> None:
        """`fixed`: the keys are positions in the task."""
        for key, text in zip(self.keys, texts, strict=True):
            prompt = str(text) if text is not None else None
            place = {"key": key, "position": int(key) if fixed else None}
            self.staging.item(run="", task=self.task, **place, prompt=prompt, content_hash=content_of(prompt))

    def take(self, models: Sequence[str], scores: _Scores, row: int) -> int:
        """Takes items × models. Returns the number of verdicts of the file so far, of which `row` came before."""
        step = max(1, _BATCH // len(models))
        for start in range(0, len(scores), step):
            some = scores[start : start + step]
            keys = pa.array(self.keys[start : start + step], pa.string())
            columns = {
                "file": pa.repeat(pa.scalar(self.number, pa.int32()), some.size),
                "row": pa.array(np.arange(row + 1, row + some.size + 1)),
                "run": pa.repeat("", some.size),
                "model": pa.array(models, pa.string()).take(pa.array(np.tile(np.arange(len(models)), len(some)))),
                "task": pa.repeat(self.task, some.size),
                "key": keys.take(pa.array(np.repeat(np.arange(len(some)), len(models)))),
                "score": pa.array(some.ravel()),
            }
            rest = {f.name: pa.nulls(some.size, f.type) for f in RAW_VERDICT if f.name not in columns}
            self.staging.rows(pa.table([{**columns, **rest}[name] for name in RAW_VERDICT.names], schema=RAW_VERDICT))
            row += some.size
        return row


# ---- router data sets


def _router_data(staging: Staging, number: int, boards: Sequence[Mapping[str, Any]]) -> None:
    """Takes each model's scores once: the pools share models, and repeat their scores."""
    value = load_pickle(staging.files[number])
    if not isinstance(value, dict) or not value.keys() & set(_GROUPS):
        raise BadFile("unknown_layout", "no router data set")
    name = staging.files[number].stem.removesuffix(_ROUTER_DATA)
    name = _TASKS.get(name, name)
    prompts = value.get("prompt") or {}
    texts = [text for part in _PARTS for text in prompts.get(f"{part}_prompt", ())]
    _refuse_copy(value, boards)
    task: _Task | None = None
    seen: dict[str, _Scores] = {}
    row = 0
    for models, scores in _pools(value):
        if task is None:
            keys, are_places = _keys(value.get("split_index") or {}, scores)
            task = _Task(staging, number, name, keys)
            many = len(keys)
            task.take_items(texts if len(texts) == many else [None] * many, fixed=are_places)
        whole = np.concatenate(scores)
        if len(whole) != len(task.keys):
            raise BadFile("unknown_layout", f"pools of {len(task.keys):,} and of {len(whole):,} items")
        # Other scores of the same model are conflicts, which the next steps name.
        new = [
            place
            for place, model in enumerate(models)
            if model not in seen or not np.array_equal(seen[model], whole[:, place], equal_nan=True)
        ]
        seen |= {models[place]: whole[:, place] for place in new if models[place] not in seen}
        if new:
            row = task.take([models[place] for place in new], whole[:, new], row)
    if task is None:
        raise BadFile("unknown_layout", "a router data set without pools")


def _refuse_copy(value: Mapping[str, Any], boards: Sequence[Mapping[str, Any]]) -> None:
    """Raises BadFile where all scores stand in several tasks of one leaderboard, one task after another."""
    pools = [(models, np.concatenate(scores), scores) for models, scores in _pools(value)]
    if not pools:
        return
    keys, are_places = _keys(value.get("split_index") or {}, pools[0][2])
    if not are_places:
        return
    places = np.argsort([int(key) for key in keys])
    for board in boards:
        columns = {str(model): place for place, model in enumerate(board["model"])}
        if any(model not in columns for models, *_ in pools for model in models):
            continue
        blocks = {str(sub): np.asarray(_correctness(content)) for sub, content in board["data"].items()}
        blocks = {sub: block for sub, block in blocks.items() if block.ndim == 2 and len(block)}
        of_pools = [([columns[model] for model in models], whole[places]) for models, whole, _ in pools]
        names = _in_order(blocks, *of_pools[0])
        if len(names) > 1 and all(_is_made_of(blocks, names, *of_pool) for of_pool in of_pools[1:]):
            what = f"{len(names)} tasks of the leaderboard that is imported with it, {names[0]} first"
            raise BadFile("left_out", f"holds the verdicts of {what}")


def _in_order(blocks: Mapping[str, _Scores], columns: Sequence[int], scores: _Scores) -> list[str]:
    """The tasks that have these scores, one after another; none where some are of no task."""
    names: list[str] = []
    start = 0
    while start < len(scores):
        left = (name for name in blocks if name not in names and len(blocks[name]) <= len(scores) - start)
        parts = ((name, scores[start : start + len(blocks[name])]) for name in left)
        name = next((name for name, part in parts if _is_made_of(blocks, [name], columns, part)), None)
        if name is None:
            return []
        names.append(name)
        start += len(blocks[name])
    return names


def _is_made_of(blocks: Mapping[str, _Scores], names: Sequence[str], columns: Sequence[int], scores: _Scores) -> bool:
    return bool(np.array_equal(np.concatenate([blocks[name][:, columns] for name in names]), scores, equal_nan=True))


def _correctness(content: Any) -> Any:
    return content["correctness"] if isinstance(content, dict) and "correctness" in content else content


def _pools(value: Mapping[str, Any]) -> Iterator[tuple[list[str], list[_Scores]]]:
    """Yields the models of each pool, and their scores on the train, validation and test items."""
    for group in _GROUPS:
        for size, kinds in (value.get(group) or {}).items():
            for kind, pool in kinds.items():
                models = [str(model) for model in pool["model"]]
                name = f"{group} {size} {kind}"
                yield models, [_matrix(pool["data"][f"{part}_score"], len(models), name) for part in _PARTS]


def _keys(split: Mapping[str, Any], scores: Sequence[_Scores]) -> tuple[list[str], bool]:
    """Keys of the items, part after part, and whether they are the items' places in the task.

    Places are RouterEval's own indices, from 0 on; it counts them through all tasks of a family.
    """
    places = [np.asarray(split.get(f"{part}_indices", ())).ravel().tolist() for part in _PARTS]
    listed = [place for part in places for place in part]
    first = min(listed, default=0)
    is_whole = sorted(listed) == list(range(first, first + len(listed)))
    if [len(part) for part in places] == [len(part) for part in scores] and is_whole:
        return [str(place - first) for place in listed], True
    return [f"{part}/{i}" for part, of in zip(_PARTS, scores, strict=True) for i in range(len(of))], False
