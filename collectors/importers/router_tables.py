"""Tables that router benchmarks publish: RouterBench, RouteLLM, EmbedLLM, LLMRouter.

Owns which of their columns is what. Sources: withmartian/routerbench, lm-sys/RouteLLM, richardzhuang0412/EmbedLLM,
ulab-uiuc/LLMRouter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from collectors.importers.files import BadFile, SourceFile, names_of
from collectors.importers.found import Facts, Source
from collectors.importers.pickles import Frame, load_pickle
from collectors.importers.staging import Staging, name_of, quoted
from collectors.importers.tables import ROW, columns_of, reader_of, score_of, select_items, sql_of
from schemas.failures import one_line

TABLES = ("*.csv", "*.parquet", "*.jsonl", "*.json", "*.pkl", "*.pickle")


def read_routerbench(staging: Staging, source: Source) -> None:
    """Wide (a column a model, beside it `<model>|total_cost` and `<model>|model_response`) and long files."""
    staging.default = Facts(metric="performance")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = _relation(staging, number, file)
            if "model_name" in columns and "performance" in columns:
                _routerbench_long(staging, number, rows, columns)
            else:
                _routerbench_wide(staging, number, rows, columns)


def _routerbench_wide(staging: Staging, number: int, rows: str, columns: dict[str, str]) -> None:
    models = [name.removesuffix("|total_cost") for name in columns if name.endswith("|total_cost")]
    models = [model for model in models if model in columns]
    if not models or "sample_id" not in columns:
        raise BadFile("unknown_layout", "no column sample_id, or none of a model beside its `|total_cost`")
    task = _routerbench_task(columns)
    parts = []
    for model in models:
        answer = f"{model}|model_response"
        parts.append(
            f"SELECT {number} AS file, {ROW} AS row, {quoted(model)} AS model, {task} AS task, "
            "sample_id::VARCHAR AS key, "
            f"{score_of(sql_of(model), columns[model])} AS score, "
            f"TRY_CAST({sql_of(f'{model}|total_cost')} AS DOUBLE) AS stated_usd, "
            + (_response(answer) if answer in columns else "NULL::VARCHAR[] AS responses")
            + f" FROM {rows}"
        )
    staging.select(" UNION ALL ".join(parts))
    _routerbench_items(staging, rows, columns, task)


def _routerbench_long(staging: Staging, number: int, rows: str, columns: dict[str, str]) -> None:
    if "sample_id" not in columns:
        raise BadFile("unknown_layout", "no column sample_id")
    task = _routerbench_task(columns)
    cost = name_of(columns, "cost", "total_cost")
    parts = [
        f"SELECT {number} AS file, {ROW} AS row, model_name::VARCHAR AS model, {task} AS task",
        "sample_id::VARCHAR AS key",
        f"{score_of('performance', columns['performance'])} AS score",
        f"TRY_CAST({sql_of(cost)} AS DOUBLE) AS stated_usd" if cost else "NULL::DOUBLE AS stated_usd",
        _response("model_response") if "model_response" in columns else "NULL::VARCHAR[] AS responses",
    ]
    staging.select(f"{', '.join(parts)} FROM {rows}")
    _routerbench_items(staging, rows, columns, task)


def _routerbench_task(columns: dict[str, str]) -> str:
    """eval_name, or what the sample's id begins with: RouterBench's own converter takes it from there."""
    return "eval_name::VARCHAR" if "eval_name" in columns else "split_part(sample_id::VARCHAR, '.', 1)"


def _routerbench_items(staging: Staging, rows: str, columns: dict[str, str], task: str) -> None:
    if "prompt" in columns:
        renamed = f"(SELECT *, {task} AS task_of_row FROM {rows})"
        select_items(staging, renamed, columns, {"task": "task_of_row", "prompt": "prompt"}, "sample_id::VARCHAR")


def _response(column: str) -> str:
    """A list written as text is what RouterBench keeps of several turns; it is kept as it stands."""
    return f"CASE WHEN {sql_of(column)} IS NOT NULL THEN [{sql_of(column)}::VARCHAR] END AS responses"


def read_routellm(staging: Staging, source: Source) -> None:
    """evals/*/responses: `prompt` and a column of booleans a model; the task is the file's name."""
    staging.default = Facts(metric="correct")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = _relation(staging, number, file)
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
                    + (_response(answer) if answer in columns else "NULL::VARCHAR[] AS responses")
                    + f" FROM {rows}"
                )
            staging.select(" UNION ALL ".join(parts))
            select_items(staging, rows, columns, {"task": {"value": task}, "prompt": "prompt"}, f"{ROW}::VARCHAR")


def read_embedllm(staging: Staging, source: Source) -> None:
    """train, val and test.csv: a row a verdict; `category` is the task, where it is there."""
    staging.default = Facts(metric="label")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = _relation(staging, number, file)
            if {"prompt_id", "prompt"} == set(columns) - {ROW} or ("model_name" in columns and "label" not in columns):
                continue  # question_order.csv and model_order.csv
            _needs(columns, "prompt_id", "label")
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


def read_llmrouter(staging: Staging, source: Source) -> None:
    """routing_data: a row a verdict, with tokens and seconds."""
    staging.default = Facts(metric="performance")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            rows, columns = _relation(staging, number, file)
            _needs(columns, "task_name", "query", "model_name", "performance")
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
                parts.append(_response("response"))
            staging.select(f"{', '.join(parts)} FROM {rows}")
            settings = {"task": "task_name", "prompt": "query"}
            settings |= {
                ours: theirs
                for ours, theirs in (("target", "ground_truth"), ("choices", "choices"))
                if theirs in columns
            }
            select_items(staging, rows, columns, settings, of_item)


def _needs(columns: Sequence[str] | dict[str, str], *names: str) -> None:
    if missing := [name for name in names if name not in columns]:
        raise BadFile("unknown_layout", f"no column {', '.join(missing)}")


def _relation(staging: Staging, number: int, file: SourceFile) -> tuple[str, dict[str, str]]:
    """A table, or a pickled pandas frame, as an SQL relation with its row numbers, and its columns' types."""
    name = f"file_{number}"
    if os.path.splitext(file.stem)[1].lower() not in (".pkl", ".pickle"):
        rows = reader_of(staging, file)
        try:  # once: a wide table is asked for each of its models
            staging.con.execute(f"CREATE TABLE {name} AS FROM {rows}")
        except duckdb.Error as error:
            raise BadFile("damaged", one_line(error, 300)) from error
        return name, columns_of(staging, name)
    frame = load_pickle(file)
    if not isinstance(frame, Frame):
        raise BadFile("unknown_layout", "holds no pandas frame")
    table = pa.Table.from_pydict({column: _column(values) for column, values in frame.columns.items()})
    staging.con.register("given", table)
    staging.con.execute(f"CREATE TABLE {name} AS SELECT *, row_number() OVER () AS {ROW} FROM given")
    staging.con.unregister("given")
    return name, columns_of(staging, name)


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # mixed: as text, each number as it is written
        return pa.array([None if value is None or value != value else str(value) for value in values])
