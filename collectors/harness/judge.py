"""Judges answered items with lm-eval's filters and metrics and returns record rows.

Owns the step from answers to schemas.records.RECORD: scores, metrics, token counts and times of an item. `metrics`
holds unchanged the values that lm-eval would log for an item; outcome and score follow schemas.verdicts. Knows nothing
of engines, of storage, and of the process that runs a task's judging code (collectors.judging).
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import lm_eval.api.metrics
import lm_eval.filters
import lm_eval.utils
import numpy as np
import pyarrow as pa
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from collectors.harness.evaluating import judging_code
from collectors.harness.requests import Asked
from collectors.harness.tasks import BoundTask
from schemas.failures import NOT_JUDGED
from schemas.records import RECORD
from schemas.verdicts import AT_LIMIT, outcome_of, score_of

logger = logging.getLogger(__name__)

#: Item -> the responses of each of its requests, by repeat.
Responses = Mapping[int, list[list[Any]]]


class Verdict(NamedTuple):
    """The judgment of one item's answers under one filter: of all repeats together, or of one."""

    #: Value of the primary metric; None if the task gave none, it is not finite, or only a whole set has one.
    score: float | None
    #: JSON of all metrics, and of the filtered answers.
    metrics: str
    filtered: str


#: (filter, repeat) -> the verdict; None if the task's code raised. Repeat 0 is the item over all of its repeats.
Verdicts = dict[tuple[str, int], Verdict | None]


class Judged(NamedTuple):
    """What judging gave for some items."""

    verdicts: dict[int, Verdicts]
    #: Item -> failure kind, where the judging did not come to an end.
    failures: dict[int, str]


Judge = Callable[[BoundTask, Responses], Judged]
#: Number of an answer -> the item that it answers, where several answer one.
Items = Mapping[int, int]


def record_table(task: BoundTask, asked: Sequence[Asked], cell_id: str, model: str, judge: Judge) -> pa.Table:
    """Returns rows of schemas.records.RECORD, one per item, filter and repeat, in that order.

    Repeat 0 is the item over all of its repeats; 1, 2, … are the single repeats, where an item was asked several times.
    """
    judged = judge(task, {a.item: _responses(a) for a in asked if not _unjudgeable(a)})
    repeats = max((len(answers) for a in asked for answers in a.answers), default=1)
    rows = []
    for one in asked:
        for position, name in enumerate(f.name for f in task.task._filters):
            for repeat in range(repeats + 1 if repeats > 1 else 1):
                row = {"cell_id": cell_id, "model": model, "task": task.name, "item": one.item, "filter": name}
                row |= {"item_hash": task.hashes[one.item], "repeat": repeat}
                row |= _verdict_columns(task, one, judged, name, repeat)
                row |= _usage_columns(one, repeat)
                if position == 0:
                    row |= _response_columns(one, repeat)
                rows.append(row)
    return pa.Table.from_pylist(rows, schema=RECORD)


def _responses(asked: Asked) -> list[list[Any]]:
    return [[answer.response for answer in answers] for answers in asked.answers]


def _unjudgeable(asked: Asked) -> bool:
    """Whether a request of the item has no usable answer. Judging the item would invent one."""
    return any(answer.response is None for answers in asked.answers for answer in answers) or any(
        answer.loglikelihood is not None and math.isnan(answer.loglikelihood)
        for answers in asked.answers
        for answer in answers
    )


# ---- verdicts


def is_judged_by_lm_eval_alone(task: BoundTask) -> bool:
    """Whether neither the task's own code nor a text of the model's takes part: its judge cannot hang or be misled."""
    own = (lm_eval.api.metrics.__name__, lm_eval.filters.__name__, ConfigurableTask.__module__)
    return task.request_kind != "generate_until" and all(_is_of(own, code) for code in judging_code(task.task))


def _is_of(modules: tuple[str, ...], code: Any) -> bool:
    given = code.keywords.values() if isinstance(code, functools.partial) else ()
    return getattr(getattr(code, "func", code), "__module__", "").startswith(modules) and not any(map(callable, given))


def judge_here(task: BoundTask, responses: Responses, items: Items | None = None) -> Judged:
    """Judges in this process."""
    return Judged(dict(verdicts(task, responses, items=items)), {})


def verdicts(
    task: BoundTask,
    responses: Responses,
    before: Callable[[int], None] = lambda item: None,
    items: Items | None = None,
) -> Iterator[tuple[int, Verdicts]]:
    """Yields each item with its verdicts, judged as lm-eval's evaluator does. `before` is called with each item.

    With `items` the responses are by number of an answer. A filter that needs all repeats at once (maj@k) gives no
    verdict on a single one.
    """
    repeats = max((len(answers) for requests in responses.values() for answers in requests), default=1)
    filtered = {
        (ensemble.name, repeat): _filtered(task, ensemble, responses, repeat, items)
        for repeat in range(repeats + 1 if repeats > 1 else 1)
        for ensemble in task.task._filters
    }
    memory: Memory | None = {} if _judges_alike(task) else None
    for number in responses:
        before(number)
        item = items[number] if items else number
        yield (
            number,
            {
                key: _verdict(task, item, answers[number], memory)
                for key, answers in filtered.items()
                if number in answers
            },
        )


#: (item, JSON of filtered answers) -> the verdict that was given on them. Two filters often read the same answer, and
#: models often agree: lm-eval's exact_match takes 110 µs, a look-up 1.
Memory = dict[tuple[int, str], Verdict]


def _judges_alike(task: BoundTask) -> bool:
    """Whether equal filtered answers have equal verdicts: lm-eval's own metrics do, the code of a task may not."""
    own = (lm_eval.api.metrics.__name__, lm_eval.filters.__name__, ConfigurableTask.__module__)
    return all(_is_of(own, code) for code in judging_code(task.task))


def _filtered(
    task: BoundTask, ensemble: Any, responses: Responses, repeat: int, items: Items | None
) -> dict[int, list[Any]]:
    """Applies the filter and maps each item to its filtered answers. Leaves out the items that make the filter raise.

    The items go through the filter together, as in lm-eval. If that raises, they go one by one, so that one item's
    answer does not cost the others their verdicts.
    """
    instances = {
        number: _instances(task, items[number] if items else number, requests, repeat)
        for number, requests in responses.items()
    }
    flat = [instance for group in instances.values() for instance in group]
    try:
        if flat:
            ensemble.apply(flat)
        return {item: [i.filtered_resps[ensemble.name] for i in group] for item, group in instances.items()}
    except (Exception, SystemExit) as error:  # filters are task code
        if len(instances) == 1:
            level = logging.DEBUG if repeat else logging.ERROR
            logger.log(level, "task %s item %d: filter %s failed: %r", task.name, *instances, ensemble.name, error)
            return {}
    alone = [_filtered(task, ensemble, {item: requests}, repeat, items) for item, requests in responses.items()]
    return {item: answers for one in alone for item, answers in one.items()}


def _instances(task: BoundTask, item: int, requests: list[list[Any]], repeat: int) -> list[Instance]:
    """Returns lm-eval's Instances of an item with the responses of all repeats, or of one, and nothing else."""
    instances = []
    for index, answers in enumerate(requests):
        instance = Instance(task.request_kind, task.docs[item], ("",), index, (task.name, item, 1))
        instance.resps = list(answers if repeat == 0 else answers[repeat - 1 : repeat])
        instances.append(instance)
    return instances


def _verdict(task: BoundTask, item: int, filtered: list[Any], memory: Memory | None) -> Verdict | None:
    try:
        answers = to_json(filtered)
        if memory is not None and (item, answers) in memory:
            return memory[item, answers]
        metrics = task.task.process_results(task.docs[item], filtered)
        text = to_json(metrics)
    except (Exception, SystemExit) as error:  # process_results is task code
        logger.error("task %s item %d cannot be judged: %r", task.name, item, error)
        return None
    if not isinstance(metrics, dict):
        return None
    verdict = Verdict(_score(task, metrics), text, answers)
    if memory is not None:
        memory[item, answers] = verdict
    return verdict


# ---- columns


def _verdict_columns(task: BoundTask, asked: Asked, judged: Judged, name: str, repeat: int) -> dict[str, Any]:
    failure = asked.failure if repeat == 0 else _repeat_failure(asked, repeat - 1)
    failure = judged.failures.get(asked.item, failure)
    verdict = judged.verdicts.get(asked.item, {}).get((name, repeat))
    return ruled(task, verdict, failure, _finish_reason(asked, repeat), repeat)


def ruled(
    task: BoundTask, verdict: Verdict | None, failure: str | None, finish_reason: str | None, repeat: int
) -> dict[str, Any]:
    """Returns the columns that follow from a verdict by schemas.verdicts. `failure` is of the answer or its judging."""
    settings = task.settings
    # A filter over all repeats (maj@k) has no verdict on a single one.
    is_judged = repeat > 0 or (verdict is not None and (settings.is_set_level or verdict.score is not None))
    if not is_judged and not failure:
        failure = NOT_JUDGED
    outcome = outcome_of(failure, finish_reason, is_judged=is_judged)
    score = None
    if not settings.is_set_level and not (repeat and verdict is None):
        value = verdict and verdict.score
        score = score_of(outcome, value, higher_is_better=settings.higher_is_better)
    threshold = settings.correct_threshold
    is_decided = score is not None and threshold is not None and 0 <= score <= 1
    shown = verdict if verdict and settings.output_type == "generate_until" and verdict.filtered != "[]" else None
    return {
        "score": score,
        "correct": bool(score >= threshold) if is_decided else None,  # type: ignore[operator]
        "metrics": verdict and verdict.metrics,
        "failure": failure,
        "outcome": outcome,
        "filtered": shown and shown.filtered,
    }


def _finish_reason(asked: Asked, repeat: int) -> str | None:
    """`length` if an answer reached the limit of generated tokens, of one repeat or (0) of any; else None."""
    picked = slice(None) if repeat == 0 else slice(repeat - 1, repeat)
    usages = [usage for answers in asked.answers for answer in answers[picked] for usage in answer.usages]
    return AT_LIMIT if any(usage.finish_reason == AT_LIMIT for usage in usages) else None


def _score(task: BoundTask, metrics: dict[str, Any]) -> float | None:
    """Returns the item's value of the primary metric, or None if the task gave none or it is not finite.

    None, too, if the metric has a value over a whole set alone. brier_score's item values are pairs: the score is its
    aggregation over this one item, and the mean of these is that over all.
    """
    name = task.settings.metric
    if task.settings.is_set_level:
        return None
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
    cached = [u.cached_tokens for u in usages if not u.continues]
    started = [u.scheduled for u in usages if u.scheduled is not None]
    first = [u.first_token for u in usages if u.first_token is not None]
    finished = [u.finished for u in usages if u.finished is not None]
    answered = bool(usages)
    return {
        "prompt_tokens": replies[0].prompt_tokens,
        "cut_tokens": replies[0].cut_tokens or None,
        "completion_tokens": _sum(a.completion_tokens for a in replies) if answered else None,
        "reasoning_tokens": _sum(a.reasoning_tokens for a in replies) if answered else None,
        "cached_tokens": _sum(cached) if answered else None,
        "cache_write_tokens": _sum(u.cache_write_tokens for u in usages if not u.continues) if answered else None,
        "engine_tokens": _sum(u.tokens for u in usages) if answered else None,
        "finish_reason": next((u.finish_reason for a in replies for u in a.usages if u.finish_reason), None),
        "ttft_s": min(first) - min(started) if started and first else None,
        "latency_s": max(finished) - min(started) if started and finished else None,
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum; None if a count is unknown."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


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
    generated = [a.response if a.text is None else a.text for answers in first for a in answers]
    texts = [text for text in generated if isinstance(text, str)]
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


def to_json(value: Any) -> str:
    """Returns `value` as JSON, NaN and infinities as null. Raises TypeError or ValueError for values beyond JSON."""
    text = _ENCODER.encode(value)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return lm_eval.utils.handle_non_serializable(value)


_ENCODER = json.JSONEncoder(default=_jsonable, ensure_ascii=False)
