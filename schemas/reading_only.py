"""Decides whether SQL from people, such as a query or a condition in a config, only reads.

Owns the statements and functions that it may use. Configs are passed on, so a condition must have no effect. DuckDB's
functions with an effect are not listed here, because they would be a list of two in one release and of three in the
next: a table function is refused unless it is named below as one that only reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from schemas.failures import ConfigError, one_line
from schemas.sql import quoted

#: Types of statements that change nothing outside the database in memory. DuckDB counts DESCRIBE, SUMMARIZE and SHOW as
#: SELECT, and splits PIVOT into CREATE TYPE and SELECT.
_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.CREATE}

#: Table functions without effect that read nothing outside the query.
_PURE = r"range|generate_series|unnest|repeat|repeat_row|json_each|json_tree|histogram|histogram_values"
#: Table functions that show the database: not its secrets and logs.
_SHOWING = (
    r"duckdb_(?!secrets|logs)\w+|pragma_(?:collations|database_size|platform|show|storage_info|table_info|user_agent"
    r"|version)|query_table|seq_scan|test_all_types|test_vector_types|icu_calendar_names|pg_timezone_names"
)
#: Table functions that read files. A locked connection lets them read the lake alone (collectors.lake.locking).
_FILES = r"(?:read|parquet)_(?!duckdb)\w+|sniff_csv|glob"
_IN_QUERIES = re.compile(f"(?:{_PURE}|{_SHOWING}|{_FILES})")
_IN_CONDITIONS = re.compile(f"(?:{_PURE})")
#: Scalar functions that DuckDB itself says have side effects, and that have none outside the query.
_INERT = re.compile(r"(?:nextval|currval|setseed|random|gen_random_uuid|uuid\w*|error|stats|current_\w+)")
#: Those of another value at each call: a condition has to mean the same tomorrow.
_CHANGING = re.compile(r"(?:nextval|currval|setseed|random|gen_random_uuid|uuid\w*)")

_TABLE_FUNCTIONS = (
    "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('table', 'table_macro')"
)
_SIDE_EFFECTS = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE has_side_effects"
_NAME = re.compile(rb'"(?:[^"]|"")*"|[A-Za-z_\x80-\xff][\w$\x80-\xff]*')


def check_query(con: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raises ConfigError for a query that may do more than read, and duckdb.Error for one that is not valid."""
    for statement in con.extract_statements(query):
        if statement.type not in _READING or _acts(statement):
            raise ConfigError("to write files, open the database (--out) in DuckDB")
    _check_functions(con, query, _IN_QUERIES)


def check_condition(con: duckdb.DuckDBPyConnection, condition: str) -> None:
    """Raises ConfigError for a condition that is more than one, or may do more than read columns and views of `con`.

    A file's name is a table to DuckDB, and a connection to a lake is locked only later.
    """
    try:
        statements = con.extract_statements(f"SELECT 1 WHERE (\n{condition}\n)")
    except duckdb.Error as error:
        raise ConfigError(one_line(error, 200)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError("it holds a statement of its own")
    _check_functions(con, condition, _IN_CONDITIONS)
    if changing := sorted(filter(_CHANGING.fullmatch, called_functions(condition))):
        raise ConfigError(f"{changing[0]} has another value at each call")
    [(text,)] = con.execute(f"SELECT json_serialize_sql({quoted(statements[0].query)})").fetchall()
    tree = json.loads(text)
    if tree["error"]:
        raise ConfigError(one_line(ConfigError(tree["error_message"]), 200))
    defined = {node["key"].lower() for node in _nodes(tree, "key") if node["key"].isidentifier()}  # by WITH
    for node in _nodes(tree, "table_name"):
        names = [node[f"{part}_name"] for part in ("catalog", "schema", "table")]
        if names[:2] not in (["", ""], ["", "main"]) or names[2].lower() not in {*defined, *_relations(con)}:
            raise ConfigError(f"{'.'.join(filter(None, names))!r} is no view of the lake")


def _nodes(tree: Any, key: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a serialized statement, whatever their depth, in which `key` is a text."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get(key), str) and node[key]:
                yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _relations(con: duckdb.DuckDBPyConnection) -> set[str]:
    names = "SELECT view_name FROM duckdb_views() UNION SELECT table_name FROM duckdb_tables()"
    return {name.lower() for (name,) in con.execute(names).fetchall()}


def refused_functions(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Returns the functions of this DuckDB that no query may call, in lower case."""
    return _refused(con, _IN_QUERIES)


def _refused(con: duckdb.DuckDBPyConnection, allowed: re.Pattern[str]) -> set[str]:
    names = {name for (name,) in con.execute(_TABLE_FUNCTIONS).fetchall()}
    acting = {name for (name,) in con.execute(_SIDE_EFFECTS).fetchall()}
    return {n for n in names if not allowed.fullmatch(n)} | {n for n in acting if not _INERT.fullmatch(n)}


def _check_functions(con: duckdb.DuckDBPyConnection, sql: str, allowed: re.Pattern[str]) -> None:
    called = called_functions(sql)
    if refused := sorted(called & _refused(con, allowed)):
        raise ConfigError(f"{refused[0]} may do more than read the lake")


def called_functions(sql: str) -> set[str]:
    """Returns the names before an opening bracket, in lower case, by DuckDB's own division into tokens."""
    data = sql.encode()
    names, before = set(), None
    for offset, _ in duckdb.tokenize(sql):
        if data[offset : offset + 1] == b"(" and before is not None:
            names.add(before)
        before = _name_at(data, offset)
    return names


def _name_at(data: bytes, offset: int) -> str | None:
    if not (match := _NAME.match(data, offset)):
        return None
    name = match[0].decode(errors="replace")
    return (name[1:-1].replace('""', '"') if name.startswith('"') else name).lower()


def _acts(statement: duckdb.Statement) -> bool:
    """Whether a statement of a type in _READING has an effect: EXPLAIN ANALYZE runs its query, a secret is kept."""
    explains = statement.type == duckdb.StatementType.EXPLAIN and re.search(r"\bANALYZE\b", statement.query, re.I)
    keeps = statement.type == duckdb.StatementType.CREATE and re.search(r"\bSECRET\b", statement.query, re.I)
    return bool(explains or keeps)
