"""SQL from people only reads, whatever it calls and however it is written."""

from __future__ import annotations

import duckdb
import pytest

from schemas.failures import ConfigError
from schemas.reading_only import called_functions, check_condition, check_query, refused_functions
from tests.helpers.duckdb_functions import acts, calls
from tests.helpers.thorough import LONG

#: Those that have an effect in DuckDB 1.5.5, by a trial of all; `summary` ended its process in one trial of several.
ACTING = {"enable_logging", "enable_profiling"}


@pytest.mark.parametrize(
    "query",
    [
        "FROM enable_profiling(format = 'json', save_location = '/tmp/x.json')",
        "FROM \"enable_profiling\"(format = 'json')",
        "FROM system.main.Enable_Logging /* ( */ ('QueryLog')",
        "SELECT 'é' AS é, * FROM -- ü\n enable_logging\n()",
        "CREATE MACRO m() AS TABLE FROM enable_logging()",
        "WITH a AS (FROM query('FROM enable_' || 'logging()')) FROM a",
        "FROM json_execute_serialized_sql('{}')",
        "FROM duckdb_secrets()",
        "FROM read_duckdb('x.db')",
        "SELECT write_log('x')",
        "SELECT sleep_ms(1000)",
        "CREATE SECRET s (TYPE s3)",
        "ATTACH 'x.db'",
        "COPY (SELECT 1) TO 'x'",
        "SELECT 1; EXPORT DATABASE 'x'",
    ],
)
def test_query_that_may_act_is_refused(query: str) -> None:
    with duckdb.connect() as con, pytest.raises(ConfigError):
        check_query(con, query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'enable_logging(' AS text, \"query\" FROM (SELECT 1 AS query) -- enable_logging()",
        "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
        "FROM duckdb_columns(), range(3), unnest([1])",
        "CREATE TABLE t AS SELECT random(); SUMMARIZE t",
        "SELECT repeat('a', 3), error('x') WHERE false",
    ],
)
def test_query_that_reads_is_allowed(query: str) -> None:
    with duckdb.connect() as con:
        check_query(con, query)


@pytest.mark.parametrize(
    "condition",
    [
        "true); COPY (SELECT 1) TO 'x'; SELECT (1",
        "true) --",
        "model IN (SELECT content FROM read_text('/etc/passwd'))",
        "EXISTS (FROM enable_profiling(format = 'json'))",
        "EXISTS (FROM glob('*'))",
        "EXISTS (FROM 'secret.csv')",
        'error((SELECT a FROM "/tmp/secret.parquet")) IS NULL',
        "EXISTS (FROM secret.csv)",
        "EXISTS (FROM 'http://127.0.0.1:9/x.json')",
        "EXISTS (SUMMARIZE 'secret.csv')",
        'EXISTS (WITH "secret.csv" AS (SELECT 1) FROM "secret.csv")',
        "EXISTS (WITH csv AS (SELECT 1) FROM secret.csv)",
        "EXISTS (FROM nowhere)",
        "random() < 0.5",
        "",
    ],
)
def test_condition_that_is_more_than_a_condition_is_refused(condition: str) -> None:
    with duckdb.connect() as con, pytest.raises(ConfigError):
        check_condition(con, condition)


def test_condition_on_columns_and_views_is_allowed() -> None:
    with duckdb.connect() as con:
        con.execute("CREATE VIEW cells AS SELECT 'a' AS model, 't' AS task")
        for condition in (
            "model LIKE 'a%' -- a comment\n AND task IN (SELECT task FROM cells) AND length(model) > 2",
            "model IN (WITH best AS (FROM main.Cells) SELECT model FROM best JOIN cells USING (task))",
            "model IN (SELECT unnest(['a', 'b']))",
        ):
            check_condition(con, condition)


def test_called_functions_are_the_names_before_brackets_by_duckdbs_own_tokens() -> None:
    assert called_functions("""SELECT "A b"(1), x.y ( 2 ), 'z(' || "w" FROM t /* u( */ WHERE a IN (3)""") == {
        "a b",
        "y",
        "in",
    }


def test_functions_that_act_are_refused() -> None:
    """With all examples every function that DuckDB has is tried; else those that acted before."""
    tried = calls()
    acting = {name for name in (tried if LONG else ACTING) if acts(tried[name])}
    with duckdb.connect() as con:
        assert ACTING <= acting <= refused_functions(con)
