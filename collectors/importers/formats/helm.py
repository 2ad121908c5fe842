"""HELM's folders of runs (stanford-crfm/helm, benchmark/runner.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from collectors.importers.files import BadFile, document
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from collectors.importers.values import content_of, number_of, text_of, texts, whole

PATTERNS = ("run_spec.json", "scenario_state.json", "per_instance_stats.json")
#: Metrics of an instance. HELM's scenarios show one of them; the first that is there counts.
_METRICS = ("exact_match", "quasi_exact_match", "prefix_exact_match", "quasi_prefix_exact_match", "f1_score")


def read(staging: Staging, source: ImportSource) -> None:
    """Folders of runs: run_spec.json, scenario_state.json and per_instance_stats.json each."""
    runs: dict[str, dict[str, int]] = {}
    for number, file in enumerate(staging.files):
        folder = file.path.rpartition("/")[0]
        runs.setdefault(folder, {})[file.stem] = number
    for files in (runs[folder] for folder in sorted(runs)):
        first = files.get("per_instance_stats.json", next(iter(files.values())))
        with staging.one_file(first):
            if missing := [name for name in PATTERNS if name not in files]:
                raise BadFile("unknown_layout", f"no {', '.join(missing)} beside it")
            staging.describing |= set(files.values()) - {first}
            _read_run(staging, files, source)


def _read_run(staging: Sink, files: Mapping[str, int], source: ImportSource) -> None:
    spec, state, stats = (document(staging.files[files[name]]) for name in PATTERNS)
    number = files["per_instance_stats.json"]
    if not isinstance(spec, dict) or not isinstance(state, dict) or not isinstance(stats, list):
        raise BadFile("unknown_layout", "not the layout of HELM")
    adapter = spec.get("adapter_spec") or {}
    model = source.model or adapter.get("model") or adapter.get("model_deployment")
    if not model:
        raise BadFile("no_model", "run_spec.json names no model: give --model")
    task = re.sub(r"[,:]?model(_deployment)?=[^,]*", "", str(spec.get("name", ""))).strip(",:") or "helm"
    answers = {}
    for request in state.get("request_states") or ():
        instance = request.get("instance") or {}
        name = _key(instance.get("id"), instance.get("perturbation"))
        answers[name, request.get("train_trial_index", 0)] = request
    trials = {one.get("train_trial_index", 0) for one in stats if isinstance(one, dict)}
    names = {stat["name"]["name"] for one in stats if isinstance(one, dict) for stat in one.get("stats") or ()}
    metric = next((name for name in _METRICS if name in names), None)
    if metric is None:
        raise BadFile("unknown_layout", f"has none of the metrics {', '.join(_METRICS)}")
    decoding = {name: adapter[name] for name in ("temperature", "max_tokens", "stop_sequences") if name in adapter}
    for trial in trials:
        run = f"trial-{trial}" if len(trials) > 1 else ""
        shots = whole(adapter.get("max_train_instances"))
        description = CellDescription(metric=metric, num_fewshot=shots, decoding=as_json(decoding))
        staging.descriptions[run, str(model), task] = description
    for row, one in enumerate(stats, 1):
        with staging.one_row(number, row):
            if not isinstance(one, dict) or one.get("instance_id") is None:
                staging.reject(number, row, "no_key", "no instance_id", model=model, task=task)
                continue
            trial = one.get("train_trial_index", 0)
            run = f"trial-{trial}" if len(trials) > 1 else ""
            key = _key(one["instance_id"], one.get("perturbation"))
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


def _key(instance: Any, perturbation: Any) -> str:
    name = perturbation.get("name") if isinstance(perturbation, dict) else None
    return f"{instance}#{name}" if name else str(instance)
