"""The DuckDB views over a lake: the public contract of what can be asked of it.

Owns the numbered .sql files beside it, each with a comment that says what a row is, and how a lake's place gets into
them. Views whose names start with an underscore are steps of the others and may change. Knows nothing of who writes a
lake, and needs of one only that the five folders of `schemas.records.TABLES` each hold at least one Parquet file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources

import duckdb

from schemas.failures import StorageError
from schemas.records import FAILURE, ITEM, MODEL, RECORD, RUN_CELL

#: View -> the schema that its columns of the same names come from.
SCHEMAS = {
    "records": RECORD,
    "responses": RECORD,
    "matrix": RECORD,
    "items": ITEM,
    "models": MODEL,
    "cells": RUN_CELL,
    "failures": FAILURE,
}

_GLOB = re.compile(r"[*?\[]")


def create_views(con: duckdb.DuckDBPyConnection, lake_uri: str) -> None:
    """Create all views over the lake at `lake_uri`, a folder or a URI that `con` can read, in the open database.

    A folder's absolute path goes into the views, so that a database file works from any working directory. New shards
    are seen by the next query. Raises StorageError at a path that DuckDB cannot glob, duckdb.Error where no lake is.
    """
    place = quoted_place(lake_uri)
    for sql in view_files().values():
        con.execute(sql.replace("{lake}", place))
    for target, text in list(_comments(con)):
        con.execute(f"COMMENT ON {target} IS '{text.replace(chr(39), chr(39) * 2)}'")


def _comments(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """What can be said of each view and its columns: the head of its file, and the docs of the schema behind it."""
    for sql in view_files().values():
        head, _, statement = sql.partition("CREATE VIEW ")
        view = statement.split()[0]
        yield f"VIEW {view}", " ".join(line.removeprefix("--").strip() for line in head.splitlines())
        docs = {field.name: field.metadata[b"doc"].decode() for field in SCHEMAS.get(view, ())}
        for column, *_ in con.execute(f"DESCRIBE {view}").fetchall():
            if column in docs:
                yield f"COLUMN {view}.{column}", docs[column]


def view_files() -> dict[str, str]:
    """File name -> text of the views, in build order."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}


def quoted_place(lake_uri: str) -> str:
    """`lake_uri` as it may stand inside a quoted DuckDB glob: absolute, glob characters and quotes made literal."""
    place = lake_uri.rstrip("/") if "://" in lake_uri else _local_place(lake_uri)
    return _GLOB.sub(lambda match: f"[{match[0]}]", place).replace("'", "''")


def _local_place(folder: str) -> str:
    path = os.path.abspath(folder)
    if "\\" in path:
        raise StorageError(f"{path}: DuckDB takes a backslash for a folder separator; move the lake to another path")
    return path
