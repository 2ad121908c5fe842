"""Scored generations of DARS (AIGNLAI/DARS): several answers of each model to a question and to rewrites of it.

A rewrite is a question of its own. In the test files the answers to one question are drawn at several temperatures, and
each temperature is a run; the answers of one temperature are repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.suspicions import ODD_TOTAL
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole

#: Its files, and those before they were scored.
PATTERNS = ("*_scored_generations.jsonl", "*.jsonl")
_METRICS = {
    "binary_mcq_accuracy": "acc",
    "binary_math_exact_match": "exact_match",
    "continuous_drop_f1": "f1",
}
#: Key of a group of answers -> its sums.
_Group = tuple[str, str, str, str]


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """A row an answer; the mean over the answers of one temperature to one question is the item's own verdict."""
    means: dict[_Group, list[tuple[int, float]]] = {}
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            if not isinstance(value.get("model"), str) or "score" not in value or value.get("query_id") is None:
                staging.reject(number, row, "unknown_layout", "no model, query_id or score")
                continue
            _take(staging, number, row, value, means)
    for (run, task, key, model), scores in means.items():
        mean = sum(score for _, score in scores) / len(scores)
        verdict(staging, number, scores[0][0], task, key, model, mean, run=run, repeat=0)


def _take(
    staging: Sink, number: int, row: int, value: Mapping[str, Any], means: dict[_Group, list[tuple[int, float]]]
) -> None:
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
    draw = whole(value.get("decode_id"))
    verdict(
        staging,
        number,
        row,
        task,
        key,
        model,
        value["score"],
        run=run,
        repeat=(draw if draw is not None else len(means.get((run, task, key, model), ()))) + 1,
        stated_usd=number_of(usage.get("cost")),
        finish_reason=text_of(value.get("finish_reason")),
        prompt_tokens=counts[0],
        completion_tokens=counts[1],
        responses=texts(value.get("output_text")),
    )
    if (score := number_of(value["score"])) is not None:
        means.setdefault((run, task, key, model), []).append((row, score))
