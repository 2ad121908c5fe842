"""Reads the records of one model from a file of anybody: a score for each item of a pool, and what its answer took.

Owns the columns of such a file, and its faulty rows by kind, each kind with its first lines. Nothing of a file is
evaluated: a value is a number or a fault. Knows no metrics, and not which scores a task can have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.importers.relation import Kind, sql_of
from collectors.matrix.item_rows import VIEWS, key_of, line_of, load_rows, name_items
from collectors.matrix.pool_arrays import Pool
from schemas.failures import ConfigError

__all__ = ["NUMBERS", "VIEWS", "SentRecords", "first_places", "most_rows", "read_records"]

Values = npt.NDArray[np.float64]

#: Columns of numbers that an answer took -> the largest that counts.
NUMBERS = {"prompt_tokens": 2**31 - 1, "completion_tokens": 2**31 - 1, "latency_s": 1e9, "usd": 1e6}
#: Most rows of a file, or four for each question of the pool: a million take 0.4 GB.
_MOST_ROWS = 1_000_000
#: Rows of one kind that a line names, and characters of a value in it.
_MOST_NAMED, _MOST_SHOWN = 3, 40
#: What is wrong with rows, as a line says it, and the SQL of these rows: row, what.
_WRONG = {
    "without a name of an item": "SELECT row, NULL AS what FROM named WHERE trim(coalesce(name, '')) = ''",
    "without a task": "SELECT row, NULL AS what FROM named WHERE has_task AND trim(coalesce(stated, '')) = ''",
    "of an item that the pool's candidates were not asked": "SELECT row, coalesce(stated || '/', '') || name AS what "
    "FROM named WHERE question IS NULL AND trim(name) <> '' AND NOT (has_task AND trim(coalesce(stated, '')) = '')",
    "of an item of several tasks (add a column task)": "SELECT row, name AS what FROM named WHERE is_of_tasks",
    "of an item that is another question in each table of its task (name it by question, item_hash or source_key)": (
        "SELECT row, name AS what FROM named WHERE is_of_tables AND NOT is_of_tasks"
    ),
}


@dataclass(frozen=True)
class SentRecords:
    """The records of a model on the questions of a pool, in the order of its rows."""

    path: Path
    #: Rows of the file, those whose score is empty, and those of questions that do not count in the pool.
    rows: int
    empty: int
    outside: int
    #: (questions,): NaN where there is no score.
    scores: Values
    #: One of NUMBERS -> (questions,), NaN where unknown.
    numbers: dict[str, Values]
    #: (questions,): the row of the file, from 1; 0 without any.
    row: npt.NDArray[np.int64]
    #: A line on rows that say the same of one question, and a line for each kind of faulty rows.
    repeated: str | None
    wrong: list[str]


def read_records(con: duckdb.DuckDBPyConnection, path: Path, pool: Pool) -> SentRecords:
    """Reads a file of records: CSV, Parquet or JSON lines with a column `score` and one of item_rows.KEYS.

    A column `task` is needed if items of several tasks have the same name. `con` has VIEWS, with the pool that the
    records refer to. Raises ConfigError for a file that cannot be read as such a table.
    """
    columns = load_rows(con, path, ("task", "score", *NUMBERS), most_rows(pool))
    key = key_of(path, columns, "score")
    name_items(con, key)
    has_task = "task" in columns
    stated = "rows_of_file.task::VARCHAR" if has_task else "NULL::VARCHAR"
    name = f"rows_of_file.{key}::VARCHAR"
    # A name that is another question in each task is there once: a million rows of it would else be one for each task.
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE named AS
        WITH asked AS (
            SELECT name, task, question, min(task) OVER alike < max(task) OVER alike AS is_of_tasks,
                {key == "item"} AND min(question) OVER alike < max(question) OVER alike AS is_of_tables
            FROM asked_items
            WINDOW alike AS (PARTITION BY name{", task" if has_task else ""})
            QUALIFY NOT (is_of_tasks OR is_of_tables) OR row_number() OVER (alike ORDER BY task, question) = 1
        )
        SELECT rows_of_file.row, {name} AS name, {stated} AS stated, {has_task} AS has_task,
            is_of_tasks, is_of_tables, asked.task, asked.question
        FROM rows_of_file
        LEFT JOIN asked ON asked.name = {name}{f" AND asked.task = {stated}" if has_task else ""}
        """
    )
    _make_values(con)
    wrong = [
        *(_line(con, path, kind, sql) for kind, sql in _WRONG.items()),
        *(_line(con, path, f"with {name} that is {what}", sql) for name, what, sql in _odd_values(columns)),
        _line(con, path, "contradicting an earlier row of the same question", _REPEATS.format("IS DISTINCT FROM")),
    ]
    repeated = _line(con, path, "repeating an earlier one", _REPEATS.format("IS NOT DISTINCT FROM"))
    [(rows, empty)] = con.execute("SELECT count(*), count(*) FILTER (score IS NULL) FROM sent").fetchall()
    if not rows:
        raise ConfigError(f"{path}: it has no rows")
    return SentRecords(path, rows, empty, *_laid(con, pool), repeated, [line for line in wrong if line])


def most_rows(pool: Pool) -> int:
    """Of a file that anybody sends."""
    return max(_MOST_ROWS, 4 * len(pool.questions))


def _make_values(con: duckdb.DuckDBPyConnection) -> None:
    """Makes the table sent of the file's rows: a score that is no number is NaN, a count that is none -1."""
    types = dict(
        con.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'rows_of_file'").fetchall()
    )
    kinds = {"score": Kind.SCORE, **{name: Kind.COUNT if name.endswith("tokens") else Kind.NUMBER for name in NUMBERS}}
    numbers, texts = [], []
    for name, kind in kinds.items():
        dtype = types.get(name, "VARCHAR")
        is_plain = dtype != "BLOB" and not dtype.endswith("]") and not dtype.startswith(("STRUCT", "MAP", "UNION"))
        of = f"rows_of_file.{name}" if is_plain else f"rows_of_file.{name}::VARCHAR"
        value = sql_of(of, kind, dtype if is_plain else "VARCHAR") if name in types else "NULL"
        numbers.append(f"({value})::DOUBLE AS {name}")
        texts.append(f"{name} := {of}::VARCHAR" if name in types else f"{name} := NULL::VARCHAR")
    values = f"{', '.join(numbers)}, struct_pack({', '.join(texts)}) AS text"
    con.execute(f"CREATE OR REPLACE TEMP TABLE sent AS SELECT row, {values} FROM rows_of_file")


def _odd_values(columns: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yields a column, what its faulty values are, and the SQL of their rows."""
    yield "a score", "no number", "SELECT row, text.score AS what FROM sent WHERE NOT isfinite(score)"
    for name, most in NUMBERS.items():
        if name in columns:
            what = "no whole number from 0 on" if name.endswith("tokens") else f"no number from 0 to {most:,.0f}"
            is_odd = f"NOT isfinite({name}) OR {name} NOT BETWEEN 0 AND {most}"
            yield name, what, f"SELECT row, text.{name} AS what FROM sent WHERE {is_odd}"


#: Rows of a question that an earlier row names too; {} compares their values.
_REPEATS = f"""
SELECT row, any_value(name) AS what FROM (
    SELECT row, name, row({", ".join(("score", *NUMBERS))}) AS said,
        first_value(said) OVER (PARTITION BY task, question ORDER BY row) AS first_said,
        row_number() OVER (PARTITION BY task, question ORDER BY row) AS place
    FROM named INNER JOIN sent USING (row) WHERE question IS NOT NULL
)
WHERE place > 1 AND said {{}} first_said
GROUP BY row
"""


def _line(con: duckdb.DuckDBPyConnection, path: Path, kind: str, sql: str) -> str | None:
    """How many rows are so, and the first of them; None if none is."""
    query = f"SELECT row, left(what, {_MOST_SHOWN + 1}), count(*) OVER () FROM ({sql}) ORDER BY row LIMIT {_MOST_NAMED}"
    found = con.execute(query).fetchall()
    if not found:
        return None
    return f"{counted(found[0][2], 'row')} {kind}: {places(path, [(row, what) for row, what, _ in found], found[0][2])}"


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def places(path: Path, rows: Sequence[tuple[int, str | None]], of: int) -> str:
    """Lines of a file with the values there, of so many."""
    shown = [line_of(path, row) + (f" ({_cut(what)})" if what else "") for row, what in rows[:_MOST_NAMED]]
    return ", ".join(shown) + ", …" * (of > len(shown))


def first_places(records: SentRecords, rows: npt.NDArray[np.int64]) -> str:
    """The lines of the questions `rows` of the pool, with their scores."""
    some = sorted(rows.tolist(), key=lambda row: int(records.row[row]))[:_MOST_NAMED]
    return places(records.path, [(int(records.row[row]), repr(float(records.scores[row]))) for row in some], len(rows))


def _cut(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…")


def _laid(con: duckdb.DuckDBPyConnection, pool: Pool) -> tuple[int, Values, dict[str, Values], npt.NDArray[np.int64]]:
    """Rows of no question of the pool, and its questions' scores, numbers and rows: the first one of each counts."""
    keys = pool.questions.select(["task", "question"])
    con.register("given", keys.append_column("place", pa.array(np.arange(len(keys)))))
    con.execute("CREATE OR REPLACE TEMP TABLE pool_places AS FROM given")
    con.unregister("given")
    [(outside,)] = con.execute(
        "SELECT count(DISTINCT row) FROM named ANTI JOIN pool_places USING (task, question) WHERE question IS NOT NULL"
    ).fetchall()
    found = con.execute(
        f"""
        SELECT place, row, score, {", ".join(NUMBERS)}
        FROM named INNER JOIN pool_places USING (task, question) INNER JOIN sent USING (row)
        QUALIFY row_number() OVER (PARTITION BY place ORDER BY row) = 1
        """
    ).to_arrow_table()
    at = found["place"].to_numpy()
    row = np.zeros(len(keys), np.int64)
    row[at] = found["row"].to_numpy()
    arrays = {}
    for name in ("score", *NUMBERS):
        arrays[name] = np.full(len(keys), np.nan)
        arrays[name][at] = found[name].to_numpy()
    return outside, arrays.pop("score"), arrays, row
