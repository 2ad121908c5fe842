"""The router benchmark: the pool as arrays, and views of costs, oracle and Pareto, against scans of the records."""

from __future__ import annotations

import argparse
import csv
import functools
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from collectors.lake.compaction import compact
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.matrix.blocks import load_blocks
from collectors.matrix.pools import load_matrix
from collectors.prices.tables import add_prices, read_prices
from tests.benchmarks.bench_lake import MODELS, ROOT, Report, linked_lake, median, part_paths, peak_memory, raw_lake
from tests.benchmarks.synthetic import ITEMS, Synthetic

#: What is asked -> most times that a scan of READ may take; None: nothing is asked of it.
QUERIES = {
    "oracle: best score, then cheapest": ("SELECT avg(best_score), sum(usd) FROM oracle_items", 2.5),
    "oracle against best single model": ("SELECT sum(gap) FROM oracle", None),
    "cheapest correct model per item": ("SELECT count(candidate), sum(usd) FROM cheapest_correct", 2),
    "costs": ("SELECT sum(usd) FROM costs", None),
    "leaderboard with costs": ("SELECT avg(score), avg(usd_per_1000) FROM leaderboard", None),
    "pareto": ("SELECT count(*) FROM pareto", None),
}

#: Columns that a cost per item is made of.
READ = ("cell_id", "item", "score", "correct", "prompt_tokens", "completion_tokens", "cached_tokens", "stated_usd")

#: The least that an oracle can do in DuckDB: one price for all, no rules of scores, items as their positions.
FLOOR = """
SELECT avg(best.loss), sum(best.usd)
FROM (
    SELECT task, item, count(score), min({{'loss': -score, 'usd': prompt_tokens * 1.0 + completion_tokens}}) AS best
    FROM {}
    GROUP BY task, item
)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=MODELS, default="20M", help="records (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench-lake", help="folder that keeps the raw lakes")
    parser.add_argument("--lake", type=Path, help="a compacted lake of that size, made before")
    args = parser.parse_args()
    report = Report()
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        if args.lake:
            lake = Lake(str(args.lake))
        else:
            lake = linked_lake(raw_lake(args.size, args.work), Path(folder) / "compacted")
            compact(lake)
        put_prices(lake, Path(folder), MODELS[args.size])
        bench_pool(report, lake, args.size)
        bench_views(report, lake)
        if not args.lake:
            shutil.rmtree(lake.root)
    return 0 if report.good else 1


def put_prices(lake: Lake, folder: Path, models: int) -> None:
    """A price of its own for each model but every tenth."""
    synthetic, path = Synthetic(models), folder / "prices.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        columns = ["usd_per_million_prompt", "usd_per_million_completion"]
        writer.writerow(["model", "provider", *columns, "valid_from", "source"])
        for model in range(models):
            if model % 10:
                writer.writerow([synthetic.name(model), "host", 0.1 + model % 97 / 50, 0.2, "2026-01-01", "made up"])
    add_prices(lake, *read_prices(path))


def bench_views(report: Report, lake: Lake) -> None:
    records = f"read_parquet({part_paths(lake)!r}, hive_partitioning = false)"
    with duckdb.connect() as con:
        scans = [f"SELECT {columns} FROM {records}" for columns in ("sum(score)", f"max(COLUMNS({list(READ)}))")]
        base, wide = (median(functools.partial(lambda sql: con.execute(sql).fetchall(), scan), 5) for scan in scans)
        floor = median(functools.partial(lambda sql: con.execute(sql).fetchall(), FLOOR.format(records)), 5)
    detail = f"{floor:.2f} s ÷ {wide:.2f} s"
    report.row(f"least cost of the best score by hand ÷ scan of the {len(READ)}", floor / wide, None, detail)
    for name, (sql, reach) in QUERIES.items():
        # Each in a process of its own: what one leaves in memory is not the next one's.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            ours, peak = pool.apply(ask_once, (lake.root, sql))
        detail = f"{ours:.2f} s ÷ {wide:.2f} s; {ours / base:.1f} × a scan of one; peak {peak / 2**30:.1f} GB"
        report.row(f"{name} ÷ scan of the {len(READ)} columns of a cost", ours / wide, reach, detail)


def bench_pool(report: Report, lake: Lake, lake_size: str) -> None:
    """The pool of all models and questions through the one loader, against all cells block by block."""
    loaders = {"pool": load_matrix, "blocks": load_blocks}
    figures = {}
    for name, load in loaders.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures[name] = pool.apply(load_once, (lake.root, load))
    (seconds, cpu, peak), (base, base_cpu, base_peak) = figures["pool"], figures["blocks"]
    size = f"{MODELS[lake_size]:,} × {ITEMS:,}"
    detail = f"{seconds:.2f} s ÷ {base:.2f} s, {size}"
    report.row("pool ÷ dense loader, time", seconds / base, 1.2, detail)
    detail = f"{cpu:.2f} CPU-s ÷ {base_cpu:.2f} CPU-s"
    report.row("pool ÷ dense loader, CPU", cpu / base_cpu, 1.2, detail)
    detail = f"{peak / 2**20:.0f} MiB ÷ {base_peak / 2**20:.0f} MiB"
    report.row("pool ÷ dense loader, memory", peak / base_peak, 1.2, detail)


def load_once(root: str, load: Callable[..., Any]) -> tuple[float, float, int]:
    """Seconds to load the scores, the median of three; CPU-seconds, the mean of these; peak memory, bytes."""
    before = time.process_time()
    seconds = median(lambda: load(Lake(root), tokens=False))
    return seconds, (time.process_time() - before) / 3, peak_memory()


def ask_once(root: str, sql: str) -> tuple[float, int]:
    """Seconds of a query over views that are open already, the median of three; peak memory, bytes."""
    with connect(Lake(root)) as con:
        con.execute("SET enable_progress_bar = false")
        started = time.perf_counter()
        con.execute(sql).fetchall()
        first = time.perf_counter() - started
        return median(lambda: con.execute(sql).fetchall()) if first < 60 else first, peak_memory()


if __name__ == "__main__":
    sys.exit(main())
