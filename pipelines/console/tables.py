"""Tables in a terminal: the rows of a query, their format, and how many are printed.

Knows no view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
from rich.box import SIMPLE_HEAD
from rich.table import Table

MOST_TASKS, MOST_CELLS, MOST_ITEMS, MOST_MODELS = 10, 15, 8, 40


def fetch(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()
) -> list[dict[str, Any]]:
    """The rows of a query as dicts by column name."""
    cursor = con.execute(sql, parameters if isinstance(parameters, dict) else list(parameters))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def headed(*headers: str) -> Table:
    """A table of right-aligned columns; a header that starts with '<' makes its column left-aligned."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in headers:
        left, name = header.startswith("<"), header.removeprefix("<")
        # On a narrow terminal only columns of free text wrap.
        table.add_column(
            name, justify="left" if left else "right", overflow="fold", no_wrap=not left or name == "dtype"
        )
    return table


def number(value: float | None, form: str = "") -> str:
    return "" if value is None else format(int(value) if form == ",d" else value, form)


def mark(verdicts: Mapping[Any, float | None], key: Any) -> str:
    """A score in a corner of the matrix; ? is an answer without one, · no answer."""
    if key not in verdicts:
        return "·"
    score = verdicts[key]
    return "?" if score is None else f"{score:g}" if score in (0, 1) else f"{score:.2f}"
