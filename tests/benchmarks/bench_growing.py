"""A lake while it grows: what a person sees of 100,000 open shards of ten records, in time and memory."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from collectors.lake.store import Lake
from tests.benchmarks.bench_export import run
from tests.benchmarks.bench_lake import ROOT, Report
from tests.benchmarks.synthetic import Synthetic

TASKS, ITEMS = 100, 10
#: Stands for a new folder.
OUT = "OUT"
#: Command -> most seconds and GB at 100,000 shards; None: nothing is asked of it.
COMMANDS = {
    "matrix --show": (("matrix", "--show", "--lake"), 60, 2),
    "plot": (("plot", "--out", OUT, "--lake"), None, None),
    "publish": (("publish", "--to", OUT, "--lake"), None, None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="each has 100 shards (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench-lake", help="folder that keeps the lake")
    args = parser.parse_args()
    folder, report = args.work / f"open-{args.models}", Report()
    done = folder.with_suffix(".done")
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        tasks = {f"task-{number:02}": ITEMS for number in range(TASKS)}
        Synthetic(args.models, tasks=tasks).write(Lake(str(folder)))
        done.touch()
    for name, (words, most_seconds, most_gb) in COMMANDS.items():
        out = args.work / "open-out"
        shutil.rmtree(out, ignore_errors=True)
        seconds, cpu, peak = run(*(out if word == OUT else word for word in words), folder)
        what = f"{name} of {args.models * TASKS:,} open shards"
        report.row(f"{what}: seconds", seconds, most_seconds, f"{cpu:.1f} CPU-s")
        report.row(f"{what}: GB", peak, most_gb)
        shutil.rmtree(out, ignore_errors=True)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
