"""Files of LLMRouterBench (ynulihao/LLMRouterBench): one JSON a model and data set.

Its aggregator adds up token counts and costs, and fails on a null. So each is a number. With Options.accuracy_only it
has no key, and the loader reads 0.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collectors.exporters.grid import Grid, Options
from collectors.exporters.out import write_json
from collectors.exporters.texts import check_names, wrong_path_part
from collectors.metrics.sums import USD, mean, total
from schemas.failures import ConfigError


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """results/bench/<dataset>/<split>/<model>/<dataset>-<split>-<model>-<time>.json: one model on one data set."""
    places = [(*_dataset_of(grid.task), grid) for grid in grids]
    check_names("task", [grid.task for *of, grid in places if any(map(wrong_path_part, of))], wrong_path_part)
    folders = {model: model.replace("/", "_") for model in grids[0].models}
    check_names("model", folders, lambda model: wrong_path_part(folders[model]))
    if len(set(folders.values())) < len(folders) or len({of[:2] for of in places}) < len(places):
        raise ConfigError("two models or tasks have one folder in it, where / is _: leave one out by --pool or --task")
    for dataset, split, grid in places:
        for column, model in enumerate(grid.models):
            value = _llmrouterbench(grid, column, dataset, split)
            if options.accuracy_only:
                value = _without_costs(value)
            folder = path / "results/bench" / dataset / split / folders[model]
            folder.mkdir(parents=True)
            cell = grid.cells[column] or {}
            time = cell["started_at"].astimezone(dt.UTC).strftime("%Y%m%d_%H%M%S")
            write_json(folder / f"{dataset}-{split}-{folders[model]}-{time}.json", value)
    if options.accuracy_only:
        return [
            "without token counts and costs: its loader reads 0 for each, so that only its accuracies mean something"
        ]
    return []


#: Keys of a file and of its records.
_COSTS = ("prompt_tokens", "completion_tokens", "cost")


def _without_costs(value: dict[str, Any]) -> dict[str, Any]:
    records = [{key: one for key, one in record.items() if key not in _COSTS} for record in value["records"]]
    return {key: one for key, one in value.items() if key not in _COSTS} | {"records": records}


def _dataset_of(task: str) -> tuple[str, str]:
    """Data set and split: as the task is called where it was imported from such files, else all is `test`."""
    dataset, slash, split = task.rpartition("/")
    return (dataset, split) if slash else (task, "test")


def _llmrouterbench(grid: Grid, column: int, dataset: str, split: str) -> dict[str, Any]:
    records = list(_records(grid, column))
    cell = grid.cells[column] or {}
    described = ("cell_id", "revision", "num_fewshot", "dtype", "quantization", "imported_from")
    return {
        "performance": mean(grid.scores[:, column]),
        "time_taken": _sum(record["extra_fields"]["latency_s"] for record in records),
        "prompt_tokens": _sum(record["prompt_tokens"] for record in records),
        "completion_tokens": _sum(record["completion_tokens"] for record in records),
        "cost": total(grid.usd[:, column], USD),
        "counts": len(records),
        "model_name": grid.models[column],
        "dataset_name": dataset,
        "split": split,
        "demo": False,
        "extra_metrics": {"metric": grid.metric, **{name: cell.get(name) for name in described}},
        "data_fingerprint": grid.items_digest,
        "records": records,
    }


def _records(grid: Grid, column: int) -> Iterator[dict[str, Any]]:
    numbers = {name: values[:, column] for name, values in grid.numbers.items()}
    for row, item in enumerate(grid.items):
        texts = grid.responses[row, column]
        yield {
            "index": item["item"],
            "origin_query": item["prompt"],
            "prompt": item["prompt"],
            "prompt_tokens": _whole(numbers["prompt_tokens"][row]),
            "completion_tokens": _whole(numbers["completion_tokens"][row]),
            "cost": float(numbers["usd"][row]),
            "score": float(numbers["score"][row]),
            "prediction": None,
            "ground_truth": None if item["target"] is None else json.loads(item["target"]),
            "raw_output": texts[0] if texts is not None and len(texts) == 1 else texts,
            "extra_fields": {"item_hash": item["item_hash"], "latency_s": _number(numbers["latency_s"][row])},
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _whole(value: float) -> int | None:
    return None if np.isnan(value) else int(value)


def _sum(values: Iterator[Any] | Any) -> Any:
    """None where one is unknown."""
    numbers = list(values)
    return None if None in numbers else sum(numbers)
