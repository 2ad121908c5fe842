"""Every Eval Ever 0.3.0: for each model an aggregate JSON and the verdicts behind it as JSON lines.

Owns their layout: data/routerlake/<developer>/<model>/<uuid>.json and <uuid>_samples.jsonl. The same lake gives the
same names and bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collectors.exporters.grid import Grid, Options
from collectors.exporters.texts import check_names, json_line, references, wrong_path_part
from collectors.metrics.sums import mean
from schemas.failures import ConfigError

VERSION = "0.3.0"
COLLECTION = "routerlake"
#: Stands for the developer of a model whose name has none, and for the version of a source that states none.
UNKNOWN = "unknown"


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """A pair of files for each model, over all tasks."""
    check_names("task", [grid.task for grid in grids if _no_rule(grid)], lambda _: "has no rule for correct answers")
    models = grids[0].models
    check_names("model", models, lambda model: next(filter(None, map(wrong_path_part, _place(model))), None))
    if len({_place(model) for model in models}) < len(models):
        raise ConfigError("two models have one folder in it: leave one out by --pool")
    for column, model in enumerate(models):
        _write_model(grids, column, model, path)
    unnamed = sum("/" not in model for model in models)
    return [f"{unnamed:,} models have no developer in their names: theirs is {UNKNOWN}"] if unnamed else []


def _place(model: str) -> tuple[str, str]:
    """Developer, and folder of the model."""
    developer, slash, name = model.partition("/")
    return (developer, name.replace("/", "_")) if slash else (UNKNOWN, model)


def _no_rule(grid: Grid) -> bool:
    return any(cell is not None and cell["correct_threshold"] is None for cell in grid.cells)


def _write_model(grids: Sequence[Grid], column: int, model: str, path: Path) -> None:
    developer, folder = _place(model)
    cells = [cell for grid in grids if (cell := grid.cells[column])]
    name = uuid.UUID(int=random.Random("\n".join(cell["cell_id"] for cell in cells)).getrandbits(128), version=4)
    stem = f"data/{COLLECTION}/{developer}/{folder}/{name}"
    time = str(int(max(cell["started_at"] for cell in cells).timestamp()))
    identity = f"{COLLECTION}/{model}/{time}"
    samples = [sample for grid in grids for sample in _samples(grid, column, identity)]
    data = "".join(map(json_line, samples)).encode()
    value = {
        "schema_version": VERSION,
        "evaluation_id": identity,
        "retrieved_timestamp": time,
        "source_metadata": {
            "source_name": COLLECTION,
            "source_type": "evaluation_run",
            "source_organization_name": UNKNOWN,
            "evaluator_relationship": "other",
        },
        "eval_library": _library(cells),
        "model_info": _model_info(model, cells),
        "evaluation_results": [_result(grid, column) for grid in grids],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": f"{stem}_samples.jsonl",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(data).hexdigest(),
            "total_rows": len(samples),
        },
    }
    (path / stem).parent.mkdir(parents=True)
    (path / f"{stem}_samples.jsonl").write_bytes(data)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    (path / f"{stem}.json").write_text(text, encoding="utf-8")


def _model_info(model: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collected models ran on weights at hand. Of imported ones neither that nor the deployment is recorded."""
    collected = all(cell["imported_from"] is None for cell in cells)
    return {
        "name": model,
        "id": model,
        "developer": _place(model)[0],
        "additional_details": {
            "deployment_type": "self_deployed" if collected else UNKNOWN,
            "model_availability": "open_weights" if collected else UNKNOWN,
            **_texts({name: cells[0][name] for name in ("revision", "dtype", "quantization")}),
        },
    }


def _library(cells: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The judge: lm-eval for collected records, else the source's name in the lake."""
    sources = sorted({cell["imported_from"] or "lm_eval" for cell in cells})
    versions = {str(json.loads(cell["versions"]).get("lm_eval", UNKNOWN)) for cell in cells}
    return {"name": ", ".join(sources), "version": versions.pop() if len(versions) == 1 else UNKNOWN}


def _result(grid: Grid, column: int) -> dict[str, Any]:
    cell = grid.cells[column] or {}
    scores = grid.scores[:, column]
    settings = ("num_fewshot", "chat_template", "system_prompt", "decoding", "cell_id", "items_digest")
    return {
        "evaluation_name": grid.task,
        "evaluation_result_id": f"{grid.task}/{grid.metric}",
        "source_data": {"dataset_name": grid.task, "source_type": "other"},
        "metric_config": {"metric_id": grid.metric, "metric_name": grid.metric, "lower_is_better": False},
        "score_details": {"score": mean(scores), "uncertainty": {"num_samples": len(scores)}},
        "generation_config": {"additional_details": _texts({name: cell.get(name) for name in settings})},
    }


def _samples(grid: Grid, column: int, identity: str) -> Iterator[dict[str, Any]]:
    cell = grid.cells[column] or {}
    for row, item in enumerate(grid.items):
        numbers = {name: float(values[row, column]) for name, values in grid.numbers.items()}
        sample = {
            "schema_version": VERSION,
            "evaluation_id": identity,
            "model_id": grid.models[column],
            "evaluation_name": grid.task,
            "evaluation_result_id": f"{grid.task}/{grid.metric}",
            "sample_id": str(item["item"]),
            "sample_hash": item["item_hash"],
            "interaction_type": "single_turn",
            "input": {"raw": item["prompt"], "reference": references(item["target"]), "choices": item["choices"]},
            "output": {"raw": list(grid.responses[row, column] or [])},
            "messages": None,
            "answer_attribution": [],
            "evaluation": {"score": numbers["score"], "is_correct": numbers["score"] >= cell["correct_threshold"]},
            "metadata": {} if np.isnan(numbers["usd"]) else {"usd": repr(numbers["usd"])},
        }
        if not np.isnan(numbers["latency_s"]):
            sample["performance"] = {"latency_ms": numbers["latency_s"] * 1000}
        yield sample | _usage(numbers)


def _usage(numbers: dict[str, float]) -> dict[str, Any]:
    """Both counts or none: it asks for their sum."""
    counts = {name: int(value) for name, value in numbers.items() if name.endswith("_tokens") and not np.isnan(value)}
    if not {"prompt_tokens", "completion_tokens"} <= counts.keys():
        return {}
    given, made = counts["prompt_tokens"], counts["completion_tokens"]
    usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    if "cached_tokens" in counts:
        usage["input_tokens_cache_read"] = counts["cached_tokens"]
    if "reasoning_tokens" in counts:  # a part of the output
        usage["reasoning_tokens"] = counts["reasoning_tokens"]
    return {"token_usage": usage}


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """Values as texts, which the format's details are, without those that are unknown."""
    return {name: str(value) for name, value in values.items() if value is not None}
