"""Logs of evaluation programs: lighteval, the Open LLM Leaderboard, HELM, Inspect, OpenCompass, Every Eval Ever.

Owns their layouts. Sources: huggingface/lighteval (logging/info_loggers.py, 0.9 and 0.10), stanford-crfm/helm
(benchmark/runner.py), UKGovernmentBEIS/inspect_ai (log/_log.py), open-compass/opencompass (openicl inferencers),
Every Eval Ever's JSON schema 0.3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import BadFile, decoded, document, zip_members
from collectors.importers.found import Facts, Found, Source, as_json
from collectors.importers.staging import Staging
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole
from schemas.failures import one_line

DETAILS = ("details_*.parquet",)
HELM = ("run_spec.json", "scenario_state.json", "per_instance_stats.json")
INSPECT = ("*.json", "*.eval")
OPENCOMPASS = ("*.json",)
EVERY_EVAL_EVER = ("*_samples.jsonl",)

_TIME = re.compile(r"_?\d{4}-\d\d-\d\dT[\d:.-]+$")


# ---- lighteval, and the leaderboard's details of 2023 and 2024


def read_details(staging: Found, number: int, source: Source) -> None:
    """details_<task>_<time>.parquet: metrics flat, as `metrics.<name>`, or a struct; or three structs since 0.10.

    No row has an id: an item is its row. Of which model it is, a folder details_<organisation>__<model> says, or
    details/<organisation>/<model>/<time>.
    """
    file = staging.files[number]
    name = file.stem.removeprefix("details_").removesuffix(".parquet")
    time = _TIME.search(name)
    task, run = _TIME.sub("", name), time[0].strip("_") if time else ""
    model = source.model or _details_model(file.path)
    if model is None:
        raise BadFile("no_model", "no folder of it says whose answers these are: give --model")
    try:
        with file.open() as stream:
            table = pq.ParquetFile(pa.BufferReader(stream.read()))
            shots = re.search(r"\|(\d+)$", task)
            facts: Facts | None = None
            row = 0
            for batch in table.iter_batches(1000):
                for values in batch.to_pylist():
                    with staging.one_row(number, row + 1):
                        row += 1
                        found = _of_structs(values) if "__metric__" in values else _of_columns(values, task)
                        metric, score, item, columns = found
                        facts = facts or Facts(metric=metric, num_fewshot=int(shots[1]) if shots else None)
                        staging.facts[run, model, task] = facts
                        key = str(row - 1)
                        staging.item(run=run, task=task, key=key, position=row - 1, **item)
                        if facts.metric != metric:
                            known = {"model": model, "task": task, "source_key": key}
                            staging.reject(number, row, "no_verdict", f"no metric {facts.metric} in this row", **known)
                            continue
                        verdict(staging, number, row, task, key, model, score, run=run, **columns)
    except (pa.ArrowException, OSError) as error:
        raise BadFile("damaged", f"no whole Parquet file: {one_line(error, 160)}") from error


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
    """Metrics of which the leaderboard showed the first that is there."""
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


# ---- HELM

#: Metrics of an instance of which HELM's scenarios show one; the first that is there.
_HELM_METRICS = ("exact_match", "quasi_exact_match", "prefix_exact_match", "quasi_prefix_exact_match", "f1_score")


def read_helm(staging: Staging, source: Source) -> None:
    """Folders of runs: run_spec.json, scenario_state.json and per_instance_stats.json each."""
    runs: dict[str, dict[str, int]] = {}
    for number, file in enumerate(staging.files):
        folder = file.path.rpartition("/")[0]
        runs.setdefault(folder, {})[file.stem] = number
    for files in (runs[folder] for folder in sorted(runs)):
        first = files.get("per_instance_stats.json", next(iter(files.values())))
        with staging.one_file(first):
            if missing := [name for name in HELM if name not in files]:
                raise BadFile("unknown_layout", f"no {', '.join(missing)} beside it")
            _helm_run(staging, files, source)


def _helm_run(staging: Found, files: Mapping[str, int], source: Source) -> None:
    spec, state, stats = (document(staging.files[files[name]]) for name in HELM)
    number = files["per_instance_stats.json"]
    if not isinstance(spec, dict) or not isinstance(state, dict) or not isinstance(stats, list):
        raise BadFile("unknown_layout", "not what HELM writes")
    adapter = spec.get("adapter_spec") or {}
    model = source.model or adapter.get("model") or adapter.get("model_deployment")
    if not model:
        raise BadFile("no_model", "run_spec.json names no model: give --model")
    task = re.sub(r"[,:]?model(_deployment)?=[^,]*", "", str(spec.get("name", ""))).strip(",:") or "helm"
    answers = {}
    for request in state.get("request_states") or ():
        instance = request.get("instance") or {}
        name = _helm_key(instance.get("id"), instance.get("perturbation"))
        answers[name, request.get("train_trial_index", 0)] = request
    trials = {one.get("train_trial_index", 0) for one in stats if isinstance(one, dict)}
    names = {stat["name"]["name"] for one in stats if isinstance(one, dict) for stat in one.get("stats") or ()}
    metric = next((name for name in _HELM_METRICS if name in names), None)
    if metric is None:
        raise BadFile("unknown_layout", f"none of {', '.join(_HELM_METRICS)} is judged in it")
    decoding = {name: adapter[name] for name in ("temperature", "max_tokens", "stop_sequences") if name in adapter}
    for trial in trials:
        run = f"trial-{trial}" if len(trials) > 1 else ""
        shots = whole(adapter.get("max_train_instances"))
        facts = Facts(metric=metric, num_fewshot=shots, decoding=as_json(decoding))
        staging.facts[run, str(model), task] = facts
    for row, one in enumerate(stats, 1):
        with staging.one_row(number, row):
            if not isinstance(one, dict) or one.get("instance_id") is None:
                staging.reject(number, row, "no_key", "no instance_id", model=model, task=task)
                continue
            trial = one.get("train_trial_index", 0)
            run = f"trial-{trial}" if len(trials) > 1 else ""
            key = _helm_key(one["instance_id"], one.get("perturbation"))
            means = {stat["name"]["name"]: stat.get("mean", stat.get("sum")) for stat in one.get("stats") or ()}
            request = answers.get((key, trial)) or {}
            instance, result = request.get("instance") or {}, request.get("result") or {}
            question = instance.get("input")
            question = question.get("text") if isinstance(question, dict) else question
            references = [
                ((r.get("output") or {}).get("text"), "correct" in (r.get("tags") or ()))
                for r in instance.get("references") or ()
            ]
            choices = [text for text, _ in references if isinstance(text, str)]
            staging.item(
                run=run,
                task=task,
                key=key,
                prompt=text_of(question),
                choices=choices if len(choices) > 1 else None,
                target=as_json([text for text, right in references if right]) if references else None,
                content_hash=content_of(question, choices if len(choices) > 1 else None),
            )
            completions = [c.get("text") for c in result.get("completions") or () if isinstance(c, dict)]
            staging.row(
                file=number,
                row=row,
                run=run,
                model=str(model),
                task=task,
                key=key,
                score=number_of(means.get(metric), keep_odd=True),
                failure="failed_call" if result and result.get("success") is False else None,
                metrics=as_json({name: means[name] for name in sorted(means)}),
                prompt_tokens=whole(means.get("num_prompt_tokens")),
                completion_tokens=whole(means.get("num_completion_tokens", means.get("num_output_tokens"))),
                latency_s=number_of(means.get("inference_runtime")),
                responses=texts(completions),
            )


def _helm_key(instance: Any, perturbation: Any) -> str:
    name = perturbation.get("name") if isinstance(perturbation, dict) else None
    return f"{instance}#{name}" if name else str(instance)


# ---- Inspect

_INSPECT_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def read_inspect(staging: Found, number: int, source: Source) -> None:
    """A log of one task and model, as JSON or as the zip archive that ends in .eval; an epoch is a repeat."""
    header, samples = _inspect_log(staging, number)
    about = header.get("eval") or {}
    model, task = source.model or about.get("model"), about.get("task")
    if not model or not task:
        raise BadFile("unknown_layout", "no log of Inspect: it names no task and model")
    several = (whole((about.get("config") or {}).get("epochs")) or 1) > 1
    scorers: list[str] = []
    row = 0
    for sample in samples:
        with staging.one_row(number, row + 1):
            row += 1
            if not isinstance(sample, dict) or sample.get("id") is None:
                staging.reject(number, row, "no_key", "no id", model=model, task=task)
                continue
            key, question, scores = str(sample["id"]), sample.get("input"), sample.get("scores") or {}
            if isinstance(question, list):
                said = [m.get("content") for m in question if isinstance(m, dict) and m.get("role") == "user"]
                question = said[0] if len(said) == 1 and isinstance(said[0], str) else None
            choices = texts(sample.get("choices"))
            if scores and not scorers:
                scorers.append(next(iter(scores)))
                facts = Facts(
                    metric=scorers[0], versions={"inspect_ai": str((about.get("packages") or {}).get("inspect_ai", ""))}
                )
                staging.facts["", str(model), str(task)] = facts
            staging.item(
                run="",
                task=str(task),
                key=key,
                prompt=question,
                choices=choices,
                target=as_json(sample["target"]) if sample.get("target") is not None else None,
                content_hash=content_of(question, choices),
            )
            judged = scores.get(scorers[0]) if scorers else None
            score = _inspect_score(judged.get("value")) if isinstance(judged, dict) else None
            usage = sum_usage(sample.get("model_usage"))
            output = sample.get("output") or {}
            verdict(
                staging,
                number,
                row,
                str(task),
                key,
                str(model),
                score,
                repeat=(whole(sample.get("epoch")) or 1) if several else 0,
                failure="failed_call" if sample.get("error") else None,
                latency_s=number_of(sample.get("total_time")),
                responses=texts(output.get("completion")),
                **usage,
            )
    if several and scorers:
        _reduced(staging, number, row, header.get("reductions"), scorers[0], str(model), str(task))


def _reduced(staging: Found, number: int, row: int, reductions: Any, scorer: str, model: str, task: str) -> None:
    """Of epochs: what Inspect's first reducer makes of them is repeat 0; without one there is none."""
    of_scorer = [one for one in reductions or () if isinstance(one, dict) and one.get("scorer") == scorer]
    for sample in of_scorer[0].get("samples") or () if of_scorer else ():
        row += 1
        with staging.one_row(number, row, model=model, task=task):
            if sample.get("sample_id") is None:
                raise BadFile("no_key", "a reduced score without the id of its sample")
            metrics = as_json({"reducer": of_scorer[0].get("reducer")})
            score = _inspect_score(sample.get("value"))
            verdict(staging, number, row, task, str(sample["sample_id"]), model, score, repeat=0, metrics=metrics)


def _inspect_score(value: Any) -> Any:
    return _INSPECT_VALUES.get(value, value) if isinstance(value, str) else value


def _inspect_log(staging: Found, number: int) -> tuple[dict[str, Any], Iterator[Any]]:
    file = staging.files[number]
    if not file.stem.endswith(".eval"):
        value = document(file)
        if not isinstance(value, dict):
            raise BadFile("unknown_layout", "no log of Inspect")
        return value, iter(value.get("samples") or ())
    header: dict[str, Any] = {}
    samples: list[tuple[str, bytes]] = []
    for name, data in zip_members(file):
        if name == "header.json":
            header |= decoded(data)
        elif name == "_journal/start.json":  # of a log that was cut off
            header = {**decoded(data), **header}
        elif name == "reductions.json":
            header["reductions"] = decoded(data)
        elif name.startswith("samples/") and name.endswith(".json"):
            samples.append((name, data))
    return header, (decoded(data) for _, data in sorted(samples))


def sum_usage(usage: Any) -> dict[str, Any]:
    """RECORD's token columns of Inspect's usage by model; null where it counts nothing."""
    parts = [one for one in usage.values() if isinstance(one, dict)] if isinstance(usage, dict) else []
    found = {}
    for ours, theirs in (
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("cached_tokens", "input_tokens_cache_read"),
    ):
        known = [count for one in parts if (count := whole(one.get(theirs))) is not None]
        found[ours] = sum(known) if known else None
    return found


# ---- OpenCompass


def read_opencompass(staging: Staging, source: Source) -> None:
    """predictions/<model>/<dataset>.json with the answers; verdicts are in results/ where its details were kept."""
    details: dict[tuple[str, ...], Any] = {}
    for number, file in enumerate(staging.files):
        parts = file.path.split("/")
        if len(parts) >= 3 and parts[-3] == "results":
            with staging.one_file(number):
                value = document(file)
                details[(*parts[:-3], parts[-2], file.stem)] = value.get("details") if isinstance(value, dict) else None
    for number, file in enumerate(staging.files):
        parts = file.path.split("/")
        if len(parts) < 3 or parts[-3] != "predictions":
            continue
        with staging.one_file(number):
            _opencompass_file(
                staging, number, source.model or parts[-2], details.get((*parts[:-3], parts[-2], file.stem))
            )


def _opencompass_file(staging: Found, number: int, model: str, details: Any) -> None:
    value, task = document(staging.files[number]), staging.files[number].stem.removesuffix(".json")
    if not isinstance(value, dict):
        raise BadFile("unknown_layout", "no answers by number")
    for row, (key, one) in enumerate(value.items(), 1):
        with staging.one_row(number, row):
            if not isinstance(one, dict) or not key.isdigit():
                staging.reject(number, row, "no_key", "no answer under a number", model=model, task=task)
                continue
            prompt = one.get("origin_prompt")
            if isinstance(prompt, list):
                said = [turn.get("prompt") for turn in prompt if isinstance(turn, dict)]
                prompt = said[0] if len(said) == 1 else None
            gold = one.get("gold")
            staging.item(
                run="",
                task=task,
                key=key,
                position=int(key) if len(key) < 8 else None,
                prompt=text_of(prompt),
                target=as_json(gold) if gold is not None else None,
                content_hash=content_of(prompt),
            )
            judged = details.get(key) if isinstance(details, dict) else None
            if judged is None and isinstance(details, list) and int(key) < len(details):
                judged = details[int(key)]
            right = judged.get("correct") if isinstance(judged, dict) else None
            right = all(right) if isinstance(right, list) and right else right
            verdict(staging, number, row, task, key, model, right, responses=texts(one.get("prediction")))


# ---- Every Eval Ever


def read_every_eval_ever(staging: Found, number: int, source: Source) -> None:
    """<uuid>_samples.jsonl: a row per item and metric."""
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            given, judged = value.get("input") or {}, value.get("evaluation") or {}
            task, model = str(value.get("evaluation_name") or ""), str(value.get("model_id") or "")
            key = str(value.get("sample_id") or "")
            choices, question = texts(given.get("choices")), given.get("raw")
            question = text_of(question)
            staging.facts.setdefault(("", model, task), Facts(low=None, high=None))
            staging.item(
                run="",
                task=task,
                key=key,
                prompt=question,
                choices=choices,
                target=as_json(given["reference"]) if given.get("reference") is not None else None,
                content_hash=content_of(question, choices),
            )
            usage, speed = value.get("token_usage") or {}, value.get("performance") or {}
            latency = number_of(speed.get("latency_ms"))
            verdict(
                staging,
                number,
                row,
                task,
                key,
                model,
                judged.get("score") if judged.get("score") is not None else judged.get("is_correct"),
                failure="failed_call" if value.get("error") else None,
                prompt_tokens=whole(usage.get("input_tokens")),
                completion_tokens=whole(usage.get("output_tokens")),
                cached_tokens=whole(usage.get("input_tokens_cache_read")),
                latency_s=latency / 1000 if latency is not None else None,
                responses=texts((value.get("output") or {}).get("raw")),
            )
