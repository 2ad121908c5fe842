"""Predictions and results of OpenCompass (open-compass/opencompass, openicl inferencers)."""

from __future__ import annotations

from typing import Any

from collectors.importers.files import BadFile, document
from collectors.importers.sources import ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from collectors.importers.values import content_of, text_of, texts, verdict

PATTERNS = ("*.json",)


def read(staging: Staging, source: ImportSource) -> None:
    """predictions/<model>/<dataset>.json with the answers; verdicts are in results/ where its details were kept."""
    details: dict[tuple[str, ...], Any] = {}
    for number, file in enumerate(staging.files):
        parts = file.path.split("/")
        if len(parts) >= 3 and parts[-3] == "results":
            with staging.one_file(number):
                value = document(file)
                details[(*parts[:-3], parts[-2], file.stem)] = value.get("details") if isinstance(value, dict) else None
                staging.describing.add(number)
    for number, file in enumerate(staging.files):
        parts = file.path.split("/")
        if len(parts) < 3 or parts[-3] != "predictions":
            continue
        with staging.one_file(number):
            _read_file(staging, number, source.model or parts[-2], details.get((*parts[:-3], parts[-2], file.stem)))


def _read_file(staging: Sink, number: int, model: str, details: Any) -> None:
    value, task = document(staging.files[number]), staging.files[number].stem.removesuffix(".json")
    if not isinstance(value, dict):
        raise BadFile("unknown_layout", "no answers by number")
    for row, (key, one) in enumerate(value.items(), 1):
        with staging.one_row(number, row):
            if not isinstance(one, dict) or not key.isdigit():
                staging.reject(number, row, "no_key", "no answer under a number", model=model, task=task)
                continue
            prompt = one.get("origin_prompt")
            if isinstance(prompt, list):
                turns = [turn.get("prompt") for turn in prompt if isinstance(turn, dict)]
                prompt = turns[0] if len(turns) == 1 else None
            gold = one.get("gold")
            staging.item(
                run="",
                task=task,
                key=key,
                position=int(key) if len(key) < 8 else None,
                prompt=text_of(prompt),
                target=as_json(gold) if gold is not None else None,
                content_hash=content_of(prompt),
            )
            judged = details.get(key) if isinstance(details, dict) else None
            if judged is None and isinstance(details, list) and int(key) < len(details):
                judged = details[int(key)]
            right = judged.get("correct") if isinstance(judged, dict) else None
            right = all(right) if isinstance(right, list) and right else right
            verdict(staging, number, row, task, key, model, right, responses=texts(one.get("prediction")))
