"""What the readers of formats hand over: verdicts, items, descriptions of cells, and rows that cannot be trusted.

Owns the sink that takes them and the kinds of rejects. Knows nothing of formats, nor of where the rows are stored.

Kinds of rejects: of a file as a whole `unreadable`, `damaged`, `bomb`, `too_large`, `encoding`, `forbidden` (a pickle
that would run code), `unknown_layout`, `no_model`, `left_out` (the source's own program would not read it), `no_record`
(nothing in it became a record); of a row `damaged`, `doubled_name` (an object of JSON has a name twice), `encoding`,
`too_long`, `no_key` (no model, task or item), `not_finite`, `out_of_range`, `no_verdict`, `negative_tokens`,
`unknown_filter`, `bad_item`, `conflict` (another row, or the lake, has another verdict of the same answer).
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

from collectors.importers.batches import OF_ARROW, Batch
from collectors.importers.files import BadFile, SourceFile
from collectors.importers.raw_tables import (
    RAW_ITEM,
    RAW_STATED,
    RAW_SUSPECT,
    RAW_TABLES,
    RAW_TEXT,
    RAW_VERDICT,
    REJECTED,
)
from schemas.failures import one_line

_TEXT = tuple(RAW_TEXT.names[1:])
_NO_TEXT = (None,) * len(_TEXT)
#: Most digests of texts that are kept to store each text once.
_SEEN_TEXTS = 500_000
#: Rows, and bytes of texts, that are stored at a time.
_BATCH, _BATCH_BYTES = 20_000, 64 * 2**20
#: Bytes of a row beside its texts.
_ROW_BYTES = 500
#: Python raises one of these where a value has another type than its format prescribes.
_OF_LAYOUT = (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError, RecursionError)
#: What ends the reading of a row, and of nothing else.
OF_ROW = (BadFile, *_OF_LAYOUT)


@dataclass(frozen=True)
class ImportSource:
    """A source to import, as a person describes it."""

    #: The column `imported_from` of all its records.
    name: str
    format: str
    licence: str | None = None
    #: The source's name of a model -> its id.
    aliases: Mapping[str, str] = field(default_factory=dict)
    #: The model of files that name none.
    model: str | None = None
    #: Settings of the format `table`.
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellDescription:
    """The columns of a cell that a source states; None where it states nothing."""

    #: The metric behind `score`, and the least score of a correct answer; None: no such rule.
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
    #: Items of the whole task, where the source states them.
    items: int | None = None
    parameters: int | None = None
    #: Version of the program that wrote the file, and of its libraries.
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Drops values whose type is not that of their column: sources write anything anywhere."""
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
    """Numbers of rows of one file; rows = records + known + folded + rejected."""

    rows: int = 0
    records: int = 0
    known: int = 0
    folded: int = 0
    rejected: int = 0


class Sink(ABC):
    """Takes the rows of an importer one by one and stores them in batches."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self.files = list(files)
        self.counts = [Counted() for _ in files]
        #: (run, model, task) -> the cell's description; other cells have `default`.
        self.descriptions: dict[tuple[str, str, str], CellDescription] = {}
        self.default = CellDescription()
        #: (run, model, task) -> the run's name in the lake; other runs have their own.
        self.run_names: dict[tuple[str, str, str], str] = {}
        self.format_version: list[str | None] = [None] * len(self.files)
        #: Files that have nothing per item in them, and help to read others.
        self.describing: set[int] = set()
        #: File -> its content in words, for the case that nothing in it becomes a record.
        self.holds: dict[int, str] = {}
        self._lock = threading.Lock()
        self._rejects: list[tuple[Any, ...]] = []
        self._rows, self._items = Batch(RAW_VERDICT), Batch(RAW_ITEM)
        #: Rows of RAW_TEXT, and the keys of those that were taken before.
        self._texts: list[tuple[Any, ...]] = []
        self.seen_texts: set[str] = set()
        self._suspects, self._stated = Batch(RAW_SUSPECT), Batch(RAW_STATED)
        self._bytes = 0

    @abstractmethod
    def put(self, name: str, table: pa.Table) -> None:
        """Stores a batch of the table `name` of RAW_TABLES."""

    def row(self, **columns: Any) -> None:
        """Takes a verdict: columns of RAW_VERDICT."""
        self._rows.append(columns)
        self._weigh(columns, columns.get("responses"))
        if numbers := columns.get("loglikelihoods"):
            self._bytes += 40 * len(numbers)

    def item(self, **columns: Any) -> None:
        """Takes an item: columns of RAW_ITEM and RAW_TEXT but `text`."""
        columns["text"] = self.text(*[columns.pop(name, None) for name in _TEXT])
        self._items.append(columns)
        self._weigh({})

    def text(self, *values: Any) -> str | None:
        """Takes the texts of an item, the columns of RAW_TEXT behind its key. Returns the key; None without any."""
        if values == _NO_TEXT:
            return None
        encoded = msgspec.json.encode(values)
        text = hashlib.blake2b(encoded, digest_size=16).hexdigest()
        if text not in self.seen_texts:
            if len(self.seen_texts) >= _SEEN_TEXTS:
                self.seen_texts.clear()
            self.seen_texts.add(text)
            self._texts.append((text, *values))
            self._bytes += _ROW_BYTES + len(encoded)
            if self._bytes >= _BATCH_BYTES:
                self.flush()
        return text

    def block(self, name: str, same: Mapping[str, Any], names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Stores rows of the table `name` of RAW_TABLES: values of `names`, and `same` in each. The rest is null.

        For a file of many rows it takes a third of the time of `row` and `item`.
        """
        schema, many = RAW_TABLES[name], len(rows)
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        try:
            arrays = []
            for field in schema:
                if field.name in columns:
                    arrays.append(pa.array(columns[field.name], field.type))
                else:
                    arrays.append(pa.repeat(pa.scalar(same.get(field.name), field.type), many))
            table = pa.table(arrays, schema=schema)
        except OF_ARROW:
            batch = Batch(schema)
            for row in rows:
                batch.append({**same, **dict(zip(names, row, strict=True))})
            table = self._table(batch)
        self.put(name, table)

    def _weigh(self, columns: Mapping[str, Any], texts: Sequence[str] | None = None) -> None:
        """Counts the characters of `columns` and `texts`, and numbers and names as a constant for each row."""
        self._bytes += _ROW_BYTES + sum([len(value) for value in columns.values() if type(value) is str])
        if texts:
            self._bytes += sum(map(len, texts))
        if len(self._rows) + len(self._items) >= _BATCH or self._bytes >= _BATCH_BYTES:
            self.flush()

    def suspect(self, **columns: Any) -> None:
        """Takes note of a row that looks wrong: columns of RAW_SUSPECT. The row itself is taken or rejected as well."""
        self._suspects.append(columns)

    def state(self, *, answers: Any, mean: Any, **place: Any) -> None:
        """Takes note of figures that the source states of a cell, to be compared with the imported ones.

        A figure that is not a number is left out. `place`: file, run, model and task.
        """
        count = answers if type(answers) is int and 0 < answers < 2**62 else None
        score = float(mean) if type(mean) in (int, float) and abs(mean) < 1e30 else None
        self._stated.append({**place, "answers": count, "mean": score})

    def fold(self, file: int) -> None:
        """Counts a row that adds nothing to another one, which is taken."""
        self.counts[file].folded += 1

    def reject(self, file: int, row: int | None, kind: str, message: str, **columns: Any) -> None:
        """Takes a row, or with None a file, that cannot be trusted. `columns`: model, task, source_key, if stated."""
        place = (columns.get(name) for name in ("model", "task", "source_key"))
        with self._lock:
            if row is not None:
                self.counts[file].rejected += 1
            self._rejects.append((file, row, kind, message, *place))
            if len(self._rejects) >= _BATCH:
                self._put_rejects()

    def _put_rejects(self) -> None:
        if self._rejects:
            given = dict(zip(REJECTED.names, zip(*self._rejects, strict=True), strict=True))
            self._rejects.clear()
            self.put("rejects", pa.table({f.name: pa.array(given[f.name], f.type) for f in REJECTED}))

    @contextlib.contextmanager
    def one_file(self, file: int) -> Iterator[None]:
        """Turns an error while a file is read into the file's reject, so that the import goes on with the next."""
        try:
            yield
        except BadFile as error:
            self.reject(file, None, error.kind, str(error))
        except MemoryError:
            self.reject(file, None, "too_large", "takes more memory than there is")
        except _OF_LAYOUT as error:
            self.reject(file, None, "unknown_layout", f"the layout is not that of the format: {one_line(error, 160)}")

    def reject_row(self, file: int, row: int, error: Exception, **place: Any) -> None:
        """Takes a row that was not read because of one of OF_ROW."""
        kind, message = "damaged", f"the layout is not that of the format: {one_line(error, 160)}"
        if isinstance(error, BadFile):
            kind, message = error.kind, str(error)
        self.reject(file, row, kind, message, **place)

    def one_row(self, file: int, row: int, **place: Any) -> contextlib.AbstractContextManager[None]:
        """Turns an error while a row is read into the row's reject. `place`: columns for `reject`."""
        return _OneRow(self, file, row, place)

    def flush(self) -> None:
        """Stores the rows that were taken since the last batch."""
        self._bytes = 0
        given = {"raw_verdicts": self._rows, "raw_items": self._items, "raw_suspects": self._suspects}
        given["raw_stated"] = self._stated
        for name, batch in given.items():
            if len(batch):
                self.put(name, self._table(batch))
                batch.clear()
        if self._texts:
            texts, self._texts = self._texts, []
            self.block("raw_texts", {}, RAW_TEXT.names, texts)
        with self._lock:
            self._put_rejects()

    def _table(self, batch: Batch) -> pa.Table:
        """`batch` without rows that no table can hold, such as half of a character. Rejects verdicts among them."""
        try:
            return batch.table()
        except OF_ARROW:
            good = Batch(batch.schema)
            for row in batch.rows():
                try:
                    pa.Table.from_pylist([row], batch.schema)
                    good.append(row)
                except OF_ARROW as error:
                    if batch.schema is RAW_VERDICT:
                        message = f"a value cannot be stored: {one_line(error, 120)}"
                        self.reject(row["file"], row["row"], "encoding", message)
            return good.table()


class _OneRow(contextlib.AbstractContextManager[None]):
    """`Sink.one_row`: a generator would take four times as long, for every row of a source."""

    __slots__ = ("file", "place", "row", "sink")

    def __init__(self, sink: Sink, file: int, row: int, place: Mapping[str, Any]) -> None:
        self.sink, self.file, self.row, self.place = sink, file, row, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> bool:
        if not isinstance(error, OF_ROW):
            return False
        self.sink.reject_row(self.file, self.row, error, **self.place)
        return True


def as_json(value: Any) -> str:
    """JSON text; NaN and infinities, which JSON lacks, as null."""
    try:
        return msgspec.json.encode(value).decode()
    except OverflowError:  # a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False)
