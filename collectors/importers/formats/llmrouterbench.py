"""Results of LLMRouterBench (ynulihao/LLMRouterBench, data_collector/storage.py): one JSON a run of a model and split.

The time in their names distinguishes a model's runs on one split. Its own loader reads the newest of them, and none
that was made to try the program (`demo`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from collectors.importers.files import BadFile
from collectors.importers.json_values import document_of_rows
from collectors.importers.sources import ImportSource, Sink, as_json
from collectors.importers.values import content_of, count_of, number_of, text_of, texts, verdict

_TIME = re.compile(r"(\d{8})_(\d{6})\.json")
#: How an answer begins that stands for a call that failed (data_collector/runner.py).
_FAILED = ("Processing failed: ", "Unexpected error: ")


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """results/bench/<dataset>/<split>/<model>/<dataset>-<split>-<model>-<time>.json"""
    value = document_of_rows(staging.files[number])
    records = value.get("records") if isinstance(value, dict) else None
    if not isinstance(records, list):
        raise BadFile("unknown_layout", "no records")
    if value.get("demo") is True:
        raise BadFile("left_out", "made by a trial of the program (demo), on the first items alone")
    folders = staging.files[number].name.split("/")[:-1]
    names = [value.get(name) for name in ("dataset_name", "split", "model_name")]
    if len(folders) >= 3:
        names = [one or folder for one, folder in zip(names, folders[-3:], strict=True)]
    if not all(names):
        raise BadFile("no_model", "neither the file nor its folders name data set, split and model")
    dataset, split, model = map(str, names)
    task = f"{dataset}/{split}"
    stem = staging.files[number].stem
    time = _TIME.search(stem)
    run = f"{time[1]}_{time[2]} {model}" if time else f"00000000_000000 {stem} {model}"  # older than all with a time
    figures = {"answers": value.get("counts"), "mean": value.get("performance")}
    staging.state(file=number, run=run, model=model, task=task, **figures)
    for row, record in enumerate(records, 1):
        with staging.one_row(number, row, model=model, task=task):
            if not isinstance(record, dict) or record.get("index") is None:
                raise BadFile("no_key", "no index")
            key, question = str(record["index"]), record.get("origin_query")
            columns = _columns(record)
            staging.item(
                run=run,
                task=task,
                key=key,
                prompt=text_of(question),
                target=as_json(record["ground_truth"]) if record.get("ground_truth") not in (None, "") else None,
                content_hash=content_of(question),
            )
            verdict(staging, number, row, task, key, model, record.get("score"), run=run, **columns)


def _columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns beside its score. Zeros of a failed call, or of an answer without tokens, stand for nothing."""
    answer = record.get("raw_output")
    if record.get("score") is None and isinstance(answer, str) and answer.startswith(_FAILED):
        return {"failure": "failed_call"}
    extra = record.get("extra_fields")
    metrics = {name: extra[name] for name in sorted(extra)} if isinstance(extra, dict) else {}
    metrics = {name: value for name, value in metrics.items() if number_of(value) is not None}
    counts = {name: count_of(record.get(name)) for name in ("prompt_tokens", "completion_tokens")}
    usd = number_of(record.get("cost"))
    if not any(counts.values()) and not usd:  # a prompt has tokens: nobody counted them
        counts, usd = {}, None
    return {
        "metrics": as_json({**metrics, "score": record.get("score")}) if metrics else None,
        **counts,
        "stated_usd": usd,
        "responses": texts(answer),
        "filtered": as_json([record["prediction"]]) if record.get("prediction") is not None else None,
    }
