"""RouteLLM's responses of two models (lm-sys/RouteLLM)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from collectors.importers.files import BadFile, names_of
from collectors.importers.relation import (
    INDEX,
    MOST_COLUMNS,
    Constant,
    Kind,
    SourceTable,
    parted,
    response_of,
    select_items,
    table_of,
)
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from schemas.sql import quoted

_ANSWER = "_response"


def read(staging: Staging, source: ImportSource) -> None:
    """evals/*/responses: `prompt`, a column of booleans a model and `<model>_response`; the task is the file's name."""
    staging.default = CellDescription(metric="correct")
    for number in range(len(staging.files)):
        with staging.one_file(number):
            table = table_of(staging, number)
            models = _models(table)
            if "prompt" not in table or not models:
                raise BadFile("unknown_layout", "no column prompt, or none of booleans")
            for name in table.names:
                if name not in models and not _is_read(name, models):
                    what = "it is neither prompt, nor answers of a model, nor true and false alone"
                    staging.reject(number, None, "unknown_layout", f"the column {name[:60]!r} is not read: {what}")
            task = re.sub(rf"{_ANSWER}s$", "", names_of(staging.files)[number])
            for some in parted(models, MOST_COLUMNS // 2):
                _read_models(staging, number, table, task, some)
            rows = table.relation({"prompt": ("prompt", Kind.TEXT), "task": (Constant(task), Kind.TEXT)})
            select_items(staging, f"(SELECT *, row::VARCHAR AS key FROM {rows})", ["prompt"])


def _is_read(name: str, models: Sequence[str]) -> bool:
    """Whether a column belongs to no model but is read with one, or is a frame's index."""
    return name in ("prompt", *INDEX) or (name.endswith(_ANSWER) and name.removesuffix(_ANSWER) in models)


def _models(table: SourceTable) -> list[str]:
    """Columns of booleans, and those with answers beside them. A column of answers is not a model."""
    models = {name for name in table.names if f"{name}{_ANSWER}" in table}
    unclear = [n for n in table.names if n not in models and n != "prompt" and not n.endswith(_ANSWER)]
    for some in parted(unclear, MOST_COLUMNS):
        rows = table.relation({f"c{place}": (name, Kind.TEXT) for place, name in enumerate(some)})
        flags = (f"bool_and(lower(c{place}) IN ('true', 'false'))" for place in range(len(some)))
        [are_flags] = table.ask(f"SELECT {', '.join(flags)} FROM {rows}")
        models |= {name for name, is_flag in zip(some, are_flags, strict=True) if is_flag}
    return [name for name in table.names if name in models and not name.endswith(_ANSWER)]


def _read_models(staging: Staging, number: int, table: SourceTable, task: str, models: Sequence[str]) -> None:
    wanted: dict[str, tuple[str | Constant, Kind]] = {}
    for place, model in enumerate(models):
        wanted[f"score_{place}"] = model, Kind.SCORE
        if (answer := f"{model}{_ANSWER}") in table:
            wanted[f"answer_{place}"] = answer, Kind.TEXT
    rows = table.relation(wanted)
    for place, model in enumerate(models):
        staging.select(
            f"SELECT {number} AS file, row, {quoted(model)} AS model, {quoted(task)} AS task, row::VARCHAR AS key, "
            f"score_{place} AS score, {response_of(f'answer_{place}', wanted)} AS responses FROM {rows}"
        )
