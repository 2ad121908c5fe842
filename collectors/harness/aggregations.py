"""Makes one number of the values of a task's items, by the task's own aggregation.

Owns the rule for metrics that give each item a score: those whose aggregation is the mean of the items' values. Knows
nothing of a lake and of the process that runs a task's code.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import lm_eval.api.metrics as lm_eval_metrics
from lm_eval.api.task import ConfigurableTask

from schemas.failures import one_line
from schemas.verdicts import MEAN

#: lm-eval's own aggregations that are means of one value an item. brier_score's items are pairs, each with its own.
_MEANS = (lm_eval_metrics.mean, lm_eval_metrics.nanmean, lm_eval_metrics.brier_score)

#: Values that a mean keeps apart from a median, sum, perplexity, accuracy of a set and a mean in per cent; and from
#: functions that are a mean of few or of many values alone.
_PROBES = (
    *([0.0, 0.0, 1.0, 1.0, 1.0], [0.25, 0.5, 0.125, 0.0], [1.0], [3.0, -1.0, 0.5, 0.75]),
    *([i * i % 97 / 96 for i in range(n)] for n in (2, 3, 10, 30, 100, 1000)),
)


def primary_metric(aggregations: Mapping[str, Callable[[Any], Any]]) -> str:
    """Returns the first metric whose items have a score; the first of all if there is none."""
    return next((name for name, aggregate in aggregations.items() if is_mean(aggregate)), next(iter(aggregations)))


def aggregation_name(aggregate: Callable[[Any], Any]) -> str:
    """Returns the column `aggregation` of a cell: schemas.verdicts.MEAN, or the function's name."""
    if is_mean(aggregate):
        return MEAN
    function = getattr(aggregate, "func", aggregate)
    name = str(getattr(function, "__name__", type(function).__name__))
    return f"{name} of the set" if name == MEAN else name


def is_mean(aggregate: Callable[[Any], Any]) -> bool:
    """Whether an aggregation is the mean of its values. A task's own function is tried on a few numbers."""
    if aggregate in _MEANS:
        return True
    if getattr(aggregate, "__module__", "") == lm_eval_metrics.__name__:
        return False
    try:
        return all(_equals_mean(aggregate(list(values)), values) for values in _PROBES)
    except (Exception, SystemExit):  # task code, made for other values
        return False


def _equals_mean(value: Any, values: list[float]) -> bool:
    return not isinstance(value, str) and math.isclose(float(value), sum(values) / len(values), rel_tol=1e-9)


# ---- values over a whole set


class Aggregate(NamedTuple):
    """The value of one metric over the items under one filter."""

    metric: str
    filter: str
    aggregation: str
    higher_is_better: bool
    #: None where it is not finite, or lm-eval has none.
    value: float | None
    stderr: float | None
    items: int
    #: Resamples behind `stderr`; None if a formula gives it.
    bootstraps: int | None
    #: Why there is no value, in one line.
    problem: str | None = None


#: Metrics for which lm-eval's evaluator resamples 100 times at most: each resample takes seconds.
_SLOW = ("bleu", "chrf", "chrf++", "ter")

#: Filter -> the `metrics` of its items, JSON texts in the order of the items.
Values = Mapping[str, Sequence[str]]


def metrics_of(values: Values) -> list[tuple[str, str]]:
    """Returns the (metric, filter) pairs of some items' metrics, in the order of lm-eval's results."""
    pairs = {(metric, name): None for name, texts in values.items() for text in texts for metric in json.loads(text)}
    return list(pairs)


def aggregate(task: Any, values: Values, metric: str, name: str, bootstraps: int) -> Aggregate:
    """Returns a metric's value under the filter `name`, as lm-eval's evaluator computes it for `task`, a lm-eval task.

    An item whose metrics lack it does not count, as there. `bootstraps` is the number of resamples behind a standard
    error that no formula gives (lm-eval's own number is 100,000).
    """
    items = [_restored(found[metric]) for text in values[name] if metric in (found := json.loads(text))]
    function = task.aggregation().get(metric, lm_eval_metrics.mean)
    resamples = min(bootstraps, 100) if metric in _SLOW else bootstraps
    is_exact = has_formula(task, metric)
    value = stderr = problem = None
    os.environ["DISABLE_MULTIPROC"] = "1"  # a judge may not start processes; the resamples are the same
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            value = _finite(function(items))
            error = lm_eval_metrics.stderr_for_metric(function, resamples)
            stderr = _finite(error(items)) if error and len(items) > 1 else None
        problem = None if value is not None else "it is not a finite number"
    except (Exception, SystemExit) as failure:  # aggregations are task code
        problem = one_line(failure)
    better = bool(task.higher_is_better().get(metric, True))
    resampled = None if is_exact or stderr is None else resamples
    return Aggregate(metric, name, aggregation_name(function), better, value, stderr, len(items), resampled, problem)


def has_formula(task: Any, metric: str) -> bool:
    """Whether lm-eval has a formula for the metric's value and standard error, and no code of the task's own runs."""
    if type(task).aggregation is not ConfigurableTask.aggregation:
        return False
    function = task.aggregation().get(metric, lm_eval_metrics.mean)
    return function in (lm_eval_metrics.mean, lm_eval_metrics.acc_all)


def _restored(value: Any) -> Any:
    """JSON has no NaN: a record's metrics hold null in its place."""
    return math.nan if value is None else value


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def of_group(
    members: Sequence[tuple[float, float | None]], sizes: Sequence[int], *, is_weighted: bool
) -> tuple[float, float | None]:
    """The value and standard error of a group, by lm-eval's functions, of those of its tasks and their items.

    With `is_weighted` each item counts the same, else each task. The error is None where lm-eval has none.
    """
    value = lm_eval_metrics.aggregate_subtask_metrics([value for value, _ in members], sizes, is_weighted)
    errors = [error for _, error in members if error is not None]
    if len(errors) < len(members):
        return float(value), None
    try:
        of_all = lm_eval_metrics.pooled_sample_stderr if is_weighted else _unweighted
        return float(value), float(of_all(errors, sizes))
    except ZeroDivisionError:  # tasks of one item have no error to pool
        return float(value), None


def _unweighted(errors: Sequence[float], sizes: Sequence[int]) -> float:
    return float(lm_eval_metrics.unweighted_mean_stderr(errors))
