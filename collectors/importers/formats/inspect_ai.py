"""Logs of Inspect (UKGovernmentBEIS/inspect_ai, log/_log.py), as JSON or as .eval archives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from collectors.importers.files import BadFile, decoded, document, zip_members
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.values import content_of, number_of, texts, verdict, whole

PATTERNS = ("*.json", "*.eval")
_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """A log of one task and model, as JSON or as the zip archive that ends in .eval; an epoch is a repeat."""
    header, samples = _log(staging, number)
    about = header.get("eval") or {}
    model, task = source.model or about.get("model"), about.get("task")
    if not model or not task:
        raise BadFile("unknown_layout", "not a log of Inspect: it names no task and model")
    several = (whole((about.get("config") or {}).get("epochs")) or 1) > 1
    scorers: list[str] = []
    row = 0
    for sample in samples:
        with staging.one_row(number, row + 1):
            row += 1
            if not isinstance(sample, dict) or sample.get("id") is None:
                staging.reject(number, row, "no_key", "no id", model=model, task=task)
                continue
            key, question, scores = str(sample["id"]), sample.get("input"), sample.get("scores") or {}
            if isinstance(question, list):
                asked = [m.get("content") for m in question if isinstance(m, dict) and m.get("role") == "user"]
                question = asked[0] if len(asked) == 1 and isinstance(asked[0], str) else None
            choices = texts(sample.get("choices"))
            if scores and not scorers:
                scorers.append(next(iter(scores)))
                description = CellDescription(
                    metric=scorers[0], versions={"inspect_ai": str((about.get("packages") or {}).get("inspect_ai", ""))}
                )
                staging.descriptions["", str(model), str(task)] = description
            staging.item(
                run="",
                task=str(task),
                key=key,
                prompt=question,
                choices=choices,
                target=as_json(sample["target"]) if sample.get("target") is not None else None,
                content_hash=content_of(question, choices),
            )
            judged = scores.get(scorers[0]) if scorers else None
            score = _score(judged.get("value")) if isinstance(judged, dict) else None
            usage = _sum_usage(sample.get("model_usage"))
            output = sample.get("output") or {}
            verdict(
                staging,
                number,
                row,
                str(task),
                key,
                str(model),
                score,
                repeat=(whole(sample.get("epoch")) or 1) if several else 0,
                failure="failed_call" if sample.get("error") else None,
                latency_s=number_of(sample.get("total_time")),
                responses=texts(output.get("completion")),
                **usage,
            )
    if several and scorers:
        _reduced(staging, number, row, header.get("reductions"), scorers[0], str(model), str(task))


def _reduced(staging: Sink, number: int, row: int, reductions: Any, scorer: str, model: str, task: str) -> None:
    """Takes the scores of Inspect's first reducer over the epochs as repeat 0, if there is a reducer."""
    of_scorer = [one for one in reductions or () if isinstance(one, dict) and one.get("scorer") == scorer]
    for sample in of_scorer[0].get("samples") or () if of_scorer else ():
        row += 1
        with staging.one_row(number, row, model=model, task=task):
            if sample.get("sample_id") is None:
                raise BadFile("no_key", "a reduced score without the id of its sample")
            metrics = as_json({"reducer": of_scorer[0].get("reducer")})
            score = _score(sample.get("value"))
            verdict(staging, number, row, task, str(sample["sample_id"]), model, score, repeat=0, metrics=metrics)


def _score(value: Any) -> Any:
    return _VALUES.get(value, value) if isinstance(value, str) else value


def _log(staging: Sink, number: int) -> tuple[dict[str, Any], Iterator[Any]]:
    file = staging.files[number]
    if not file.stem.endswith(".eval"):
        value = document(file)
        if not isinstance(value, dict):
            raise BadFile("unknown_layout", "not a log of Inspect")
        return value, iter(value.get("samples") or ())
    header: dict[str, Any] = {}
    samples: list[tuple[str, bytes]] = []
    for name, data in zip_members(file):
        if name == "header.json":
            header |= decoded(data)
        elif name == "_journal/start.json":  # of a log that was cut off
            header = {**decoded(data), **header}
        elif name == "reductions.json":
            header["reductions"] = decoded(data)
        elif name.startswith("samples/") and name.endswith(".json"):
            samples.append((name, data))
    return header, (decoded(data) for _, data in sorted(samples))


def _sum_usage(usage: Any) -> dict[str, Any]:
    """RECORD's token columns from Inspect's usage by model; null without counts."""
    parts = [one for one in usage.values() if isinstance(one, dict)] if isinstance(usage, dict) else []
    sums = {}
    for ours, theirs in (
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("cached_tokens", "input_tokens_cache_read"),
    ):
        counts = [count for one in parts if (count := whole(one.get(theirs))) is not None]
        sums[ours] = sum(counts) if counts else None
    return sums
