"""A fleet on 1 and 4 raylets: efficiency against bare Ray tasks, makespan with skewed models, CPU of an empty run."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tests.conftest as settings  # Ray's, before it is imported
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.watched import watch
from tests.helpers import runs
from tests.helpers.raylets import Raylets, raylets

#: A shard is 2 items of gsm8k, one request each.
SHARD_SECONDS, LATENCY = 0.1, 0.05
RAYLETS = 4
#: Seconds of a request, by model: one is 20 times as slow as others.
SKEWED = [0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.02, 0.02, 0.02, 0.02, 0.01, 0.01]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=16, help="of the run whose efficiency is measured")
    args = parser.parse_args()
    assert settings
    report = Report()
    with tempfile.TemporaryDirectory(prefix="rl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ |= {"TMPDIR": name, "ROUTERLAKE_CACHE": str(folder / "cache"), "NO_COLOR": "1"}
        with raylets(folder / "r") as cluster:
            cluster.add()
            one = measure(cluster, folder / "one", args.models), bare(cluster.address, 1)
            for _ in range(RAYLETS - 1):
                cluster.add()
            many = measure(cluster, folder / "many", args.models), bare(cluster.address, RAYLETS)
            ours, theirs = (many[at] / one[at] / RAYLETS for at in (0, 1))
            detail = f"{ours:.3f} ({one[0]:.1f} and {many[0]:.1f} shards a second) ÷ {theirs:.3f} ({SHARD_SECONDS:g} s)"
            report.row(f"efficiency 1 to {RAYLETS} raylets ÷ bare Ray tasks", ours / theirs, 0.95, detail, more=True)
            skewed(report, cluster, folder / "skewed")
        nothing_left(report, folder / "empty")
    return 0 if report.good else 1


def configured(folder: Path, models: list[Any], tasks: Sequence[str] = (runs.TEXT,), **fleet: Any) -> Path:
    options = {"name": "stub", "options": {"latency_s": LATENCY}}
    fleet = {"first_shard_items": 2, "shard_seconds": 1.2 * SHARD_SECONDS, "gpus_per_worker": 0, **fleet}
    return runs.config(folder, models=models, tasks=list(tasks), engine=options, fleet=fleet)


@dataclass
class Lane:
    """One worker's time in its engine: (start, end) of each shard, seconds since the epoch, in order."""

    spans: list[tuple[float, float]]


def lanes(folder: Path, path: Path) -> list[Lane]:
    """Runs a config and returns its profile."""
    done = runs.finish(runs.start_collect(path, "--profile", str(folder / "trace.json")))
    assert done.code == 0, done.err
    found = defaultdict(list)
    for event in json.loads((folder / "trace.json").read_text())["traceEvents"]:
        if event["ph"] == "X" and event["name"] == "engine":
            found[event["pid"]].append((event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6))
    return [Lane(sorted(spans)) for spans in found.values()]


def measure(cluster: Raylets, folder: Path, models: int) -> float:
    """Shards a second while all workers are at work: from the last one's third shard to the first one's end."""
    path = configured(folder, [f"stub/m{at}" for at in range(models)], address=cluster.address)
    found = lanes(folder, path)
    assert len(found) == len(cluster.nodes), len(found)
    first, last = max(lane.spans[2][1] for lane in found), min(lane.spans[-1][1] for lane in found)
    assert last - first > 2, "too few shards"
    return sum(first < end <= last for lane in found for _, end in lane.spans) / (last - first)


def bare(address: str, nodes: int) -> float:
    """Tasks a second that only sleep, as many on each raylet as shards would be."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        nap = ray.remote(num_cpus=1)(_nap)
        ray.get([nap.remote(SHARD_SECONDS) for _ in range(4 * nodes)])  # processes are started
        started, count = time.monotonic(), 100 * nodes
        ray.get([nap.remote(SHARD_SECONDS) for _ in range(count)])
        return count / (time.monotonic() - started)
    finally:
        ray.shutdown()


def _nap(seconds: float) -> None:
    time.sleep(seconds)


def skewed(report: Report, cluster: Raylets, folder: Path) -> None:
    """Models whose requests take 10 to 200 ms, from the first engine's first shard to the last one's end."""
    models = [{"source": f"stub/s{at}", "engine": {"latency_s": s}} for at, s in enumerate(SKEWED)]
    path = configured(folder, models, address=cluster.address, shard_seconds=1.0)
    found = lanes(folder, path)
    spans = [span for lane in found for span in lane.spans]
    busy = sum(end - start for start, end in spans)
    ideal = max(busy / len(found), *(end - start for start, end in spans))
    makespan = max(end for _, end in spans) - min(start for start, _ in spans)
    detail = f"{makespan:.1f} ÷ {ideal:.1f} s, the start of the other workers in it"
    report.row(
        f"makespan, {len(SKEWED)} models of 10 to 200 ms on {len(found)} workers", makespan / ideal, 1.15, detail
    )


def nothing_left(report: Report, folder: Path) -> None:
    """CPU-seconds of all processes of a run on a Ray of its own, and of the same once more."""
    models = [{"source": f"stub/m{at}", "engine": {"latency_s": 0.0}} for at in range(2000)]
    tasks = (runs.TEXT, runs.CHOICE)
    path = configured(folder, models, tasks, workers=2, first_shard_items=10, shard_seconds=1)
    command = [sys.executable, "pipelines/collect.py", "--config", str(path)]
    full, empty = (watch(command, folder / f"log-{which}") for which in ("full", "empty"))
    name = f"CPU with nothing left ÷ run of {len(tasks) * len(models) * runs.ITEMS:,} items of {len(models):,} models"
    report.row(name, empty.cpu / full.cpu, 0.02, f"{empty} ÷ {full}")


if __name__ == "__main__":
    sys.exit(main())
