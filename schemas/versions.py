"""Decides by the schema version in a file's metadata whether this program may read it.

A lake outlives the program: a file of an older version is read, with null for columns that it lacks. A newer file may
have a meaning that this program lacks, so it refuses the whole lake and changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.records import SCHEMA_VERSION

#: The first version whose lakes stay readable.
OLDEST_VERSION = 6
#: The first version whose records hold an outcome, and a score by the rules of schemas.verdicts.
RULED_VERSION = 7

VERSION_KEY = b"routerlake_schema_version"


def stated_version(metadata: Mapping[bytes, bytes] | None) -> int | None:
    """Returns the version in a Parquet file's metadata; None without one. Raises ValueError if it is not a number."""
    version = (metadata or {}).get(VERSION_KEY)
    return None if version is None else int(version)


def check_readable(place: str, version: int | None) -> None:
    """Raises ConfigError if this program cannot read the version of `place`, a lake or an object."""
    if version is None or version < OLDEST_VERSION:
        raise ConfigError(
            f"{place} has schema version {version or 0}, this program reads {OLDEST_VERSION} and later: "
            "use the release that wrote it, or another --lake"
        )
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{place} has schema version {version}, this program reads up to {SCHEMA_VERSION}: "
            "use a newer release, or another --lake; nothing was changed"
        )


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema`, null where an older file lacks them.

    Raises ValueError if the file lacks a column that is never null: a foreign one does.
    """
    for column in schema:
        if column.name not in table.column_names:
            if not column.nullable:
                raise ValueError(f"it is foreign: it lacks column {column.name}")
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(schema.names)


def tables_digest(tables: Mapping[str, pa.Schema]) -> str:
    """Returns a digest of names, types and nullability of all columns: equal digests mean equal tables."""
    columns = {
        table: [(field.name, str(field.type), field.nullable) for field in schema] for table, schema in tables.items()
    }
    return digest(columns)
