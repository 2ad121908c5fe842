"""Tables that others wrote as text, CSV and JSON, as columns of text: each value to the letter.

Owns the dialect of CSV and how JSON's values become text. Does not know the meaning of a column: no value is taken for
a number, a date or a word for null.

CSV is RFC 4180's: values between commas (tabs in a .tsv) and in double quotes that are doubled inside, the first row
names the columns, nothing is a comment. An empty value is null.
"""

from __future__ import annotations

import csv
import io
import operator
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa

from collectors.importers.files import BadFile, SourceFile, without_mark
from collectors.importers.json_values import decoded, json_rows, members
from collectors.importers.sources import as_json

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
#: Largest row of a CSV file, characters: each of its values is an object of Python's.
MAX_ROW = 16 * 2**20
#: Most names of columns in a JSON file, where each row may bring new ones.
MAX_NAMES = 1_000_000
#: Bytes of a batch, and those that a value takes beside its characters.
_BATCH_BYTES, _VALUE_BYTES = 4 * 2**20, 60

#: Takes the number of a row that cannot be trusted, the kind of reject, and why.
Reject = Callable[[int, str, str], None]
Values = Sequence[str | None]


class TextTable(ABC):
    """A file's columns, read from its start whenever batches are asked for."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The columns in their order. Raises BadFile."""

    @abstractmethod
    def _rows(self, wanted: Sequence[str], numbers: Collection[str], reject: Reject) -> Iterator[tuple[int, Values]]:
        """Yields the number of each row, and its values of `wanted`."""

    def batches(self, wanted: Sequence[str], reject: Reject, numbers: Collection[str] = ()) -> Iterator[pa.Table]:
        """Yields tables of a column `row` and those of `wanted`, named c0, c1, …

        Columns of `numbers` keep the text of a NaN of JSON; in others it is null. Raises BadFile.
        """
        places: list[int] = []
        rows: list[Values] = []
        size = 0
        for number, values in self._rows(wanted, numbers, reject):
            places.append(number)
            rows.append(values)
            size += sum([len(value) for value in values if value]) + _VALUE_BYTES * len(values)
            if size >= _BATCH_BYTES:
                yield _table(places, rows, len(wanted), reject)
                places, rows, size = [], [], 0
        if rows:
            yield _table(places, rows, len(wanted), reject)


def text_table(file: SourceFile) -> TextTable:
    """The file as a table, by an ending among ENDINGS. Raises BadFile where its first row cannot be read."""
    return CsvTable(file) if ending_of(file) in (".csv", ".tsv") else JsonTable(file)


def ending_of(file: SourceFile) -> str:
    return os.path.splitext(file.stem)[1].lower()


def refuse_doubled(names: Sequence[str]) -> None:
    """Raises BadFile where two columns have one name: either may be meant."""
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise BadFile("unknown_layout", f"two columns are called {twice[0][:60]!r}")


def _table(places: list[int], rows: list[Values], columns: int, reject: Reject) -> pa.Table:
    try:
        texts = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    except UnicodeEncodeError:
        good = [_is_text(values) for values in rows]
        for number, is_good in zip(places, good, strict=True):
            if not is_good:
                reject(number, "encoding", "not UTF-8")
        places = [number for number, is_good in zip(places, good, strict=True) if is_good]
        rows = [values for values, is_good in zip(rows, good, strict=True) if is_good]
        texts = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    texts = texts if rows else [pa.array([], pa.string())] * columns
    return pa.table([pa.array(places, pa.int64()), *texts], names=["row", *(f"c{n}" for n in range(columns))])


def _is_text(values: Values) -> bool:
    try:
        "".join(filter(None, values)).encode()
    except UnicodeEncodeError:
        return False
    return True


# ---- CSV


class CsvTable(TextTable):
    """Rows are numbered from 1, without the header. One of another length than the header is rejected."""

    def __init__(self, file: SourceFile) -> None:
        super().__init__(file)
        for line, header in self._records():
            if isinstance(header, BadFile):
                raise header
            refuse_doubled(header)
            if not _is_text(header):
                raise BadFile("encoding", f"line {line}: not UTF-8")
            self._names = header
            return
        raise BadFile("unknown_layout", "holds no row")

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def _rows(self, wanted: Sequence[str], numbers: Collection[str], reject: Reject) -> Iterator[tuple[int, Values]]:
        place_of = {name: place for place, name in enumerate(self._names)}
        places = [place_of[name] for name in wanted]
        pick = operator.itemgetter(*places) if len(places) > 1 else lambda record: [record[n] for n in places]
        records = self._records()
        next(records)
        many = len(self._names)
        for number, (line, record) in enumerate(records, 1):
            if isinstance(record, BadFile):
                reject(number, record.kind, str(record))
            elif len(record) != many:
                reject(number, "damaged", f"line {line}: {len(record):,} values, and the header has {many:,}")
            else:
                yield number, [value or None for value in pick(record)]

    def _records(self) -> Iterator[tuple[int, list[str] | BadFile]]:
        """Yields the rows that are not blank, each with the line that it begins in."""
        csv.field_size_limit(MAX_ROW)
        with self.file.open() as raw:
            without_mark(raw.peek(4))  # type: ignore[attr-defined]
            lines = _Lines(io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline=""))
            reader = csv.reader(lines, delimiter="\t" if ending_of(self.file) == ".tsv" else ",", strict=True)
            while True:
                line, record = reader.line_num + 1, []
                try:
                    record = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, BadFile("damaged", f"line {line}: not CSV by RFC 4180: {error}")
                lines.size = 0
                if record:
                    yield line, record


class _Lines:
    """The lines of a text. Raises BadFile where those that one row takes are more than MAX_ROW characters."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text, self.size, self.number = text, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.text.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.size += len(line)
        if self.size > MAX_ROW:
            message = f"the row that ends behind line {self.number:,} has more than {MAX_ROW // 2**20} MiB"
            raise BadFile("too_long", f"{message}: neither it nor the rest of the file is read")
        return line


# ---- JSON


class JsonTable(TextTable):
    """JSON lines, numbered by line, or one array of objects, numbered from 1. A name that a row lacks is null."""

    @cached_property
    def names(self) -> Sequence[str]:
        names: dict[str, None] = {}
        for _, data in json_rows(self.file):
            try:
                if not isinstance(data, BadFile):
                    names.update(dict.fromkeys(members(data)))
            except BadFile:
                continue  # `_rows` rejects it
            if len(names) > MAX_NAMES:
                raise BadFile("too_large", f"more than {MAX_NAMES:,} names of columns")
        return list(names)

    def _rows(self, wanted: Sequence[str], numbers: Collection[str], reject: Reject) -> Iterator[tuple[int, Values]]:
        keeps_nan = [name in numbers for name in wanted]
        for number, data in json_rows(self.file):
            try:
                if isinstance(data, BadFile):
                    raise data
                values = members(data)
                yield number, [_text_of(values.get(n), keeps) for n, keeps in zip(wanted, keeps_nan, strict=True)]
            except BadFile as error:
                reject(number, error.kind, str(error))


_NAN = (b"NaN", b"Infinity", b"-Infinity")


def _text_of(value: msgspec.Raw | None, keeps_nan: bool) -> str | None:
    """A text as it is, a number as it is written, and a nested value as JSON. Raises BadFile."""
    data = bytes(value) if value is not None else b"null"
    if data[:1] in (b'"', b"{", b"["):
        return json_text(decoded(data))
    if data == b"null" or (data in _NAN and not keeps_nan):
        return None
    return data.decode()


def json_text(value: Any) -> str | None:
    """A decoded value of JSON as one text, which is equal for equal values of a JSON file and a Parquet file.

    Nested values are JSON without spaces. A member that is null is left out, because Parquet has no other sign for
    a member that is not there. Raises BadFile where values are nested too deeply.
    """
    if value is None or isinstance(value, str):
        return value
    try:
        return as_json(_without_nulls(value))
    except RecursionError:
        raise BadFile("damaged", "nested too deeply") from None


def text_of_json(text: str | None) -> str | None:
    """`json_text` of a JSON text; None where it is none."""
    try:
        return None if text is None else json_text(decoded(text.encode()))
    except (BadFile, UnicodeEncodeError):
        return None


def texts_of_json(text: str | None) -> list[str | None] | None:
    """The elements of a list that is written as JSON, as texts; None for anything else."""
    try:
        return None if text is None else [_text_of(one, False) for one in _LIST.decode(text)]
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError, BadFile):
        return None


_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None and one == one}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
