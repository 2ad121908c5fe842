"""Faults by kind: a run survives each, or gives up the model, task or cell at fault and nothing else."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.collect import main
from tests.e2e.conftest import Cluster
from tests.helpers import runs
from tests.helpers.runs import collect_here, wait_until
from tests.helpers.slow_runs import MODELS, TOTAL, assert_undisturbed, committed, slow_config
from tests.helpers.thorough import long_only


@long_only
@pytest.mark.slow
def test_model_out_of_memory_is_asked_in_smaller_batches_and_in_the_same_cells(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    models: list[Any] = [MODELS[0], {"source": MODELS[1], "engine": {"memory_seqs": 16}}, MODELS[2]]
    assert main(["--config", str(slow_config(tmp_path, cluster, models=models))]) == 0
    assert "no memory for 256 sequences" in caplog.text
    assert "no memory for 64 sequences" in caplog.text
    assert_undisturbed(tmp_path / "lake", undisturbed)


@long_only
@pytest.mark.slow
def test_model_that_no_batch_fits_fails_alone_and_says_what_was_tried(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    models: list[Any] = [MODELS[0], {"source": MODELS[1], "engine": {"memory_seqs": 1}}]
    run = collect_here(capsys, slow_config(tmp_path, cluster, models=models))
    assert (run.code, run.out.count(f"failed: {MODELS[1]} on ")) == (1, 2)
    found = runs.failures(lake)
    assert {(row["kind"], row["model"]) for row in found} == {("out_of_memory", MODELS[1])}
    assert all("max_num_seqs 64" in row["message"] and "max_num_seqs 16" in row["message"] for row in found)
    stored = runs.stored_records(lake)
    runs.assert_same(stored, runs.of_model(undisturbed, MODELS[0]))


#: Seconds, of which a busy machine takes ten to start a judge.
STALL = 40


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own of 16 MiB; skips where this user may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


@long_only
@pytest.mark.slow
def test_full_disk_is_waited_for_by_workers_that_are_not_taken_for_stalled(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table
) -> None:
    logged = tmp_path / "log"
    with small_disk(tmp_path / "disk") as disk, open(logged, "w") as log:
        lake = disk / "lake"
        path = slow_config(tmp_path, cluster, lake=str(lake), stall_seconds=STALL)
        command = [*runs.COLLECT, "--config", str(path), "--verbose"]
        driver = subprocess.Popen(command, cwd=runs.ROOT, stdout=log, stderr=log)
        wait_until("work", lambda: committed(lake) or driver.poll() is not None)
        ballast = fill(disk)
        wait_until("it says so", lambda: "waiting up to 900 s" in logged.read_text() or driver.poll() is not None)
        assert driver.poll() is None, logged.read_text()[-3000:]
        held = committed(lake)
        assert held < TOTAL
        wait_until("it says so again", lambda: "s, waiting up to" in logged.read_text(), 60)  # after 15 s
        since = time.monotonic()
        wait_until("a stall would be over", lambda: time.monotonic() - since > STALL, 2 * STALL)
        assert committed(lake) == held
        ballast.unlink()
        assert driver.wait(runs.PATIENCE) == 0
        text = logged.read_text()
        assert "No space left on device" in text
        assert "it is back after" in text
        assert "engine was lost" not in text
        assert_undisturbed(lake, undisturbed)


@long_only
@pytest.mark.slow
def test_disk_that_stays_full_ends_the_run_in_one_line_and_the_next_goes_on(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        lake = disk / "lake"
        path = slow_config(tmp_path, cluster, lake=str(lake), patience_seconds=3)
        driver = runs.start_collect(path)
        wait_until("work", lambda: committed(lake) or driver.poll() is not None)
        ballast = fill(disk)
        run = runs.finish(driver)
        assert run.code == 1
        [line] = [line for line in run.err.splitlines() if line.startswith("error: ")]
        assert "No space left on device" in line
        assert "waited for 3 s" in line
        assert "Traceback" not in run.err
        ballast.unlink()
        assert collect_here(capsys, path).code == 0
        assert_undisturbed(lake, undisturbed)


@long_only
@pytest.mark.slow
def test_worker_goes_on_with_its_second_shard_after_its_engine_broke_under_the_first(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    """One worker: what breaks it has a second shard behind it, whose answers come from a model that was loaded anew."""
    options = {"fail_after": 30, "fault_once": str(tmp_path / "fault")}
    with caplog.at_level(logging.DEBUG, "pipelines.fleet.outcome"):
        assert main(["--config", str(slow_config(tmp_path, cluster, options=options, workers=1))]) == 0
    assert caplog.text.count("fails after 30 requests (fail_after); trying the shard again") == 1
    lines = [line for line in caplog.text.splitlines() if "trying the shard again" in line or "ShardReport(" in line]
    [broke] = [at for at, line in enumerate(lines) if "trying the shard again" in line]
    reports = [line for line in lines[broke - 1 : broke + 3] if "ShardReport(" in line]
    before, behind, again = (int(line.split("-g0-")[1].split("-")[0]) for line in reports)
    # What was begun behind the broken shard comes next, then the broken one, all from the one process.
    assert before < again < behind
    assert len({line.split("worker='")[1].split("'")[0] for line in lines if "ShardReport(" in line}) == 1
    assert_undisturbed(tmp_path / "lake", undisturbed)
