"""Files that router benchmarks publish as JSON or pickled matrices: RouterDC, LLMRouterBench, RouterArena, RouterEval.

Owns their layouts. Sources: shuhao02/RouterDC, ynulihao/LLMRouterBench, RouteWorks/RouterArena,
MilkThink-Lab/RouterEval.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from collectors.importers.files import BadFile, document, names_of
from collectors.importers.found import FOUND, Facts, Found, Source, as_json
from collectors.importers.pickles import load_pickle
from collectors.importers.staging import Staging
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole

JSON = ("*.json", "*.jsonl")
PICKLES = ("leaderboard_*.pkl",)


def read_routerdc(staging: Found, number: int, source: Source) -> None:
    """A list of {question, scores: {model: score}}; the task is the file's name."""
    task = names_of(staging.files)[number]
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            scores, question = value.get("scores"), value.get("question")
            if not isinstance(scores, dict) or not isinstance(question, str):
                staging.reject(number, row, "unknown_layout", "no question, or no scores by model", task=task)
                continue
            key = str(row - 1)
            staging.item(run="", task=task, key=key, prompt=question, content_hash=content_of(question))
            for model, score in scores.items():
                verdict(staging, number, row, task, key, model, score)


def read_llmrouterbench(staging: Found, number: int, source: Source) -> None:
    """results/bench/<dataset>/<split>/<model>/<time>.json: one model on one split of a data set."""
    value = document(staging.files[number])
    records = value.get("records") if isinstance(value, dict) else None
    if not isinstance(records, list):
        raise BadFile("unknown_layout", "no records")
    folders = staging.files[number].name.split("/")[:-1]
    told = [value.get(name) for name in ("dataset_name", "split", "model_name")]
    if len(folders) >= 3:
        told = [one or folder for one, folder in zip(told, folders[-3:], strict=True)]
    if not all(told):
        raise BadFile("no_model", "neither the file nor its folders say data set, split and model")
    dataset, split, model = map(str, told)
    task = f"{dataset}/{split}"
    for row, record in enumerate(records, 1):
        with staging.one_row(number, row):
            if not isinstance(record, dict) or record.get("index") is None:
                staging.reject(number, row, "no_key", "no index", model=model, task=task)
                continue
            key, question = str(record["index"]), record.get("origin_query")
            staging.item(
                run="",
                task=task,
                key=key,
                prompt=text_of(question),
                target=as_json(record["ground_truth"]) if record.get("ground_truth") is not None else None,
                content_hash=content_of(question),
            )
            verdict(
                staging,
                number,
                row,
                task,
                key,
                model,
                record.get("score"),
                prompt_tokens=whole(record.get("prompt_tokens")),
                completion_tokens=whole(record.get("completion_tokens")),
                stated_usd=number_of(record.get("cost")),
                responses=texts(record.get("raw_output")),
                filtered=as_json([record["prediction"]]) if record.get("prediction") is not None else None,
            )


def read_routerarena(staging: Found, number: int, source: Source) -> None:
    """cached_results/<model>.jsonl: one model's answers, with usage and evaluation_result."""
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            key, model = value.get("global_index") or value.get("global index"), value.get("llm_selected")
            judged = value.get("evaluation_result")
            task = str(key).rsplit("_", 1)[0] if key else ""
            said = value.get("token_usage")
            usage = said if isinstance(said, dict) else {}
            question = text_of(value.get("question"))
            target = judged.get("ground_truth") if isinstance(judged, dict) else None
            if key:
                staging.item(
                    run="",
                    task=task,
                    key=str(key),
                    prompt=question,
                    target=as_json(target) if target is not None else None,
                    content_hash=content_of(question),
                )
            failed = value.get("success") is False
            verdict(
                staging,
                number,
                row,
                task,
                str(key or ""),
                str(model or ""),
                judged.get("score") if isinstance(judged, dict) and not failed else None,
                failure="failed_call" if failed else None,
                prompt_tokens=whole(usage.get("input_tokens")),
                completion_tokens=whole(usage.get("output_tokens")),
                stated_usd=number_of(judged.get("inference_cost")) if isinstance(judged, dict) else None,
                responses=texts(value.get("generated_answer")),
            )


def read_routereval(staging: Staging, source: Source) -> None:
    """leaderboard_<family>.pkl: {'model': names, 'data': {sub: {'correctness': items × models}}}; prompts beside it.

    Prompts are in leaderboard_<family>_prompt.pkl: {sub: texts}.
    """
    prompts: dict[str, Any] = {}
    values: dict[int, Any] = {}
    staging.default = Facts(metric="correctness")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            value = load_pickle(file)
            if isinstance(value, dict) and {"model", "data"} <= value.keys():
                values[number] = value
            elif isinstance(value, dict) and all(isinstance(texts, np.ndarray | list) for texts in value.values()):
                prompts |= {str(sub): texts for sub, texts in value.items()}
            else:
                raise BadFile("unknown_layout", "neither models and data, nor prompts by task")
    for number, value in values.items():
        with staging.one_file(number):
            _routereval_matrices(staging, number, value, prompts)


def _routereval_matrices(staging: Staging, number: int, value: Mapping[str, Any], prompts: Mapping[str, Any]) -> None:
    models = [str(model) for model in value["model"]]
    if not models or not isinstance(value["data"], dict):
        raise BadFile("unknown_layout", "no models, or data is no mapping of tasks")
    row = 0
    for sub, content in value["data"].items():
        try:
            scores = np.asarray(content["correctness"] if isinstance(content, dict) else content, np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile("unknown_layout", f"{sub}: no matrix of numbers") from error
        if scores.ndim != 2 or scores.shape[1] != len(models):
            raise BadFile("unknown_layout", f"{sub}: a matrix of {scores.shape}, not of items × {len(models)} models")
        texts_of = prompts.get(str(sub))
        for item in range(len(scores)):
            prompt = str(texts_of[item]) if texts_of is not None and len(texts_of) == len(scores) else None
            staging.item(
                run="", task=str(sub), key=str(item), position=item, prompt=prompt, content_hash=content_of(prompt)
            )
        for item in range(len(scores)):
            many = len(models)
            columns = {
                "file": pa.repeat(pa.scalar(number, pa.int32()), many),
                "row": pa.array(np.arange(row + 1, row + many + 1)),
                "run": pa.repeat("", many),
                "model": pa.array(models),
                "task": pa.repeat(str(sub), many),
                "key": pa.repeat(str(item), many),
                "score": pa.array(scores[item]),
            }
            rest = {f.name: pa.nulls(many, f.type) for f in FOUND if f.name not in columns}
            staging.rows(pa.table([{**columns, **rest}[name] for name in FOUND.names], schema=FOUND))
            row += many
