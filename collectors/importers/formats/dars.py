"""Scored generations of DARS (AIGNLAI/DARS): several answers of each model to a question and to rewrites of it.

A rewrite is a question of its own. In the test files the answers to one question are drawn at several temperatures, and
each temperature is a run; the answers of one temperature are repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from collectors.importers.suspicions import ODD_TOTAL
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole

#: Its files, and those before they were scored.
PATTERNS = ("*_scored_generations.jsonl", "*.jsonl")
_METRICS = {
    "binary_mcq_accuracy": "acc",
    "binary_math_exact_match": "exact_match",
    "continuous_drop_f1": "f1",
}
#: Run, task, key and model of the answers that are averaged.
_Group = tuple[str, str, str, str]
#: Draw -> file, row and score of the answer that is taken of it.
_Taken = dict[int, tuple[tuple[int, int], float | None]]
#: Most draws of one question: repeat 0 is their mean.
_MOST_DRAWS = 32767


def read(staging: Staging, source: ImportSource) -> None:
    """A row an answer; the mean over the answers of one temperature to one question is the item's own verdict.

    The answers to a question may stand in several files, so one process reads all of them.
    """
    means: dict[_Group, _Taken] = {}
    for number in range(len(staging.files)):
        with staging.one_file(number):
            _read_file(staging, number, means)
    for (run, task, key, model), draws in means.items():
        scores = [score for _, score in draws.values() if score is not None]
        if scores:
            first = min(place for place, _ in draws.values())
            verdict(staging, *first, task, key, model, sum(scores) / len(scores), run=run, repeat=0)


def _read_file(staging: Sink, number: int, means: dict[_Group, _Taken]) -> None:
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            if lacking := _lacking(value):
                staging.reject(number, row, *lacking)
                continue
            _take(staging, number, row, value, means)


def _lacking(value: Mapping[str, Any]) -> tuple[str, str] | None:
    """Kind and message of a row that names no single answer; None for one that does."""
    if not isinstance(value.get("model"), str) or "score" not in value or value.get("query_id") is None:
        return "unknown_layout", "no model, query_id or score"
    query, task, draw = value["query_id"], value.get("dataset"), value.get("decode_id")
    if not isinstance(query, str | int) or isinstance(query, bool) or query == "":
        return "no_key", f"query_id {str(query)[:40]!r} is neither a text nor a whole number"
    if task is not None and not isinstance(task, str):
        return "no_key", f"dataset {str(task)[:40]!r} is not a text"
    if draw is not None and not 0 <= _whole(draw) < _MOST_DRAWS:
        return "no_key", f"decode_id {str(draw)[:40]!r} is not a whole number from 0 to {_MOST_DRAWS - 1}"
    variant = value.get("prompt_variant_id")
    if value.get("prompt_variant_source") == "rewrite" and _whole(variant) < 0:
        return "no_key", f"prompt_variant_id {str(variant)[:40]!r} of a rewrite is not a whole number from 0 on"
    return None


def _whole(value: Any) -> int:
    """-1 for anything but a whole number."""
    number = whole(value)
    return -1 if number is None else number


def _is_trusted(names: tuple[str, ...], score: float | None, columns: Mapping[str, Any]) -> bool:
    """Whether the import takes this answer (collectors.importers.trust): only then it counts in the mean."""
    if any(not name or "\0" in name for name in names):
        return False
    counts = [columns[name] for name in ("prompt_tokens", "completion_tokens", "stated_usd")]
    if any(count is not None and not 0 <= count < 1e30 for count in counts):
        return False
    if score is None:
        return columns["responses"] is not None or counts[:2] != [None, None]
    return 0 <= score <= 1


def _take(staging: Sink, number: int, row: int, value: Mapping[str, Any], means: dict[_Group, _Taken]) -> None:
    model, task = str(value["model"]), str(value.get("dataset") or staging.files[number].stem)
    variant = whole(value.get("prompt_variant_id"))
    is_rewrite = value.get("prompt_variant_source") == "rewrite"
    key = f"{value['query_id']}/rewrite-{variant}" if is_rewrite else str(value["query_id"])
    asked = value.get("request_config")
    asked = asked if isinstance(asked, dict) else {}
    run = "" if is_rewrite else f"temperature-{asked.get('temperature')}"
    metric = _METRICS.get(str(value.get("score_type")), "score")
    described = CellDescription(metric=metric, decoding=as_json(asked) if asked else None, output_type="generate_until")
    staging.descriptions.setdefault((run, model, task), described)
    choices = texts(value.get("choices")) or None
    question, context = text_of(value.get("input_question")), text_of(value.get("context")) or ""
    staging.item(
        run=run,
        task=task,
        key=key,
        prompt="\n\n".join(filter(None, (context, question))) or None,
        choices=choices,
        subject=text_of(value.get("category")),
        target=as_json(value["gold_answer"]) if value.get("gold_answer") is not None else None,
        content_hash=content_of(question, choices, context),
    )
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = [whole(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if None not in counts and counts[0] + counts[1] != counts[2]:  # type: ignore[operator]
        staging.suspect(file=number, run=run, model=model, task=task, kind=ODD_TOTAL)
        counts = [None, None, None]
    draws = means.setdefault((run, task, key, model), {})
    draw = len(draws) if value.get("decode_id") is None else _whole(value["decode_id"])
    columns = {
        "stated_usd": number_of(usage.get("cost")),
        "finish_reason": text_of(value.get("finish_reason")),
        "prompt_tokens": counts[0],
        "completion_tokens": counts[1],
        "responses": texts(value.get("output_text")),
    }
    verdict(staging, number, row, task, key, model, value["score"], run=run, repeat=draw + 1, **columns)
    score = number_of(value["score"], keep_odd=True)
    if (value["score"] is None or score is not None) and _is_trusted((model, task, key), score, columns):
        draws.setdefault(draw, ((number, row), score))  # of several answers of one draw the import takes the first
