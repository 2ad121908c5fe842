"""JSON that others wrote: rows, documents and objects. A name that stands twice in one object is refused.

Owns how JSON is cut into rows and decoded. Knows nothing of formats. Most readers of JSON take the last of two values
with one name in silence; either may be meant.
"""

from __future__ import annotations

import json
import json.decoder
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NoReturn

import msgspec

from collectors.importers.files import BadFile, SourceFile, lines, without_mark
from schemas.failures import one_line

#: Values of one JSON document, or of one array of rows: each is an object of Python's, of 50 bytes and more.
MAX_VALUES = 20_000_000

#: What stands between two elements of a JSON array.
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
#: msgspec and Python raise one of these for a text that is damaged, or holds NaN, which Python writes.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Makes an object of its names and values.
_OfPairs = Callable[[list[tuple[str, Any]]], dict[str, Any]]


class Doubled(dict[str, Any]):
    """An object of a document in which a name stands twice: whoever reads it raises BadFile, and so rejects its row."""

    def __init__(self, name: str) -> None:
        super().__init__({name: self})  # without an end for whoever encodes it
        self.name = name

    def _refuse(self, *_: Any) -> NoReturn:
        raise doubled(self.name)

    __getitem__ = __iter__ = __len__ = __contains__ = __or__ = __ror__ = _refuse
    get = items = keys = values = _refuse


def doubled(name: str) -> BadFile:
    return BadFile("doubled_name", f"{name[:60]!r} stands twice in one object")


def json_rows(file: SourceFile) -> Iterator[tuple[int, bytes | BadFile]]:
    """Yields the rows of JSON lines, or of one JSON array, undecoded, with their numbers from 1."""
    with file.open() as stream:
        head = without_mark(stream.read(4096)).lstrip()
    if not head.startswith(b"["):
        yield from lines(file)
        return
    data = without_mark(file.read())
    _check_values(data)
    try:
        for number, row in enumerate(msgspec.json.decode(data, type=list[msgspec.Raw]), 1):
            yield number, bytes(row)
    except _UNREADABLE:
        _decode(data, _mark_doubled)
        yield from enumerate(_elements(data.decode("utf-8", "surrogatepass")), 1)


def _elements(array: str) -> Iterator[bytes]:
    """The elements of a JSON array that can be decoded, as they are written."""
    decoder, place = json.JSONDecoder(), array.index("[") + 1
    while (match := _BETWEEN.match(array, place)) and array[match.end()] != "]":
        _, place = decoder.raw_decode(array, match.end())
        yield array[match.end() : place].encode("utf-8", "surrogatepass")


def document(file: SourceFile) -> Any:
    """The whole file as one JSON value. Raises BadFile."""
    return decoded(without_mark(file.read()))


def document_of_rows(file: SourceFile) -> Any:
    """As `document`; but an object with a doubled name is a Doubled, so that its row alone is rejected."""
    return _decode(without_mark(file.read()), _mark_doubled)


def decoded(data: bytes) -> Any:
    """The value of a JSON text, which may hold NaN and infinities as Python writes them. Raises BadFile."""
    return _decode(data, _refuse_doubled)


def _decode(data: bytes, of_pairs: _OfPairs) -> Any:
    _check_values(data)
    try:
        value = msgspec.json.decode(data)
        if _is_single(data, value):
            return value
    except _UNREADABLE:
        pass
    return _decoded_slowly(data, of_pairs)


def _is_single(data: bytes, value: Any) -> bool:
    """Whether no name stands twice in one object of `data`, which was decoded to `value`.

    A colon stands behind each name and in texts, and each of them is in the value's own JSON: fewer stand there where a
    value was dropped. False also where a colon is written as an escape, which would make up for a dropped one, or a
    number is beyond 64 bits.
    """
    colons = data.count(b":")
    if b"\\u003a" in data or b"\\u003A" in data:
        return False
    try:
        return not colons or msgspec.json.encode(value).count(b":") == colons
    except (OverflowError, RecursionError):
        return False


def _check_values(data: bytes) -> None:
    """Raises BadFile for a text that takes far more memory as objects of Python than as bytes."""
    if len(data) > MAX_VALUES and sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise BadFile("too_large", f"more than {MAX_VALUES:,} values in one document")


def _decoded_slowly(data: bytes, of_pairs: _OfPairs) -> Any:
    try:
        text = data.decode()  # json.loads takes half of a character in bytes
        if b"\\ud" in data.lower():
            json.dumps(json.loads(text), ensure_ascii=False).encode()  # half of a character, which no text holds
        return json.loads(text, object_pairs_hook=of_pairs)
    except RecursionError:
        raise BadFile("damaged", "nested too deeply") from None
    except UnicodeEncodeError:
        raise BadFile("encoding", "holds half of a character (a lone surrogate)") from None
    except UnicodeDecodeError:
        raise BadFile("encoding", "not UTF-8") from None
    except ValueError as error:
        raise BadFile("damaged", f"not JSON: {one_line(error, 120)}") from error


def _twice(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise doubled(_twice(pairs))
    return value


def _mark_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else Doubled(_twice(pairs))


# ---- one object, undecoded


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members(data: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, undecoded. Raises BadFile."""
    try:
        if not data.isascii():
            data.decode()  # values that are passed over, too
        values = _MEMBERS.decode(data)
    except _UNREADABLE:
        decoded(data)
    else:
        if is_whole(data, values, values.values()):
            return values
    pairs = _pairs(data)
    if len({name for name, _ in pairs}) < len(pairs):
        raise doubled(_twice(pairs))
    return {name: msgspec.Raw(value.encode()) for name, value in pairs}


def is_whole(data: bytes, names: Iterable[str], values: Collection[bytes]) -> bool:
    """Whether the object `data` has no member but these, whose values are as they are written.

    A colon stands behind each name: more are there where a value was dropped, whose name stands twice. False also where
    a name holds a colon, which may be written as an escape.
    """
    if any(":" in name for name in names):
        return False
    return data.count(b":") == len(values) + b"".join(values).count(b":")


def _pairs(data: bytes) -> list[tuple[str, str]]:
    """Names and values of a JSON object's text, which may have NaN and names that stand twice. Raises BadFile."""
    text = data.decode().strip()
    if not text.startswith("{"):
        raise BadFile("damaged", "not a JSON object")
    pairs, place, skip = [], 1, json.decoder.WHITESPACE.match  # type: ignore[attr-defined]
    try:
        while (place := skip(text, place).end()) < len(text) - 1:
            name, place = json.decoder.scanstring(text, place + 1)  # type: ignore[attr-defined]
            begins = skip(text, skip(text, place).end() + 1).end()
            _, ends = _ANY.raw_decode(text, begins)
            pairs.append((name, text[begins:ends]))
            place = skip(text, ends).end() + 1
    except RecursionError:
        raise BadFile("damaged", "nested too deeply") from None
    except ValueError as error:
        raise BadFile("damaged", f"not JSON: {one_line(error, 120)}") from error
    return pairs


_ANY = json.JSONDecoder()
