"""`compact.py --verify`: MB/s against sha256sum and pyarrow on the same files, and what checksums cost a compaction."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq

from collectors.lake.compaction import compact
from collectors.lake.inventory import checked
from collectors.lake.pruning import prune
from collectors.lake.store import Lake
from collectors.lake.verifying import verify
from tests.benchmarks.bench_lake import ROOT, Report, linked_lake, median
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.rot import KINDS, Storm, damages, rotting_lake

ITEMS = 500
CORES = os.cpu_count() or 1


def answered_lake(folder: Path, megabytes: int) -> Lake:
    """Shards of long answers: each is about 1 MB, as of a task that generates texts."""
    builder, draw = LakeBuilder(folder), random.Random(0)
    cells = [BuiltCell(model=f"m{i}", task=f"t{i % 4}", items=ITEMS) for i in range(megabytes)]
    builder.run(*cells)
    for cell in cells:
        texts = [draw.randbytes(1000).hex() for _ in range(ITEMS)]
        builder.shard(cell, [cell.record(i, score=float(i % 3 == 0), responses=[texts[i]]) for i in range(ITEMS)])
    return builder.lake


def files_of(lake: Lake) -> list[str]:
    return [f"{lake.root}/{name}" for name in lake.names("", 4)]


def by_sha256sum(files: list[str]) -> None:
    command = ["xargs", "-0", "-P", str(CORES), "-n", str(-(-len(files) // CORES)), "sha256sum"]
    subprocess.run(command, input="\0".join(files).encode(), stdout=subprocess.DEVNULL, check=True)


def by_pyarrow(files: list[str]) -> None:
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(_decode, [file for file in files if file.endswith(".parquet")]))


def _decode(file: str) -> None:
    pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)


def bench_speed(report: Report, name: str, lake: Lake) -> None:
    files = files_of(lake)
    size = sum(os.path.getsize(file) for file in files) / 1e6
    peers: dict[str, Callable[[list[str]], None]] = {"sha256sum": by_sha256sum, "pyarrow": by_pyarrow}
    ours = median(lambda: verify(lake))
    detail = f"{len(files):,} objects, {size:,.0f} MB, {ours:.2f} s"
    report.row(f"verify, {name}: MB/s on {CORES} cores", size / ours, 300, detail, more=True)
    for peer, read in peers.items():
        taken = median(lambda: read(files))  # noqa: B023
        report.row(f"{peer} on the same files, {name}: MB/s", size / taken, None, f"{taken:.2f} s")


def bench_cost(report: Report, raw: Lake, scratch: Path) -> None:
    """The check of all shards before they are folded, as a share of the compaction."""
    shards = [name for name in raw.names("shards") if "-g" in name]
    checks = median(lambda: checked(raw, shards, {}))
    started = time.perf_counter()
    compact(linked_lake(raw, scratch / "cost"))
    whole = time.perf_counter() - started
    report.row("compaction ÷ itself without the check of shards", whole / (whole - checks), 1.1, f"{whole:.1f} s")


def bench_storm(report: Report, scratch: Path, count: int) -> None:
    storm = Storm(rotting_lake(scratch / "storm"))
    for damage in damages(storm.objects, count):
        storm.verify(damage)
        storm.fold(damage)
    for kind in KINDS:
        outcomes = {outcome: n for (k, outcome), n in sorted(storm.counts.items()) if k == kind}
        detail = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items())
        report.row(f"{kind}: damages that change a reader's rows unnamed", outcomes.get("silent", 0), 0, detail)
    report.row("damages that a compaction wrote into its parts", len(storm.laundered), 0, f"of {storm.compacted}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="size of the lake of answers (default %(default)s)")
    parser.add_argument("--damages", type=int, default=0, help="damages to try, each with a compaction: half a second")
    args = parser.parse_args()
    report = Report()
    (ROOT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="bench-verify-") as folder:
        scratch = Path(folder)
        raw = answered_lake(scratch / "raw", args.megabytes)
        bench_speed(report, "shards", raw)
        bench_cost(report, raw, scratch)
        compacted = linked_lake(raw, scratch / "compacted")
        compact(compacted)
        prune(compacted, dt.timedelta(0))
        bench_speed(report, "compacted", compacted)
        if args.damages:
            bench_storm(report, scratch, args.damages)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
