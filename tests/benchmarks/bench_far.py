"""A lake of ten billion records on made-up names: manifests, the choice of parts by conditions, the plan of a query."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.lake import layout
from collectors.lake.holdings import Manifest, Part, read_holdings, read_manifest
from collectors.lake.narrowing import narrow
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.publish.manifests import parsed
from schemas.identity import digest
from schemas.records import FOLDED_SHARD, RUN_CELL, SCHEMA_FILES, SCHEMA_VERSION
from schemas.views.files import KEPT_PARTS, NARROWABLE
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.peak import peak_memory

TASKS, MODELS_OF_A_PART, PARTS_OF_A_TASK, ITEMS = 100, 200, 50, 10_000
PARTS, CELLS = TASKS * PARTS_OF_A_TASK, TASKS * PARTS_OF_A_TASK * MODELS_OF_A_PART
#: What a person asks -> the parts that hold it.
ASKED = {
    "SELECT sum(score) FROM matrix WHERE task = 'task-007'": PARTS_OF_A_TASK,
    "SELECT sum(score) FROM matrix WHERE model = 'org/model-00042'": TASKS,
    "SELECT sum(score) FROM matrix WHERE task = 'task-007' AND model = 'org/model-00042'": 1,
    f"SELECT sum(score) FROM matrix WHERE item >= {ITEMS}": 0,
    "SELECT sum(usd) FROM costs WHERE task IN ('task-007', 'task-008')": 2 * PARTS_OF_A_TASK,
}


def made_parts() -> list[Part]:
    parts = []
    for number in range(PARTS):
        task = f"task-{number // PARTS_OF_A_TASK:03d}"
        objects = [layout.part_name(1, task, kind, digest([number, kind])) for kind in ("records", "responses", "bits")]
        rows = MODELS_OF_A_PART * ITEMS
        parts.append(
            Part(
                **{"task": task, "prompting": digest(task), "records": objects[0], "responses": objects[1]},
                **{"older": None, "bits": objects[2], "cells": MODELS_OF_A_PART, "rows": rows, "primary_rows": rows},
                **{"first_item": 0, "last_item": ITEMS - 1, "is_grid": True, "bytes": 2_000_000, "other_bytes": 0},
                **{"schema_version": SCHEMA_VERSION, "sha256": tuple(digest(name, 64) for name in objects)},
            )
        )
    return parts


def write_lake(folder: Path) -> Lake:
    """The manifest, the plan of a run and the list of folded shards of CELLS cells, each of 3 shards.

    The files of records are there and empty.
    """
    lake = Lake(str(folder)).open_for_writing()
    parts = made_parts()
    cells = [digest({"cell": number}) for number in range(CELLS)]
    of_part = pa.array([number // MODELS_OF_A_PART for number in range(CELLS)])
    place = pa.array([number % MODELS_OF_A_PART for number in range(CELLS)], pa.int32())
    models = [
        f"org/model-{n // MODELS_OF_A_PART % PARTS_OF_A_TASK * MODELS_OF_A_PART + n % MODELS_OF_A_PART:05d}"
        for n in range(CELLS)
    ]
    lake.create_table("runs/20260101T000000-00000000.parquet", planned(parts, cells, models, of_part))
    tables = [folded(parts, cells, of_part, place, start) for start in (0, 4096, 8192)]
    name = layout.folded_name(1, "0" * 16)
    lake.create_table(name, pa.concat_tables(tables))
    lake.create(
        layout.manifest_name(1),
        Manifest(1, "2026-01-01T00:00:00+00:00", name, 3 * CELLS, tuple(parts)).to_json(),
    )
    for table in ("records", "responses"):
        kept = Path(lake.local_path(SCHEMA_FILES[f"compact/{table}"]))
        for part in parts:
            path = Path(lake.local_path(getattr(part, table)))
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(kept, path)  # DuckDB asks of each file whether it is there
    return lake


def planned(parts: list[Part], cells: list[str], models: list[str], of_part: pa.Array) -> pa.Table:
    def of(values: list[str]) -> pa.Array:
        return pa.array(values).take(of_part)

    same: dict[str, Any] = {
        **{"run_id": "20260101T000000-00000000", "source": "x", "revision": "r", "task_version": "1", "dtype": "auto"},
        **{
            "items_digest": "i",
            "task_digest": "t",
            "output_type": "multiple_choice",
            "decoding": "{}",
            "metric": "acc",
        },
        **{"filter": "none", "higher_is_better": True, "correct_threshold": 0.5, "items": ITEMS, "generation": 0},
        **{"planned_items": ITEMS, "engine": "stub", "versions": "{}", "config": "{}", "num_fewshot": 0},
        **{"fewshot_seed": 0, "fewshot_as_multiturn": False},
    }
    columns = {"cell_id": pa.array(cells), "model": pa.array(models)}
    columns |= {"task": of([part.task for part in parts]), "prompting": of([part.prompting for part in parts])}
    columns |= {"started_at": pa.repeat(pa.scalar(1_767_225_600_000_000, pa.timestamp("us", "UTC")), len(cells))}
    arrays = [
        columns.get(field.name, pa.repeat(pa.scalar(same.get(field.name), field.type), len(cells)))
        for field in RUN_CELL
    ]
    return pa.table(arrays, schema=RUN_CELL)


def folded(parts: list[Part], cells: list[str], of_part: pa.Array, place: pa.Array, start: int) -> pa.Table:
    count, last = len(cells), min(start + 4096, ITEMS) - 1
    tasks = [f"task-{number // PARTS_OF_A_TASK // MODELS_OF_A_PART:03d}" for number in range(count)]
    files = [
        f"shards/task={task}/{cell}-g0-{start:07d}-{last:07d}.parquet" for task, cell in zip(tasks, cells, strict=True)
    ]
    columns = {
        **{"cell_id": pa.array(cells), "place": place, "file": pa.array(files)},
        "part": pa.array([part.records for part in parts]).take(of_part),
    }
    same = {"generation": 0, "first_item": start, "last_item": last, "facts": None}
    arrays = [columns.get(f.name, pa.repeat(pa.scalar(same.get(f.name), f.type), count)) for f in FOLDED_SHARD]
    return pa.table(arrays, schema=FOLDED_SHARD)


def version_manifest(manifest: Manifest) -> bytes:
    """The manifest of a published version with the same parts."""
    files = {name: {"sha256": digest(name, 64), "bytes": 2_000_000} for part in manifest.parts for name in part.objects}
    head = {
        "kind": layout.PUBLISHED_KIND,
        "schema_version": SCHEMA_VERSION,
        "version": "1.0.0",
        "provenance": {},
        "description": {},
    }
    return json.dumps({**head, "counts": {"records": CELLS * ITEMS}, "files": files}).encode()


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = action()
    return time.process_time() - started, found


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="rl-far-") as folder:
        lake = write_lake(Path(folder) / "lake")
        made = peak_memory()
        name = layout.manifest_name(1)
        took, manifest = seconds(lambda: read_manifest(lake, name))
        size = len(lake.read(name)) / 1e6
        report.row(f"manifest of {CELLS:,} cells: CPU-seconds to open", took, 2, f"{PARTS:,} parts, {size:.1f} MB")
        data = version_manifest(manifest)
        took, _ = seconds(lambda: parsed(data, "the version"))
        report.row("the same of a published version", took, 2, f"{len(data) / 1e6:.1f} MB")
        took, holdings = seconds(lambda: read_holdings(lake))
        report.row("listing the lake after fold and prune: CPU-seconds", took, 2)
        for query, needed in ASKED.items():
            bench_query(report, lake, holdings, query, needed)
    report.row("peak memory, GB, the made-up names in it", peak_memory() / 1e9, None, f"{made / 1e9:.2f} to make them")
    return 0 if report.good else 1


def bench_query(report: Report, lake: Lake, holdings: Any, query: str, needed: int) -> None:
    """The CPU-seconds until the parts of a query are known, and their number."""
    took, con = seconds(lambda: connect(lake, holdings, only={"matrix", "costs"}))
    with con:
        chosen, _ = seconds(lambda: narrow(con, lake.uri, holdings, query))
        [(kept,)] = con.execute(f"SELECT len(getvariable('{KEPT_PARTS}'))").fetchall()
    parts = (kept - len(NARROWABLE)) // 2  # records and answers
    report.row(
        f"parts of {query.removeprefix('SELECT ')}",
        parts,
        needed,
        f"of {PARTS:,}; {took:.1f} s of CPU for the views, {chosen:.2f} to choose",
    )


if __name__ == "__main__":
    sys.exit(main())
