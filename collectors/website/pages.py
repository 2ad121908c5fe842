"""The other pages of a site that stand once: start, coverage, downloads, query.

Owns which numbers they show and the queries behind them. The database has the numbers, templates the form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from collectors.website.boards import OF_CELL, heat_map, leaderboard, overall_table, pairs, tasks_table, with_pages
from collectors.website.foretold import FORETOLD, has_forecasts
from collectors.website.reading import Tables
from collectors.website.rendering import Page
from collectors.website.tables import Column, Table, query_page
from schemas.texts import visible

# ---- start


def start(tables: Tables, manifest: Mapping[str, Any] | None, drawn: Sequence[Mapping[str, str]]) -> Page:
    counts = tables.row(_COUNTS)
    numbers = [
        _figure("models", counts["models"], "FROM models"),
        _figure("tasks", counts["tasks"], "FROM tasks"),
        _figure("questions", counts["items"], "FROM questions LIMIT 1000"),
        *_records(tables, counts["records"]),
        _figure("missing", counts["missing"], _MISSING, "planned and not collected"),
        _figure("failed", counts["failed"], _FAILED, "by our own fault: no score, never wrong"),
        _figure("priced", f"{counts['priced']:.0%}", _PRICED, "of the records have a cost"),
    ]
    description = (manifest or {}).get("description", {})
    first, last = counts["first"], counts["last"]
    when = f"Collected or imported {first}." if first == last else f"Collected or imported from {first} to {last}."
    lead = [description.get("text") or "What language models answered, item by item, and what each answer costs.", when]
    return Page(
        "index.html",
        description.get("title") or "Router benchmark matrix",
        [visible(line) for line in lead],
        [tasks_table(tables), overall_table(tables, first=10, name="best")],
        numbers=numbers,
        links=[FORETOLD] if has_forecasts(tables) else [],
        drawn=drawn,
    )


def _records(tables: Tables, count: int) -> list[dict[str, str]]:
    """The number of records; those of several answers to a question apart."""
    once, under = "FROM matrix LIMIT 1000", "one model's answer to one question each"
    if not tables.repeated:
        return [_figure("records", count, once, under)]
    several = tables.row("SELECT count(*) AS n FROM matrix SEMI JOIN repeated USING (cell_id)")["n"]
    sql = "FROM matrix SEMI JOIN repeated USING (cell_id) LIMIT 1000"
    times = sorted(set(tables.repeated.values()))
    each = f"{times[0]} answers" if len(times) == 1 else "several answers"
    return [
        _figure("records", count - several, tables.once(once), under),
        _figure("repeated", several, sql, f"records of {each} of one model to one question"),
    ]


def pictures(drawn: Sequence[Mapping[str, str]]) -> Page:
    """All pictures, those of a task together."""
    lead = (
        "What each model costs and reaches, and what more models bring: the oracle takes the best model "
        "for each question."
        if drawn
        else "No task has two models with scores on the same questions, or the site was built without matplotlib."
    )
    return Page("pictures.html", "Pictures", [lead], drawn=drawn)


def _figure(label: str, value: Any, sql: str, under: str = "") -> dict[str, str]:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return {"label": label, "value": text, "href": query_page(sql), "under": under}


_COUNTS = """
SELECT
    (SELECT count(*) FROM models) AS models,
    (SELECT count(DISTINCT task) FROM cells) AS tasks,
    (SELECT count(*) FROM questions) AS items,
    (SELECT count(*) FROM matrix) AS records,
    (SELECT coalesce(sum(missing), 0)::BIGINT FROM coverage) AS missing,
    (SELECT coalesce(sum(failed), 0)::BIGINT FROM coverage) AS failed,
    (SELECT count(usd) / greatest(count(*), 1) FROM matrix) AS priced,
    (SELECT strftime(make_timestamp(min(started) * 1000000), '%Y-%m-%d') FROM cells) AS first,
    (SELECT strftime(make_timestamp(max(started) * 1000000), '%Y-%m-%d') FROM cells) AS last
"""
_MISSING = "FROM coverage WHERE missing > 0 ORDER BY missing DESC"
_FAILED = "FROM coverage WHERE failed > 0 ORDER BY failed DESC"
_PRICED = "SELECT model, count(*) AS records, count(usd) AS priced FROM matrix GROUP BY model ORDER BY model"


# ---- coverage

_COVERAGE = """
SELECT coverage.*, planned - attempted AS gap
FROM coverage
WHERE missing > 0 OR failed > 0 OR scored < attempted OR suspicions IS NOT NULL
ORDER BY missing DESC, failed DESC, task, model, cell_id
"""
_BY_TASK = """
SELECT task, count(*) AS cells, sum(planned)::BIGINT AS planned, sum(attempted)::BIGINT AS attempted,
    sum(scored)::BIGINT AS scored, sum(missing)::BIGINT AS missing, sum(failed)::BIGINT AS failed,
    sum(empty)::BIGINT AS empty, sum(truncated)::BIGINT AS truncated, sum(priced + stated)::BIGINT AS costed
FROM coverage GROUP BY task ORDER BY task
"""
_COUNTED = {
    "planned": "planned",
    "attempted": "collected",
    "scored": "scored",
    "missing": "missing",
    "failed": "failed",
    "empty": "empty",
    "truncated": "truncated",
}


def coverage(tables: Tables) -> Page:
    counts = [Column(key, label, "count") for key, label in _COUNTED.items()]
    name = Column("task", "task", "name", link="task_page")
    of_cell = [
        Column("model", "model", "name", link="model_page"),
        Column("task", "task", link="task_page"),
        *(Column(c.key, c.label, c.kind, sql=OF_CELL if c.key == "attempted" else "") for c in counts),
        Column("suspicions", "suspicions"),
    ]
    suspicion = [
        Column("kind", "kind", "name"),
        Column("task", "task"),
        Column("model", "model"),
        Column("imported_from", "source"),
        Column("message", "what looks wrong", "prose"),
    ]
    failure = [
        Column("kind", "kind", "name"),
        Column("task", "task"),
        Column("model", "model"),
        Column("failures", "times", "count"),
        Column("message", "one of the reasons", "prose"),
    ]
    source = [
        Column("imported_from", "source", "name"),
        Column("format", "format"),
        Column("licence", "licence"),
        Column("rows", "rows", "count"),
        Column("records", "records", "count"),
        Column("rejected", "rejected", "count"),
    ]
    queries = {"suspicions": "FROM suspicions", "failures": "FROM failures", "imports": "FROM imports"}
    return Page(
        "coverage.html",
        "Coverage",
        ["What was planned and what is there. Missing and failed items have no score; they never count as wrong."],
        [
            Table(
                "by-task",
                "Items by task",
                [name, Column("cells", "cells", "count"), *counts],
                with_pages(tables.rows(_BY_TASK)),
                _BY_TASK,
            ),
            Table(
                "gaps",
                "Cells with something missing",
                of_cell,
                with_pages(tables.rows(_COVERAGE)),
                _COVERAGE,
                ("model", "task"),
                "Every planned item of every cell was collected and scored.",
            ),
            Table(
                "suspicions",
                "Suspicious values of imports",
                suspicion,
                tables.rows(queries["suspicions"]),
                queries["suspicions"],
                empty="No import looks wrong.",
            ),
            Table("failures", "Failures", failure, tables.rows(queries["failures"]), queries["failures"]),
            Table(
                "imports",
                "Imported sources",
                source,
                tables.rows(queries["imports"]),
                queries["imports"],
                empty="Nothing was imported.",
            ),
        ],
    )


# ---- downloads and queries


def downloads(manifest: Mapping[str, Any] | None, database: tuple[int, str]) -> Page:
    """The version's files below `version/`, a link or copy beside the pages, and the site's own database."""
    size, sha256 = database
    own = {"name": "site.duckdb", "address": "site.duckdb", "bytes": size, "sha256": sha256}
    files = (manifest or {}).get("files", {})
    rows = [{"name": name, "address": quote(f"version/{name}", safe="/="), **entry} for name, entry in files.items()]
    columns = [
        Column("name", "file", "name", link="address"),
        Column("bytes", "bytes", "count"),
        Column("sha256", "SHA-256"),
    ]
    lead = [
        "A version never changes. publish.py verify compares a copy with these digests; the files of the version lie "
        "in the folder version/ beside these pages, which may be a link."
        if manifest
        else "This site shows a lake, which grows. Publish a version (publish.py) to have files that never change."
    ]
    page = [Table("database", "The database behind these pages", columns, [own])]
    if rows:
        page.append(Table("files", "Files of the version", columns, rows, filters=("name",)))
    return Page("downloads.html", "Downloads", lead, page)


_TABLES = """
SELECT table_name AS name, comment, estimated_size AS rows FROM duckdb_tables()
WHERE database_name = 'site' ORDER BY table_name
"""
_COLUMNS = """
SELECT table_name, column_name AS name, data_type AS type, comment FROM duckdb_columns()
WHERE database_name = 'site' ORDER BY table_name, column_index
"""
_EXAMPLES = {
    "The best model of each task": "FROM leaderboard WHERE rank = 1 ORDER BY task",
    "Questions that nobody solved": "FROM questions WHERE solved = 0 AND judged > 1 ORDER BY task, item LIMIT 100",
    "Mean score and tokens by model": "SELECT model, avg(score) AS score, avg(completion_tokens) AS tokens\n"
    "FROM matrix GROUP BY model ORDER BY score DESC",
    "What is missing": _MISSING,
}


def query(tables: Tables, has_sql: bool) -> Page:
    columns: dict[str, list[dict[str, Any]]] = {}
    for row in tables.rows(_COLUMNS):
        kind = row["type"] if len(row["type"]) <= 40 else "ENUM"
        columns.setdefault(row["table_name"], []).append({**row, "type": kind, "comment": row["comment"] or ""})
    described = [{**row, "columns": columns[row["name"]]} for row in tables.rows(_TABLES)]
    more = {
        "wasm": has_sql,
        "described": described,
        "examples": [(label, query_page(tables.once(sql))) for label, sql in _EXAMPLES.items()],
    }
    return Page("query.html", "Query", template="query.html", more=more)


def single_pages(
    tables: Tables,
    manifest: Mapping[str, Any] | None,
    database: tuple[int, str],
    has_sql: bool,
    drawn: Sequence[Mapping[str, str]],
) -> Iterator[Page]:
    """All pages of this module."""
    yield start(tables, manifest, [picture for picture in drawn if picture.get("task") == drawn[0].get("task")])
    yield pictures(drawn)
    for page in (leaderboard, heat_map, pairs, coverage):
        yield page(tables)
    yield downloads(manifest, database)
    yield query(tables, has_sql)
