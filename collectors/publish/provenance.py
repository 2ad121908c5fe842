"""Where the numbers of a published version come from, for its manifest."""

from __future__ import annotations

import json
from typing import Any

import duckdb


def provenance_of(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Runs, libraries, imports, models, tasks and judges, in order. `con` has their views, cells and verdicts."""

    def rows(sql: str) -> list[dict[str, Any]]:
        table: list[dict[str, Any]] = con.sql(sql).to_arrow_table().to_pylist()
        return table

    [created] = rows("SELECT strftime(max(started_at) AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S+00:00') AS at FROM runs")
    judges = rows(
        "SELECT judge, judge_id, kind, task, version, digest, sandbox, metric, filter, model, revision FROM judges "
        "SEMI JOIN verdicts USING (judge_id) ORDER BY ALL"
    )
    return {
        **({"judges": judges} if judges else {}),
        "created": created["at"],
        "runs": [row["run_id"] for row in rows("SELECT run_id FROM runs ORDER BY run_id")],
        "versions": [
            json.loads(row["versions"]) for row in rows("SELECT DISTINCT versions FROM cells ORDER BY versions")
        ],
        "imports": rows(
            "SELECT DISTINCT imported_from, format, licence FROM imports WHERE imported_from IN "
            "(SELECT regexp_replace(imported_from, '#[0-9]+$', '') FROM cells WHERE imported_from IS NOT NULL) "
            "ORDER BY ALL NULLS FIRST"
        ),
        "models": rows(
            "SELECT DISTINCT imported_from, model, source, revision, dtype, quantization FROM cells "
            "ORDER BY ALL NULLS FIRST"
        ),
        "tasks": rows(
            "SELECT DISTINCT task, task_version, task_digest, items_digest, prompting FROM cells ORDER BY ALL"
        ),
    }
