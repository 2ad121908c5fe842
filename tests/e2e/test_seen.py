"""What can be seen of a run while it lasts and after: metrics, JSON logs, its status; and what must not be seen."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.runs.status import QUIET_SECONDS
from collectors.runs.watching import RunWatch
from pipelines import status
from pipelines.fleet.prometheus import METRICS
from tests.e2e.conftest import Cluster
from tests.e2e.test_kill import kill_driver
from tests.helpers import runs
from tests.helpers.runs import config
from tests.helpers.slow_runs import TOTAL, committed, slow_config
from tests.helpers.thorough import long_only

#: Variables in which a run's libraries look for tokens.
TOKENS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def exported(cluster: Cluster) -> str:
    with urllib.request.urlopen(f"{cluster.metrics}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


@long_only
@pytest.mark.slow
def test_metrics_of_a_run_are_all_at_its_nodes_endpoint(cluster: Cluster, tmp_path: Path) -> None:
    options = {"latency_s": 0.2, "fail_load": ["stub/alpha"]}  # the first that is tried
    driver = runs.start_collect(slow_config(tmp_path, cluster, options=options))
    wanted = {f"ray_{name}" for name in METRICS}
    seen: dict[str, set[str]] = {}

    def all_seen() -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):  # each look takes the node some time
            driver.wait(1)
        for line in exported(cluster).splitlines():
            if runs_of(tmp_path / "lake") & set(re.findall(r'run="([^"]*)"', line)):
                seen.setdefault(line.partition("{")[0], set()).add(line)
        failed = seen.get("ray_routerlake_failures_total", set())  # counters are there before anything happens
        return wanted <= set(seen) and any('kind="bad_model"' in line and line.endswith(" 2.0") for line in failed)

    try:
        runs.wait_until("all metrics, or the end", lambda: all_seen() or driver.poll() is not None)
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGTERM)
        runs.finish(driver)
    assert wanted - set(seen) == set()
    failed = seen["ray_routerlake_failures_total"]
    assert {line.split()[-1] for line in failed if 'kind="bad_model"' in line} - {"0.0"} == {"2.0"}
    assert {line.split()[-1] for line in failed if 'kind="disk_full"' in line} == {"0.0"}  # there before it happens
    assert any('state="failed"' in line for line in seen["ray_routerlake_cells"])


def runs_of(lake: Path) -> set[str]:
    return {path.stem for path in lake.glob("runs/2*.parquet")}


def everything_in(lake: Path) -> str:
    """All texts in a lake, with its compressed tables and their metadata."""
    said = []
    for file in (path for path in lake.rglob("*") if path.is_file()):
        said += [str(file), file.read_bytes().decode("latin-1")]
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file).read()
            said += [str(table.to_pylist()), str(table.schema.metadata)]
    return "\n".join(said)


def only(line: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: line[key] for key in keys}


@long_only
@pytest.mark.slow
def test_log_lines_are_json_with_their_cells_and_hold_no_secret(
    cluster: Cluster, own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {name: secrets.token_hex(16) for name in TOKENS}
    path = config(tmp_path, limit=6, engine={"name": "stub", "options": {"fail_load": ["stub/beta"]}})
    env = {**given, "RAY_ADDRESS": cluster.address}
    run = runs.finish(runs.start_collect(path, "--log-json", "--verbose", env=env))
    assert run.code == 1, run.err
    lake = tmp_path / "lake"
    cells = {row["cell_id"]: row for row in runs.query(lake, "SELECT cell_id, model, task FROM cells")}

    lines: list[dict[str, Any]] = [json.loads(line) for line in run.err.splitlines()]
    loaded = [line for line in lines if line["message"] == "model stub/alpha: loaded"]
    assert loaded  # in a worker, reported through Ray
    assert {line["logger"] for line in loaded} == {"collectors.runs.collector"}
    assert not {line["pid"] for line in loaded} & {line["pid"] for line in lines if line["logger"] == "collect"}
    [run_id] = {line["run"] for line in lines if "run" in line}
    about = [line for line in lines if "cell" in line]
    assert {line["cell"] for line in about} == set(cells)
    assert all(cells[line["cell"]] == {"cell_id": line["cell"], **only(line, "model", "task")} for line in about)
    assert {line["model"] for line in about if line["level"] == "ERROR"} == {"stub/beta"}

    capsys.readouterr()
    report = tmp_path / "run.html"
    assert status.main(["--lake", str(lake), "--json", "--html", str(report)]) == 0
    ray_logs = [file for file in (own_home / "cluster").rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(run_id in file.read_text(errors="replace") for file in ray_logs if file.suffix == ".err")
    seen = {
        "output": run.out + run.err,
        "lake": everything_in(lake),
        "status": capsys.readouterr().out + report.read_text(),
        "Ray's files": "\n".join(file.read_text(errors="replace") for file in ray_logs),
    }
    given["RAY_AUTH_TOKEN"] = os.environ["RAY_AUTH_TOKEN"]
    assert [(name, place) for name, value in given.items() for place, text in seen.items() if value in text] == []


@long_only
@pytest.mark.slow
def test_status_of_a_run_whose_driver_was_killed_tells_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    kill_driver(slow_config(tmp_path, None), lake, 40)
    capsys.readouterr()
    assert status.main(["--lake", str(lake), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 40 <= found["items_done"] == committed(lake) < TOTAL == found["items"]
    assert found["cells_open"] > 0
    assert found["work"]["shards"] == len(runs.shard_files(lake))
    later = found["last_commit"] + QUIET_SECONDS + 1
    late = RunWatch(Lake(str(lake)), clock=lambda: later).look(0)
    assert (late.stuck, late.over, late.end) == (True, False, None)
