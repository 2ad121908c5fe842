"""HELM's folders of runs (stanford-crfm/helm, benchmark/runner.py).

A run is one model on one scenario, of one suite. Its cell is what HELM shows of it: the scenario's main metric
(helm_metrics.yaml) on the scenario's main split, without perturbations. Other splits and perturbed copies are tasks of
their own, named in HELM's way: `med_qa:split=valid`, `boolq:perturbation=typos`.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from collectors.importers.files import BadFile
from collectors.importers.json_values import document
from collectors.importers.runs import choose_runs
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from collectors.importers.unwrapping import passage_and_question
from collectors.importers.values import content_of, count_of, number_of, text_of, texts, whole
from schemas.identity import digest

PATTERNS = ("run_spec.json", "scenario_state.json", "per_instance_stats.json")
#: Metrics of a scenario that HELM's schemas do not name; the first that is there counts.
_METRICS = ("exact_match", "quasi_exact_match", "prefix_exact_match", "quasi_prefix_exact_match", "f1_score")
#: Names of metrics from 0 to 1 whose half is the border between right and wrong.
_UNIT = re.compile(r".*(exact_match.*|f1_score|accuracy|math_equiv.*|correctness|correct_answer)")


def read(staging: Staging, source: ImportSource) -> None:
    """Folders of runs: run_spec.json, scenario_state.json and per_instance_stats.json each."""
    runs: dict[str, dict[str, int]] = {}
    for number, file in enumerate(staging.files):
        folder = file.path.rpartition("/")[0]
        runs.setdefault(folder, {})[file.stem] = number
    many = Counter(tuple(folder.split("/")[-2:]) for folder in runs)
    for folder in sorted(runs):
        files = runs[folder]
        suite = folder.split("/")[-2] if folder.count("/") else ""
        if many[tuple(folder.split("/")[-2:])] > 1:  # two folders of suites
            suite = folder.rpartition("/")[0]
        first = files.get("per_instance_stats.json", next(iter(files.values())))
        with staging.one_file(first):
            if missing := [name for name in PATTERNS if name not in files]:
                raise BadFile("unknown_layout", f"no {', '.join(missing)} beside it")
            staging.describing |= {number for number in files.values() if number != first}
            _read_run(staging, files, source, suite)
    choose_runs(staging)


@functools.cache
def _main_metrics() -> dict[str, Any]:
    text = (resources.files("collectors.importers.formats") / "helm_metrics.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


@dataclass
class _Run:
    """One run's cells."""

    staging: Sink
    number: int
    model: str
    task: str
    metric: str
    split: str
    #: Name of the run for a train trial.
    runs: Mapping[Any, str]
    num_fewshot: int | None
    decoding: str
    perturbations: _Perturbations
    answers: Mapping[tuple[str, str, Any], Mapping[str, Any]]
    described: set[tuple[str, str]] = field(default_factory=set)

    def place_of(self, trial: Any, perturbation: str, split: str | None) -> tuple[str, str]:
        """(run, task) of an instance."""
        apart = [f"split={split}"] if split not in (None, self.split) else []
        if perturbation:
            apart.append(f"perturbation={perturbation}")
        task = self.task + "".join(("," if ":" in self.task or i else ":") + part for i, part in enumerate(apart))
        run = self.runs[trial]
        if (run, task) not in self.described:
            self.described.add((run, task))
            self.staging.descriptions[run, self.model, task] = self._description()
        return run, task

    def _description(self) -> CellDescription:
        is_unit = bool(_UNIT.fullmatch(self.metric))
        return CellDescription(
            metric=self.metric,
            threshold=0.5 if is_unit else None,
            low=0.0 if is_unit else None,
            high=1.0 if is_unit else None,
            higher_is_better=self.metric not in _main_metrics()["lower_is_better"],
            num_fewshot=self.num_fewshot,
            decoding=self.decoding,
        )

    def read(self, row: int, one: Any) -> None:
        if not isinstance(one, dict) or one.get("instance_id") is None:
            self.staging.reject(self.number, row, "no_key", "no instance_id", model=self.model, task=self.task)
            return
        perturbation, trial = self.perturbations.name(one.get("perturbation")), one.get("train_trial_index", 0)
        request = self.answers.get((str(one["instance_id"]), perturbation, trial)) or {}
        means = _means(one)
        run, task = self.place_of(trial, perturbation, _split(one) or (request.get("instance") or {}).get("split"))
        key = f"{one['instance_id']}#{perturbation}" if perturbation else str(one["instance_id"])
        result = request.get("result") or {}
        self.staging.item(run=run, task=task, key=key, **_item(request.get("instance") or {}))
        is_failed = bool(result) and result.get("success") is False
        self.staging.row(
            file=self.number,
            row=row,
            run=run,
            model=self.model,
            task=task,
            key=key,
            score=None if is_failed else number_of(means.get(self.metric), keep_odd=True),
            failure="failed_call" if is_failed else None,
            metrics=as_json({name: means[name] for name in sorted(means)}),
            prompt_tokens=count_of(means.get("num_prompt_tokens")),
            completion_tokens=_completion_tokens(means),
            latency_s=number_of(means.get("inference_runtime")),
            responses=_responses(request),
        )


def _read_run(staging: Sink, files: Mapping[str, int], source: ImportSource, suite: str) -> None:
    spec, state, stats = (document(staging.files[files[name]]) for name in PATTERNS)
    number = files["per_instance_stats.json"]
    if not isinstance(spec, dict) or not isinstance(state, dict) or not isinstance(stats, list):
        raise BadFile("unknown_layout", "not the layout of HELM")
    adapter = spec.get("adapter_spec") or {}
    model = source.model or adapter.get("model") or adapter.get("model_deployment")
    if not model:
        raise BadFile("no_model", "run_spec.json names no model: give --model")
    name = str(spec.get("name", ""))
    task = re.sub(r"[,:]?model(_deployment)?=[^,]*", "", name).strip(",:") or "helm"
    rows = [one for one in stats if isinstance(one, dict)]
    trials = {one.get("train_trial_index", 0) for one in rows}
    groups = [str(group) for group in spec.get("groups") or ()] + [re.split("[:,]", name)[0]]
    perturbations = _Perturbations.of(rows)
    decoding = {name: adapter[name] for name in ("temperature", "max_tokens", "stop_sequences") if name in adapter}
    run = _Run(
        staging,
        number,
        str(model),
        task,
        _metric_of(groups, rows),
        _split_of(groups, rows),
        {trial: f"{suite} {model}" + (f" trial-{trial}" if len(trials) > 1 else "") for trial in trials},
        whole(adapter.get("max_train_instances")),
        as_json(decoding),
        perturbations,
        _answers(state, perturbations),
    )
    for row, one in enumerate(stats, 1):
        with staging.one_row(number, row, model=str(model), task=task):
            run.read(row, one)


def _metric_of(groups: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The metric that HELM shows of a run. A scenario that its schemas do not name is judged by exact match."""
    measured = {stat["name"]["name"] for one in rows for stat in one.get("stats") or ()}
    shown = [metric for metric, of in _main_metrics()["metrics"].items() if any(group in of for group in groups)]
    metric: str | None = next((name for name in (*shown, *_METRICS) if name in measured), None)
    if metric is None:
        raise BadFile("unknown_layout", f"has none of the metrics {', '.join((*shown, *_METRICS))}")
    return metric


def _split_of(groups: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The split that HELM shows of a run, or the only one that the run has."""
    splits: list[str] = sorted({split for one in rows if (split := _split(one))})
    shown: str = "valid" if any(group in _main_metrics()["valid"] for group in groups) else "test"
    wanted = (shown, "test", "valid", *splits)
    return next((split for split in wanted if split in splits), shown)


@dataclass(frozen=True)
class _Perturbations:
    """Names of a run's perturbations. Some have one name and other parameters: these get their digest as well."""

    names: Mapping[str, str]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> _Perturbations:
        given = {_canonical(one["perturbation"]): one["perturbation"] for one in rows if one.get("perturbation")}
        many = Counter(str(one["name"]) for one in given.values())
        return cls(
            {
                text: str(one["name"]) if many[str(one["name"])] == 1 else f"{one['name']}-{digest(text)[:6]}"
                for text, one in given.items()
            }
        )

    def name(self, perturbation: Any) -> str:
        """The name of one, '' for None."""
        return self.names.get(_canonical(perturbation), str(perturbation.get("name"))) if perturbation else ""


def _canonical(perturbation: Any) -> str:
    return json.dumps(perturbation, sort_keys=True)


def _means(one: Mapping[str, Any]) -> dict[str, Any]:
    """Metric -> its mean over an instance's requests."""
    stats = [stat for stat in one.get("stats") or () if stat.get("count") != 0]  # the sum of nothing is 0
    return {stat["name"]["name"]: stat.get("mean", stat.get("sum")) for stat in stats}


def _split(one: Mapping[str, Any]) -> str | None:
    return next((split for stat in one.get("stats") or () if (split := stat["name"].get("split"))), None)


def _answers(state: Mapping[str, Any], perturbations: _Perturbations) -> dict[tuple[str, str, Any], dict[str, Any]]:
    """The first request of each instance and train trial: a request for each choice has the same instance."""
    answers: dict[tuple[str, str, Any], dict[str, Any]] = {}
    for request in state.get("request_states") or ():
        instance = request.get("instance") or {}
        perturbation = perturbations.name(instance.get("perturbation"))
        answers.setdefault((str(instance.get("id")), perturbation, request.get("train_trial_index", 0)), request)
    return answers


def _completion_tokens(means: Mapping[str, Any]) -> int | None:
    """Tokens that the model wrote: num_completion_tokens counts the prompt, too, where that is echoed."""
    tokens = count_of(means.get("num_output_tokens", means.get("num_completion_tokens")))
    # HELM writes 0 where the echoed prompt has more tokens than prompt and answer together.
    return None if tokens == 0 and means.get("num_completion_tokens") else tokens


def _responses(request: Mapping[str, Any]) -> list[str] | None:
    if request.get("reference_index") is not None:  # a request for each choice: its completion is the choice
        return None
    result = request.get("result") or {}
    return texts([one.get("text") for one in result.get("completions") or () if isinstance(one, dict)])


def _item(instance: Mapping[str, Any]) -> dict[str, Any]:
    question = instance.get("input")
    question = question.get("text") if isinstance(question, dict) else question
    references = [
        (
            output.get("text") if isinstance(output := one.get("output"), dict) else output,
            "correct" in (one.get("tags") or ()),
        )
        for one in instance.get("references") or ()
    ]
    answers = [text for text, _ in references if isinstance(text, str)]
    # Several right answers without a wrong one are wordings of one answer, not choices.
    choices = answers if len(references) > 1 and not all(right for _, right in references) else None
    passage, asked = passage_and_question(question) if isinstance(question, str) else ("", question)
    return {
        "prompt": text_of(question),
        "choices": choices,
        "target": as_json([text for text, right in references if right]) if references else None,
        # As it was when all answers were taken for choices: the tables of older lakes hold it.
        "item_hash": content_of(question, answers if len(answers) > 1 else None),
        "content_hash": content_of(asked, choices, passage),
    }
