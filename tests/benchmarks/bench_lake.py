"""The lake at 2M, 20M or 200M synthetic records against its peers: bytes, scans, dense matrix, commits, planning."""

from __future__ import annotations

import argparse
import datetime as dt
import io
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.compaction import compact
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import shard_name
from collectors.lake.pruning import prune
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from collectors.publish.card import Description
from collectors.publish.version import build_version
from collectors.runs.config import RunConfig
from schemas.identity import ShardName, digest
from tests.benchmarks.peak import peak_memory
from tests.benchmarks.synthetic import ITEMS, TASKS, Synthetic

ROOT = Path(__file__).parents[2]
MODELS = {"2M": 85, "20M": 850, "200M": 8500}
_NOW = dt.timedelta(0)


class Report:
    """Prints a row per figure, and remembers whether any is short."""

    def __init__(self) -> None:
        self.good = True

    def row(self, name: str, value: float, reach: float | None, detail: str = "", *, more: bool = False) -> None:
        """`reach` is the most that `value` may be, or with `more` the least; None: nothing is asked of it."""
        ok = reach is None or (value >= reach if more else value <= reach)
        self.good &= ok
        asked = "" if reach is None else f"reach {'≥' if more else '≤'} {reach:g}"
        print(
            f"{name:<66} {value:9.4g}  {asked:<14} {'' if reach is None else 'ok' if ok else 'short':<5} {detail}",
            flush=True,
        )


def median(action: Callable[[], Any], times: int = 3) -> float:
    """Seconds, the median of `times`."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


# ---- the lakes


def raw_lake(size: str, work: Path) -> Lake:
    """A lake of single shards, made once and kept."""
    folder, done = work / f"raw-{size}", work / f"raw-{size}.done"
    synthetic = Synthetic(MODELS[size])
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        synthetic.write(Lake(str(folder)), os.cpu_count() or 2)
        print(f"made {synthetic.records:,} records in {time.monotonic() - started:.0f} s", flush=True)
        done.touch()
    return Lake(str(folder))


def linked_lake(lake: Lake, folder: Path) -> Lake:
    """The same shards in another folder, to be compacted and pruned there: hard links, which nothing ever writes to."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(lake.root, folder, copy_function=os.link, ignore=shutil.ignore_patterns("compact"))
    return Lake(str(folder)).open_for_writing()


def paths(lake: Lake, names: list[str]) -> list[str]:
    return [f"{lake.root}/{name}" for name in names]


def shard_paths(lake: Lake) -> list[str]:
    return paths(lake, [name for name in lake.names("shards") if "-g" in name])


def part_paths(lake: Lake) -> list[str]:
    manifest = newest_manifest(lake)
    assert manifest
    return paths(lake, [part.records for part in manifest.parts])


def seconds(sql: str, files: list[str]) -> float:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE warm AS SELECT unnest($files) AS file", {"files": files})  # imports that DuckDB makes
        query = sql.replace("$files", repr(files))
        return median(lambda: con.execute(query).fetchall())


# ---- figures


def bench_commits(report: Report, size: str) -> None:
    """Commits of shards against encoding and creating the same bytes by hand, in a folder and in an object store."""
    from tests.helpers.object_store import BUCKET, serve

    synthetic = Synthetic(40)
    hashes = {task: pa.array(synthetic.item_hashes(task)) for task in TASKS}
    tables = [(task, synthetic.table(m, task, hashes[task])) for m in range(20) for task in TASKS]
    with tempfile.TemporaryDirectory(prefix="rl-bench-") as scratch:
        folder = Path(scratch) / "by-hand"
        folder.mkdir()

        def by_hand(number: int, data: bytes) -> None:
            with open(folder / str(number), "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        report_commits(report, "folder", Lake(f"{scratch}/lake").open_for_writing(), tables, by_hand)
        with serve(Path(tempfile.mkdtemp(dir=scratch))) as store:
            os.environ |= store.environment
            lake = Lake(f"s3://{BUCKET}/lake").open_for_writing()
            client = lake.filesystem
            stored = lambda number, data: client.pipe_file(f"{BUCKET}/by-hand/{number}", data, mode="create")  # noqa: E731
            report_commits(report, "object store", lake, tables, stored)


def report_commits(
    report: Report, where: str, lake: Lake, tables: list[tuple[str, pa.Table]], by_hand: Callable[[int, bytes], Any]
) -> None:
    writes = 0
    create = lake.create

    def counted(name: str, data: bytes) -> bool:
        nonlocal writes
        writes += 1
        return create(name, data)

    lake.create = counted  # type: ignore[method-assign]
    rounds = []
    for turn in range(3):
        started = time.perf_counter()
        for number, (_, table) in enumerate(tables):
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd")
            by_hand(turn * len(tables) + number, sink.getvalue())
        plain = time.perf_counter() - started
        started = time.perf_counter()
        for task, table in tables:
            cell = digest({"turn": turn, "cell": table["cell_id"][0].as_py()})
            lake.create_table(shard_name(task, ShardName(cell, 0, 0, len(table) - 1)), table, {"shard": {"turn": turn}})
        rounds.append(plain / (time.perf_counter() - started))
    detail = f"{len(tables)} shards a turn"
    report.row(
        f"commits per second ÷ encode + create by hand, {where}", statistics.median(rounds), 0.5, detail, more=True
    )
    report.row(f"objects written per commit, {where}", writes / (3 * len(tables)), 2)


def bench_compaction(report: Report, size: str, lake: Lake, folder: Path) -> Lake:
    """Compacts a copy; at 20M against one COPY … ORDER BY of the same shards."""
    target = linked_lake(lake, folder)
    started = time.perf_counter()
    outcome = compact(target)
    ours = time.perf_counter() - started
    assert outcome.manifest
    records = sum(part.rows for part in outcome.manifest.parts)
    detail = f"{records:,} records, {len(outcome.manifest.parts)} files, {ours:.0f} s"
    size_of = sum(part.bytes + part.other_bytes for part in outcome.manifest.parts) / records
    report.row("compacted: bytes per record", size_of, 1.65 if size == "200M" else None, detail)
    peak = in_process(peak_of_compaction, lake, folder.with_name("again"))
    report.row("compaction: peak memory, GB", peak / 2**30, 2)
    if size == "20M":
        peer = []
        for _ in range(2):
            with duckdb.connect(config={"temp_directory": str(folder.with_name("spill"))}) as con:
                started = time.perf_counter()
                con.execute(
                    f"COPY (SELECT * FROM read_parquet({shard_paths(lake)!r}, hive_partitioning = false) "
                    f"ORDER BY task, item, model) TO '{folder.with_name('peer.parquet')}' "
                    "(FORMAT parquet, COMPRESSION zstd)"
                )
                peer.append(time.perf_counter() - started)
        again = time.perf_counter()
        compact(linked_lake(lake, folder.with_name("again")))
        ours = statistics.median([ours, time.perf_counter() - again])
        report.row("compaction ÷ COPY … ORDER BY", ours / statistics.median(peer), 1.2, f"{ours:.0f} s")
    shutil.rmtree(folder.with_name("again"), ignore_errors=True)
    return target


def peak_of_compaction(root: str, folder: str) -> int:
    compact(linked_lake(Lake(root), Path(folder)))
    return peak_memory()


def in_process(function: Callable[..., int], lake: Lake, *args: Any) -> int:
    """What `function` returns in a process of its own, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (lake.root, *map(str, args)))


def bench_matrix(report: Report, size: str, raw: Lake, compacted: Lake, packed: Path) -> None:
    scan = "SELECT sum(score) FROM read_parquet($files, hive_partitioning = false)"
    forms = [("packed", Lake(str(packed)), part_paths(compacted), 0.5)]
    forms += [("compacted", compacted, part_paths(compacted), 1.5), ("raw shards", raw, shard_paths(raw), 3.5)]
    for name, lake, files, reach in forms:
        base = seconds(scan, files)
        time_of = median(lambda: load_matrix(lake, tokens=False))  # noqa: B023
        # Below 200M a scan takes less than the tenth of a second of opening a lake.
        asked = reach if size == "200M" else None
        detail = f"{time_of:.2f} s ÷ {base:.2f} s"
        report.row(f"dense matrix ÷ one-column scan, {name}", time_of / base, asked, detail)
        time_of = median(lambda: load_matrix(lake), 1)  # noqa: B023
        report.row(f"the same with prompt and completion tokens, {name}", time_of / base, None, f"{time_of:.2f} s")
    for name, lake in (("packed", Lake(str(packed))), ("compacted", compacted)):
        for tokens, each in ((False, 4), (True, 12)):
            cells = MODELS[size] * ITEMS
            peak = in_process(peak_of_matrix, lake, "1" if tokens else "")
            beyond = (peak - 150 * 2**20) / (cells * each)
            what = f"matrix{' with tokens' if tokens else ''}: (peak memory − 150 MB) ÷ its bytes, {name}"
            report.row(what, beyond, 2.5 if size != "2M" else None, f"{peak / 2**20:.0f} MB")


def peak_of_matrix(root: str, tokens: str) -> int:
    before = peak_memory()
    load_matrix(root, tokens=bool(tokens))
    return peak_memory() - before


def bench_pivots(report: Report, size: str, compacted: Lake) -> None:
    """Up to 20M records as a wide matrix: ours against pandas, polars and DuckDB's PIVOT on the same files."""
    import pandas as pd
    import polars as pl

    tasks: list[str] = []
    for task, count in sorted(TASKS.items(), key=lambda item: item[1]):
        if sum(TASKS[t] for t in tasks) + count <= max(20_000_000 // MODELS[size], 1200):
            tasks.append(task)
    files = [path for path in part_paths(compacted) if any(f"task={task}/" in path for task in tasks)]
    ours = median(lambda: load_matrix(compacted, tasks, tokens=False))
    columns = ["task", "item", "model", "score"]

    def duck() -> None:
        with duckdb.connect() as con:
            con.execute("SET pivot_limit = 1000000")
            source = f"(SELECT task, item, model, score FROM read_parquet({files!r}, hive_partitioning = false))"
            con.execute(f"PIVOT {source} ON model USING any_value(score) GROUP BY task, item").to_arrow_table()

    def pandas() -> None:
        frame = pd.concat([pd.read_parquet(file, columns=columns, partitioning=None) for file in files])
        frame.pivot(index=["task", "item"], columns="model", values="score")

    def polars() -> None:
        frame = pl.scan_parquet(files, hive_partitioning=False).select(columns).collect()
        frame.pivot(on="model", index=["task", "item"], values="score")

    detail = f"{sum(TASKS[t] for t in tasks) * MODELS[size]:,} records"
    for name, peer in (("DuckDB PIVOT", duck), ("pandas pivot", pandas), ("polars pivot", polars)):
        time_of = median(peer, 1)
        reach = None if name == "polars pivot" or size == "2M" else 20
        row = f"{time_of:.2f} s ÷ {ours:.2f} s, {detail}"
        report.row(f"{name} ÷ load_matrix", time_of / ours, reach, row, more=True)


def bench_queries(report: Report, size: str, compacted: Lake, scratch: Path) -> None:
    """Views over the compacted lake against the same rows in one plain file."""
    single = scratch / "single.parquet"
    with duckdb.connect(config={"preserve_insertion_order": "true"}) as con:
        con.execute(
            f"COPY (SELECT * FROM read_parquet({part_paths(compacted)!r}, hive_partitioning = false)) "
            f"TO '{single}' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
        )
    model = Synthetic(100).name(42)
    queries = [
        ("mean score by model", "SELECT model, avg(score) FROM {matrix} GROUP BY model", 1.3),
        ("tokens by task", "SELECT task, sum(prompt_tokens), sum(completion_tokens) FROM {matrix} GROUP BY task", 1.3),
        ("best score by item", "SELECT task, item, max(score) FROM {matrix} GROUP BY ALL", 1.3),
        ("one model's rows", f"SELECT count(*), sum(score) FROM {{matrix}} WHERE model = '{model}'", 2),
    ]
    with connect(compacted) as con:
        for name, sql, reach in queries:
            ours = median(lambda: con.execute(sql.format(matrix="matrix")).fetchall(), 5)  # noqa: B023
            plain = median(lambda: con.execute(sql.format(matrix=f"'{single}'")).fetchall(), 5)  # noqa: B023
            detail = f"{ours:.3f} s ÷ {plain:.3f} s"
            # At 2M a query takes a hundredth of a second on either side.
            report.row(f"query ÷ the same on one file: {name}", ours / plain, reach if size != "2M" else None, detail)
    single.unlink()


def bench_newest(report: Report, size: str, raw: Lake, scratch: Path) -> None:
    """A tenth of the models collected again: choosing the newest rows against reading all of them."""
    lake = linked_lake(raw, scratch / "again")
    Synthetic(MODELS[size]).write(lake, os.cpu_count() or 2, generation=1, every=10)
    for form in ("raw shards", "compacted, then collected again"):
        if form != "raw shards":
            for name in [name for name in lake.names("shards") if "-g1-" in name]:
                os.rename(f"{lake.root}/{name}", f"{lake.root}/{name}.away")
            compact(lake)
            prune(lake, keep=_NOW)
            for path in list(Path(lake.root).glob("shards/*/*.away")):
                path.rename(path.with_suffix(""))
        files = shard_paths(lake) + (part_paths(lake) if form != "raw shards" else [])
        base = seconds(
            "SELECT sum(score) FROM read_parquet($files, hive_partitioning = false, union_by_name = false)", files
        )
        with connect(lake) as con:
            ours = median(lambda: con.execute("SELECT sum(score) FROM records").fetchall())
            [(count,)] = con.execute("SELECT count(*) FROM records").fetchall()
        assert count == MODELS[size] * ITEMS
        report.row(f"newest-run rule ÷ plain scan, {form}", ours / base, 4, f"{ours:.2f} s ÷ {base:.2f} s")
    shutil.rmtree(lake.root)


def bench_planning(report: Report, work: Path) -> None:
    """Planning 102,000 committed cells against reading their footers."""
    from collectors.runs.planning import make_plan
    from tests.helpers.mini_tasks import TASKS as MINI_TASKS
    from tests.helpers.mini_tasks import write_tasks

    folder = work / "committed-102000"
    lake = Lake(str(folder))
    sink = io.BytesIO()
    pq.write_table(Synthetic(1).table(0, "musr", pa.array(Synthetic(1).item_hashes("musr"))), sink)
    if not (folder / "done").exists():
        lake.open_for_writing()
        for number in range(102_000):
            path = folder / shard_name(f"t{number % 12}", ShardName(digest({"n": number}), 0, 0, 755))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sink.getvalue())
        (folder / "done").touch()
    with tempfile.TemporaryDirectory() as scratch:
        write_tasks(Path(scratch))
        names = sorted(MINI_TASKS)[:6]
        specs = [{"task": name, "num_fewshot": shots} for name in names for shots in (0, 1)]
        config = {"include_tasks": [scratch], "engine": {"name": "stub"}, "lake": lake.uri, "tasks": specs}
        plan = RunConfig.model_validate({**config, "models": [f"m{i}" for i in range(8500)]})
        make_plan(RunConfig.model_validate({**config, "models": ["m"]}), lake)  # lm-eval's imports
        ours = median(lambda: make_plan(plan, lake), 1)
    footers = median(lambda: [pq.read_metadata(path) for path in shard_paths(lake)], 1)
    report.row(
        "planning 102,000 cells ÷ reading 102,000 footers", ours / footers, 1 / 15, f"{ours:.1f} s ÷ {footers:.1f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", choices=MODELS, default="20M", help="records (default %(default)s); 200M takes 40 minutes"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench-lake", help="folder that keeps the raw lakes")
    parser.add_argument("--only", nargs="+", help="commits, matrix, pivots, queries, newest, planning")
    args = parser.parse_args()
    wanted = args.only or ["commits", "matrix", "pivots", "queries", "newest", "planning"]
    report, started = Report(), time.monotonic()
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"{args.size}: {MODELS[args.size]:,} models × {ITEMS:,} items; {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        scratch = Path(folder)
        if "commits" in wanted:
            bench_commits(report, args.size)
        if {"matrix", "pivots", "queries"} & set(wanted):
            raw = raw_lake(args.size, args.work)
            compacted = bench_compaction(report, args.size, raw, scratch / "compacted")
            prune(compacted, _NOW)
            if "queries" in wanted:
                bench_queries(report, args.size, compacted, scratch)
            if "pivots" in wanted:
                bench_pivots(report, args.size, compacted)
            if "matrix" in wanted:
                bench_published(report, args.size, compacted, scratch / "snapshot")
                bench_matrix(report, args.size, raw, compacted, scratch / "snapshot")
            shutil.rmtree(compacted.root)
        if "newest" in wanted:
            bench_newest(report, args.size, raw_lake(args.size, args.work), scratch)
        if "planning" in wanted:
            bench_planning(report, args.work)
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if report.good else 1


def bench_published(report: Report, size: str, compacted: Lake, folder: Path) -> None:
    folder.mkdir()
    started = time.monotonic()
    made = build_version(compacted, folder, Description())
    packed = sum(fact["bytes"] for name, fact in made.files.items() if name.startswith("packed/"))
    detail = f"version built in {time.monotonic() - started:.0f} s"
    reach = 0.29 if size == "200M" else None
    report.row(
        "packed matrix with tokens: bytes per record", packed / made.manifest["counts"]["records"], reach, detail
    )


if __name__ == "__main__":
    sys.exit(main())
