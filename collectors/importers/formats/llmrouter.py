"""LLMRouter's routing data (ulab-uiuc/LLMRouter): a row a verdict, with tokens and seconds."""

from __future__ import annotations

from collectors.importers.formats.table import ROW, score_of, select_items, sql_of
from collectors.importers.relation import need_columns, relation_of, response_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of


def read(staging: Staging, source: ImportSource) -> None:
    """routing_data: a row a verdict, with tokens and seconds."""
    staging.default = CellDescription(metric="performance")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = relation_of(staging, number, file)
            need_columns(columns, "task_name", "query", "model_name", "performance")
            key = name_of(columns, "task_id", "embedding_id")
            of_item = f"coalesce({sql_of(key)}::VARCHAR, md5(query))" if key else "md5(query)"
            parts = [
                f"SELECT {number} AS file, {ROW} AS row, model_name::VARCHAR AS model, task_name::VARCHAR AS task",
                f"{of_item} AS key",
                f"{score_of('performance', columns['performance'])} AS score",
            ]
            for name, column, dtype in (
                ("input_tokens", "prompt_tokens", "INTEGER"),
                ("output_tokens", "completion_tokens", "INTEGER"),
                ("response_time", "latency_s", "DOUBLE"),
            ):
                if name in columns:
                    parts.append(f"TRY_CAST({name} AS {dtype}) AS {column}")
            if "response" in columns:
                parts.append(response_of("response"))
            staging.select(f"{', '.join(parts)} FROM {rows}")
            settings = {"task": "task_name", "prompt": "query"}
            settings |= {
                ours: theirs
                for ours, theirs in (("target", "ground_truth"), ("choices", "choices"))
                if theirs in columns
            }
            select_items(staging, rows, columns, settings, of_item)
