"""A published table, or a pickled frame, as an SQL relation: the columns that a format names, in the kinds it gives.

Owns how values become text, numbers and lists. Knows nothing of any one format.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import BadFile
from collectors.importers.pickles import Frame, load_pickle
from collectors.importers.sources import as_json
from collectors.importers.staging import Staging
from collectors.importers.text_tables import ENDINGS, ending_of, refuse_doubled, text_table
from schemas.failures import one_line
from schemas.sql import quoted, quoted_path

TABLES = ("*.csv", "*.tsv", "*.parquet", "*.jsonl", "*.ndjson", "*.json", "*.pkl", "*.pickle")
#: Names of the columns that pandas makes of a frame's index.
INDEX = ("index", "level_0", "Unnamed: 0", "__index_level_0__", "")
#: Columns of one relation: DuckDB's memory for a table grows with them, and 900 of 2,000 rows took more than 1 GB.
MOST_COLUMNS = 400
#: Columns of a relation without a table of its own: a format asks a wide one again for each model, and DuckDB would
#: plan the conversion of all columns each time (41 CPU-seconds for 300 models).
_FEW = 30


class Kind(Enum):
    """The kinds of values that a format may want of a column."""

    #: To the letter; nested values as JSON. NaN is null.
    TEXT = "text"
    #: A list, also one written as JSON; null for anything else.
    TEXTS = "texts"
    #: A finite number. Anything else but an empty value is NaN, and so is rejected.
    NUMBER = "number"
    #: A number, or true or false.
    SCORE = "score"
    #: A whole number. Anything else but an empty value is -1, and so is rejected.
    COUNT = "count"


#: A Parquet file of more row groups than this, with fewer rows in each, is sorted before it is used: DuckDB keeps the
#: result of each group apart until it is stored, and 3,000 groups of one row took more than 1 GB.
_MANY_GROUPS, _SMALL_GROUP = 100, 2048
_NUMBERS = (Kind.NUMBER, Kind.SCORE, Kind.COUNT)
#: DuckDB's whole numbers, with a sign and without.
_INTEGERS = frozenset(
    f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)


@dataclass(frozen=True)
class Constant:
    """Stands for the same text in every row."""

    text: str


#: Label -> the column that it stands for, and the kind of its values.
Wanted = Mapping[str, tuple[str | Constant, Kind]]


class SourceTable(ABC):
    """The columns of a file, and relations of some of them."""

    def __init__(self, staging: Staging, number: int) -> None:
        self.staging, self.number, self.file = staging, number, staging.files[number]

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The columns in their order. Raises BadFile."""

    @abstractmethod
    def _source(self, columns: Sequence[str], numbers: Collection[str]) -> tuple[str, str, Mapping[str, str]]:
        """An SQL source, the number of its rows as SQL, and the name there of each column. `numbers`: those read so."""

    def relation(self, wanted: Wanted) -> str:
        """An SQL relation of a column `row`, from 1, and one for each label. It holds until the next one is asked for.

        Raises BadFile where the file lacks a column, or more than MOST_COLUMNS are wanted.
        """
        self.need(wanted)
        columns = list(dict.fromkeys(column for column, _ in wanted.values() if isinstance(column, str)))
        if len(columns) > MOST_COLUMNS:
            raise BadFile("too_large", f"{len(columns):,} columns to be read together, more than {MOST_COLUMNS:,}")
        numbers = {column for column, kind in wanted.values() if isinstance(column, str) and kind in _NUMBERS}
        source, row, inner = self._source(columns, numbers)
        described = self.ask(f"DESCRIBE SELECT {', '.join(inner.values())} FROM {source}") if inner else []
        types = {column: one[1] for column, one in zip(inner, described, strict=True)}
        parts = [f"{row} AS row"]
        for label, (column, kind) in wanted.items():
            if isinstance(column, Constant):
                parts.append(f"{sql_of(quoted(column.text), kind, 'VARCHAR')} AS {label}")
            else:
                parts.append(f"{sql_of(inner[column], kind, types[column])} AS {label}")
        self._note_odd_values(wanted, source, row, inner, types)
        sql = f"(SELECT {', '.join(parts)} FROM {source})"
        if len(wanted) <= _FEW:
            return sql
        self.ask(f"CREATE OR REPLACE TABLE typed_rows AS FROM {sql}")
        return "typed_rows"

    def _note_odd_values(
        self, wanted: Wanted, source: str, row: str, inner: Mapping[str, str], types: Mapping[str, str]
    ) -> None:
        """Keeps values that are not numbers, which a relation gives as NaN or -1, for the message of their reject."""
        queries = []
        for column, kind in wanted.values():
            if isinstance(column, str) and kind in _NUMBERS and types[column] == "VARCHAR":
                number = sql_of(inner[column], kind, "VARCHAR")
                odd = f"{number} = -1 AND trim({inner[column]}) <> '-1'" if kind is Kind.COUNT else f"isnan({number})"
                what = f"concat({quoted(column[:60])}, ' is ', '\"', left({inner[column]}, 40), '\"')"
                queries.append(f"SELECT {self.number}, {row}, {what} FROM {source} WHERE {odd}")
        if queries:
            self.ask(f"INSERT INTO odd_values {' UNION ALL '.join(queries)}")

    def need(self, wanted: Wanted) -> None:
        """Raises BadFile where the file lacks a column of `wanted`."""
        missing = {label: c for label, (c, _) in wanted.items() if isinstance(c, str) and c not in self}
        if missing:
            lacking = ", ".join(c if c == label else f"{label} ({c})" for label, c in missing.items())
            there = ", ".join(sorted(self.names))[:200]
            raise BadFile("unknown_layout", f"no column {lacking}; there are {there}{_hint(self.names)}")

    def ask(self, sql: str) -> list[Any]:
        """The rows of a query over a relation. Raises BadFile where the file cannot be read."""
        try:
            return self.staging.con.execute(sql).fetchall()
        except duckdb.Error as error:
            raise BadFile("damaged", one_line(error, 300)) from error

    def __contains__(self, column: str) -> bool:
        return column in self._names_once

    @cached_property
    def _names_once(self) -> frozenset[str]:
        return frozenset(self.names)


def _hint(names: Sequence[str]) -> str:
    alone = len(names) == 1 and any(mark in names[0] for mark in ";\t|")
    return " (values stand between commas in a .csv, between tabs in a .tsv)" if alone else ""


def table_of(staging: Staging, number: int) -> SourceTable:
    """The table in a file. Raises BadFile where it is none, or names a column twice."""
    ending = ending_of(staging.files[number])
    if ending in ENDINGS:
        return _Text(staging, number)
    if ending == ".parquet":
        return _Parquet(staging, number)
    if ending in (".pkl", ".pickle"):
        return _Pickled(staging, number)
    raise BadFile("unknown_layout", f"the name of a table does not end with {ending!r}: {', '.join(TABLES)} do")


class _Text(SourceTable):
    def __init__(self, staging: Staging, number: int) -> None:
        super().__init__(staging, number)
        self.table = text_table(self.file)
        #: Whether its rows were read before, and the bad ones rejected.
        self.was_read = False
        if not self.table.names:
            list(self.table.batches([], self._reject))
            raise BadFile("no_record", "holds no row that can be read")

    @property
    def names(self) -> Sequence[str]:
        return self.table.names

    def _source(self, columns: Sequence[str], numbers: Collection[str]) -> tuple[str, str, Mapping[str, str]]:
        con = self.staging.con
        inner = _numbered(columns)
        con.execute(
            f"CREATE OR REPLACE TABLE rows_of_file (row BIGINT{''.join(f', {c} VARCHAR' for c in inner.values())})"
        )
        for batch in self.table.batches(columns, self._reject, numbers):
            con.register("given", batch)
            con.execute("INSERT INTO rows_of_file FROM given")
            con.unregister("given")
        self.was_read = True
        return "rows_of_file", "row", inner

    def _reject(self, row: int, kind: str, message: str) -> None:
        if not self.was_read:
            self.staging.reject(self.number, row, kind, message)


class _Parquet(SourceTable):
    def __init__(self, staging: Staging, number: int) -> None:
        super().__init__(staging, number)
        if "://" in self.file.path:
            raise BadFile("unreadable", "Parquet is read from this machine: copy the file first")
        if self.file.stem != os.path.basename(self.file.path):
            raise BadFile("unreadable", "Parquet is compressed inside: decompress the file first")
        try:
            metadata = pq.read_metadata(self.file.path)
            self._schema = metadata.schema.to_arrow_schema()
        except (OSError, pa.ArrowException) as error:
            raise BadFile("damaged", f"not a whole Parquet file: {one_line(error, 160)}") from error
        self._names: list[str] = self._schema.names
        many = metadata.num_row_groups
        self._is_in_pieces = many > _MANY_GROUPS and metadata.num_rows < many * _SMALL_GROUP
        refuse_doubled(self._names)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def _source(self, columns: Sequence[str], numbers: Collection[str]) -> tuple[str, str, Mapping[str, str]]:
        if wide := next((name for name in columns if _has_wide_decimals(self._schema.field(name).type)), None):
            digits = "decimals of more than 38 digits, which DuckDB reads as other numbers"
            raise BadFile("unknown_layout", f"the column {wide[:60]!r} holds {digits}: save it as text")
        if odd := next((name for name in columns if "\0" in name), None):
            raise BadFile("unknown_layout", f"the name of the column {odd[:60]!r} holds the character NUL")
        is_named_so = any(name.lower() == "file_row_number" for name in self._names)
        numbered = "" if is_named_so else ", file_row_number = true"
        source = f"read_parquet({quoted_path(self.file.path)}, hive_partitioning = false{numbered})"
        theirs = dict(zip(self._names, self._names, strict=True))
        if len({name.lower() for name in self._names}) < len(self._names):  # DuckDB gives them names of its own
            described = self.ask(f"DESCRIBE FROM {source}")
            theirs = {name: row[0] for name, row in zip(self._names, described, strict=False)}
        inner = {column: '"' + theirs[column].replace('"', '""') + '"' for column in columns}
        row = "row_number() OVER ()" if is_named_so else "file_row_number + 1"
        if not self._is_in_pieces:
            return source, row, inner
        numbered_columns = _numbered(columns)
        named = "".join(f", {inner[column]} AS {name}" for column, name in numbered_columns.items())
        self.ask(f"CREATE OR REPLACE TABLE rows_of_file AS SELECT {row} AS row{named} FROM {source} ORDER BY row")
        return "rows_of_file", "row", numbered_columns


def _has_wide_decimals(dtype: pa.DataType) -> bool:
    return pa.types.is_decimal256(dtype) or any(
        _has_wide_decimals(dtype.field(n).type) for n in range(dtype.num_fields)
    )


class _Pickled(SourceTable):
    def __init__(self, staging: Staging, number: int) -> None:
        super().__init__(staging, number)
        frame = load_pickle(self.file)
        if not isinstance(frame, Frame):
            raise BadFile("unknown_layout", "does not hold a pandas frame")
        self.columns = frame.columns

    @property
    def names(self) -> Sequence[str]:
        return list(self.columns)

    def _source(self, columns: Sequence[str], numbers: Collection[str]) -> tuple[str, str, Mapping[str, str]]:
        con = self.staging.con
        inner = _numbered(columns)
        rows = range(1, 1 + len(next(iter(self.columns.values()), [])))
        arrays = {inner[column]: _column(self.columns[column]) for column in columns}
        con.register("given", pa.table({"row": pa.array(rows, pa.int64()), **arrays}))
        con.execute("CREATE OR REPLACE TABLE rows_of_file AS FROM given")
        con.unregister("given")
        return "rows_of_file", "row", inner


def _numbered(columns: Sequence[str]) -> dict[str, str]:
    """Names of our own: those of others may differ in case alone, which DuckDB takes for equal."""
    return {column: f"c{place}" for place, column in enumerate(columns)}


def _column(values: list[Any]) -> pa.Array:
    if not any(isinstance(value, list | dict | tuple) for value in values):
        try:
            return pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            pass  # mixed: as text, each number as it is written
    return pa.array([None if value is None or value != value else _written(value) for value in values], pa.string())


def _written(value: Any) -> str:
    return as_json(value) if isinstance(value, list | dict | tuple) else str(value)


# ---- what formats make of a relation


def parted(names: Sequence[str], many: int) -> Iterator[Sequence[str]]:
    """Cuts the columns of a wide table into those that one relation takes."""
    return (names[start : start + many] for start in range(0, len(names), many))


def response_of(label: str, labels: Collection[str]) -> str:
    """Responses as SQL: null where the relation has no such label, and in rows without an answer."""
    return f"CASE WHEN {label} IS NOT NULL THEN [{label}] END" if label in labels else "NULL::VARCHAR[]"


def select_items(staging: Staging, rows: str, labels: Collection[str]) -> None:
    """Stores an item for each task, key and prompt of a relation that has `task`, `key` and `labels`.

    The label `known_as` is a text whose hash identifies the item in its table, where that is not the prompt's.
    """
    texts = {label: label if label in labels else "NULL" for label in ("prompt", "target", "subject", "known_as")}
    choices = "choices" if "choices" in labels else "NULL"
    staging.select_items(
        f"""
        SELECT '' AS run, task, key, prompt, choices, subject, to_json(target)::VARCHAR AS target,
            content_hash_of(prompt, choices) AS content_hash,
            CASE WHEN count(*) OVER (PARTITION BY task, key) = 1 THEN content_hash_of(known_as, NULL) END AS item_hash
        FROM (
            SELECT task, key, {texts["prompt"]}::VARCHAR AS prompt, any_value({choices}::VARCHAR[]) AS choices,
                any_value({texts["target"]}::VARCHAR) AS target, any_value({texts["subject"]}::VARCHAR) AS subject,
                any_value({texts["known_as"]}::VARCHAR) AS known_as
            FROM {rows} GROUP BY ALL
        )
        WHERE task IS NOT NULL AND key IS NOT NULL
        """
    )


# ---- values


def sql_of(sql: str, kind: Kind, dtype: str) -> str:
    """A column of DuckDB's type `dtype` as SQL of a kind."""
    if kind is Kind.TEXTS:
        return f"texts_of_json({_json_of(sql, dtype)})"
    if kind is Kind.TEXT:
        return _text_of(sql, dtype)
    if kind is Kind.COUNT and dtype in _INTEGERS:
        return sql if dtype == "INTEGER" else f"coalesce(TRY_CAST({sql} AS INTEGER), if({sql} IS NOT NULL, -1, NULL))"
    number = _number_of(sql, dtype, takes_flags=kind is Kind.SCORE)
    if kind is not Kind.COUNT:
        return number
    whole = f"CASE WHEN {number} % 1 = 0 THEN TRY_CAST({number} AS INTEGER) END"
    return f"coalesce({whole}, CASE WHEN {number} IS NOT NULL THEN -1 END)"


def _is_nested(dtype: str) -> bool:
    return dtype.endswith("]") or dtype.startswith(("STRUCT", "MAP", "UNION")) or dtype in ("JSON", "VARIANT")


def _json_of(sql: str, dtype: str) -> str:
    return f"{sql}::VARCHAR" if dtype in ("VARCHAR", "JSON") else f"to_json({sql})::VARCHAR"


def _text_of(sql: str, dtype: str) -> str:
    if dtype == "VARCHAR":
        return sql
    if dtype in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isfinite({sql}) THEN {sql}::VARCHAR END"
    if _is_nested(dtype):
        return f"text_of_json({_json_of(sql, dtype)})"
    return f"TRY(decode({sql}))" if dtype == "BLOB" else f"{sql}::VARCHAR"


def _number_of(sql: str, dtype: str, *, takes_flags: bool) -> str:
    if dtype.startswith("DECIMAL"):
        return f"{sql}::VARCHAR::DOUBLE"  # directly it is the next number in 373 of 2,000
    if dtype in ("DOUBLE", "FLOAT") or dtype in _INTEGERS:
        return f"{sql}::DOUBLE"
    if dtype == "BOOLEAN" and takes_flags:
        return f"{sql}::INTEGER::DOUBLE"
    text = _text_of(sql, dtype)
    digits = f"CASE WHEN NOT contains({text}, '_') THEN TRY_CAST({text} AS DOUBLE) END"  # 1_0 is 10 to DuckDB alone
    number = f"coalesce({digits}, CASE WHEN trim({text}) <> '' THEN 'nan'::DOUBLE END)"
    if not takes_flags:
        return number
    return f"CASE lower(trim({text})) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE {number} END"
