"""Locks a DuckDB connection: its views are made, and it reads the lake alone from now on.

Owns the choice of DuckDB's settings for that. DuckDB takes an allowed folder for reading and writing, so queries of
people are also checked before they run (schemas.reading_only).
"""

from __future__ import annotations

import duckdb

from collectors.lake.store import Lake
from schemas.sql import literal_path, quoted
from schemas.views import lake_place


def lock(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Shuts off all files but the lake's, extensions and new settings. It cannot be taken back for this connection."""
    place = lake_place(lake.uri)
    # DuckDB compares a pattern as it is written, so that a folder with a bracket has two names.
    names = ", ".join(quoted(name) for name in (place, literal_path(place)))
    con.execute(f"SET allowed_directories = [{names}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
