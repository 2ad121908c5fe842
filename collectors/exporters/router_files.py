"""Files of RouterDC, EmbedLLM and LLMRouterBench.

Owns their layouts. Sources: shuhao02/RouterDC, richardzhuang0412/EmbedLLM, ynulihao/LLMRouterBench.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import check_names, write_csv, wrong_pandas_name, wrong_pandas_text, wrong_path_part
from collectors.metrics.splits import routereval_split
from schemas.failures import ConfigError

SPLITS = ("train", "val", "test")


def write_routerdc(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """<task>.json: a list of {question, scores: {model: score in [0, 1]}}."""
    check_names("task", [grid.task for grid in grids], wrong_path_part)
    check_names("task", [grid.task for grid in grids if _outside(grid)], lambda _: "has scores outside 0 to 1")
    path.mkdir()
    for grid in grids:
        rows = [
            {"question": item["prompt"], "scores": dict(zip(grid.models, map(float, scores), strict=True))}
            for item, scores in zip(grid.items, grid.scores, strict=True)
        ]
        _write_json(path / f"{grid.task}.json", rows)
    return []


def _outside(grid: Grid) -> bool:
    return bool(((grid.scores < 0) | (grid.scores > 1)).any())


# ---- EmbedLLM


def write_embedllm(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """train, val and test.csv, a row a verdict; question_order.csv and model_order.csv, which number both.

    The split is RouterEval's 8:1:1 of each task: EmbedLLM states no rule for its own.
    """
    models = grids[0].models
    odd = [grid.task for grid in grids if not np.isin(grid.scores, (0, 1)).all()]
    check_names("task", odd, lambda _: "has scores that are neither 0 nor 1")
    check_names("model", models, wrong_pandas_name)
    check_names("task", [grid.task for grid in grids], wrong_pandas_name)
    items = [(grid, place) for grid in grids for place in range(len(grid.items))]
    wrong = [f"item {grid.items[place]['item']} of {grid.task}" for grid, place in items if _wrong_prompt(grid, place)]
    if wrong:
        raise ConfigError(
            f"pandas would not read the text of {len(wrong):,} items as it is, such as {wrong[0]}: leave the task out "
            "by --tasks"
        )
    path.mkdir()
    prompts = [grid.items[place]["prompt"] for grid, place in items]
    write_csv(path / "question_order.csv", {"prompt_id": range(len(prompts)), "prompt": prompts})
    write_csv(path / "model_order.csv", {"model_id": range(len(models)), "model_name": models})
    for split, chosen in _split(grids).items():
        write_csv(path / f"{split}.csv", _embedllm_rows(grids, items, chosen))
    return ["train, val and test are 8:1:1 of each task, shuffled with the seed 42"]


def _wrong_prompt(grid: Grid, place: int) -> bool:
    return wrong_pandas_text(grid.items[place]["prompt"]) is not None


def _split(grids: Sequence[Grid]) -> dict[str, list[int]]:
    """Split -> numbers of its prompts, in order."""
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    first = 0
    for grid in grids:
        for split, places in zip(SPLITS, routereval_split(len(grid.items)), strict=True):
            found[split] += (np.sort(places) + first).tolist()
        first += len(grid.items)
    return found


def _embedllm_rows(
    grids: Sequence[Grid], items: Sequence[tuple[Grid, int]], chosen: Sequence[int]
) -> dict[str, list[Any]]:
    models, categories = grids[0].models, {grid.task: number for number, grid in enumerate(grids)}
    pairs = [(number, column) for number in chosen for column in range(len(models))]
    of = [items[number] for number, _ in pairs]
    return {
        "prompt_id": [number for number, _ in pairs],
        "model_id": [column for _, column in pairs],
        "category_id": [categories[grid.task] for grid, _ in of],
        "label": [int(grid.scores[place, column]) for (grid, place), (_, column) in zip(of, pairs, strict=True)],
        "model_name": [models[column] for _, column in pairs],
        "category": [grid.task for grid, _ in of],
        "prompt": [grid.items[place]["prompt"] for grid, place in of],
    }


# ---- LLMRouterBench


def write_llmrouterbench(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """results/bench/<dataset>/<split>/<model>/<dataset>-<split>-<model>-<time>.json: one model on one data set."""
    places = [(*_dataset_of(grid.task), grid) for grid in grids]
    check_names("task", [grid.task for *of, grid in places if any(map(wrong_path_part, of))], wrong_path_part)
    folders = {model: model.replace("/", "_") for model in grids[0].models}
    check_names("model", folders, lambda model: wrong_path_part(folders[model]))
    if len(set(folders.values())) < len(folders) or len({of[:2] for of in places}) < len(places):
        raise ConfigError("two models or tasks have one folder in it, where / is _: leave one out by --pool or --tasks")
    untokened = 0
    for dataset, split, grid in places:
        for column, model in enumerate(grid.models):
            value = _llmrouterbench(grid, column, dataset, split)
            untokened += sum(record["prompt_tokens"] is None for record in value["records"])
            folder = path / "results/bench" / dataset / split / folders[model]
            folder.mkdir(parents=True)
            cell = grid.cells[column] or {}
            time = cell["started_at"].astimezone(dt.UTC).strftime("%Y%m%d_%H%M%S")
            _write_json(folder / f"{dataset}-{split}-{folders[model]}-{time}.json", value)
    return [f"{untokened:,} answers have no token counts in the lake; theirs are null"] if untokened else []


def _dataset_of(task: str) -> tuple[str, str]:
    """Data set and split: as the task is called where it was imported from such files, else all is `test`."""
    dataset, slash, split = task.rpartition("/")
    return (dataset, split) if slash else (task, "test")


def _llmrouterbench(grid: Grid, column: int, dataset: str, split: str) -> dict[str, Any]:
    records = list(_records(grid, column))
    cell = grid.cells[column] or {}
    facts = ("cell_id", "revision", "num_fewshot", "dtype", "quantization", "imported_from")
    return {
        "performance": float(grid.scores[:, column].mean()),
        "time_taken": _sum(record["extra_fields"]["latency_s"] for record in records),
        "prompt_tokens": _sum(record["prompt_tokens"] for record in records),
        "completion_tokens": _sum(record["completion_tokens"] for record in records),
        "cost": float(grid.usd[:, column].sum()),
        "counts": len(records),
        "model_name": grid.models[column],
        "dataset_name": dataset,
        "split": split,
        "demo": False,
        "extra_metrics": {"metric": grid.metric, **{name: cell.get(name) for name in facts}},
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
            "extra_fields": {"item_hash": item["item_hash"], "latency_s": _known(numbers["latency_s"][row])},
        }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _whole(value: float) -> int | None:
    return None if np.isnan(value) else int(value)


def _sum(values: Iterator[Any] | Any) -> Any:
    """None where one is unknown."""
    found = list(values)
    return None if None in found else sum(found)


def _write_json(path: Path, value: Any) -> None:
    with open(path, "x", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=1)
