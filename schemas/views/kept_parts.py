"""Chooses the files of a compaction's records that the queries of a connection read, where its views are narrowable.

Owns the variable's form. Which parts a query needs is told by whoever asks (collectors.lake.narrowing, and the pool).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb

from schemas.records import SCHEMA_FILES
from schemas.sql import quoted_path
from schemas.views.files import KEPT_PARTS, NARROWABLE


def keep_parts(con: duckdb.DuckDBPyConnection, place: str, names: Iterable[str]) -> None:
    """Lets `con` read, from now on, no files of records but these objects of the lake at `place`."""
    every = (*(SCHEMA_FILES[table] for table in NARROWABLE), *names)  # a reader needs one file for its columns
    paths = ", ".join(quoted_path(f"{place}/{name}") for name in every)
    con.execute(f"SET VARIABLE {KEPT_PARTS} = [{paths}]")


@contextmanager
def only_parts(con: duckdb.DuckDBPyConnection, place: str, names: Iterable[str]) -> Iterator[None]:
    """As keep_parts, meanwhile."""
    keep_parts(con, place, names)
    try:
        yield
    finally:
        con.execute(f"SET VARIABLE {KEPT_PARTS} = NULL")
