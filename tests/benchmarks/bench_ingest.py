"""Importing 10M rows of a Parquet table and lm-eval's JSON lines against DuckDB alone on the same files.

And importing a table again that grew by one item, in CPU-seconds for each cell that is compared with the lake.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from collectors.extras import leave_pandas
from collectors.importers.files import find_files
from collectors.importers.ingest import ingest
from collectors.importers.registry import FORMATS
from collectors.importers.sources import ImportSource
from collectors.lake.store import Lake
from tests.benchmarks.bench_lake import Report, peak_memory
from tests.helpers.lm_eval_releases import TIME, Answers, write_release

#: Models × items of the table; as many as EmbedLLM has, and then some.
MODELS, ITEMS = 250, 40_000
#: Models that lm-eval asked, items of the task, and what stands before each question: rows of 6 kB (real: 3 to 24).
LM_EVAL_MODELS, LM_EVAL_ROWS = 10, 10_000
SHOTS = "Question: What is said before each question, as few-shot examples are?\nAnswer: forty two\n\n" * 30
#: Models of the table that grows by one item, and its items before.
GROWN_MODELS, GROWN_ITEMS = 200, 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=MODELS * ITEMS, help="rows of the table (default: %(default)s)")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as folder:
        bench_table(report, Path(folder), args.rows)
        bench_lm_eval(report, Path(folder))
        bench_grown_table(report, Path(folder))
    return 0 if report.good else 1


def bench_table(report: Report, folder: Path, rows: int) -> None:
    path = folder / "scores.parquet"
    duckdb.execute(
        f"""
        COPY (
            SELECT 'org/model-' || (i % {MODELS}) AS model, 'quiz' AS task, 'item-' || (i // {MODELS}) AS id,
                (hash(i) % 2)::DOUBLE AS score, (50 + hash(i // {MODELS}) % 400)::INTEGER AS prompt_tokens,
                (1 + hash(i, 7) % 200)::INTEGER AS completion_tokens
            FROM range({rows}) AS t(i) ORDER BY hash(i // 1000)
        ) TO '{path}' (FORMAT parquet)
        """
    )
    peer = []
    for _ in range(3):
        started = time.perf_counter()
        with duckdb.connect(config={"temp_directory": str(folder / "spill")}) as con:
            con.execute(
                f"COPY (FROM '{path}' ORDER BY task, model, id) TO '{folder / 'sorted.parquet'}' "
                "(FORMAT parquet, COMPRESSION zstd)"
            )
        peer.append(time.perf_counter() - started)
    (folder / "sorted.parquet").unlink()
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    options |= {"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens"}
    ours, peaks = [], []
    for _ in range(3):
        seconds, peak = in_process("table", [path], folder / "lake", options, rows)
        ours.append(seconds)
        peaks.append(peak)
        shutil.rmtree(folder / "lake")
    detail = f"{statistics.median(ours):.1f} s ÷ {statistics.median(peer):.1f} s, {rows:,} rows"
    report.row(
        "ingest of a table ÷ DuckDB's read, sort and write",
        statistics.median(ours) / statistics.median(peer),
        3,
        detail,
    )
    report.row("ingest of a table: peak memory, GB", max(peaks) / 2**30, 2)


def bench_lm_eval(report: Report, folder: Path) -> None:
    runs = folder / "runs"
    for number in range(LM_EVAL_MODELS):
        right = tuple(n % (number + 2) == 0 for n in range(LM_EVAL_ROWS))
        run = write_release(runs / str(number), "0.4.9", Answers(right, model=f"me/model-{number}"), before=SHOTS)
        (run / f"samples_sums_{TIME}.jsonl").unlink()
    files = list(runs.glob("*/*.jsonl"))
    size = sum(path.stat().st_size for path in files) / 2**20
    peer = []
    for _ in range(3):
        started = time.perf_counter()
        with duckdb.connect() as con:
            con.execute(f"CREATE TABLE t AS FROM read_json('{runs}/*/*.jsonl')")
        peer.append(time.perf_counter() - started)
    ours = []
    for _ in range(3):
        ours.append(in_process("lm_eval", [runs], folder / "lake", {}, LM_EVAL_ROWS * LM_EVAL_MODELS)[0])
        shutil.rmtree(folder / "lake")
    detail = f"{statistics.median(ours):.1f} s ÷ {statistics.median(peer):.1f} s, {size:.0f} MiB"
    report.row(
        "ingest of lm-eval's JSON lines ÷ DuckDB's read_json",
        statistics.median(ours) / statistics.median(peer),
        2,
        detail,
    )


def bench_grown_table(report: Report, folder: Path) -> None:
    options = {"model": "model", "task": "task", "key": "id", "score": "score"}
    seconds = []
    for items, new in ((GROWN_ITEMS, GROWN_ITEMS), (GROWN_ITEMS + 1, 1)):
        path = folder / f"grown-{items}.parquet"
        duckdb.execute(
            f"""
            COPY (
                SELECT 'org/model-' || (i % {GROWN_MODELS}) AS model, 'quiz' AS task,
                    'item-' || (i // {GROWN_MODELS}) AS id, (hash(i) % 2)::DOUBLE AS score
                FROM range({GROWN_MODELS * items}) AS t(i) ORDER BY i
            ) TO '{path}' (FORMAT parquet)
            """
        )
        seconds.append(cpu_in_process("table", [path], folder / "grown", options, GROWN_MODELS * new))
    detail = f"{GROWN_MODELS} cells of {GROWN_ITEMS} items and one more; new cells {seconds[0] / GROWN_MODELS:.4f}"
    report.row("ingest of a table that grew by one item: CPU-seconds a cell", seconds[1] / GROWN_MODELS, 0.02, detail)


def in_process(form: str, paths: list[Path], lake: Path, options: dict[str, str], rows: int) -> tuple[float, int]:
    """Seconds of one import, and its peak memory, in a process of its own: the libraries are loaded before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(import_once, (form, [str(path) for path in paths], str(lake), options, rows))


def cpu_in_process(form: str, paths: list[Path], lake: Path, options: dict[str, str], rows: int) -> float:
    """CPU-seconds of one import, of all threads, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(import_cpu, (form, [str(path) for path in paths], str(lake), options, rows))


def import_cpu(form: str, paths: list[str], lake: str, options: dict[str, str], rows: int) -> float:
    started = time.process_time()
    import_once(form, paths, lake, options, rows)
    return time.process_time() - started


def import_once(form: str, paths: list[str], lake: str, options: dict[str, str], rows: int) -> tuple[float, int]:
    leave_pandas()  # as ingest.py does
    started = time.perf_counter()
    source = ImportSource(form, form, options=options)
    report = ingest(FORMATS[form].read, find_files(paths, FORMATS[form].patterns), source, Lake(lake))
    assert report.total.records == rows, report.total
    return time.perf_counter() - started, peak_memory()


if __name__ == "__main__":
    sys.exit(main())
