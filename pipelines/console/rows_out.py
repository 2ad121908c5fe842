"""Rows for other programs: CSV, JSON or a Markdown table on standard output, in place of what people read.

Owns the three formats. Knows nothing of where rows come from. Texts come from anywhere: a Markdown table keeps them in
their cell and shows markup as text.
"""

from __future__ import annotations

import argparse
import datetime as dt
import decimal
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from collectors.exporters.texts import guarded
from pipelines.console.plain_console import rows_stream

FORMATS = ("csv", "json", "markdown")

#: Columns of names that come from anywhere.
_NAMES = re.compile(r"(^|_)(model|models|task|tasks|router|source|imported_from|provider|metric)($|_)")
#: Control characters, line and paragraph separators, and marks that turn the direction of text around.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MARKUP = re.compile(r"[\\|`*_<>&\[\]]")
_QUOTED = re.compile(r'[",\r\n]|^\s|\s$')


def add_format(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds --format; `default` is a phrase for its help, because it is not one of FORMATS."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help='print rows for other programs: csv (an unknown value is empty, an empty text is ""), json (one array of '
        f"objects) or markdown (default: {default})",
    )


def print_rows(form: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], to: TextIO | None = None) -> None:
    """Writes `rows`, each with a value per column, to standard output; `form` is one of FORMATS.

    CSV follows RFC 4180, but ends lines with a newline alone; a name that begins like a formula of a spreadsheet stands
    behind an apostrophe. JSON holds null for NaN and infinite numbers, which it
    cannot write; nested values are JSON in all formats.
    """
    writers = {"csv": _csv, "json": _json, "markdown": _markdown}
    stream = to or rows_stream()
    for text in writers[form](columns, rows):
        stream.write(text)


def print_dicts(form: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """print_rows for rows with the same keys; without rows there are no columns."""
    columns = list(rows[0]) if rows else []
    print_rows(form, columns, ([row[name] for name in columns] for row in rows))


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table without a line break at its end."""
    columns = list(rows[0]) if rows else []
    return "".join(_markdown(columns, ([row[name] for name in columns] for row in rows))).rstrip("\n")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterable[str]:
    yield ",".join(_csv_text(guarded(name)) for name in columns) + "\n"
    named = [bool(_NAMES.search(name)) for name in columns]
    for row in rows:
        texts = (
            "" if value is None else _csv_text(_name(value) if is_name else _text(value))
            for value, is_name in zip(row, named, strict=True)
        )
        yield ",".join(texts) + "\n"


def _name(value: Any) -> str:
    return guarded(value) if isinstance(value, str) else _text(value)


def _csv_text(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text


def _json(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterable[str]:
    between = "["
    for row in rows:
        yield f"{between}\n{json.dumps(dict(zip(columns, map(_plain, row), strict=True)), ensure_ascii=False)}"
        between = ","
    yield "[]\n" if between == "[" else "\n]\n"


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterable[str]:
    if not columns:
        return
    yield f"| {' | '.join(map(_markdown_text, columns))} |\n|{' --- |' * len(columns)}\n"
    for row in rows:
        yield f"| {' | '.join('' if value is None else _markdown_text(_text(value)) for value in row)} |\n"


def _markdown_text(text: str) -> str:
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};" if match[0] in "<>&" else f"\\{match[0]}", _line(text))


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return json.dumps(_plain(value), ensure_ascii=False)
    plain = value if isinstance(value, float | decimal.Decimal) else _plain(value)
    return str(plain)


def _plain(value: Any) -> Any:
    """A value of DuckDB's as one that JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        number = float(value)
        return number if decimal.Decimal(repr(number)) == value else str(value)  # JSON has no more digits than that
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | str) else str(value)
