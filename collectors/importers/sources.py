"""What an importer finds in its files: verdicts, items, facts of cells, and rows that cannot be trusted.

Owns the form of all that, and the kinds of rejects. Knows nothing of formats, nor of where it is put down.

Kinds of rejects: of a file as a whole `unreadable`, `damaged`, `bomb`, `too_large`, `encoding`, `forbidden` (a pickle
that would run code), `unknown_layout`, `no_model`; of a row `damaged`, `encoding`, `too_long`, `no_key` (no model,
task or item), `not_finite`, `out_of_range`, `no_verdict`, `negative_tokens`, `unknown_filter`, `bad_item`, `conflict`
(another row, or the lake, says otherwise of the same answer).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from collectors.importers.files import BadFile, SourceFile
from schemas.failures import one_line
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
#: `item_hash`: lm-eval's, null where the source has no document. `text`: of FOUND_TEXT, null without any.
FOUND_ITEM = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("task", pa.string()),
        pa.field("key", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("item_hash", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("text", pa.string()),
    ]
)
#: What items say, once for all models that were asked the same. `text`: a digest of the rest.
FOUND_TEXT = pa.schema(
    [
        pa.field("text", pa.string()),
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
#: Where the tables go -> their schemas.
FOUND_TABLES = {"found_rows": FOUND, "found_items": FOUND_ITEM, "found_texts": FOUND_TEXT, "rejects": REJECTED}
_TEXT = tuple(FOUND_TEXT.names[1:])
_NOTHING = [None] * len(_TEXT)
#: Texts that are known to be put down already.
_KNOWN_TEXTS = 500_000
#: Rows, and bytes of texts, that are put down at a time.
_BATCH, _BATCH_BYTES = 20_000, 64 * 2**20
#: What Python raises where a value is of another kind than a format says.
_OF_LAYOUT = (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError, RecursionError)


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


class Found(ABC):
    """What an importer tells of its files, row by row; put down a batch at a time."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self.files = list(files)
        self.counts = [Counted() for _ in files]
        #: (run, model, task) -> what is known of the cell; for others `default`.
        self.facts: dict[tuple[str, str, str], Facts] = {}
        self.default = Facts()
        self.format_version: list[str | None] = [None] * len(self.files)
        self._lock = threading.Lock()
        self._rejects: list[tuple[Any, ...]] = []
        self._rows, self._items, self._texts = _Batch(FOUND), _Batch(FOUND_ITEM), _Batch(FOUND_TEXT)
        self._known_texts: set[str] = set()
        self._bytes = 0

    @abstractmethod
    def put(self, name: str, table: pa.Table) -> None:
        """Puts a batch down: a table of FOUND_TABLES."""

    def row(self, **columns: Any) -> None:
        """One verdict: columns of FOUND."""
        self._rows.append(columns)
        self._weigh(columns, columns.get("responses"))

    def item(self, **columns: Any) -> None:
        """One item: columns of FOUND_ITEM and FOUND_TEXT but `text`."""
        said = [columns.pop(name, None) for name in _TEXT]
        if said != _NOTHING:
            columns["text"] = text = hashlib.blake2b(msgspec.json.encode(said), digest_size=16).hexdigest()
            if text not in self._known_texts:
                if len(self._known_texts) >= _KNOWN_TEXTS:
                    self._known_texts.clear()
                self._known_texts.add(text)
                known = {"text": text, **dict(zip(_TEXT, said, strict=True))}
                self._texts.append(known)
                self._weigh(known, known["choices"])
        self._items.append(columns)
        self._weigh(columns)

    def _weigh(self, columns: Mapping[str, Any], texts: Sequence[str] | None = None) -> None:
        self._bytes += sum([len(value) for value in columns.values() if type(value) is str])
        if texts:
            self._bytes += sum(map(len, texts))
        if len(self._rows) + len(self._items) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.flush()

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
            self._rejects.clear()
            self.put("rejects", pa.table({f.name: pa.array(given[f.name], f.type) for f in REJECTED}))

    @contextlib.contextmanager
    def one_file(self, file: int) -> Iterator[None]:
        """Reads a file: what is wrong with it as a whole is its reject, and the others go on."""
        try:
            yield
        except BadFile as error:
            self.reject(file, None, error.kind, str(error))
        except MemoryError:
            self.reject(file, None, "too_large", "takes more memory than there is")
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
        given = {"found_rows": self._rows, "found_items": self._items, "found_texts": self._texts}
        for name, batch in given.items():
            if len(batch):
                self.put(name, self._table(batch))
                batch.clear()
        with self._lock:
            self._put_rejects()

    def _table(self, batch: _Batch) -> pa.Table:
        """`batch` but rows that hold what no text or number of a table can be; verdicts among these are rejected."""
        try:
            return batch.table()
        except _OF_ARROW:
            good = _Batch(batch.schema)
            for row in batch.rows():
                try:
                    pa.Table.from_pylist([row], batch.schema)
                    good.append(row)
                except _OF_ARROW as error:
                    if batch.schema is FOUND:
                        message = f"holds what is no text: {one_line(error, 120)}"
                        self.reject(row["file"], row["row"], "encoding", message)
            return good.table()


_OF_ARROW = (pa.ArrowException, ValueError, OverflowError, TypeError)


class _Batch:
    """Rows of a schema, by column: an object a row would be looked through by Python's collector all the time."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self.many = 0

    def __len__(self) -> int:
        return self.many

    def append(self, row: Mapping[str, Any]) -> None:
        for name, values in self.columns.items():
            values.append(row.get(name))
        self.many += 1

    def table(self) -> pa.Table:
        """Raises one of _OF_ARROW."""
        return pa.table([pa.array(self.columns[f.name], f.type) for f in self.schema], schema=self.schema)

    def rows(self) -> Iterator[dict[str, Any]]:
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def clear(self) -> None:
        for values in self.columns.values():
            values.clear()
        self.many = 0


def as_json(value: Any) -> str:
    """JSON text; NaN and infinities, which JSON lacks, as null."""
    try:
        return msgspec.json.encode(value).decode()
    except OverflowError:  # a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False)
