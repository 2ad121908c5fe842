"""The page of forecasts: each model of a task as it was measured or foretold, with its band.

Owns that page. Foretold numbers stand on it alone, never beside measured ones of other pages.
"""

from __future__ import annotations

from typing import Any

from collectors.website.boards import with_pages
from collectors.website.reading import Tables
from collectors.website.rendering import Page
from collectors.website.tables import Column, Table, filled, known, plain, shown
from schemas.identity import digest

FORETOLD = ("foretold.html", "Measured and foretold")
_OF_TASK = """
SELECT *, CASE WHEN is_measured THEN 'measured' ELSE 'foretold' END AS kind
FROM forecast_leaderboard
WHERE forecast = {forecast} AND task = {task} AND metric IS NOT DISTINCT FROM {metric}
    AND items_digest IS NOT DISTINCT FROM {items_digest} AND prompting IS NOT DISTINCT FROM {prompting}
ORDER BY rank NULLS LAST, value DESC, model, cell_id
"""
_TASKS = """
SELECT DISTINCT task, forecast, items_digest, prompting, metric
FROM forecast_leaderboard
ORDER BY ALL
"""


def has_forecasts(tables: Tables) -> bool:
    """Whether the lake shows a forecast of any task."""
    return bool(tables.row("SELECT count(*) AS n FROM forecast_leaderboard")["n"])


def foretold(tables: Tables) -> Page | None:
    """The page of all shown forecasts, a table a task; None without one."""
    if not has_forecasts(tables):
        return None
    lead = (
        "A measured score is of a model that answered every question of the task. A foretold one is expected from "
        "the answers that are there, within a band; it counts on no other page."
    )
    tasks = tables.rows(_TASKS)
    tasks.sort(key=lambda row: bool(row["items_digest"]))  # the mean over all tasks first
    named = {row["model"] for row in tables.rows("SELECT model FROM models")}
    return Page(FORETOLD[0], FORETOLD[1], [lead], [_table(tables, task, named) for task in tasks])


def _table(tables: Tables, task: dict[str, Any], named: set[str]) -> Table:
    sql = filled(_OF_TASK, task)
    rows = with_pages(tables.rows(sql))
    for row in rows:
        row["model_page"] = row["model_page"] if row["model"] in named else None
        row["metric"] = row["metric"] or None
    columns = [
        Column("rank", "rank", "count"),
        Column("model", "model", "name", link="model_page"),
        Column("value", "score", "score", note="over all questions of the task, measured or expected"),
        Column("low", "band", "interval", high="high", middle="value"),
        Column("kind", "measured or foretold"),
        Column("asked", "answered", "count", note="questions that the model answered"),
        Column("items", "questions", "count"),
        Column("method", "from", note="what a foretold score is made from"),
        Column("metric", "metric"),
    ]
    return Table(
        f"foretold-{digest([task[key] for key in sorted(task)])}",
        shown(task["task"]) if task["items_digest"] else "Mean over all tasks",
        known(columns, rows),
        rows,
        sql,
        ("model", "kind", "value"),
        notes=_notes(rows[0]),
    )


def _notes(row: dict[str, Any]) -> list[str]:
    notes = []
    if row.get("level") is not None:
        held = row.get("coverage")
        checked = "" if held is None else f"; of models held out of the check they held {held:.0%}"
        notes.append(f"Bands shall hold {row['level']:.0%} of the models{checked}.")
    if row.get("stale") is not None:
        notes.append(f"Made of another lake than this one: {plain(row['stale'])}.")
    return notes
