"""What an importer finds in its files, put down for the lake: verdicts, items, facts of cells, and rejected rows.

Owns the form of all that, and the kinds of rejects. Knows nothing of formats, nor of how the lake is written.

Kinds of rejects: of a file as a whole `unreadable`, `damaged`, `bomb`, `too_large`, `encoding`, `forbidden` (a pickle
that would run code), `unknown_layout`, `no_model`; of a row `damaged`, `encoding`, `too_long`, `no_key` (no model,
task or item), `not_finite`, `out_of_range`, `no_verdict`, `negative_tokens`, `unknown_filter`, `bad_item`, `conflict`
(another row, or the lake, says otherwise of the same answer).
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from collectors.importers.files import BadFile, SourceFile
from schemas.failures import one_line
from schemas.identity import content_hash
from schemas.records import RECORD

_OF_RECORD = (
    "filter",
    "repeat",
    "score",
    "metrics",
    "failure",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "engine_tokens",
    "finish_reason",
    "ttft_s",
    "latency_s",
    "stated_usd",
    "responses",
    "loglikelihoods",
    "is_greedy",
    "filtered",
)

#: One verdict as a source says it. `run`: which of the source's runs, '' where it knows one only.
FOUND = pa.schema(
    [
        pa.field("file", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("run", pa.string()),
        pa.field("model", pa.string()),
        pa.field("task", pa.string()),
        pa.field("key", pa.string()),
        *(RECORD.field(name).with_nullable(True).remove_metadata() for name in _OF_RECORD),
    ]
)
#: One item as a source says it. `position`: where it stands in its task, null where the source does not say.
#: `item_hash`: lm-eval's, null where the source has no document.
FOUND_ITEM = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("task", pa.string()),
        pa.field("key", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("item_hash", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("target", pa.string()),
        pa.field("choices", pa.list_(pa.string())),
        pa.field("subject", pa.string()),
        pa.field("doc", pa.string()),
    ]
)
#: One row that cannot be trusted; `source_row` null: a file.
REJECTED = pa.schema(
    [
        pa.field("file", pa.int32()),
        pa.field("source_row", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("kind", "message", "model", "task", "source_key")),
    ]
)
#: Rows, and bytes of texts, that are put down at a time.
_BATCH, _BATCH_BYTES = 20_000, 64 * 2**20
#: What Python raises where a value is of another kind than a format says.
_OF_LAYOUT = (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError)


@dataclass(frozen=True)
class Source:
    """What is imported, as the person who does says it."""

    #: What the records are told from others by: `imported_from`.
    name: str
    format: str
    licence: str | None = None
    #: The source's name of a model -> its id.
    aliases: Mapping[str, str] = field(default_factory=dict)
    #: The model of files that do not say whose answers they are.
    model: str | None = None
    #: Settings of the format `table`.
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a source tells of a cell; None: it does not tell."""

    #: What `score` is, and from which score an answer is correct; None: no such rule.
    metric: str = "score"
    threshold: float | None = 0.5
    #: Least and most that a score can be.
    low: float | None = 0.0
    high: float | None = 1.0
    filter: str = "none"
    higher_is_better: bool = True
    revision: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    max_length: int | None = None
    overrides: str | None = None
    task_version: str | None = None
    task_digest: str | None = None
    output_type: str | None = None
    num_fewshot: int | None = None
    fewshot_seed: int | None = None
    chat_template: str | None = None
    fewshot_as_multiturn: bool | None = None
    system_prompt: str | None = None
    decoding: str | None = None
    #: Items of the task, where the source says how many it has.
    items: int | None = None
    parameters: int | None = None
    #: Version of the program that wrote the file, and of its libraries.
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What is of another kind than its column is unknown: sources write anything anywhere."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            wrong = value is not None and type(value) is not kind
            if wrong or (kind is int and value is not None and not -(2**31) <= value < 2**31 and name != "parameters"):
                object.__setattr__(self, name, None)


_KINDS: dict[str, type] = {
    **dict.fromkeys(("revision", "dtype", "quantization", "overrides", "task_version", "task_digest"), str),
    **dict.fromkeys(("output_type", "chat_template", "system_prompt", "decoding"), str),
    **dict.fromkeys(("max_length", "num_fewshot", "fewshot_seed", "items", "parameters"), int),
    "fewshot_as_multiturn": bool,
}


@dataclass
class Counted:
    """What became of the rows of one file; rows = records + known + folded + rejected."""

    rows: int = 0
    records: int = 0
    known: int = 0
    folded: int = 0
    rejected: int = 0


class Staging:
    """Where importers put what they find: a DuckDB database in a folder of this machine, beyond its memory on disk."""

    def __init__(self, folder: Path, files: Sequence[SourceFile]) -> None:
        self.files = list(files)
        self.counts = [Counted() for _ in files]
        self.con = duckdb.connect(folder / "staging.duckdb", config={"python_enable_replacements": "false"})
        self.con.execute("SET memory_limit = '1GB'")
        self.con.execute("SET temp_directory = ?", [str(folder / "spill")])
        self.con.execute("SET enable_progress_bar = false")
        kinds = {"null_handling": "special", "return_type": "VARCHAR", "parameters": ["VARCHAR", "VARCHAR[]"]}
        self.con.create_function("content_hash_of", _content_hash, **kinds)  # type: ignore[call-overload]
        for name, schema in (("found_rows", FOUND), ("found_items", FOUND_ITEM), ("rejects", REJECTED)):
            self.con.register("empty", schema.empty_table())
            self.con.execute(f"CREATE TABLE {name} AS FROM empty")
            self.con.unregister("empty")
        #: (run, model, task) -> what is known of the cell; for others `default`.
        self.facts: dict[tuple[str, str, str], Facts] = {}
        self.default = Facts()
        self._lock = threading.Lock()
        self.format_version: list[str | None] = [None] * len(self.files)
        self._rejects: list[tuple[Any, ...]] = []
        self._rows: list[dict[str, Any]] = []
        self._items: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []
        self._bytes = 0

    # ---- for importers

    def row(self, **columns: Any) -> None:
        """One verdict: columns of FOUND."""
        self._rows.append(columns)
        self._weigh(columns)

    def rows(self, table: pa.Table) -> None:
        """Many verdicts: a table of FOUND."""
        self._tables.append(table)
        if sum(map(len, self._tables)) >= _BATCH * 10:
            self.flush()

    def item(self, **columns: Any) -> None:
        """One item: columns of FOUND_ITEM."""
        self._items.append(columns)
        self._weigh(columns)

    def _weigh(self, columns: Mapping[str, Any]) -> None:
        self._bytes += sum(len(value) for value in columns.values() if isinstance(value, str))
        if len(self._rows) + len(self._items) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.flush()

    def select(self, sql: str) -> None:
        """Verdicts as a SELECT of some of FOUND's columns, among them file, row, model, task and key.

        Raises BadFile, and takes none of them, where one cannot be read.
        """
        self._insert("found_rows", sql)

    def select_items(self, sql: str) -> None:
        """Items as a SELECT of some of FOUND_ITEM's columns. Raises BadFile."""
        self._insert("found_items", sql)

    def _insert(self, table: str, sql: str) -> None:
        try:
            self.con.execute(f"INSERT INTO {table} BY NAME {sql}")
        except duckdb.Error as error:
            raise BadFile("damaged", one_line(error, 300)) from error

    def reject(self, file: int, row: int | None, kind: str, message: str, **columns: Any) -> None:
        """A row, or with None a file, that cannot be trusted. `columns`: model, task and source_key as far as known."""
        known = (columns.get(name) for name in ("model", "task", "source_key"))
        with self._lock:
            if row is not None:
                self.counts[file].rejected += 1
            self._rejects.append((file, row, kind, message, *known))
            if len(self._rejects) >= _BATCH:
                self._put_rejects()

    def _put_rejects(self) -> None:
        if self._rejects:
            given = dict(zip(REJECTED.names, zip(*self._rejects, strict=True), strict=True))
            table = pa.table({f.name: pa.array(given[f.name], f.type) for f in REJECTED})
            with self.con.cursor() as con:  # beside whoever reads a result
                con.register("given", table)
                con.execute("INSERT INTO rejects FROM given")
            self._rejects.clear()

    @contextlib.contextmanager
    def one_file(self, file: int) -> Iterator[None]:
        """Reads a file: what is wrong with it as a whole is its reject, and the others go on."""
        try:
            yield
        except BadFile as error:
            self.reject(file, None, error.kind, str(error))
        except _OF_LAYOUT as error:
            self.reject(file, None, "unknown_layout", f"not laid out as its format is: {one_line(error, 160)}")

    @contextlib.contextmanager
    def one_row(self, file: int, row: int, **known: Any) -> Iterator[None]:
        """Reads a row: what is wrong with it is its reject, and the others go on."""
        try:
            yield
        except BadFile as error:
            self.reject(file, row, error.kind, str(error), **known)
        except _OF_LAYOUT as error:
            self.reject(file, row, "damaged", f"not laid out as its format is: {one_line(error, 160)}", **known)

    def flush(self) -> None:
        """Puts down what was given row by row."""
        self._bytes = 0
        with self._lock:
            self._put_rejects()
        for name, rows, schema in (("found_rows", self._rows, FOUND), ("found_items", self._items, FOUND_ITEM)):
            if rows:
                self.con.register("given", self._table(rows, schema))
                self.con.execute(f"INSERT INTO {name} FROM given")
                self.con.unregister("given")
                rows.clear()
        if self._tables:
            self.con.register("given", pa.concat_tables(self._tables))
            self.con.execute("INSERT INTO found_rows FROM given")
            self.con.unregister("given")
            self._tables.clear()

    def _table(self, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        """`rows` but those that hold what no text or number of a table can be; verdicts among these are rejected."""
        try:
            return pa.Table.from_pylist(rows, schema)
        except (pa.ArrowException, ValueError, OverflowError, TypeError):
            good = []
            for row in rows:
                try:
                    pa.Table.from_pylist([row], schema)
                    good.append(row)
                except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
                    if schema is FOUND:
                        self.reject(
                            row["file"], row["row"], "encoding", f"holds what is no text: {one_line(error, 120)}"
                        )
            return pa.Table.from_pylist(good, schema)

    # ---- for who writes the lake

    def close(self) -> None:
        self.con.close()


def _content_hash(question: str | None, choices: Sequence[str | None] | None) -> str | None:
    """schemas.identity.content_hash for SQL; null where nothing is asked."""
    if question is None or not question.strip():
        return None
    return content_hash(question, [choice for choice in choices or () if choice is not None])


def as_json(value: Any) -> str:
    """JSON text; NaN and infinities, which JSON lacks, as null."""
    try:
        return msgspec.json.encode(value).decode()
    except OverflowError:  # a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False)


def quoted(text: str) -> str:
    """`text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def name_of(names: Iterable[str], *wanted: str) -> str | None:
    """The first of `wanted` that is among `names`."""
    there = set(names)
    return next((name for name in wanted if name in there), None)
