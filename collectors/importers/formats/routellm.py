"""RouteLLM's responses of two models (lm-sys/RouteLLM)."""

from __future__ import annotations

import re

from collectors.importers.files import BadFile, names_of
from collectors.importers.formats.table import ROW, select_items, sql_of
from collectors.importers.relation import relation_of, response_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from schemas.sql import quoted


def read(staging: Staging, source: ImportSource) -> None:
    """evals/*/responses: `prompt` and a column of booleans a model; the task is the file's name."""
    staging.default = CellDescription(metric="correct")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = relation_of(staging, number, file)
            models = [name for name, dtype in columns.items() if dtype == "BOOLEAN" and name != ROW]
            if "prompt" not in columns or not models:
                raise BadFile("unknown_layout", "no column prompt, or none of booleans")
            task = re.sub(r"_responses$", "", names_of(staging.files)[number])
            parts = []
            for model in models:
                answer = f"{model}_response"
                parts.append(
                    f"SELECT {number} AS file, {ROW} AS row, {quoted(model)} AS model, {quoted(task)} AS task, "
                    f"{ROW}::VARCHAR AS key, {sql_of(model)}::INTEGER::DOUBLE AS score, "
                    + (response_of(answer) if answer in columns else "NULL::VARCHAR[] AS responses")
                    + f" FROM {rows}"
                )
            staging.select(" UNION ALL ".join(parts))
            select_items(staging, rows, columns, {"task": {"value": task}, "prompt": "prompt"}, f"{ROW}::VARCHAR")
