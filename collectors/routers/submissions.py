"""Submissions to a board: a router's choices or a model's records in a file, and a JSON file beside it that describes
them.

    {"name": "my-router", "by": "Jane Doe", "file": "choices.csv", "sha256": "9f86…", "version": "1.0.0",
     "pool": "small", "split": "content-0-1a2b3c4d5e6f", "usd_per_query": 0.00002, "url": "https://example.org"}
    {"name": "Acme 7B our run", "kind": "records", "model": "acme/acme-7b", "revision": "1f0c…",
     "file": "records.csv", "sha256": "60ab…"}

Owns the keys of that file and the bounds of both. Anybody may send one: names are short plain text, the file lies
beside the statement, and nothing in it is run or read as a condition. Knows nothing of the version that it is for.
"""

from __future__ import annotations

import os
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.file_digests import sha256_of
from collectors.importers.files import BadFile
from collectors.importers.json_values import decoded
from schemas.failures import ConfigError, one_line
from schemas.texts import holds_key_values
from schemas.views import INCLUDED

#: What a file holds.
CHOICES, RECORDS = "choices", "records"
#: Key -> what stands there. The first three have to be there.
KEYS = {
    "name": "letters, digits, spaces, '.', '_', '+' and '-', at most 80, the first a letter or digit",
    "file": "the name of a CSV, JSON lines or Parquet file beside it",
    "sha256": "64 hexadecimal digits",
    "kind": "choices of a router, which it is without, or records of a model",
    "version": "the name of the published version",
    "by": "one line of at most 200 characters, the first a letter or digit",
    "pool": "the name of a pool that the version keeps; without it all candidates",
    "include": "collected, imported or all; without it what the version holds",
    "split": "the name of a split that the version holds; without it all questions",
    "prices": "the digest of the price table, as check shows it",
    "usd_per_query": "USD of one routing, from 0 on",
    "model": "the model's name, which its price goes by, at most 200 characters without blanks",
    "revision": "the model's revision, at most 100 characters without blanks",
    "url": "http://… or https://…",
}
_NEEDED = ("name", "file", "sha256")
#: Keys of one kind alone.
_ONLY = {"usd_per_query": CHOICES, "model": RECORDS, "revision": RECORDS}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}")
_SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FORM = {
    "name": _NAME,
    "file": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.(csv|tsv|jsonl|parquet)"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "version": _SHORT,
    "by": re.compile(r"[^\W_][^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,199}"),
    "pool": _SHORT,
    "split": _SHORT,
    "kind": re.compile(f"{CHOICES}|{RECORDS}"),
    "prices": re.compile(r"[0-9a-f]{16}"),
    "model": re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:/@-]{0,199}"),
    "revision": re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}"),
    "url": re.compile(r"https?://[^\s<>\"'`\\]{1,300}"),
}
#: Bytes of the statement and of the file, and bytes and rows that a Parquet file stands for.
_MOST_STATED, _MOST_BYTES, _MOST_ROWS = 1 << 16, 1 << 28, 50_000_000
_MOST_USD = 1e6
#: Kind of a BadFile -> the words for a person.
_UNREAD = {"damaged": "it is not JSON", "encoding": "it is not UTF-8"}
#: Characters of one line of text.
_MOST_LINE = 1 << 20


@dataclass(frozen=True)
class Submission:
    """Choices of one router, or records of one model, as somebody sent them."""

    name: str
    #: The file, and its SHA-256.
    path: Path
    sha256: str
    #: CHOICES or RECORDS.
    kind: str = CHOICES
    version: str | None = None
    by: str | None = None
    pool: str | None = None
    include: str | None = None
    split: str | None = None
    prices: str | None = None
    usd_per_query: float = 0.0
    #: None for choices.
    model: str | None = None
    revision: str | None = None
    url: str | None = None


def read_submission(path: Path) -> Submission:
    """A submission from its statement, or from a file of choices alone, which then has the name of the file.

    Raises ConfigError for a file that is missing, too large, or not as KEYS has it.
    """
    if path.suffix != ".json":
        name = re.sub(r"[^A-Za-z0-9 ._+-]", "-", path.stem)[:80]
        return Submission(name if _NAME.fullmatch(name) else "choices", path, _checked_sha256(path))
    _refuse_link(path, path)
    value = _stated(path)
    stated = {key: _value(path, key, one) for key, one in value.items()}
    if lost := [key for key in _NEEDED if key not in stated]:
        raise _wrong(path, f"{lost[0]}: expected {KEYS[lost[0]]}")
    kind = stated.get("kind", CHOICES)
    if foreign := [key for key, of in _ONLY.items() if key in stated and of != kind]:
        raise _wrong(path, f"{foreign[0]}: it is a key of {_ONLY[foreign[0]]}, and kind is {kind}")
    if kind == RECORDS and "model" not in stated:
        raise _wrong(path, f"model: expected {KEYS['model']}")
    file = path.with_name(stated.pop("file"))
    _refuse_link(path, file)
    if (sha256 := _checked_sha256(file)) != stated["sha256"]:
        raise _wrong(path, f"{file.name}: its SHA-256 is {sha256}, not the one that is stated")
    return Submission(path=file, **stated)


def _refuse_link(path: Path, file: Path) -> None:
    """Before it is read: a link may lead anywhere."""
    if file.is_symlink():
        raise _wrong(path, f"{file.name}: it is a link")


def _stated(path: Path) -> dict[str, Any]:
    _check_size(path, _MOST_STATED)
    try:
        value = decoded(path.read_bytes())
    except BadFile as error:
        raise _wrong(path, f"it cannot be read: {_UNREAD.get(error.kind, one_line(error, 160))}") from error
    except OSError as error:
        raise _wrong(path, str(error.strerror)) from error
    if not isinstance(value, dict):
        raise _wrong(path, f"expected the keys {', '.join(KEYS)}")
    if unknown := sorted(str(key) for key in value.keys() - KEYS.keys()):
        raise _wrong(path, f"no key {reprlib.repr(unknown[0])}; there are {', '.join(KEYS)}")
    return value


def _value(path: Path, key: str, value: Any) -> Any:
    if key == "usd_per_query":
        is_right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_USD
        value = float(value) if is_right else value
    elif key == "include":
        is_right = isinstance(value, str) and value in INCLUDED
    else:
        is_right = isinstance(value, str) and _FORM[key].fullmatch(value) is not None
    if holds_key_values(value):  # a board shows it
        raise _wrong(path, f"{key}: holds a user, query or token")
    if not is_right:
        raise _wrong(path, f"{key}: expected {KEYS[key]}, not {reprlib.repr(value)}")
    return value


def _checked_sha256(path: Path) -> str:
    """Of a file of rows. Raises ConfigError for one that is missing or stands for more than the bounds."""
    _check_size(path, _MOST_BYTES)
    try:
        if path.suffix.lower() == ".parquet":
            footer = pq.read_metadata(path)
            whole = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
            if footer.num_rows > _MOST_ROWS or whole > _MOST_BYTES * 8:
                raise _wrong(path, f"its {footer.num_rows:,} rows of {whole:,} bytes are too many")
        else:
            _check_lines(path)
        return sha256_of(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _wrong(path, one_line(error, 160)) from error


def _check_lines(path: Path) -> None:
    with path.open("rb") as file:
        while line := file.readline(_MOST_LINE + 1):
            if len(line) > _MOST_LINE:
                raise _wrong(path, f"a line of it is longer than {_MOST_LINE:,} bytes")


def _check_size(path: Path, most: int) -> None:
    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise _wrong(path, str(error.strerror)) from error
    if not path.is_file():
        raise _wrong(path, "it is not a file")
    if size > most:
        raise _wrong(path, f"its {size:,} bytes are more than {most:,}")


def _wrong(path: Path, what: str) -> ConfigError:
    return ConfigError(f"submission {path.name}: {what}")
