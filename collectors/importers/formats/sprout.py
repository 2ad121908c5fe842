"""SPROUT (CARROT-LLM-Routing/SPROUT and SPROUT-o3mini): a row a prompt, and a column a model with score and tokens."""

from __future__ import annotations

from collectors.importers.files import BadFile
from collectors.importers.relation import MOST_COLUMNS, Kind, Wanted, parted, select_items, table_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from schemas.sql import quoted

#: Columns of its files that are of no model.
_OTHERS = ("key", "dataset", "dataset_level", "dataset_idx", "prompt", "golden_answer")


def read(staging: Staging, source: ImportSource) -> None:
    """train, validation and test; `dataset` is the task. The score is a judge's, from 0 to 1."""
    staging.default = CellDescription(metric="judge_score")
    for number in range(len(staging.files)):
        with staging.one_file(number):
            table = table_of(staging, number)
            models = [name for name in table.names if name not in _OTHERS]
            item: Wanted = {"key": ("key", Kind.TEXT), "task": ("dataset", Kind.TEXT), "prompt": ("prompt", Kind.TEXT)}
            if "golden_answer" in table:
                item = {**item, "target": ("golden_answer", Kind.TEXT)}
            table.need(item)
            if not models:
                raise BadFile("unknown_layout", f"no column of a model beside {', '.join(_OTHERS)}")
            for some in parted(models, MOST_COLUMNS - len(item)):
                labels = {f"m{place}": model for place, model in enumerate(some)}
                rows = table.relation({**item, **{label: (model, Kind.TEXT) for label, model in labels.items()}})
                for label, model in labels.items():
                    staging.select(_verdicts(number, rows, label, model))
            select_items(staging, table.relation(item), item)


def _verdicts(number: int, rows: str, label: str, model: str) -> str:
    """A value that is no JSON object, or whose score is no number, has the score NaN, and is rejected."""
    path = {name: f"json_extract_string(cell, '$.{name}')" for name in ("score", "response")}
    count = "CASE WHEN {0} IS NOT NULL THEN coalesce(TRY_CAST({0} AS INTEGER), -1) END"
    tokens = {
        mine: count.format(f"json_extract_string(cell, '$.{theirs}')")
        for mine, theirs in (("prompt_tokens", "num_input_tokens"), ("completion_tokens", "num_output_tokens"))
    }
    score = f"coalesce(TRY_CAST({path['score']} AS DOUBLE), 'nan'::DOUBLE)"
    return f"""
        SELECT {number} AS file, row, {quoted(model)} AS model, task, key,
            CASE WHEN cell IS NULL OR {path["score"]} IS NOT NULL THEN {score} ELSE 'nan'::DOUBLE END AS score,
            {tokens["prompt_tokens"]} AS prompt_tokens, {tokens["completion_tokens"]} AS completion_tokens,
            CASE WHEN {path["response"]} IS NOT NULL THEN [{path["response"]}] END AS responses
        FROM (SELECT *, CASE WHEN json_valid({label}) THEN {label}::JSON END AS cell FROM {rows})
        WHERE {label} IS NOT NULL
    """
