"""Where the numbers of a published version come from, for its manifest, and whether a manifest agrees with its files.

Knows nothing of digests.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import duckdb

from collectors.lake import layout
from collectors.lake.holdings import read_holdings
from collectors.lake.parts import NEEDED_VIEWS
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.publish.anonymous import Anonymous
from schemas.failures import StorageError, one_line
from schemas.texts import without_key_values

#: What `provenance_of` needs.
PROVENANCE_VIEWS = ("shards", "runs", "imports", "judges", "verdicts", *NEEDED_VIEWS)


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


def keyless_provenance(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """`provenance_of` with keys cut. Models of an older lake that differ in their keys alone are one."""
    cut = {name: without_key_values(value) for name, value in provenance_of(con).items()}
    return {name: _distinct(value) if isinstance(value, list) else value for name, value in cut.items()}


def _distinct(rows: list[Any]) -> list[Any]:
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


def provenance_faults(store: Lake, manifest: dict[str, Any]) -> Iterator[str]:
    """A line for each part of the manifest's provenance that differs from the version's own tables.

    All else must be whole. A part that this release does not write is another program's, and is named.
    """
    try:
        with contextlib.closing(connect(store, read_holdings(store), only=PROVENANCE_VIEWS)) as con:
            counted = keyless_provenance(con)
    except (duckdb.Error, StorageError) as error:
        yield f"{layout.PUBLISHED_MANIFEST}: its provenance cannot be compared: {one_line(error, 160)}"
        return
    stated = manifest["provenance"]
    # Earlier releases shortened paths here that they left in tables.
    alike = Anonymous(()).value
    for name in sorted(counted.keys() | stated.keys()):
        try:
            is_same = _in_any_order(alike(counted.get(name))) == _in_any_order(alike(stated.get(name)))
        except RecursionError:
            is_same = False
        if not is_same:
            yield f"{layout.PUBLISHED_MANIFEST}: its provenance states other {name} than the tables"


def _in_any_order(value: Any) -> Any:
    """A list that was sorted before paths were shortened may have another order than one that was sorted after."""
    return sorted(json.dumps(one, sort_keys=True) for one in value) if isinstance(value, list) else value
