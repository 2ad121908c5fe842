"""The DuckDB views over a lake: the public contract of what can be asked of it.

Each .sql file beside this one makes the view or macro that it is named as, and begins with a comment that says what a
row is. Names that start with an underscore are steps of the others and may change. Knows nothing of who writes a lake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import duckdb
import pyarrow as pa

from schemas.columns import column_docs
from schemas.sql import quoted
from schemas.views.files import INCLUDED, Placeholders, ViewFiles, lake_place, object_path
from schemas.views.order import OWNERSHIP, named_in, view_files, with_what_they_read

__all__ = [
    "INCLUDED",
    "KEPT",
    "OWNERSHIP",
    "ViewFiles",
    "contents",
    "create_views",
    "lake_place",
    "named_in",
    "object_path",
    "relocatable_views",
    "view_files",
    "write_comments",
]

#: Small views that every query over records asks: kept as tables where files are listed.
KEPT = (*OWNERSHIP, "_cell_facts")


def create_views(
    con: duckdb.DuckDBPyConnection,
    lake_uri: str,
    files: ViewFiles | None = None,
    *,
    cells: pa.Table | None = None,
    only: Collection[str] | None = None,
    comments: bool = True,
) -> None:
    """Create all views over the lake at `lake_uri`, a folder or a URI that `con` can read, in the open database.

    A folder's absolute path goes into the views, so that a database file works from any working directory. `cells`:
    rows of the view of that name, for a caller who has them: asking 100,000 takes half a second. `only`: names of the
    views to create; what they read is created too, unless a table of that name is there. Raises StorageError at a path
    that DuckDB cannot glob, duckdb.Error where no lake is.
    """
    files = files or ViewFiles()
    wanted = _wanted(con, only, cells)
    names = Placeholders(lake_place(lake_uri), files)
    if files.listed is not None and "_shard_files" in wanted:
        # as a parameter: a hundred thousand names in a statement take seconds
        paths = [f"{names.place}/{name}" for name in files.listed["shards"]]
        con.execute("CREATE TABLE _listed AS SELECT unnest($paths::VARCHAR[]) AS file", {"paths": paths})
    if cells is not None:
        con.register("known_cells", cells)
        con.execute("CREATE TABLE _cell_facts AS FROM known_cells")
    for view in (view for name, view in view_files().items() if name in wanted):
        sql = view.sql
        if view.name in KEPT and files.listed is not None:
            sql = sql.replace("CREATE VIEW", "CREATE TABLE")  # what is listed does not change
        con.execute(names.put_into(sql))
        if view.name == "_outdated" and files.listed is not None:
            names = _choose(con, names)
    if comments:
        write_comments(con)


def _wanted(con: duckdb.DuckDBPyConnection, only: Collection[str] | None, cells: pa.Table | None) -> set[str]:
    tables = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if cells is not None:
        tables.add("_cell_facts")
    return with_what_they_read(view_files() if only is None else only, tables)


def write_comments(con: duckdb.DuckDBPyConnection) -> None:
    """Puts into the database what its views and their columns mean."""
    for target, comment in list(_comments(con)):
        con.execute(f"COMMENT ON {target} IS {quoted(comment)}")


def _choose(con: duckdb.DuckDBPyConnection, names: Placeholders) -> Placeholders:
    """The files to read, now that the views of OWNERSHIP are there."""
    open_shards = con.execute("SELECT file FROM _shard_files WHERE NOT is_folded").fetchall()
    outdated = con.execute("SELECT DISTINCT part FROM _outdated").fetchall()
    return replace(names, open_shards=[file for (file,) in open_shards], outdated=[part for (part,) in outdated])


def relocatable_views(files: ViewFiles) -> list[str]:
    """Statements that create the views over `files` beside the database that they are put into, wherever that is.

    They read from the working directory, or from the folder or URI in the variable `snapshot`:
    SET VARIABLE snapshot = 's3://bucket/version'.
    """
    names = Placeholders("", files, place_sql="coalesce(getvariable('snapshot'), '.')", open_shards=[], outdated=[])
    return [names.put_into(view.sql) for view in view_files().values()]


def _comments(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """A comment for each view and column: the head of the view's file, and schemas.columns."""
    views = {name for (name,) in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    # Not DESCRIBE: it binds each view anew, a quarter of a second for all.
    columns: dict[str, list[str]] = {}
    query = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
    for view, column in con.execute(query).fetchall():
        columns.setdefault(view, []).append(column)
    for name, file in view_files().items():
        if name not in views:
            continue
        yield f"VIEW {name}", file.comment
        if name.startswith("_"):
            continue
        docs = column_docs(name)
        for column in columns[name]:
            if column in docs:
                yield f"COLUMN {name}.{column}", docs[column]


def contents() -> set[tuple[str, str]]:
    """What create_views may leave in a database: pairs of 'view', 'table' or 'macro' and a name."""
    return {(file.kind, name) for name, file in view_files().items()} | {("table", n) for n in ("_listed", *KEPT)}
