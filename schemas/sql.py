"""Writes Python's values as DuckDB's SQL.

Owns quoting and the names of DuckDB's types. Knows nothing of views and tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa

_GLOB = re.compile(r"[*?\[]")

_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


def quoted(text: str) -> str:
    """Returns `text` as a string literal, or as SQL of the same value where it holds NUL, which ends a literal."""
    literal = "'" + text.replace("'", "''") + "'"
    if "\0" not in literal:
        return literal
    return "(" + literal.replace("\0", "' || chr(0) || '") + ")"


def text_rows(texts: Iterable[str]) -> str:
    """Returns a relation with a row for each of `texts`, which hold no line feed: text, and place, counted from 0.

    One literal, whatever their number: a hundred thousand literals take seconds, and any parameter makes DuckDB import
    pandas, 0.4 s of CPU.
    """
    whole = "\n".join(texts)
    return (
        "(SELECT unnest(texts) AS text, generate_subscripts(texts, 1) - 1 AS place "
        f"FROM (SELECT string_split({quoted(whole)}, chr(10)) AS texts WHERE {bool(whole)}))"
    )


def literal_path(path: str) -> str:
    """Returns `path` for DuckDB's file readers, with the characters of patterns escaped."""
    return _GLOB.sub(lambda match: f"[{match[0]}]", path)


def quoted_path(path: str) -> str:
    """Returns `path` as a string literal for DuckDB's file readers."""
    return quoted(literal_path(path))


def type_name(dtype: pa.DataType) -> str:
    """Returns DuckDB's name of an Arrow type. Raises KeyError for a type that is in no table."""
    if pa.types.is_list(dtype):
        return f"{_TYPES[dtype.value_type]}[]"
    return _TYPES[dtype]


def parquet_schema(schema: pa.Schema) -> str:
    """Returns the `schema` argument of read_parquet: columns that a file lacks are null, others are not read."""
    columns = (
        f"{quoted(field.name)}: {{name: {quoted(field.name)}, type: {quoted(type_name(field.type))}, "
        "default_value: NULL}"
        for field in schema
    )
    return f"MAP {{{', '.join(columns)}}}"


def no_rows(schema: pa.Schema) -> str:
    """Returns a relation with the columns of `schema` and without rows."""
    columns = ", ".join(f"NULL::{type_name(field.type)} AS {field.name}" for field in schema)
    return f"(SELECT {columns} WHERE false)"
