"""Pickled score matrices of RouterEval (MilkThink-Lab/RouterEval), with prompts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.importers.files import BadFile
from collectors.importers.pickles import load_pickle
from collectors.importers.sources import RAW_VERDICT, CellDescription, ImportSource
from collectors.importers.staging import Staging
from collectors.importers.values import content_of

PATTERNS = ("leaderboard_*.pkl",)
#: Verdicts of one table of Arrow. One table an item took 4 KB for each.
_BLOCK = 100_000


def read(staging: Staging, source: ImportSource) -> None:
    """leaderboard_<family>.pkl: {'model': names, 'data': {sub: {'correctness': items × models}}}; prompts beside it.

    Prompts are in leaderboard_<family>_prompt.pkl: {sub: texts}.
    """
    prompts: dict[str, Any] = {}
    values: dict[int, Any] = {}
    staging.default = CellDescription(metric="correctness")
    for number, file in enumerate(staging.files):
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


def _matrices(staging: Staging, number: int, value: Mapping[str, Any], prompts: Mapping[str, Any]) -> None:
    models = [str(model) for model in value["model"]]
    if not models or not isinstance(value["data"], dict):
        raise BadFile("unknown_layout", "no models, or data is not a mapping of tasks")
    row = 0
    for sub, content in value["data"].items():
        try:
            scores = np.asarray(content["correctness"] if isinstance(content, dict) else content)
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile("unknown_layout", f"{sub}: not a matrix of numbers") from error
        if scores.ndim != 2 or scores.shape[1] != len(models):
            raise BadFile("unknown_layout", f"{sub}: a matrix of {scores.shape}, not of items × {len(models)} models")
        texts_of = prompts.get(str(sub))
        for item in range(len(scores)):
            prompt = str(texts_of[item]) if texts_of is not None and len(texts_of) == len(scores) else None
            staging.item(
                run="", task=str(sub), key=str(item), position=item, prompt=prompt, content_hash=content_of(prompt)
            )
        many = max(1, _BLOCK // len(models))
        for start in range(0, len(scores), many):
            staging.rows(_verdicts(number, str(sub), models, scores[start : start + many], start, row))
            row += scores[start : start + many].size


def _verdicts(
    number: int, task: str, models: Sequence[str], scores: npt.NDArray[Any], first: int, row: int
) -> pa.Table:
    """Verdicts of a block of items, the `first` and those behind it, as many at once as one table of Arrow pays for."""
    try:
        flat = scores.astype(np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise BadFile("unknown_layout", f"{task}: not a matrix of numbers") from error
    keys = pa.array([str(item) for item in range(first, first + len(scores))], pa.string())
    columns = {
        "file": pa.repeat(pa.scalar(number, pa.int32()), len(flat)),
        "row": pa.array(np.arange(row + 1, row + len(flat) + 1)),
        "run": pa.repeat("", len(flat)),
        "model": pa.array(models, pa.string()).take(pa.array(np.tile(np.arange(len(models)), len(scores)))),
        "task": pa.repeat(task, len(flat)),
        "key": keys.take(pa.array(np.repeat(np.arange(len(scores)), len(models)))),
        "score": pa.array(flat),
    }
    rest = {f.name: pa.nulls(len(flat), f.type) for f in RAW_VERDICT if f.name not in columns}
    return pa.table([{**columns, **rest}[name] for name in RAW_VERDICT.names], schema=RAW_VERDICT)
