"""Tables of verdicts: CSV, Parquet or JSON lines, a row a verdict (long) or a row an item with a column a model (wide).

Owns how DuckDB reads them in place. The formats are settings of one reader, which name columns; a table of one's own
comes with a YAML of the same settings (collectors.importers.formats.table_settings).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import MAX_LINE, BadFile, SourceFile
from collectors.importers.formats.table_settings import CELL, ITEM, is_constant
from collectors.importers.sources import CellDescription
from collectors.importers.staging import Staging
from schemas.failures import one_line
from schemas.sql import quoted, quoted_path

#: Column of the numbers of rows, from 1, in the relations that are made of files.
ROW = "_row_of_the_file"
#: Columns of a table: DuckDB takes minutes to name many more.
MAX_COLUMNS = 40_000

PATTERNS = ("*.csv", "*.tsv", "*.parquet", "*.jsonl", "*.ndjson", "*.json")

#: A count. Any other value becomes -1, and so is rejected.
_WHOLE = (
    "CASE WHEN {0} IS NULL THEN NULL WHEN TRY_CAST({0} AS DOUBLE) % 1 = 0 "
    "THEN coalesce(TRY_CAST(TRY_CAST({0} AS DOUBLE) AS INTEGER), -1) ELSE -1 END"
)
#: Setting -> column of RAW_VERDICT, and its SQL; {} stands for the value.
_VERDICT = {
    "model": ("model", "{}::VARCHAR"),
    "task": ("task", "{}::VARCHAR"),
    "filter": ("filter", "{}::VARCHAR"),
    "repeat": ("repeat", f"greatest(least({_WHOLE}, 32767), -1)::SMALLINT"),
    "prompt_tokens": ("prompt_tokens", _WHOLE),
    "completion_tokens": ("completion_tokens", _WHOLE),
    "cached_tokens": ("cached_tokens", _WHOLE),
    "usd": ("stated_usd", "{}::DOUBLE"),
    "latency_s": ("latency_s", "{}::DOUBLE"),
    "latency_ms": ("latency_s", "{}::DOUBLE / 1000"),
    "finish_reason": ("finish_reason", "{}::VARCHAR"),
    "response": ("responses", "CASE WHEN {0} IS NOT NULL THEN [{0}::VARCHAR] END"),
}
#: Longest line of a CSV file, bytes: DuckDB takes several times as much memory per thread.
_MAX_CSV_LINE = 16 * 2**20


def read_table(staging: Staging, settings: Mapping[str, Any]) -> None:
    """Stores the verdicts and items of every file, by `settings` that passed check_settings."""
    cell = {name: settings[name] for name in CELL if name in settings}
    if (cell.get("low", 0), cell.get("high", 1)) != (0, 1):
        cell.setdefault("threshold", None)  # only the author knows which score out of ten is right
    staging.default = CellDescription(**cell)
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            _read_file(staging, number, file, settings)


def _read_file(staging: Staging, number: int, file: SourceFile, settings: Mapping[str, Any]) -> None:
    source = reader_of(staging, file, as_text=True)
    columns = columns_of(staging, source)
    columns_needed = {name: value for name, value in settings.items() if name not in CELL and isinstance(value, str)}
    if missing := sorted(f"{name} ({value})" for name, value in columns_needed.items() if value not in columns):
        raise BadFile("unknown_layout", f"no column {', '.join(missing)}; there are {', '.join(sorted(columns))[:200]}")
    parts = [f"{number} AS file", f"{ROW} AS row"]
    for name, (column, form) in _VERDICT.items():
        value = settings.get(name)
        if value is not None:
            parts.append(f"{form.format(sql_of(value))} AS {column}")
    key = _key_of(staging, file, settings)
    parts.append(f"{key} AS key")
    score = settings["score"]
    dtype = "DOUBLE" if is_constant(score) else columns[score]
    parts.append(f"{score_of(sql_of(score), dtype)} AS score")
    staging.select(f"SELECT {', '.join(parts)} FROM {source}")
    if any(settings.get(name) is not None for name in ITEM):
        select_items(staging, source, columns, settings, key)


def _key_of(staging: Staging, file: SourceFile, settings: Mapping[str, Any]) -> str:
    """The key of items as SQL. Without a key column it is the question, and without that the row of the file."""
    if settings.get("key") is not None:
        return f"{sql_of(settings['key'])}::VARCHAR"
    row = f"{ROW}::VARCHAR" if len(staging.files) == 1 else f"{quoted(file.name + '#')} || {ROW}"
    if settings.get("prompt") is None:
        return row
    return f"coalesce(content_hash_of({sql_of(settings['prompt'])}::VARCHAR, NULL), {row})"


def score_of(sql: str, dtype: str) -> str:
    """A score as a number, 0 or 1 for a boolean. Text that is not a number becomes NaN, and so is rejected."""
    if dtype == "BOOLEAN":
        return f"{sql}::INTEGER::DOUBLE"
    if dtype == "VARCHAR":
        digits = f"CASE WHEN NOT contains({sql}, '_') THEN TRY_CAST({sql} AS DOUBLE) END"  # 1_0 is 10 to DuckDB alone
        number = f"coalesce({digits}, CASE WHEN trim({sql}) <> '' THEN 'nan'::DOUBLE END)"
        return f"CASE lower(trim({sql})) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE {number} END"
    return f"TRY_CAST({sql} AS DOUBLE)"


def select_items(
    staging: Staging, rows: str, columns: Mapping[str, str], settings: Mapping[str, Any], key: str
) -> None:
    """Items of the SQL relation `rows`: one for each task, `key` and prompt."""
    prompt, target, subject = (
        f"{sql_of(settings[name])}::VARCHAR" if settings.get(name) is not None else "NULL::VARCHAR"
        for name in ("prompt", "target", "subject")
    )
    choices = "NULL::VARCHAR[]"
    if settings.get("choices") is not None:
        name = settings["choices"]
        is_list = columns.get(name, "").endswith("[]")
        choices = (
            f"{sql_of(name)}::VARCHAR[]" if is_list else f"TRY_CAST(TRY_CAST({sql_of(name)} AS JSON) AS VARCHAR[])"
        )
    staging.select_items(
        f"""
        SELECT '' AS run, task, key, prompt, choices, subject, to_json(target)::VARCHAR AS target,
            content_hash_of(prompt, choices) AS content_hash
        FROM (
            SELECT {sql_of(settings["task"])}::VARCHAR AS task, {key} AS key, {prompt} AS prompt,
                any_value({choices}) AS choices, any_value({target}) AS target, any_value({subject}) AS subject
            FROM {rows} GROUP BY ALL
        )
        WHERE task IS NOT NULL AND key IS NOT NULL
        """
    )


# ---- files as relations


def reader_of(staging: Staging, file: SourceFile, *, as_text: bool = False) -> str:
    """The file as an SQL relation with its columns and ROW. Raises BadFile if its name is not that of a table.

    `as_text` keeps values of CSV and JSON as they are written, or 1.10 would be 1.1, and a long number a shorter one.
    """
    path = file.path
    ending = os.path.splitext(file.stem)[1].lower()
    if "://" in path:
        raise BadFile("unreadable", "tables are read from this machine: copy the file first")
    text = quoted_path(path)
    if file.stem != os.path.basename(path):
        file.check()
    if ending == ".parquet":
        _check_columns(path)
        rows = f"read_parquet({text}, hive_partitioning = false, file_row_number = true)"
        return f"(SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS {ROW} FROM {rows})"
    if ending in (".csv", ".tsv"):
        return _numbered(
            f"read_csv({text}, header = true, sample_size = -1, strict_mode = true, all_varchar = {as_text}, "
            f"max_line_size = {_MAX_CSV_LINE}, buffer_size = {2 * _MAX_CSV_LINE}, hive_partitioning = false)"
        )
    if ending in (".json", ".jsonl", ".ndjson"):
        return _numbered(_json_of(staging, text, as_text=as_text))
    raise BadFile(
        "unknown_layout",
        f"the name of a table does not end with {ending!r}: {', '.join(PATTERNS)} do",
    )


#: DuckDB's types that hold a JSON value unchanged. A text that looks like a date or a UUID stays a text.
_UNCHANGED = re.compile(r"(VARCHAR|BOOLEAN|DOUBLE|U?(BIG|HUGE)INT)(\[\])?")


def _json_of(staging: Staging, path: str, *, as_text: bool) -> str:
    """The columns and their types come from the whole file, because a column may first appear late."""
    options = f"{path}, maximum_object_size = {MAX_LINE}, hive_partitioning = false"
    if as_text:
        names = columns_of(staging, f"read_json({options}, sample_size = -1, maximum_depth = 1)")
        columns = ", ".join(f"{quoted(name)}: 'JSON'" for name in names)
        values = ", ".join(f"{sql_of(name)}->>'$' AS {sql_of(name)}" for name in names)
        return f"(SELECT {values} FROM read_json({options}, columns = {{{columns}}}))"
    types = columns_of(staging, f"read_json({options}, sample_size = -1)")
    columns = ", ".join(
        f"{quoted(name)}: {quoted(dtype if _UNCHANGED.fullmatch(dtype) else 'VARCHAR')}"
        for name, dtype in types.items()
    )
    return f"read_json({options}, columns = {{{columns}}})"


def _check_columns(path: str) -> None:
    try:
        many = pq.read_metadata(path).num_columns
    except (OSError, pa.ArrowException) as error:
        raise BadFile("damaged", f"not a whole Parquet file: {one_line(error, 160)}") from error
    if many > MAX_COLUMNS:
        raise BadFile("too_large", f"{many:,} columns, more than {MAX_COLUMNS:,}")


def _numbered(source: str) -> str:
    return f"(SELECT *, row_number() OVER () AS {ROW} FROM {source})"


def columns_of(staging: Staging, source: str) -> dict[str, str]:
    """Column -> its type. Raises BadFile where DuckDB cannot read the file."""
    try:
        rows = staging.con.execute(f"DESCRIBE FROM {source}").fetchall()
    except duckdb.Error as error:
        raise BadFile("damaged", one_line(error, 300)) from error
    if any(row[0].lower().startswith(f"{ROW}_") for row in rows):  # DuckDB's name for a second column of that name
        raise BadFile("unknown_layout", f"a column is called {ROW}")
    return {row[0]: row[1] for row in rows}


def sql_of(value: Any) -> str:
    """A column, or a constant, as SQL."""
    if is_constant(value):
        return quoted(str(value["value"]))
    return '"' + str(value).replace('"', '""') + '"'
