"""The DuckDB views over a lake: the public contract for queries.

Each .sql file in this folder makes one view or macro of the same name, and begins with a comment that defines a row.
Names with a leading underscore are steps of the others and may change. Knows nothing of who writes a lake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

import duckdb
import pyarrow as pa

from schemas.columns import column_docs
from schemas.records import GLOBS
from schemas.sql import quoted, text_rows
from schemas.views.choice import PoolChoice
from schemas.views.files import (
    INCLUDED,
    PART_SCAN,
    RULED_ROWS,
    Placeholders,
    ViewFiles,
    kept_table,
    lake_place,
    object_path,
)
from schemas.views.kept_parts import keep_parts, only_parts
from schemas.views.open_shards import STEPS, TABLE, read_open_shards
from schemas.views.order import (
    OWNERSHIP,
    POOL,
    named_in,
    reads_pool_alone,
    view_files,
    views_of,
    with_dependencies,
)

__all__ = [
    "INCLUDED",
    "KEPT",
    "KEPT_TABLES",
    "OWNERSHIP",
    "PART_SCAN",
    "POOL",
    "PRICES",
    "PoolChoice",
    "ViewFiles",
    "contents",
    "create_views",
    "keep_parts",
    "keep_tables",
    "kept_table",
    "lake_place",
    "make_kept_views",
    "named_in",
    "object_path",
    "only_parts",
    "reads_pool_alone",
    "relocatable_views",
    "rows_of_version",
    "view_files",
    "views_of",
    "write_comments",
]

#: Small views behind every query over records. Where the files are listed, they are tables.
KEPT = (*OWNERSHIP, "_cell_rows")
#: Tables of all cells. To sort 102,000 rows takes half a second, so a database in memory has them as they come.
UNSORTED = ("_folded", "_cell_rows", "_scored", "_pool_choice")
#: Each price of a cell, from seven small views, which every view of costs reads. It is a table in the same case.
PRICES = ("_cell_prices",)
#: Sums over all records that several views read. They are a table where a query names its views: as a view each reader
#: scans the records anew, and filters do not reach the records through the leaderboard's windows.
SUMS = ("_totals",)
#: Steps with all columns, answers too: they stay views everywhere, so that memory does not hold the texts.
WIDE = ("_stored", "_open_rows")
#: Those that read records, of cells that meet the pool's condition alone or for these alone.
READ_RECORDS = ("_scored", "_ragged", "_left_out")
#: The step before them that reads pool_cells.
READS_CELLS = "_considered"

#: Tables of a published version that its database holds, all but answers and replaced rows.
KEPT_TABLES = (*(table for table in GLOBS if table != "shards"), "compact/folded", "compact/records")


def create_views(
    con: duckdb.DuckDBPyConnection,
    lake_uri: str,
    files: ViewFiles | None = None,
    *,
    cells: pa.Table | None = None,
    only: Collection[str] | None = None,
    comments: bool = True,
    choice: PoolChoice | None = None,
) -> None:
    """Creates the views over the lake at `lake_uri`, a folder or a URI that `con` can read, in the open database.

    A folder's absolute path goes into the views, so that a database file works from any working directory. `cells` are
    rows of the view of that name, for a caller who has them: a query of 100,000 takes half a second. `only` names the
    views to create; the views that they read are created too, unless a table has the name. In a small lake those that
    several of them read are tables: to bind a view costs more than its rows. Raises StorageError at a path that DuckDB
    cannot glob, ConfigError for a wrong condition in `choice`, duckdb.Error without a lake.
    """
    choice = choice or PoolChoice()
    files = replace(files or ViewFiles(), judge=choice.judge)
    wanted = _wanted(con, only, cells, set() if files.has_older_rows else {RULED_ROWS})
    names = Placeholders(lake_place(lake_uri), files)
    choice.set_variables(con)
    if files.listed is not None and "_shard_files" in wanted:
        paths = text_rows(f"{names.place}/{name}" for name in files.listed["shards"])
        con.execute(f"CREATE TABLE _listed AS SELECT text AS file FROM {paths}")
    if cells is not None:
        con.register("given_cells", cells)
        con.execute("CREATE TABLE _cell_rows AS FROM given_cells")
    if only is None and files.listed is None and cells is None and _make_over_tables(con, names, wanted, choice):
        wanted = set()
    is_read = False
    shared = _shared(wanted) if files.small and only is not None and files.listed is not None else set()
    for view in (view for name, view in view_files().items() if name in wanted):
        if view.name == READS_CELLS:
            choice.set_cells(con)
        kept = (*KEPT, *PRICES) if only is None else (*KEPT, *PRICES, *SUMS)
        is_listed = files.listed is not None or cells is not None  # a listing does not change
        is_table = view.name in POOL or (view.name in kept and files.listed is not None) or view.name in shared
        if view.name == "_pool_cells" and is_listed and only is not None:
            is_table = False  # its columns of cells are in a table already
        if view.name == STEPS[0] and only is not None:
            is_read = read_open_shards(con, names, wanted)
        if not (is_read and view.name == TABLE):
            statement = view.sql
            if is_table:
                is_sorted = view.name not in {*UNSORTED, *shared} or only is None
                statement = view.as_table if is_sorted else view.as_rows
            statement = names.put_into(statement)
            if is_table and view.name == "_left_out" and not con.execute("FROM _ragged LIMIT 1").fetchall():
                statement = without_rows(statement)  # DuckDB would read all records, and find that no table wants them
            if is_table and view.name in READ_RECORDS and files.narrowable and choice.where.strip().lower() != "true":
                choice.set_cells(con)
                with only_parts(con, names.place, _parts_of_pool(con)):
                    con.execute(statement)
            else:
                con.execute(statement)
        if view.name == "_outdated" and files.listed is not None:
            names = _choose(con, names)
        if view.name == "_shown_judges" and choice.judge:
            choice.check_judge(con)
    if comments:
        write_comments(con)


def _parts_of_pool(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The parts with cells that meet the pool's condition."""
    query = """
        SELECT DISTINCT part
        FROM _folded
        WHERE getvariable('pool_cells') IS NULL
            OR cell_id IN (SELECT unnest(CAST(getvariable('pool_cells') AS VARCHAR[])))
    """
    return [part for (part,) in con.execute(query).fetchall()]


def _shared(wanted: Collection[str]) -> set[str]:
    """The views that several of `wanted` read, without those of wide rows."""
    files = view_files()
    readers = Counter(read for name in wanted for read in files[name].reads)
    return {name for name, count in readers.items() if count > 1 and files[name].kind == "view"} - {*WIDE}


def without_rows(statement: str) -> str:
    """A statement that makes a table of the same columns with no row."""
    return f"{statement.rstrip().removesuffix(';')} WITH NO DATA"


def _wanted(
    con: duckdb.DuckDBPyConnection, only: Collection[str] | None, cells: pa.Table | None, unused: set[str]
) -> set[str]:
    given = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()} | unused
    if cells is not None:
        given.add("_cell_rows")
    return with_dependencies(view_files().keys() - unused if only is None else only, given)


def write_comments(con: duckdb.DuckDBPyConnection) -> None:
    """Adds the comments of views and columns to the database."""
    # All at once, in one transaction: each of 900 in its own takes four times as long.
    comments = [f"COMMENT ON {target} IS {quoted(comment)}" for target, comment in _comments(con)]
    con.execute("; ".join(["BEGIN", *comments, "COMMIT"]))


def _choose(con: duckdb.DuckDBPyConnection, names: Placeholders) -> Placeholders:
    """Chooses the files to read, by the views of OWNERSHIP."""
    open_shards = con.execute("SELECT file FROM _shard_files WHERE NOT is_folded").fetchall()
    outdated = con.execute("SELECT DISTINCT part FROM _outdated").fetchall()
    return replace(names, open_shards=[file for (file,) in open_shards], outdated=[part for (part,) in outdated])


def relocatable_views(files: ViewFiles) -> list[str]:
    """Returns statements that create the views over `files`, for a database that may be moved together with them.

    The views read from the working directory, or from the folder or URI in the variable `snapshot`:
    SET VARIABLE snapshot = 's3://bucket/version'.
    """
    names = Placeholders("", files, place_sql="coalesce(getvariable('snapshot'), '.')", open_shards=[], outdated=[])
    return [names.put_into(view.as_table if name in POOL else view.sql) for name, view in view_files().items()]


def keep_tables(con: duckdb.DuckDBPyConnection, files: ViewFiles) -> None:
    """Makes tables of the rows of a published version, and the views over them, in the open database.

    Queries then need no file: the database answers wherever it lies. Answers and replaced rows alone are read from the
    version's files, from the working directory or the variable `snapshot`, which is set now.
    """
    names = _of_database(files)
    for table in KEPT_TABLES:
        con.execute(f"CREATE TABLE {kept_table(table)} AS FROM {names.rows_of(table)}")
    make_kept_views(con, files)
    write_comments(con)


def make_kept_views(con: duckdb.DuckDBPyConnection, files: ViewFiles) -> None:
    """Makes the views of a version's database over its tables (kept_table), in the open database."""
    names = replace(_of_database(files), kept=frozenset(KEPT_TABLES))
    if not _make_over_tables(con, names, view_files().keys()):
        for name, view in view_files().items():
            con.execute(names.put_into(view.as_table if name in POOL else view.sql))


def _make_over_tables(
    con: duckdb.DuckDBPyConnection, names: Placeholders, wanted: Collection[str], choice: PoolChoice | None = None
) -> bool:
    """Makes views, each while those that it reads are tables of the same columns, and the tables of POOL.

    DuckDB binds a view when it is made, and with it all views below: 1.9 CPU-seconds for all of them, and 0.3 so. The
    tables that stand for views are empty. In a small lake those that POOL reads have their rows, since the tables of
    POOL are of rows and over the views take 0.6 more. What DuckDB stores is the same to the byte. False if one cannot
    be made, and then none is.
    """
    choice = choice or PoolChoice()
    files = {name: view for name, view in view_files().items() if name in wanted}
    views = {name: view for name, view in files.items() if view.kind == "view"}
    filled = with_dependencies(views.keys() & {*POOL}) if names.files.small else set()
    con.begin()
    try:
        for name, view in files.items():
            if name == READS_CELLS and name in filled:
                choice.set_cells(con)
            statement = view.sql if name not in views else view.as_table if name in POOL else view.as_rows
            statement = names.put_into(statement)
            con.execute(statement if name in filled or name not in views else without_rows(statement))
        for name, view in reversed([(name, view) for name, view in views.items() if name not in filled & {*POOL}]):
            con.execute(f"DROP TABLE {name}")
            if name not in POOL:
                con.execute(names.put_into(view.sql))
        if choice.judge:
            choice.check_judge(con)
        for name in (name for name in views if name in POOL and name not in filled):
            if name == "_pool_choice":
                choice.set_cells(con)
            con.execute(names.put_into(views[name].as_table))  # of rows, so the views below have to be there
    except duckdb.Error:
        con.rollback()
        return False
    con.commit()
    return True


def _of_database(files: ViewFiles) -> Placeholders:
    place = "coalesce(getvariable('snapshot'), '.')"
    return Placeholders("", replace(files, absent=files.absent | {"shards"}), place, open_shards=[], outdated=[])


def rows_of_version(files: ViewFiles, table: str, uri: str) -> str:
    """The relation of the rows of a table in the files of a published version."""
    return Placeholders(lake_place(uri), files, open_shards=[], outdated=[]).rows_of(table)


def _comments(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """Yields a comment for each view and column: the head of the view's file, and schemas.columns."""
    views = {name for (name,) in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    # DESCRIBE would bind each view again: a quarter of a second for all.
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
    """Returns the objects that create_views may leave in a database: pairs of 'view', 'table' or 'macro' and a name."""
    return {(file.kind, name) for name, file in view_files().items()} | {
        ("table", n) for n in ("_listed", *KEPT, *PRICES, *SUMS, *POOL)
    }
