"""Values over whole sets and groups: those of lm-eval's own evaluator, to 1e-9, with its standard errors."""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.api.metrics as lm_eval_metrics
import numpy as np
import pytest

from collectors.harness.aggregations import aggregate, aggregation_name, is_mean, metrics_of, primary_metric
from tests.helpers.mini_tasks import own_caches
from tests.helpers.set_tasks import BOOTSTRAPS, TASKS, evaluate, load, values_of, write_set_tasks

__all__ = ["own_caches"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def stock(folder: Path) -> dict[str, Any]:
    return evaluate(folder)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Mapping[str, Any]:
    return load(folder)


@pytest.mark.parametrize("name", TASKS)
def test_aggregates_of_every_metric_are_lm_evals(stock: dict[str, Any], loaded: Mapping[str, Any], name: str) -> None:
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
    others += [lambda values: np.mean(values) if len(values) < 20 else np.median(values)]
    others += [lambda values: np.mean(values[:50])]
    others += [lambda values: str(sum(values) / len(values)), lambda values: values[0]["no key"], lambda values: None]
    assert not any(map(is_mean, others))
    assert aggregation_name(functools.partial(max, default=0)) == "max"


def test_primary_metric_is_the_first_with_a_score_for_each_item() -> None:
    mean, mcc = lm_eval_metrics.mean, lm_eval_metrics.matthews_corrcoef
    assert primary_metric({"mcc": mcc, "acc": mean, "acc_norm": mean}) == "acc"
    assert primary_metric({"mcc": mcc, "other": max}) == "mcc"


def test_aggregation_that_raises_or_is_infinite_is_named(loaded: Mapping[str, Any]) -> None:
    task = loaded["tasks"]["mini_rolling"]
    values = {"none": [json.dumps({"word_perplexity": [-1e9, 3]}), json.dumps({"word_perplexity": [-1.0, 0]})]}
    assert "math range error" in str(aggregate(task, values, "word_perplexity", "none", 10).problem)
    broken = aggregate(task, {"none": ['{"word_perplexity": "x"}']}, "word_perplexity", "none", 10)
    assert broken.value is None
    assert broken.problem


def test_null_of_a_metric_is_not_a_number_again(loaded: Mapping[str, Any]) -> None:
    one = aggregate(loaded["tasks"]["mini_choice"], {"none": ['{"acc": null}', '{"acc": 1.0}']}, "acc", "none", 10)
    assert (one.value, one.items, one.problem) == (None, 2, "it is not a finite number")
    assert math.isnan(lm_eval_metrics.mean([math.nan, 1.0]))
