"""Checks the SQL of a published version: its views read the version's own files, and may differ from this release's.

Owns what statements and calls a version's views may hold, in views.sql and in the database.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import duckdb

from collectors.lake import layout
from collectors.lake.holdings import read_holdings
from collectors.lake.parts import limit_memory
from collectors.lake.store import Lake
from collectors.publish.matrix_table import matrix_query, matrix_tasks
from collectors.scratch import scratch
from schemas.failures import one_line
from schemas.sql import quoted
from schemas.views import (
    KEPT_TABLES,
    POOL,
    ViewFiles,
    kept_table,
    make_kept_views,
    relocatable_views,
    rows_of_version,
    view_files,
)

VIEWS = "views.sql"
#: The form in which views name a file; any other call of a reader, and any other text with a path, is foreign.
_TOKEN = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)\"""")
#: The views print the name of a shard by it.
_SHARD_FORMATS = ("{}-g{}-{:07d}-{:07d}.parquet", "{}-g{}-{:07d}-{:07d}{}.parquet")
#: How views up to schema version 12 read the name of a shard.
_EARLIER_LITERALS = frozenset(
    [
        r"(?:^|/)[0-9a-fi][0-9a-f]{15}-g[0-9]{1,6}-[0-9]{7}-[0-9]{7}\.parquet$",
        r"(?:^|/)([0-9a-fi][0-9a-f]{15})-g([0-9]{1,6})-([0-9]{7})-([0-9]{7})\.parquet$",
    ]
)
#: Text and names in quotes, which may hold what looks like a comment, or a comment.
_QUOTED_OR_COMMENT = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|--[^\r\n]*""")
_WORD = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\r\n]*|\w+|\S""")
_VIEWS_AND_MACROS = """
SELECT schema_name || '.' || view_name, sql FROM duckdb_views() WHERE database_name = 'version' AND NOT internal
UNION ALL
SELECT schema_name || '.' || function_name, concat_ws(' ', function_type, parameters::VARCHAR, macro_definition)
FROM duckdb_functions() WHERE database_name = 'version' AND macro_definition IS NOT NULL
ORDER BY ALL
"""
_READER = re.compile(r"""\b(\w*scan\w*|read_\w+|glob|sniff_csv|getenv|query|query_table)"?\s*\(""", re.I)
_MADE = re.compile(r"CREATE (?:VIEW|TABLE|MACRO) (\w+)\b")
_DOLLARS = re.compile(r"\$\w*\$")
_FROM_TEXT = re.compile(r"(?<!DISTINCT )\b(?:FROM|JOIN)\s*''", re.I)


def views_faults(text: str, files: Collection[str]) -> list[str]:
    """Returns a line for each statement of views.sql that makes no view, and for what reads other files."""
    return [*_faults_of_statements(text), *_faults_of_sql(_without_comments(text), files)]


def views_of_others(store: Lake) -> list[str]:
    """Returns a line for views.sql, and lines for the database, where this release would write other views or pools.

    Another release wrote them so, or somebody changed them: only the manifest's SHA-256 tells. The version is whole.
    """
    files = read_holdings(store).view_files()
    own = {_made(one): _words(one) for one in relocatable_views(files)}
    there = {_made(one.query): _words(one.query) for one in duckdb.extract_statements(store.read(VIEWS).decode())}
    lines = [_line(VIEWS, "views", _unlike(there, own))]
    if store.local:
        views, pools, matrices = _of_database(store, files)
        lines += [_line(layout.DATABASE, "views", views), _line(layout.DATABASE, "tables of the pool", pools)]
        lines += [_line("matrix/", "files", matrices)]
    return list(filter(None, lines))


def choose_price_day(con: duckdb.DuckDBPyConnection, runs: str, prices: str) -> None:
    """Chooses the prices of the day on which the newest of these runs began or the newest price was added.

    By today's prices the same lake would make other tables of the pool when it is published again later. A price that
    was added before its first day stays out. The day is that of the place on earth where it is latest.
    """
    con.execute(
        f"""
        SET VARIABLE prices_on = (
            SELECT (max(moment AT TIME ZONE 'UTC') + INTERVAL 14 HOURS)::DATE::VARCHAR
            FROM (SELECT started_at AS moment FROM {runs} UNION ALL SELECT added_at FROM {prices})
        )
        """
    )


def _line(name: str, kind: str, names: Collection[str]) -> str | None:
    if not names:
        return None
    return (
        f"{name}: {len(names)} of its {kind}, such as {min(names)}, are not this release's: another release wrote "
        "them, or somebody changed them"
    )


def _of_database(store: Lake, files: ViewFiles) -> tuple[list[str], list[str], list[str]]:
    """Names of the views and macros of the database, of its tables of the pool, and of files of the matrix beside it,
    that this release makes otherwise.

    They are made anew over the same tables, because a stored view is not to the letter the one that was made.
    """
    tables = [kept_table(table) for table in KEPT_TABLES]
    with scratch("views-") as folder:
        own = str(folder / layout.DATABASE)
        with contextlib.closing(duckdb.connect()) as con:
            limit_memory(con, folder)
            con.execute(f"ATTACH {quoted(store.local_path(layout.DATABASE))} AS version (READ_ONLY)")
            con.execute(f"ATTACH {quoted(own)} AS own; USE own")
            con.execute("SET VARIABLE snapshot = ?", [store.root])
            with contextlib.suppress(duckdb.Error):  # an earlier release's database lacks tables or columns
                for table in tables:
                    con.execute(f"CREATE VIEW {table} AS FROM version.{table}")
                choose_price_day(con, kept_table("runs"), kept_table("prices"))
                make_kept_views(con, files)
            pools = [name for name in POOL if not _are_equal(con, name)]
            matrices = list(_other_matrices(store, con))
        made = {name: words for name, words in _views_in(own).items() if name not in tables}
        return _unlike(_views_in(store.local_path(layout.DATABASE)), made), pools, matrices


def _other_matrices(store: Lake, con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """The files of the matrix with other rows than the views give, which data loaders would read."""
    with contextlib.suppress(duckdb.Error):  # the views are not all there
        for task in matrix_tasks(con):
            name = layout.matrix_name(task)
            if not store.has(name):  # the first versions of all have none
                continue
            file = f"read_parquet({quoted(store.local_path(name))}, hive_partitioning = false)"
            if _rows(con, file) != _rows(con, f"({matrix_query(task)})"):
                yield name


def _are_equal(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether a table of the pool has the rows that this release makes."""
    with contextlib.suppress(duckdb.Error):  # one of them is not there
        there, own = (_rows(con, f"{database}.{name}") for database in ("version", "own"))
        return there == own or (name == "_members" and there in _by_days(con))
    return False


def _by_days(con: duckdb.DuckDBPyConnection) -> Iterator[list[Any]]:
    """The members of the pool with the prices of each day since the newest run: earlier releases took today's."""
    newest = "(SELECT max(started_at) AT TIME ZONE 'UTC' FROM runs)::DATE"
    query = f"SELECT DISTINCT valid_from - 1 FROM prices WHERE valid_from BETWEEN {newest} AND current_date"
    query += " UNION SELECT current_date"
    for (day,) in con.execute(query).fetchall():
        con.execute("SET VARIABLE prices_on = ?", [str(day)])
        con.execute(
            view_files()["_members"].as_table.replace("CREATE TABLE _members", "CREATE OR REPLACE TABLE of_day")
        )
        yield _rows(con, "of_day")


def _rows(con: duckdb.DuckDBPyConnection, relation: str) -> list[Any]:
    """The number of rows, and a sum of their hashes."""
    return con.execute(f"SELECT count(*), sum(hash(t)) FROM {relation} AS t").fetchall()


def _views_in(path: str) -> dict[str, Any]:
    """View or macro -> its words."""
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"ATTACH {quoted(path)} AS version (READ_ONLY)")
        found: dict[str, Any] = {}
        for name, sql in con.execute(_VIEWS_AND_MACROS).fetchall():
            found.setdefault(name.removeprefix("main."), []).append(_in_one_order(_words(sql)))
        return found


def _unlike(there: dict[str, Any], own: dict[str, Any]) -> list[str]:
    return [name for name in own.keys() | there.keys() if there.get(name) != own.get(name)]


def _words(sql: str) -> list[str]:
    """A statement's words, marks and texts in quotes, without comments and what ends it."""
    words = [word for word in _WORD.findall(sql) if not word.startswith("--")]
    return words[:-1] if words[-1:] == [";"] else words


def _in_one_order(words: Sequence[str]) -> list[str]:
    """The words of a stored view, with what stands in EXCLUDE and REPLACE in order of the alphabet.

    DuckDB prints these columns in any order, and all else as it was written; a function of such a name in quotes.
    """
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        found.append(word)
        if word == "(" and found[-2:-1] in (["EXCLUDE"], ["REPLACE"]):
            found += [*sorted(" ".join(_in_one_order(one)) for one in _listed(rest)), ")"]
    return found


def _listed(rest: Iterator[str]) -> list[list[str]]:
    """What stands between the commas of a list, of which `rest` is all behind its opening bracket."""
    listed: list[list[str]] = [[]]
    depth = 1
    for word in rest:
        depth += (word in "([{") - (word in ")]}")
        if not depth:
            break
        if word == "," and depth == 1:
            listed.append([])
        else:
            listed[-1].append(word)
    return listed


def _made(statement: str) -> str:
    match = _MADE.match(_without_comments(statement))
    return match[1] if match else ""


def _without_comments(sql: str) -> str:
    return _QUOTED_OR_COMMENT.sub(r"\1", sql).strip()


def database_faults(store: Lake, manifest: dict[str, Any]) -> list[str]:
    """Returns a line for each view of the version's database that reads anything but files of the manifest.

    It opens the database, so all else must be whole. Elsewhere than on this machine its SHA-256 has to suffice.
    """
    if not store.local:
        return []
    try:
        faults = [*_faults_of_sql(_statements(store), manifest["files"])]
        faults += [] if faults else _other_rows(store)
    except duckdb.Error as error:
        faults = [f"it cannot be opened: {one_line(error, 160)}"]
    return [f"{layout.DATABASE}: {fault}" for fault in faults]


def _other_rows(store: Lake) -> Iterator[str]:
    """A line for each table of the database that holds other rows than the files that it was made of."""
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"ATTACH {quoted(store.local_path(layout.DATABASE))} AS version (READ_ONLY)")
        query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'version'"
        there = {name for (name,) in con.execute(query).fetchall()}
        holdings = read_holdings(store)
        for table in KEPT_TABLES:
            if kept_table(table) not in there:  # a release before made views alone
                continue
            both = (f"version.{kept_table(table)}", rows_of_version(holdings.view_files(), table, store.uri))
            there_rows, of_files = (_rows(con, one) for one in both)
            if there_rows != of_files:
                yield f"it holds other rows of {table} than the files"


def _faults_of_statements(text: str) -> Iterator[str]:
    """A line for each statement that is not the making of a view, a table or a macro of its own name."""
    try:
        statements = [_without_comments(one.query) for one in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        yield f"it is not SQL: {one_line(error, 160)}"
        return
    made = [match[1] if (match := _MADE.match(statement)) else None for statement in statements]
    for statement, name in zip(statements, made, strict=True):
        if name is None:
            yield f"a statement makes no view, table or macro: {json.dumps(statement[:60])}"
    for name, times in Counter(filter(None, made)).items():
        if times > 1:
            yield f"it makes {name} {times} times"
    if lost := sorted({"leaderboard", "matrix", "records"} - set(made)):
        yield f"it does not make {', '.join(lost)}"


@functools.cache
def _own_literals() -> frozenset[str]:
    """The texts in quotes of this release's views, and those of earlier ones that look like paths."""
    own = {literal for file in view_files().values() for literal, _ in _TOKEN.findall(file.sql)}
    return _EARLIER_LITERALS | own


def _faults_of_sql(text: str, files: Collection[str]) -> Iterator[str]:
    code = _QUOTED_OR_COMMENT.sub("", text)
    if _DOLLARS.search(code):
        yield "a view holds a text in dollars"
    if "/*" in code:
        yield "a view holds a comment in /* */"
    if _FROM_TEXT.search(_TOKEN.sub(lambda match: "named" if match[0][0] == '"' else "''", text)):
        yield "a view reads a file by its name"
    for reader in sorted({match[1].lower() for match in _READER.finditer(text)} - {"read_parquet"}):
        yield f"a view calls {reader}, which may read other files"
    for literal, identifier in _TOKEN.findall(text):
        if "/" in identifier or "." in identifier:
            yield f"a view reads {json.dumps(identifier)} by its name"
        path = literal.replace("''", "'").replace("[*]", "*").replace("[?]", "?").replace("[[]", "[")
        if path in _SHARD_FORMATS:
            continue
        # A path may be put together of several texts, and have any ending.
        is_path = path.endswith(".parquet") or ("/" in path and literal not in _own_literals())
        if "://" in path or (is_path and path.removeprefix("/") not in files and path != "/"):
            yield f"a view reads {json.dumps(path)}, which is not in the manifest"


def _statements(store: Lake) -> str:
    """Returns the SQL of all views and macros of the version's database."""
    path = store.local_path(layout.DATABASE)
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"ATTACH {quoted(path)} AS version (READ_ONLY)")
        con.execute("SET enable_external_access = false")
        rows = con.execute(
            "SELECT sql FROM duckdb_views() WHERE database_name = 'version' UNION ALL SELECT macro_definition "
            "FROM duckdb_functions() WHERE database_name = 'version' AND macro_definition IS NOT NULL"
        ).fetchall()
    return "\n".join(text for (text,) in rows)
