"""Cached results of RouterArena (RouteWorks/RouterArena): one model's answers a file."""

from __future__ import annotations

from collectors.importers.sources import ImportSource, Sink, as_json
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """cached_results/<model>.jsonl: one model's answers, with usage and evaluation_result."""
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            key, model = value.get("global_index") or value.get("global index"), value.get("llm_selected")
            judged = value.get("evaluation_result")
            task = str(key).rsplit("_", 1)[0] if key else ""
            usage = value.get("token_usage")
            usage = usage if isinstance(usage, dict) else {}
            question = text_of(value.get("question"))
            target = judged.get("ground_truth") if isinstance(judged, dict) else None
            if key:
                staging.item(
                    run="",
                    task=task,
                    key=str(key),
                    prompt=question,
                    target=as_json(target) if target is not None else None,
                    content_hash=content_of(question),
                )
            failed = value.get("success") is False
            verdict(
                staging,
                number,
                row,
                task,
                str(key or ""),
                str(model or ""),
                judged.get("score") if isinstance(judged, dict) and not failed else None,
                failure="failed_call" if failed else None,
                prompt_tokens=whole(usage.get("input_tokens")),
                completion_tokens=whole(usage.get("output_tokens")),
                stated_usd=number_of(judged.get("inference_cost")) if isinstance(judged, dict) else None,
                responses=texts(value.get("generated_answer")),
            )
