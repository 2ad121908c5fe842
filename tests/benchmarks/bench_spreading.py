"""Compaction and verification as tasks of 1, 2 and 4 raylets: efficiency against bare Ray tasks, workers' memory."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

import tests.conftest as settings  # Ray's, before it is imported
from collectors.lake import chunks
from collectors.lake.compaction import compact
from collectors.lake.verifying import verify
from pipelines.fleet.spreading import spread_over
from tests.benchmarks.bench_lake import MODELS, ROOT, Report, linked_lake, raw_lake
from tests.helpers.raylets import Raylets, raylets

#: Of the parts, here: with fewer rows there are as many tasks for each core as a large lake has.
PART_ROWS = 250_000
RAYLETS = (1, 2, 4)
#: Rounds of a loop of Python, half a second, and how many such tasks bare Ray gets.
_ROUNDS, _BARE = 10_000_000, 40
#: Tasks for each raylet, below which an efficiency says nothing.
_LEAST = 16
#: The most memory of each worker, bytes.
MEMORY: list[int] = []


class Timed:
    """A spread that keeps the seconds from the first piece to the last result: what is shared, without the driver's."""

    def __init__(self, spread: Any) -> None:
        self._spread = spread
        self.seconds, self.pieces = 0.0, 0

    def __call__(self, function: Callable[[Any], Any], works: Iterable[Any]) -> Iterator[Any]:
        pieces = list(works)
        self.pieces = len(pieces)
        started = time.perf_counter()
        results = list(self._spread(function, pieces))
        self.seconds = time.perf_counter() - started
        return iter(results)


def spin(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total ^= number
    return total


def warm(_: int) -> int:
    """Imports what the tasks import: a worker does that once."""
    import collectors.lake.compaction
    import collectors.lake.verifying

    time.sleep(1)  # so that each worker gets one
    return len(collectors.lake.compaction.__name__)


def measure(cluster: Raylets, raw: Any, folder: Path) -> dict[str, tuple[float, float, int]]:
    """What -> its seconds as shared work, in whole, and pieces, on the nodes that the cluster has now."""
    found = {}
    with spread_over(cluster.address) as spread:
        assert spread
        list(spread(warm, range(2 * len(cluster.nodes))))
        bare = Timed(spread)
        list(bare(spin, [_ROUNDS] * _BARE))
        found["bare"] = bare.seconds, bare.seconds, bare.pieces
        lake = linked_lake(raw, folder)
        for name, work in (("compaction", compact), ("verification", verify)):
            timed, started = Timed(spread), time.perf_counter()
            work(lake, spread=timed)
            found[name] = timed.seconds, time.perf_counter() - started, timed.pieces
        MEMORY.extend(peaks())  # the workers end with this connection
    shutil.rmtree(folder)
    return found


def peaks() -> list[int]:
    """The most memory of each worker that this process's raylets have, in bytes."""
    workers = [one for one in psutil.Process().children(recursive=True) if "".join(one.cmdline()[:1])[:5] == "ray::"]
    lines = [Path(f"/proc/{one.pid}/status").read_text().splitlines() for one in workers]
    return [int(line.split()[1]) * 1024 for of_one in lines for line in of_one if line.startswith("VmHWM")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=MODELS, default="20M", help="records (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench-lake", help="folder that keeps the raw lakes")
    args = parser.parse_args()
    assert settings
    report = Report()
    args.work.mkdir(parents=True, exist_ok=True)
    raw = raw_lake(args.size, args.work)
    chunks.PART_ROWS = PART_ROWS
    with (
        tempfile.TemporaryDirectory(prefix="rl-") as short,
        tempfile.TemporaryDirectory(dir=args.work) as scratch,
        raylets(Path(short) / "r") as cluster,
    ):
        os.environ |= {"NO_COLOR": "1"}
        of_nodes: dict[int, dict[str, tuple[float, float, int]]] = {}
        for nodes in RAYLETS:
            while len(cluster.nodes) < nodes:
                cluster.add()
            of_nodes[nodes] = measure(cluster, raw, Path(scratch) / f"lake-{nodes}")
            shown = {name: f"{took:.1f} s ({whole:.1f} in whole)" for name, (took, whole, _) in of_nodes[nodes].items()}
            print(f"{nodes} raylets on {os.cpu_count()} cores: {shown}", flush=True)
        for name in ("compaction", "verification"):
            for nodes in RAYLETS[1:]:
                ours, theirs = (of_nodes[1][key][0] / of_nodes[nodes][key][0] / nodes for key in (name, "bare"))
                what = f"{name} of {args.size}, efficiency 1 to {nodes} raylets ÷ bare Ray"
                detail = f"{ours:.3f} ÷ {theirs:.3f}, {of_nodes[nodes][name][2]} tasks"
                is_asked = nodes == 2 and of_nodes[nodes][name][2] >= _LEAST * nodes
                report.row(what, ours / theirs, 0.9 if is_asked else None, detail, more=True)
        report.row("peak memory of a worker, GB", max(MEMORY) / 1e9, 2, f"{len(MEMORY)} workers")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
