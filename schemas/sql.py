"""Values of Python as DuckDB's SQL.

Owns quoting and the names of DuckDB's types. Knows no view and no table.
"""

from __future__ import annotations

import re

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
    """`text` as a string literal."""
    return "'" + text.replace("'", "''") + "'"


def literal_path(path: str) -> str:
    """`path` for DuckDB's file readers, which then take none of its characters for a pattern."""
    return _GLOB.sub(lambda match: f"[{match[0]}]", path)


def quoted_path(path: str) -> str:
    """`path` as a string literal for DuckDB's file readers."""
    return quoted(literal_path(path))


def type_name(dtype: pa.DataType) -> str:
    """DuckDB's name of an Arrow type. Raises KeyError for a type that no table has."""
    if pa.types.is_list(dtype):
        return f"{_TYPES[dtype.value_type]}[]"
    return _TYPES[dtype]


def parquet_schema(schema: pa.Schema) -> str:
    """The `schema` argument of read_parquet: a column that a file lacks is read as null, others are not read."""
    columns = (
        f"{quoted(field.name)}: {{name: {quoted(field.name)}, type: {quoted(type_name(field.type))}, "
        "default_value: NULL}"
        for field in schema
    )
    return f"MAP {{{', '.join(columns)}}}"


def no_rows(schema: pa.Schema) -> str:
    """A relation with the columns of `schema` and no row."""
    columns = ", ".join(f"NULL::{type_name(field.type)} AS {field.name}" for field in schema)
    return f"(SELECT {columns} WHERE false)"
