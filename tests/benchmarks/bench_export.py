"""Exports, score and plot: an export of many small tasks, and of a large lake beside DuckDB's COPY of its columns."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from collectors.exporters.formats.huggingface import SCHEMA
from collectors.importers.files import find_files
from collectors.importers.ingest import ingest
from collectors.importers.registry import FORMATS
from collectors.importers.sources import ImportSource
from collectors.lake.compaction import compact
from collectors.lake.layout import items_name
from collectors.lake.store import Lake
from schemas.identity import digest
from schemas.records import ITEM
from tests.benchmarks.bench_lake import MODELS, ROOT, Report, linked_lake, part_paths, raw_lake
from tests.benchmarks.bench_router import put_prices
from tests.benchmarks.peak import measured
from tests.benchmarks.synthetic import TASKS, Synthetic

#: The lake of many small tasks: tasks, items in all, models.
SMALL_TASKS, SMALL_ITEMS, SMALL_MODELS = 78, 809, 2
#: A command as its script runs it, which writes its CPU-seconds and memory at the end.
CHILD = """
import importlib, sys
from collectors.extras import leave_pandas
from tests.benchmarks.peak import tell
leave_pandas()
code = importlib.import_module("pipelines." + sys.argv[1]).main(sys.argv[2:])
tell()
sys.exit(code)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=MODELS, default="20M", help="records (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench-lake", help="folder that keeps the raw lakes")
    parser.add_argument("--only", nargs="+", default=["small", "exports", "figures"], help="small, exports, figures")
    args = parser.parse_args()
    report = Report()
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        if "small" in args.only:
            bench_small(report, Path(folder))
        if {"exports", "figures"} & set(args.only):
            lake = linked_lake(raw_lake(args.size, args.work), Path(folder) / "compacted")
            compact(lake)
            put_items(lake)
            put_prices(lake, Path(folder), MODELS[args.size])
            if "exports" in args.only:
                bench_exports(report, args.size, lake, Path(folder))
            if "figures" in args.only:
                bench_figures(report, args.size, lake, Path(folder))
    return 0 if report.good else 1


def run(*arguments: str | Path) -> tuple[float, float, float]:
    """Seconds, CPU-seconds and peak memory in GB of a command in a process of its own."""
    started = time.perf_counter()
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    cpu, peak = measured(done.stderr)
    return time.perf_counter() - started, cpu, peak / 2**30


def bench_small(report: Report, folder: Path) -> None:
    """An export of a lake of many tasks and few records: what is done once for each task or shard."""
    path = folder / "small.parquet"
    duckdb.execute(
        f"""
        COPY (
            SELECT 'org/model-' || model AS model, 'task-' || item % {SMALL_TASKS} AS task, 'item-' || item AS id,
                (hash(item, model) % 2)::DOUBLE AS score, 'What is ' || hash(item) || '?' AS prompt,
                'It is ' || hash(item, model) % 9 AS response, (20 + hash(item) % 50)::INTEGER AS prompt_tokens,
                (1 + hash(item, model) % 50)::INTEGER AS completion_tokens
            FROM range({SMALL_ITEMS}) AS i(item), range({SMALL_MODELS}) AS m(model)
        ) TO '{path}' (FORMAT parquet)
        """
    )
    named = ("model", "task", "score", "prompt", "response", "prompt_tokens", "completion_tokens")
    source = ImportSource("table", "table", options={**{name: name for name in named}, "key": "id"})
    lake = Lake(str(folder / "small"))
    ingest(FORMATS["table"].read, find_files([str(path)], FORMATS["table"].patterns), source, lake)
    records = SMALL_ITEMS * SMALL_MODELS
    for form, out in (("huggingface", "small-out.parquet"), ("embedllm", "small-out")):
        runs = []
        for number in range(3):
            place = folder / f"{number}-{out}"
            runs.append(run("export", "--format", form, "--lake", lake.uri, "--include", "all", "--out", place))
        seconds, cpu, peak = min(runs, key=lambda one: one[1])
        detail = f"least of three; {seconds:.1f} s, {peak:.2f} GB"
        report.row(f"export {form}, {SMALL_TASKS} tasks, {records:,} records: CPU-seconds", cpu, 1, detail)


def bench_exports(report: Report, size: str, lake: Lake, folder: Path) -> None:
    """Exports against DuckDB's COPY of the columns that they read of the records, to the same kind of file."""
    records = f"read_parquet({part_paths(lake)!r}, hive_partitioning = false)"
    with duckdb.connect() as con:
        there = {row[0] for row in con.execute(f"DESCRIBE FROM {records}").fetchall()}
    of_rows = [name for name in SCHEMA.names if name in there]
    peers = {
        "huggingface": (".parquet", of_rows, "FORMAT parquet, COMPRESSION zstd", 1.5),
        "routerbench": (".csv", ["task", "item", "model", "score", "prompt_tokens", "completion_tokens"], "HEADER", 4),
    }
    for form, (ending, columns, how, reach) in peers.items():
        out = folder / f"{form}{ending}"
        base = peer(f"COPY (SELECT {', '.join(columns)} FROM {records}) TO '{out.with_stem('peer')}' ({how})")
        # One in ten models has no price.
        options = ["--format", form, "--lake", lake.uri, "--out", out, "--missing", "drop-models"]
        seconds, cpu, peak = run("export", *options)
        out.unlink()
        detail = f"{seconds:.1f} s ÷ {base:.1f} s; {cpu:.1f} CPU-s"
        # At 2M the two seconds of opening a lake are most of it.
        asked = reach if size != "2M" else None
        report.row(f"export {form} ÷ DuckDB's COPY of its columns", seconds / base, asked, detail)
        most = {"20M": 1.0, "200M": 2.0}.get(size)
        report.row(f"export {form}: peak memory, GB", peak, most)


def bench_figures(report: Report, size: str, lake: Lake, folder: Path) -> None:
    """Score and plot of the whole pool; at 200M these are 8,500 models."""
    synthetic, choices = Synthetic(MODELS[size]), folder / "choices.parquet"
    names = [synthetic.name(model) for model in range(10)]
    rows = [(task, item, names[item % len(names)]) for task, count in TASKS.items() for item in range(count)]
    table = pa.table(dict(zip(("task", "item", "model"), map(list, zip(*rows, strict=True)), strict=True)))
    duckdb.from_arrow(table).write_parquet(str(choices))
    models = f"{MODELS[size]:,} models × {len(TASKS)} tasks"
    commands = {
        "score": ("matrix", "score", "--choices", choices, "--lake", lake.uri),
        "plot": ("plot", "--lake", lake.uri, "--out", folder / "pictures"),
    }
    for name, command in commands.items():
        seconds, cpu, peak = run(*command)
        report.row(f"{name} of {models}: seconds", seconds, 60, f"{cpu:.1f} CPU-s")
        report.row(f"{name} of {models}: peak memory, GB", peak, 3)


def peer(sql: str) -> float:
    """Seconds of a statement, the middle of three."""
    return sorted(timed(lambda: duckdb.connect().execute(sql).fetchall()) for _ in range(3))[1]


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def put_items(lake: Lake) -> None:
    """Questions of about 300 characters for the items of a made-up lake, which has only their hashes."""
    for task, hashes in ((task, Synthetic(1).item_hashes(task)) for task in TASKS):
        rows = [
            {
                **dict.fromkeys(ITEM.names),
                **{"task": task, "items_digest": digest({"items": task}), "item": item, "item_hash": item_hash},
                **{"prompt": f"Question {item} of {task}: {item_hash * 4}?", "target": f'"{item_hash[0]}"'},
            }
            for item, item_hash in enumerate(hashes)
        ]
        lake.create_table(items_name(task, digest({"items": task}), None), pa.Table.from_pylist(rows, ITEM))


if __name__ == "__main__":
    sys.exit(main())
