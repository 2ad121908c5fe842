"""A published table or pickled frame as an SQL relation, for the formats that are tables.

Knows nothing of any one format.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from collectors.importers.files import BadFile, SourceFile
from collectors.importers.formats.table import ROW, columns_of, reader_of, sql_of
from collectors.importers.pickles import Frame, load_pickle
from collectors.importers.staging import Staging
from schemas.failures import one_line

TABLES = ("*.csv", "*.parquet", "*.jsonl", "*.json", "*.pkl", "*.pickle")


def response_of(column: str) -> str:
    """RouterBench writes several turns as the text of a list. That text is kept as it stands."""
    return f"CASE WHEN {sql_of(column)} IS NOT NULL THEN [{sql_of(column)}::VARCHAR] END AS responses"


def need_columns(columns: Sequence[str] | dict[str, str], *names: str) -> None:
    if missing := [name for name in names if name not in columns]:
        raise BadFile("unknown_layout", f"no column {', '.join(missing)}")


def relation_of(staging: Staging, number: int, file: SourceFile) -> tuple[str, dict[str, str]]:
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
        raise BadFile("unknown_layout", "does not hold a pandas frame")
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
