"""Money on clusters: work paid twice by a second run, configs that start nodes, budgets over processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tests.conftest as settings  # Ray's, before it is imported
from collectors.lake.layout import run_name
from collectors.lake.spend import Accounts
from collectors.lake.store import Lake
from collectors.runs.config import BudgetSpec
from pipelines.fleet.budget import Budget, GpuPrices
from pipelines.fleet.hands import AHEAD
from tests.benchmarks.bench_lake import Report
from tests.helpers import runs
from tests.helpers.slow_runs import MODELS, TOTAL, WORKERS, committed, shards, slow_config
from tests.infra.test_autoscaler import CLUSTERS, demands, launched, shown


def main() -> int:
    assert settings
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mny-", ignore_cleanup_errors=True) as name:
        os.environ |= {"TMPDIR": name, "ROUTERLAKE_CACHE": f"{name}/cache", "NO_COLOR": "1"}
        measure(report, Path(name))
    return 0 if report.good else 1


def measure(report: Report, folder: Path) -> None:
    paid_twice(report, folder / "twice")
    started_nodes(report)
    budget_of_cells(report, folder / "cells")
    budget_of_dollars(report, folder / "dollars")


def paid_twice(report: Report, folder: Path) -> None:
    """Two processes, each with engines of its own; the second begins when a third of the work is done."""
    lake = folder / "lake"
    logs = [folder / "first.log", folder / "second.log"]
    first = started(folder, logs[0])
    runs.wait_until("the first run's work", lambda: committed(lake) > TOTAL // 3 or first.poll() is not None)
    for process in (first, started(folder, logs[1])):
        assert process.wait(runs.PATIENCE) == 0, logs
    log, second = "".join(path.read_text() for path in logs), logs[1].read_text()
    asked = sum(int(items) for items in re.findall(r"ShardReport\(run_id='[^']*', items=(\d+)", log))
    in_hand = 2 * WORKERS * AHEAD * max(shard.last - shard.first + 1 for shard in shards(lake))
    [planned] = re.findall(r"to collect: (\d+) items", second)
    report.row(
        "items paid twice by a second run ÷ items",
        (asked - TOTAL) / TOTAL,
        in_hand / TOTAL,
        f"{asked - TOTAL} of {TOTAL}, planned by both: {planned}; in hand at most {in_hand}",
    )


def started(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """A run with engines of its own, its output in a file: nobody reads a pipe meanwhile."""
    path = slow_config(folder, None)
    with open(log, "wb") as output:
        command = [*runs.COLLECT, "--config", str(path), "--verbose"]
        return subprocess.Popen(command, cwd=runs.ROOT, stdout=output, stderr=subprocess.STDOUT)


def started_nodes(report: Report) -> None:
    pairs = [(cluster, fleet) for cluster in CLUSTERS for _, fleet in shown()]
    started = sum(all(_starts(cluster, wanted) for wanted in demands(fleet)) for cluster, fleet in pairs)
    report.row(
        "configs of infra/ and README for which Ray's autoscaler starts nodes",
        started / len(pairs),
        1,
        f"{started} of {len(pairs)}: {len(shown())} configs in {len(CLUSTERS)} clusters",
        more=True,
    )


def _starts(cluster: str, wanted: dict[str, float]) -> bool:
    nodes, unmet = launched(cluster, wanted)
    return bool(nodes) and not unmet


def budget_of_cells(report: Report, folder: Path) -> None:
    """The same command three times, as KubeRay starts a failed job anew."""
    most = 2
    codes = []
    for _ in range(3):
        codes.append(runs.finish(runs.start_collect(slow_config(folder, None, budget={"cells": most}))).code)
    done = runs.query(folder / "lake", "SELECT count(*) AS cells FROM coverage WHERE missing = 0")[0]["cells"]
    report.row(
        "budget over three processes of one name ÷ budget, cells",
        done / most,
        1 + WORKERS * AHEAD / most,
        f"{done} of {len(MODELS) * 2} cells, exit codes {codes}",
    )


def budget_of_dollars(report: Report, folder: Path) -> None:
    """Three processes that are killed: each loses the spending since its last account, a minute's at most."""
    lake, spec, now = Lake(str(folder)).open_for_writing(), BudgetSpec(usd=1), [0.0]
    total, usd_per_hour = 0.0, 3.6
    for number in range(3):
        run_id = f"20260101T000000-{number:08x}"
        lake.create(run_name(run_id), b"a plan")
        prices, accounts = GpuPrices({"h100": usd_per_hour}, usd_per_hour), Accounts(lake, spec.name, run_id)
        budget = Budget(spec, prices, accounts, lambda: now[0])
        budget.hold("engine", 1.0, "H100")
        while not budget.reached() and budget.own.usd < 0.45:
            now[0] += 10
            budget.tick()
        total += budget.own.usd
    minute = usd_per_hour / 60
    report.row(
        "budget over three killed processes of one name ÷ budget, dollars",
        total,
        1 + 3 * minute,
        f"simulated, accounts every minute ({minute:g} USD)",
    )


if __name__ == "__main__":
    sys.exit(main())
