"""A storm of random kills of workers, nodes and the driver: counts repeated requests, and compares the lake."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import tests.conftest as settings  # Ray's, before it is imported
from tests.benchmarks.bench_lake import Report
from tests.helpers import runs, storm
from tests.helpers.raylets import raylets

#: Items between two kills, and seconds of each of their one or four requests, so that most hit a worker at work.
ITEMS_PER_KILL, LATENCY = 12, 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier storm, to have it again")
    args = parser.parse_args()
    assert settings
    seed = secrets.randbelow(10**6) if args.seed is None else args.seed
    with tempfile.TemporaryDirectory(prefix="rl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ |= {"TMPDIR": name, "ROUTERLAKE_CACHE": str(folder / "cache"), "NO_COLOR": "1"}
        report = Report()
        measure(report, folder, args.kills, seed)
    return 0 if report.good else 1


def measure(report: Report, folder: Path, kills: int, seed: int) -> None:
    models = max(3, kills * ITEMS_PER_KILL // (2 * runs.ITEMS))
    items = models * 2 * runs.ITEMS
    with raylets(folder / "r") as cluster:
        for _ in range(storm.NODES):
            cluster.add()
        quiet = storm.configured(folder / "quiet", cluster.address, models, LATENCY)
        started = time.monotonic()
        done = runs.finish(runs.start_collect(quiet))
        assert done.code == 0, done.err
        seconds = time.monotonic() - started
        path = storm.configured(folder / "storm", cluster.address, models, LATENCY)
        disturbed = storm.Storm(path, folder / "storm" / "lake", cluster, items, kills, seed)
        disturbed.run()
    expected = runs.stored_records(folder / "quiet" / "lake")
    runs.assert_same(runs.stored_records(disturbed.lake), expected)
    runs.assert_same(runs.viewed_records(disturbed.lake), expected)
    shards = len(runs.shard_files(folder / "quiet" / "lake"))
    requests, again = storm.asked(folder / "quiet"), storm.asked(folder / "storm") - storm.asked(folder / "quiet")
    size = requests / shards
    per_kill = again / size / kills
    blamed = {row["model"] for row in runs.failures(disturbed.lake)}
    killed = ", ".join(f"{count} {kind}s" for kind, count in sorted(disturbed.killed.items()))
    print(f"storm of {kills} kills ({killed}), seed {seed}: records and views identical to the quiet run's")
    detail = f"{again} of {requests} requests, {size:.1f} a shard; {expected.num_rows} records of {models} models"
    report.row(f"shards asked again ÷ kills, {kills} kills", per_kill, 1, detail)
    detail = f"storm {disturbed.seconds:.0f} s, quiet {seconds:.0f} s, {disturbed.drivers} drivers"
    report.row("  models taken for the culprit, and freed by --retry-failed", len(blamed), None, detail)


if __name__ == "__main__":
    sys.exit(main())
