"""Files of RouterDC (shuhao02/RouterDC): lists of questions with a score of each model."""

from __future__ import annotations

from collectors.importers.files import names_of
from collectors.importers.sources import CellDescription, ImportSource, Sink
from collectors.importers.values import content_of, objects, verdict


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """A list of {question, scores: {model: score}}; the task is the file's name."""
    task = names_of(staging.files)[number]
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            scores, question = value.get("scores"), value.get("question")
            if not isinstance(scores, dict) or not scores or not isinstance(question, str):
                staging.reject(number, row, "unknown_layout", "no question, or no scores by model", task=task)
                continue
            key = str(row - 1)
            staging.item(run="", task=task, key=key, prompt=question, content_hash=content_of(question))
            for model, score in scores.items():
                # LLMRouter writes such lists with BERT scores, which may be below 0.
                staging.descriptions.setdefault(("", model, task), CellDescription(low=-1.0))
                verdict(staging, number, row, task, key, model, score)
