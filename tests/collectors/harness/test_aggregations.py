"""Values over whole sets and groups: those of lm-eval's own evaluator, to 1e-9, with its standard errors."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.api.metrics as lm_eval_metrics
import numpy as np
import pytest
import yaml
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from collectors.harness.aggregations import aggregate, aggregation_name, is_mean, metrics_of, primary_metric
from collectors.harness.judge import _to_json
from tests.helpers.mini_tasks import own_caches, write_tasks

__all__ = ["own_caches"]

BOOTSTRAPS = 200
#: Tasks whose metrics have a value over a set alone, and one with unequal weights in a group.
MORE = {
    "set_mcc": {"output_type": "multiple_choice", "metric_list": [{"metric": "mcc"}]},
    "set_f1": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices[:2]}}",
        "doc_to_target": "{{gold % 2}}",
        "metric_list": [{"metric": "f1"}, {"metric": "mcc"}],
    },
    "set_median": {
        "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc", "aggregation": "median", "higher_is_better": True}],
    },
    "set_own": {
        "output_type": "generate_until",
        "process_results": "!function own.points",
        "metric_list": [
            {"metric": "points", "aggregation": "!function own.best", "higher_is_better": True},
            {"metric": "right", "aggregation": "!function own.share", "higher_is_better": True},
        ],
    },
}
CODE = """
def points(doc, results):
    return {"points": [doc["a"], len(results[0])], "right": float(doc["a"] % 2)} if doc["a"] else {"right": 0.0}
def best(pairs):
    return max(a for a, _ in pairs) + min(length for _, length in pairs)
def share(values):
    return sum(values) / len(values)
"""
GROUPS = {
    "by_items": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}],
    "by_tasks": [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}],
}
TASKS = ["mini_choice", "mini_likelihood", "mini_rolling", "mini_text", "mini_generate", *MORE]


class HashModel(LM):  # type: ignore[misc]
    """A model whose answers follow from its requests alone."""

    def _of(self, request: Any) -> float:
        digest = hashlib.sha256(repr(request.args[:2]).encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    def loglikelihood(self, requests: Any) -> Any:
        return [(-10 * self._of(request), self._of(request) < 0.3) for request in requests]

    def loglikelihood_rolling(self, requests: Any) -> Any:
        return [-100 * self._of(request) for request in requests]

    def generate_until(self, requests: Any) -> Any:
        return [["", " 12", "the number", request.args[0][-9:]][int(4 * self._of(request))] for request in requests]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), items=17)
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    whole = yaml.safe_load((folder / "mini_choice.yaml").read_text(encoding="utf-8"))
    generates = yaml.safe_load((folder / "mini_generate.yaml").read_text(encoding="utf-8"))
    for name, changes in MORE.items():
        base = generates if changes["output_type"] == "generate_until" else whole
        task = {**base, **changes, "task": name}
        task.pop("filter_list", None)
        text = yaml.safe_dump(task).replace("'!function own.", "!function own.").replace("points'", "points")
        text = text.replace("best'", "best").replace("share'", "share")
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    small = {"name": "mini_few", "lines": (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()[:5]}
    (folder / "few.jsonl").write_text("\n".join(small["lines"]) + "\n", encoding="utf-8")
    few = {**whole, "task": "mini_few"}
    few["dataset_kwargs"] = {"data_files": {**whole["dataset_kwargs"]["data_files"], "test": str(folder / "few.jsonl")}}
    (folder / "mini_few.yaml").write_text(yaml.safe_dump(few), encoding="utf-8")
    for name, metrics in GROUPS.items():
        group = {
            "group": name,
            "task": ["mini_choice", "mini_few", "mini_likelihood"],
            "aggregate_metric_list": metrics,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stock(folder: Path) -> dict[str, Any]:
    """lm-eval's own results, with its samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_MULTIPROC", "1")
        results: dict[str, Any] = lm_eval.simple_evaluate(
            model=HashModel(),
            tasks=TASKS,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            log_samples=True,
            bootstrap_iters=BOOTSTRAPS,
        )
    return results


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = TaskManager(include_path=str(folder), include_defaults=False).load(TASKS)
    return found


def values_of(stock: dict[str, Any], task: str) -> dict[str, list[str]]:
    """The metrics of a task's items, as records hold them."""
    values: dict[str, list[str]] = defaultdict(list)
    for sample in sorted(stock["samples"][task], key=lambda sample: sample["doc_id"]):
        values[sample["filter"]].append(_to_json({name: sample[name] for name in sample["metrics"]}))
    return values


@pytest.mark.parametrize("name", TASKS)
def test_aggregates_of_every_metric_are_lm_evals(stock: dict[str, Any], loaded: dict[str, Any], name: str) -> None:
    task, values, theirs = loaded["tasks"][name], values_of(stock, name), stock["results"][name]
    ours = {
        (one.metric, one.filter): one for one in (aggregate(task, values, *p, BOOTSTRAPS) for p in metrics_of(values))
    }
    keys = {tuple(key.split(",")) for key in theirs if "," in key and "_stderr" not in key}
    assert ours.keys() == keys
    for (metric, filter_name), one in ours.items():
        assert one.problem is None
        assert one.value == pytest.approx(float(theirs[f"{metric},{filter_name}"]), rel=1e-9, abs=1e-9)
        error = theirs[f"{metric}_stderr,{filter_name}"]
        assert one.stderr == (None if error == "N/A" else pytest.approx(float(error), rel=1e-9, abs=1e-9))
        assert one.higher_is_better == task.higher_is_better()[metric]
    assert theirs["sample_len"] == max(one.items for one in ours.values())


def test_means_of_items_are_found_by_what_a_function_does() -> None:
    means = [lm_eval_metrics.mean, lm_eval_metrics.brier_score, lm_eval_metrics.nanmean, np.mean, statistics.fmean]
    means += [lambda values: sum(values) / len(values), functools.partial(np.mean, axis=0)]
    assert all(map(is_mean, means))
    others = [lm_eval_metrics.median, lm_eval_metrics.perplexity, lm_eval_metrics.weighted_perplexity, sum, max, len]
    others += [lm_eval_metrics.f1_score, lm_eval_metrics.matthews_corrcoef, lm_eval_metrics.bleu, np.std]
    others += [lambda values: 100 * sum(values) / len(values), lambda values: 1 - sum(values) / len(values)]
    others += [lambda values: str(sum(values) / len(values)), lambda values: values[0]["no key"], lambda values: None]
    assert not any(map(is_mean, others))
    assert aggregation_name(functools.partial(max, default=0)) == "max"


def test_primary_metric_is_the_first_with_a_score_for_each_item() -> None:
    mean, mcc = lm_eval_metrics.mean, lm_eval_metrics.matthews_corrcoef
    assert primary_metric({"mcc": mcc, "acc": mean, "acc_norm": mean}) == "acc"
    assert primary_metric({"mcc": mcc, "other": max}) == "mcc"


def test_aggregation_that_raises_or_is_infinite_is_named(loaded: dict[str, Any]) -> None:
    task = loaded["tasks"]["mini_rolling"]
    values = {"none": [json.dumps({"word_perplexity": [-1e9, 3]}), json.dumps({"word_perplexity": [-1.0, 0]})]}
    assert "math range error" in str(aggregate(task, values, "word_perplexity", "none", 10).problem)
    broken = aggregate(task, {"none": ['{"word_perplexity": "x"}']}, "word_perplexity", "none", 10)
    assert broken.value is None
    assert broken.problem


def test_null_of_a_metric_is_not_a_number_again(loaded: dict[str, Any]) -> None:
    one = aggregate(loaded["tasks"]["mini_choice"], {"none": ['{"acc": null}', '{"acc": 1.0}']}, "acc", "none", 10)
    assert (one.value, one.items, one.problem) == (None, 2, "it is not a finite number")
    assert math.isnan(lm_eval_metrics.mean([math.nan, 1.0]))
