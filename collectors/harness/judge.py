"""Judges answered items with lm-eval's filters and metrics and returns record rows.

Owns the step from answers to schemas.records.RECORD: scores, metrics, token counts and times of an item. `metrics`
holds unchanged the values that lm-eval would log for an item; `score` is null where the model gave no answer or could
not be asked. Knows nothing of engines or storage.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import lm_eval.utils
import numpy as np
import pyarrow as pa
from lm_eval.api.instance import Instance

from collectors.harness.requests import Asked
from collectors.harness.tasks import BoundTask
from schemas.failures import NOT_JUDGED
from schemas.records import RECORD

logger = logging.getLogger(__name__)


def record_table(task: BoundTask, asked: Sequence[Asked], cell_id: str, model: str) -> pa.Table:
    """Returns rows of schemas.records.RECORD, one per item, filter and repeat, in that order.

    Repeat 0 is the item over all of its repeats; 1, 2, … are the single repeats, where an item was asked several times.
    """
    judged = [a for a in asked if not _unjudgeable(a)]
    repeats = max((len(answers) for a in asked for answers in a.answers), default=1)
    verdicts = {0: _verdicts(task, judged, None)}
    if repeats > 1:
        verdicts |= {r + 1: _verdicts(task, judged, r) for r in range(repeats)}
    filters = [f.name for f in task.task._filters]
    rows = []
    for one in asked:
        for position, name in enumerate(filters):
            for repeat, by_filter in verdicts.items():
                row = {"cell_id": cell_id, "model": model, "task": task.name, "item": one.item, "filter": name}
                row |= {"item_hash": task.hashes[one.item], "repeat": repeat}
                row |= _verdict_columns(task, one, by_filter.get((one.item, name)), repeat)
                row |= _usage_columns(one, repeat)
                if position == 0:
                    row |= _response_columns(one, repeat)
                rows.append(row)
    return pa.Table.from_pylist(rows, schema=RECORD)


def _unjudgeable(asked: Asked) -> bool:
    """Whether a request of the item has no usable answer. Judging the item would invent one."""
    return any(answer.response is None for answers in asked.answers for answer in answers) or any(
        answer.loglikelihood is not None and math.isnan(answer.loglikelihood)
        for answers in asked.answers
        for answer in answers
    )


def _verdicts(task: BoundTask, asked: Sequence[Asked], repeat: int | None) -> dict[tuple[int, str], dict[str, Any]]:
    """Maps (item, filter) to {"metrics": …, "filtered": …}, judged as lm-eval's evaluator does.

    `repeat` counts from 0 and chooses one repeat; None judges all of them together. A filter that needs all repeats at
    once (maj@k) gives no verdict on a single one.
    """
    instances = {one.item: [_answered(one, i, repeat) for i in range(len(one.instances))] for one in asked}
    verdicts: dict[tuple[int, str], dict[str, Any]] = {}
    for ensemble in task.task._filters:
        for item, filtered in _filtered(task, ensemble, instances, repeat).items():
            verdicts[item, ensemble.name] = {"metrics": _metrics(task, item, filtered), "filtered": filtered}
    return verdicts


def _filtered(
    task: BoundTask, ensemble: Any, instances: dict[int, list[Instance]], repeat: int | None
) -> dict[int, list[Any]]:
    """Applies the filter and maps each item to its filtered answers. Leaves out the items that make the filter raise.

    The items go through the filter together, as in lm-eval. If that raises, they go one by one, so that one item's
    answer does not cost the others their verdicts.
    """
    flat = [instance for group in instances.values() for instance in group]
    for instance in flat:
        instance.filtered_resps = {}
    try:
        if flat:
            ensemble.apply(flat)
        return {item: [i.filtered_resps[ensemble.name] for i in group] for item, group in instances.items()}
    except (Exception, SystemExit) as error:  # filters are task code
        if len(instances) == 1:
            level = logging.DEBUG if repeat is not None else logging.ERROR
            logger.log(level, "task %s item %d: filter %s failed: %r", task.name, *instances, ensemble.name, error)
            return {}
    alone = [_filtered(task, ensemble, {item: group}, repeat) for item, group in instances.items()]
    return {item: answers for one in alone for item, answers in one.items()}


def _metrics(task: BoundTask, item: int, filtered: list[Any]) -> dict[str, Any] | None:
    try:
        metrics: dict[str, Any] = task.task.process_results(task.docs[item], filtered)
        _to_json(metrics)
    except (Exception, SystemExit) as error:  # process_results is task code
        logger.error("task %s item %d cannot be judged: %r", task.name, item, error)
        return None
    return metrics if isinstance(metrics, dict) else None


def _answered(asked: Asked, index: int, repeat: int | None) -> Instance:
    instance = copy.copy(asked.instances[index])
    answers = asked.answers[index]
    instance.resps = [a.response for a in (answers if repeat is None else answers[repeat : repeat + 1])]
    instance.filtered_resps = {}
    return instance


def _verdict_columns(task: BoundTask, asked: Asked, verdict: dict[str, Any] | None, repeat: int) -> dict[str, Any]:
    failure = asked.failure if repeat == 0 else _repeat_failure(asked, repeat - 1)
    metrics = verdict["metrics"] if verdict else None
    if metrics is None:
        return {"failure": failure or (NOT_JUDGED if repeat == 0 else None)}
    score = None if failure else _score(task, metrics)
    if score is None and not failure:
        failure = NOT_JUDGED if repeat == 0 else None
    threshold = task.settings.correct_threshold
    has_verdict = score is not None and threshold is not None and 0 <= score <= 1
    texts = verdict["filtered"] if verdict and task.settings.output_type == "generate_until" else None
    return {
        "score": score,
        "correct": bool(score >= threshold) if has_verdict else None,  # type: ignore[operator]
        "metrics": _to_json(metrics),
        "failure": failure,
        "filtered": _to_json(texts) if texts else None,
    }


def _score(task: BoundTask, metrics: dict[str, Any]) -> float | None:
    """Returns the item's value of the primary metric, or None if the task gave none or it is not finite.

    Some metrics (weighted_perplexity, f1, bleu) have item values that are not numbers. The score is then the metric's
    own aggregation over this one item; lm-eval's aggregations take a list of item values.
    """
    name = task.settings.metric
    value = metrics.get(name)
    if value is not None and not _is_number(value) and (aggregate := task.task.aggregation().get(name)):
        try:
            value = aggregate([value])
        except (Exception, SystemExit) as error:  # aggregations are task code, made for many items
            logger.debug("task %s: %s of one item failed: %r", task.name, name, error)
    number = float(value) if value is not None and _is_number(value) else math.nan
    return number if math.isfinite(number) else None


def _usage_columns(asked: Asked, repeat: int) -> dict[str, Any]:
    chosen = _chosen(asked)
    replies = asked.answers[chosen] if repeat == 0 else asked.answers[chosen][repeat - 1 : repeat]
    everything = [
        answer for answers in asked.answers for answer in (answers if repeat == 0 else answers[repeat - 1 : repeat])
    ]
    usages = [usage for answer in everything for usage in answer.usages]
    cached = [u.cached_tokens for u in usages]
    started = [u.scheduled for u in usages if u.scheduled is not None]
    first = [u.first_token for u in usages if u.first_token is not None]
    finished = [u.finished for u in usages if u.finished is not None]
    answered = bool(usages)
    return {
        "prompt_tokens": replies[0].prompt_tokens,
        "completion_tokens": sum(a.completion_tokens for a in replies) if answered else None,
        "cached_tokens": sum(c for c in cached if c is not None) if answered and None not in cached else None,
        "engine_tokens": sum(u.prompt_tokens + u.generated_tokens for u in usages) if answered else None,
        "finish_reason": next((u.finish_reason for a in replies for u in a.usages if u.finish_reason), None),
        "ttft_s": min(first) - min(started) if started and first else None,
        "latency_s": max(finished) - min(started) if started and finished else None,
    }


def _chosen(asked: Asked) -> int:
    """Returns the index of the likeliest choice; of equal ones the first, as lm-eval's argmax does.

    Requests without a context do not count beside others with one: acc_mutual_info sends them to measure how likely a
    choice is without the question.
    """
    scores = [(answers[0].loglikelihood, -i) for i, answers in enumerate(asked.answers)]
    usable = [(score, i) for score, i in scores if score is not None and not math.isnan(score)]
    answering = [(score, i) for score, i in usable if asked.instances[-i].args[0] != ""]
    return -max(answering or usable)[1] if usable else 0


def _response_columns(asked: Asked, repeat: int) -> dict[str, Any]:
    picked = slice(None) if repeat == 0 else slice(repeat - 1, repeat)
    first = [answers[picked] for answers in asked.answers]
    texts = [a.response for answers in first for a in answers if isinstance(a.response, str)]
    scored = [answers[0] for answers in first if answers and answers[0].loglikelihood is not None]
    return {
        "responses": texts or None,
        "loglikelihoods": [a.loglikelihood for a in scored] or None,
        "is_greedy": [a.greedy for a in scored] if scored and scored[0].greedy is not None else None,
    }


def _repeat_failure(asked: Asked, repeat: int) -> str | None:
    return next((a.failure for answers in asked.answers for a in answers[repeat : repeat + 1] if a.failure), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.number)


def _to_json(value: Any) -> str:
    """Returns `value` as JSON, NaN and infinities as null. Raises TypeError or ValueError for values beyond JSON."""
    text = json.dumps(value, default=_jsonable, ensure_ascii=False)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return lm_eval.utils.handle_non_serializable(value)
