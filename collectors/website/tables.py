"""The tables of pages: columns, how a value is shown, the file that holds more rows than a page.

Owns the form of a value and of an address. static/site.js does the same for rows that a page does not hold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from schemas.identity import digest
from schemas.sql import quoted
from schemas.texts import visible

#: Rows of a table within its page. A larger table has all of them in a script beside it, which pages them.
FIRST = 100
#: A missing value, which never reads as zero.
UNKNOWN = "–"
#: Characters of a name on a page: a longer one ends with its digest. One name of 1 MB stands on thousands of pages.
LONGEST_NAME = 200
#: Characters of a message on a page, and of a query that a page shows.
LONGEST_PROSE, LONGEST_QUERY = 2_000, 5_000
#: Digits behind the point of a small number: a smaller one has an exponent.
MOST_PLACES = 12
_FIELD = re.compile(r"\{(\w+)\}")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str
    label: str
    #: text, prose (a message), digest, name (heads its row), or a kind of number: score, count, number, usd, seconds,
    #: billions, interval, heat.
    kind: str = "text"
    #: Key of a page's address.
    link: str = ""
    #: Query of the records behind the number, with {key} for values of the row.
    sql: str = ""
    #: Of an interval: the keys of its other end and of its middle.
    high: str = ""
    middle: str = ""
    #: What the number means.
    note: str = ""

    @property
    def keys(self) -> list[str]:
        """The keys of a row that the column needs."""
        names = [self.key, self.link, self.high, self.middle, *_FIELD.findall(self.sql)]
        return list(dict.fromkeys(filter(None, names)))

    @property
    def is_number(self) -> bool:
        return self.kind not in ("text", "name", "page", "prose", "digest")


@dataclass(frozen=True)
class Table:
    """A table of a page."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    #: The query that makes the table.
    sql: str = ""
    #: Keys of columns to filter by: texts by search or choice, numbers by bounds.
    filters: Sequence[str] = ()
    #: Shown in place of a table without rows.
    empty: str = "None."
    first: int = FIRST
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def shown(self) -> Sequence[Row]:
        return self.rows[: self.first]

    @property
    def has_more(self) -> bool:
        return len(self.rows) > self.first

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(key for column in self.columns for key in column.keys))

    @property
    def filtered(self) -> list[tuple[Column, list[str]]]:
        """The columns to filter by, each with its values where they are few."""
        columns = {column.key: column for column in self.columns if column.key in self.filters}
        return [(column, self._choices(column)) for key, column in columns.items() if self._differs(key)]

    def _differs(self, key: str) -> bool:
        return len({row[key] for row in self.rows}) > 1

    def _choices(self, column: Column) -> list[str]:
        if column.kind != "text":
            return []
        values = {shown(row[column.key]) for row in self.rows if row[column.key] is not None}
        return sorted(values) if len(values) <= 60 else []

    def script(self) -> str:
        """The rows as a script, column by column: a page from file:// can load it, and cannot fetch."""
        kinds = {column.key: column.kind for column in self.columns}
        values = {key: [_value(row[key], kinds.get(key, "text")) for row in self.rows] for key in self.keys}
        return f"(window.siteRows??={{}})[{json.dumps(self.name)}]={script_json(values)};\n"


def _value(value: Any, kind: str) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return plain(value) if kind == "digest" else shown(value, kind)


def script_json(value: Any) -> str:
    """JSON that no text in it can end, in a script element or a script's file."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def known(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns that have a value in some row: what nobody measured takes no place."""
    return [column for column in columns if any(row.get(column.key) is not None for row in rows) or not rows]


# ---- values


def plain(value: Any) -> str:
    """A text as a page shows it: what would turn or end it stands there as an escape."""
    return UNKNOWN if value is None else visible(str(value))


def shown(value: Any, kind: str = "text") -> str:
    """A value as text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if kind in ("score", "heat"):
        return f"{value:.3f}"
    if kind == "count":
        return f"{value:,}"
    if kind == "usd":
        return f"${significant(value)}"
    if kind in ("number", "seconds", "share"):
        unit = {"seconds": " s", "share": " %"}.get(kind, "")
        return significant(value * (100 if kind == "share" else 1)) + unit
    if kind == "billions":
        return f"{significant(value / 1e9)} B"
    text = plain(value)
    if kind == "digest":
        return text[:12]
    if kind == "prose":
        return text if len(text) <= LONGEST_PROSE else text[:LONGEST_PROSE] + "…"
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}… ({digest(text)})"


def significant(value: float) -> str:
    """Three digits that count, however small the number is. site.js does the same."""
    if not value:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}" if places <= MOST_PLACES else f"{value:.2e}"


def heat(value: Any) -> str:
    """The class of a cell in a heat map, by tenths from 0 to 1."""
    if value is None or not math.isfinite(value):
        return "none"
    return f"h{min(9, max(0, math.floor(value * 10)))}"


# ---- addresses


def task_page(task: str) -> str:
    return f"task/{digest(task)}.html"


def model_page(model: str) -> str:
    return f"model/{digest(model)}.html"


def question_key(task: str, items_digest: str) -> str:
    """Names an item table of a task."""
    return digest([task, items_digest])


def item_page(task: str, items_digest: str, item: int) -> str:
    return f"question/{question_key(task, items_digest)}/{item}.html"


def question_fragment(task: str, items_digest: str, item: int) -> str:
    """The question in the page of all questions, where each has none of its own."""
    return f"question.html#{question_key(task, items_digest)}/{item}"


def query_page(sql: str) -> str:
    """The query page with a query in it."""
    return f"query.html#sql={quote(sql, safe='')}"


def fits(sql: str, row: Row) -> bool:
    """Whether the names in a column's query for a row are short enough for an address."""
    return all(len(str(row[key])) <= LONGEST_NAME for key in _FIELD.findall(sql))


def filled(sql: str, row: Row) -> str:
    """A column's query for a row."""

    def literal(match: re.Match[str]) -> str:
        value = row[match[1]]
        return "NULL" if value is None else str(value) if isinstance(value, int) else quoted(str(value))

    return _FIELD.sub(literal, sql)
