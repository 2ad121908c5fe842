"""Details of lighteval and of the Open LLM Leaderboard v1.

Source: huggingface/lighteval (logging/info_loggers.py, 0.9 and 0.10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import BadFile
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.values import content_of, rows_at_once, text_of, texts, verdict
from schemas.failures import one_line

PATTERNS = ("details_*.parquet",)

_TIME = re.compile(r"_?\d{4}-\d\d-\d\dT[\d:.-]+$")


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """details_<task>_<time>.parquet: metrics flat, as `metrics.<name>`, or a struct; or three structs since 0.10.

    No row has an id: an item is its row. A folder names the model: details_<organisation>__<model>, or
    details/<organisation>/<model>/<time>.
    """
    file = staging.files[number]
    name = file.stem.removeprefix("details_").removesuffix(".parquet")
    time = _TIME.search(name)
    task, run = _TIME.sub("", name), time[0].strip("_") if time else ""
    model = source.model or _details_model(file.path)
    if model is None:
        raise BadFile("no_model", "no folder of its path names the model: give --model")
    try:
        with file.open() as stream:
            table = pq.ParquetFile(pa.BufferReader(stream.read()))
            shots = re.search(r"\|(\d+)$", task)
            description: CellDescription | None = None
            row = 0
            for batch in table.iter_batches(rows_at_once(table.metadata)):
                for values in batch.to_pylist():
                    with staging.one_row(number, row + 1):
                        row += 1
                        is_struct = "__metric__" in values
                        metric, score, item, columns = _of_structs(values) if is_struct else _of_columns(values, task)
                        description = description or CellDescription(
                            metric=metric, num_fewshot=int(shots[1]) if shots else None
                        )
                        staging.descriptions[run, model, task] = description
                        key = str(row - 1)
                        staging.item(run=run, task=task, key=key, position=row - 1, **item)
                        if description.metric != metric:
                            place = {"model": model, "task": task, "source_key": key}
                            message = f"no metric {description.metric} in this row"
                            staging.reject(number, row, "no_verdict", message, **place)
                            continue
                        verdict(staging, number, row, task, key, model, score, run=run, **columns)
    except (pa.ArrowException, OSError) as error:
        raise BadFile("damaged", f"not a whole Parquet file: {one_line(error, 160)}") from error


def _details_model(path: str) -> str | None:
    folders = path.split("/")[:-1]
    for folder in reversed(folders):
        if match := re.fullmatch(r"details_(.+?)__(.+)", folder):
            return f"{match[1]}/{match[2]}"
    if "details" in folders:
        below = [folder for folder in folders[folders.index("details") + 1 :] if not _TIME.fullmatch(folder)]
        return "/".join(below) or None
    return None


def _leaderboard_metric(task: str) -> tuple[str, ...]:
    """Metrics of a task: the leaderboard showed the first that is there."""
    if "arc" in task or "hellaswag" in task:
        return ("acc_norm", "acc")
    return ("mc2", "mc1") if "truthfulqa" in task else ("acc", "em", "exact_match", "qem", "f1")


def _of_columns(values: Mapping[str, Any], task: str) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
    struct = values.get("metrics")
    metrics = dict(struct) if isinstance(struct, dict) else {}
    metrics |= {key.removeprefix("metrics."): value for key, value in values.items() if key.startswith("metrics.")}
    if not metrics:
        metrics = {
            k: v
            for k, v in values.items()
            if isinstance(v, int | float) and k not in ("gold_index", "truncated", "padded")
        }
    metrics = {name: value for name, value in metrics.items() if value is not None}
    name = next((name for name in _leaderboard_metric(task) if name in metrics), next(iter(metrics), "score"))
    prompt = next(
        (values[k] for k in ("example", "instruction", "full_prompt") if isinstance(values.get(k), str)), None
    )
    choices = texts(values.get("choices"))
    item = {
        "prompt": prompt,
        "choices": choices,
        "target": as_json(values["gold"]) if values.get("gold") is not None else None,
        "content_hash": content_of(prompt, choices),
    }
    answers = texts(values.get("predictions"))
    return name, metrics.get(name), item, {"metrics": as_json(metrics), "responses": answers}


def _of_structs(values: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
    doc, answer = values.get("__doc__") or {}, values.get("__model_response__") or {}
    metrics = {name: value for name, value in (values.get("__metric__") or {}).items() if value is not None}
    name = next((name for name, value in metrics.items() if isinstance(value, bool | int | float)), "score")
    prompt, choices = doc.get("query"), texts(doc.get("choices"))
    item = {
        "prompt": text_of(prompt),
        "choices": choices,
        "target": as_json(doc["gold_index"]) if doc.get("gold_index") is not None else None,
        "content_hash": content_of(prompt, choices),
    }
    columns = {
        "metrics": as_json(metrics),
        "responses": texts(answer.get("text")),
        "prompt_tokens": _count_of(answer.get("input_tokens")),
        "completion_tokens": _count_of(answer.get("output_tokens")),
    }
    return name, metrics.get(name), item, columns


def _count_of(tokens: Any) -> int | None:
    """How many token ids there are, in a list or in lists of one."""
    if not isinstance(tokens, list) or not tokens:
        return None
    if all(isinstance(token, int) for token in tokens):
        return len(tokens)
    return sum(len(one) for one in tokens) if all(isinstance(one, list) for one in tokens) else None
