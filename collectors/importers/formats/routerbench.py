"""RouterBench's tables (withmartian/routerbench), wide and long."""

from __future__ import annotations

from collectors.importers.files import BadFile
from collectors.importers.formats.table import ROW, score_of, select_items, sql_of
from collectors.importers.relation import relation_of, response_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of
from schemas.sql import quoted


def read(staging: Staging, source: ImportSource) -> None:
    """Wide (a column a model, beside it `<model>|total_cost` and `<model>|model_response`) and long files."""
    staging.default = CellDescription(metric="performance")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = relation_of(staging, number, file)
            if "model_name" in columns and "performance" in columns:
                _long(staging, number, rows, columns)
            else:
                _wide(staging, number, rows, columns)


def _wide(staging: Staging, number: int, rows: str, columns: dict[str, str]) -> None:
    models = [name.removesuffix("|total_cost") for name in columns if name.endswith("|total_cost")]
    models = [model for model in models if model in columns]
    if not models or "sample_id" not in columns:
        raise BadFile("unknown_layout", "no column sample_id, or none of a model beside its `|total_cost`")
    task = _task(columns)
    parts = []
    for model in models:
        answer = f"{model}|model_response"
        parts.append(
            f"SELECT {number} AS file, {ROW} AS row, {quoted(model)} AS model, {task} AS task, "
            "sample_id::VARCHAR AS key, "
            f"{score_of(sql_of(model), columns[model])} AS score, "
            f"TRY_CAST({sql_of(f'{model}|total_cost')} AS DOUBLE) AS stated_usd, "
            + (response_of(answer) if answer in columns else "NULL::VARCHAR[] AS responses")
            + f" FROM {rows}"
        )
    staging.select(" UNION ALL ".join(parts))
    _items(staging, rows, columns, task)


def _long(staging: Staging, number: int, rows: str, columns: dict[str, str]) -> None:
    if "sample_id" not in columns:
        raise BadFile("unknown_layout", "no column sample_id")
    task = _task(columns)
    cost = name_of(columns, "cost", "total_cost")
    parts = [
        f"SELECT {number} AS file, {ROW} AS row, model_name::VARCHAR AS model, {task} AS task",
        "sample_id::VARCHAR AS key",
        f"{score_of('performance', columns['performance'])} AS score",
        f"TRY_CAST({sql_of(cost)} AS DOUBLE) AS stated_usd" if cost else "NULL::DOUBLE AS stated_usd",
        response_of("model_response") if "model_response" in columns else "NULL::VARCHAR[] AS responses",
    ]
    staging.select(f"{', '.join(parts)} FROM {rows}")
    _items(staging, rows, columns, task)


def _task(columns: dict[str, str]) -> str:
    """eval_name, or the beginning of the sample's id, where RouterBench's own converter takes it from."""
    return "eval_name::VARCHAR" if "eval_name" in columns else "split_part(sample_id::VARCHAR, '.', 1)"


def _items(staging: Staging, rows: str, columns: dict[str, str], task: str) -> None:
    if "prompt" in columns:
        renamed = f"(SELECT *, {task} AS task_of_row FROM {rows})"
        select_items(staging, renamed, columns, {"task": "task_of_row", "prompt": "prompt"}, "sample_id::VARCHAR")
