"""EmbedLLM's tables (richardzhuang0412/EmbedLLM): a row a verdict."""

from __future__ import annotations

from collectors.importers.files import BadFile
from collectors.importers.formats.table import ROW, score_of, select_items, sql_of
from collectors.importers.relation import need_columns, relation_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of


def read(staging: Staging, source: ImportSource) -> None:
    """train, val and test.csv: a row a verdict. `category` is the task, if the file has it."""
    staging.default = CellDescription(metric="label")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = relation_of(staging, number, file)
            if {"prompt_id", "prompt"} == set(columns) - {ROW} or ("model_name" in columns and "label" not in columns):
                continue  # question_order.csv and model_order.csv
            need_columns(columns, "prompt_id", "label")
            model = name_of(columns, "model_name", "model_id")
            if model is None:
                raise BadFile("unknown_layout", "no column model_name or model_id")
            task = "category::VARCHAR" if "category" in columns else "'embedllm'"
            staging.select(
                f"SELECT {number} AS file, {ROW} AS row, {sql_of(model)}::VARCHAR AS model, {task} AS task, "
                f"prompt_id::VARCHAR AS key, {score_of('label', columns['label'])} AS score FROM {rows}"
            )
            if "prompt" in columns:
                settings = {"task": "category" if "category" in columns else {"value": "embedllm"}, "prompt": "prompt"}
                select_items(staging, rows, columns, settings, "prompt_id::VARCHAR")
