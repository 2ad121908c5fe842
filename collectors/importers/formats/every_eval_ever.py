"""Samples of Every Eval Ever, by its JSON schema 0.3.0."""

from __future__ import annotations

from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole

PATTERNS = ("*_samples.jsonl",)


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """<uuid>_samples.jsonl: a row per item and metric."""
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            given, judged = value.get("input") or {}, value.get("evaluation") or {}
            task, model = str(value.get("evaluation_name") or ""), str(value.get("model_id") or "")
            key = str(value.get("sample_id") or "")
            choices, question = texts(given.get("choices")), given.get("raw")
            question = text_of(question)
            staging.descriptions.setdefault(("", model, task), CellDescription(low=None, high=None))
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
