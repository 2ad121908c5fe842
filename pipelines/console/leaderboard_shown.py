"""Prints the leaderboard of a task and a corner of its matrix.

Owns the names that tell its cells apart. Reads the views of an open database and the table `shown`, the leaderboard.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import duckdb
from rich.console import Console

from pipelines.console.tables import MOST_CELLS, MOST_ITEMS, fetch, headed, mark, number
from schemas.verdicts import OF_MODEL

MOST_SOURCES = 3
GROUP = ("task", "items_digest", "prompting", "metric")
#: Columns that tell cells of one model, dtype and prompting apart, and the word before each.
APART = {"effort": "effort ", "revision": "revision ", "endpoint": "", "max_length": "context "}


def show_leaderboard(con: duckdb.DuckDBPyConnection, console: Console, group: dict[str, Any]) -> list[dict[str, Any]]:
    """Prints the first cells of a task, and returns them."""
    rows = fetch(
        con,
        "SELECT shown.*, endpoint, greatest(0, coalesce(sampled_items, planned_items) - attempted) AS missing "
        "FROM shown JOIN cells USING (cell_id) "
        f"WHERE {_where('shown')} ORDER BY rank NULLS LAST, shown.model, cell_id LIMIT {MOST_CELLS}",
        [group[name] for name in GROUP],
    )
    better = "higher is better" if group["higher_is_better"] else "lower is better"
    console.print(f"\n{group['task']}: {group['metric']}, {better}; {_setup(group)}; prompting {group['prompting']}")
    is_set_level = all(row["score"] is None for row in rows)
    spread = "± stderr" if is_set_level else "95 % CI"
    table = headed("rank", "<model", "<dtype", group["metric"], spread, "ok", "<not ok", "failed", "missing")
    for row, name in zip(rows, names_apart(rows), strict=True):
        table.add_row(
            number(row["rank"]),
            name + (" *" if row["imported_from"] else ""),
            _dtype(row),
            number(row["value" if is_set_level else "score"], ".4f"),
            number(row["value_stderr"], ".4f") if is_set_level else _interval(row),
            number(row["ok"], ",d"),
            ", ".join(f"{row[kind]:,} {kind}" for kind in OF_MODEL if row[kind]),
            *(number(row[name], ",d") for name in ("failed", "missing")),
        )
    console.print(table)
    if sources := sorted({row["imported_from"] for row in rows} - {None}):
        more = f" and {len(sources) - MOST_SOURCES} more" if len(sources) > MOST_SOURCES else ""
        console.print(
            f"* imported from {', '.join(sources[:MOST_SOURCES])}{more}; a rank counts among cells of one prompting, "
            "so imported and collected cells each have their own"
        )
    if len({row["attempted"] for row in rows if row["rank"]}) > 1:
        console.print("a rank counts among the models that were asked as many items")
    if is_set_level:
        console.print(
            f"{group['metric']} has a value over all items, by lm-eval's own aggregation, and none for an item"
        )
    if group["cells"] > MOST_CELLS:
        console.print(f"… and {group['cells'] - MOST_CELLS} more models")
    return rows


def show_corner(
    con: duckdb.DuckDBPyConnection, console: Console, group: dict[str, Any], cells: list[dict[str, Any]]
) -> None:
    """Prints the scores of `cells` on the first items of one task."""
    values = [group[name] for name in GROUP]
    items = [
        item
        for (item,) in con.execute(
            f"SELECT DISTINCT item FROM matrix WHERE {_where('matrix')} ORDER BY item LIMIT {MOST_ITEMS}", values
        ).fetchall()
    ]
    rows = fetch(
        con,
        f"SELECT cell_id, item, score FROM matrix WHERE {_where('matrix')} AND list_contains(?, item)",
        [*values, items],
    )
    verdicts = {(row["cell_id"], row["item"]): row["score"] for row in rows}
    table = headed("<model", "<dtype", *(f"#{item}" for item in items))
    for cell, name in zip(cells, names_apart(cells), strict=True):
        marks = (mark(verdicts, (cell["cell_id"], item)) for item in items)
        table.add_row(name, _dtype(cell), *marks)
    console.print(table)
    console.print("score per item (#); ? answered without a score; · not collected")


def older_definitions(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], str]:
    """Task and prompting of cells that were collected under an older definition -> day and time of the newest one."""
    rows = con.execute(
        "SELECT task, prompting, items_digest, task_digest, max(epoch(started_at)) AS started FROM cells "
        "WHERE imported_from IS NULL GROUP BY ALL ORDER BY started"
    ).fetchall()
    newest = {task: (definition, started) for task, _, *definition, started in rows}
    return {
        (task, prompting): f"{dt.datetime.fromtimestamp(newest[task][1], dt.UTC):%Y-%m-%d %H:%M} UTC"
        for task, prompting, *definition, _ in rows
        if definition != newest[task][0]
    }


def _where(view: str) -> str:
    return " AND ".join(f"{view}.{name} = ?" for name in GROUP)


def _setup(row: dict[str, Any]) -> str:
    shots = "shots unknown" if row["num_fewshot"] is None else f"{row['num_fewshot']}-shot"
    times = f", {row['repeats']} answers each" if row["repeats"] else ""
    return shots + (", chat" if row["chat_template"] else "") + times


def _interval(row: dict[str, Any]) -> str:
    return f"{row['ci_low']:.3f}…{row['ci_high']:.3f}" if row["ci_low"] is not None else ""


def names_apart(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The model of each cell; where a table would have two alike, with what differs between them."""
    same: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        same.setdefault((cell["model"], _dtype(cell), cell["imported_from"]), []).append(cell)
    told: dict[str, str] = {}
    for group in same.values():
        differ = [key for key in APART if len({cell[key] for cell in group}) > 1]
        texts = [", ".join(f"{APART[key]}{one[key]}" for key in differ if one[key] is not None) for one in group]
        for cell, text in zip(group, texts, strict=True):
            is_alike = len(group) > 1 and texts.count(text) > 1
            words = [text] * bool(text) + [f"cell {cell['cell_id']}"] * is_alike
            told[cell["cell_id"]] = f" ({', '.join(words)})" if words else ""
    return [cell["model"] + told[cell["cell_id"]] for cell in cells]


def _dtype(row: dict[str, Any]) -> str:
    return "/".join(filter(None, (row["dtype"], row["quantization"])))
