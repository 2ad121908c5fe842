"""The DuckDB file of a published version, and the matrix as Parquet that is written from its views.

Owns what the file holds. The same version gives the same bytes (collectors.same_bytes): one thread writes it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb

from collectors.lake import layout
from collectors.publish.matrix_table import write_matrix
from collectors.publish.published_sql import choose_price_day
from collectors.same_bytes import SAME_COMPRESSION, in_cleared_process
from schemas.sql import quoted
from schemas.views import ViewFiles, keep_tables


def write_database(folder: Path, files: ViewFiles, runs: str, prices: str) -> list[str]:
    """Writes the database of the version in `folder`, whose objects are `files`, and its matrix; returns their names.

    `runs` and `prices` are relations of its tables. Raises duckdb.Error, and StorageError if the writing process ends.
    """
    return in_cleared_process(_write, folder, files, runs, prices)


def _write(folder: Path, files: ViewFiles, runs: str, prices: str) -> list[str]:
    with contextlib.closing(duckdb.connect(config={"threads": 1})) as con:
        con.execute(SAME_COMPRESSION)
        # Small blocks: 50 tables take 2 MB and not 5.
        con.execute(f"ATTACH {quoted(str(folder / layout.DATABASE))} AS version (BLOCK_SIZE 16384); USE version")
        con.execute("SET VARIABLE snapshot = ?", [str(folder)])
        choose_price_day(con, runs, prices)
        keep_tables(con, files)
        names = list(write_matrix(con, folder))
        con.execute("USE memory; DETACH version")
    return [layout.DATABASE, *names]
