"""Killing what works on a lake, at any moment: nothing is lost or doubled, nobody answers for another model."""

from __future__ import annotations

import random
import re
import secrets
import signal
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from pipelines.collect import main
from pipelines.fleet.hands import AHEAD
from tests.e2e.conftest import Cluster
from tests.helpers import runs
from tests.helpers.runs import CHOICE, TEXT, collect_here, shard_files
from tests.helpers.slow_runs import TOTAL, WORKERS, assert_undisturbed, committed, shards, slow_config
from tests.helpers.thorough import long_only


def worker_processes(pid: int) -> list[psutil.Process]:
    """The actors below process `pid`."""
    return [process for process in runs.tree(pid) if runs.is_worker(process)]


def kill_driver(path: Path, lake: Path, moment: int) -> None:
    """Starts a run with a Ray of its own and kills its driver once `moment` items are committed; returns when no worker
    is left. A worker may still commit the shard in hand. Ray's two agents end by themselves after a minute, idle: here
    they are ended at once.
    """
    driver = runs.start_collect(path)
    runs.wait_until("work", lambda: committed(lake) >= moment or driver.poll() is not None)
    assert driver.poll() is None, runs.finish(driver)
    started, workers = runs.tree(driver.pid), worker_processes(driver.pid)
    driver.kill()
    assert workers
    runs.wait_until("the workers end with their driver", lambda: not any(map(runs.alive, workers)), 60)
    for process in started:
        runs.kill(process)
    assert runs.finish(driver).code == -signal.SIGKILL


@pytest.mark.slow
def test_sigterm_ends_a_run_within_seconds_and_the_lake_says_so(tmp_path: Path, cluster: Cluster) -> None:
    lake = tmp_path / "lake"
    driver = runs.start_collect(slow_config(tmp_path, cluster))
    runs.wait_until("work", lambda: committed(lake) > 0 or driver.poll() is not None)
    driver.send_signal(signal.SIGTERM)
    run = runs.finish(driver)
    assert run.code == 143, run.err
    assert run.err.splitlines()[-1] == "stopped; committed shards are safe: run the same command again to continue"
    assert "SIGTERM received" not in run.err  # Ray's stack
    assert runs.query(lake, "SELECT outcome, message FROM runs") == [{"outcome": "stopped", "message": "by SIGTERM"}]


def moments(count: int) -> list[int]:
    """Numbers of committed items, in order: at each something is killed. Every session has other numbers."""
    seed = secrets.randbelow(10**6)  # `random` itself is seeded anew by whatever loads a task
    print(f"seed {seed}")
    return sorted(random.Random(seed).sample(range(1, TOTAL * 3 // 4), count))


@long_only
@pytest.mark.slow
def test_kill_of_a_worker_in_mid_shard_is_survived_by_the_run(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table
) -> None:
    lake, [moment] = tmp_path / "lake", moments(1)
    before = worker_processes(cluster.pid)
    driver = runs.start_collect(slow_config(tmp_path, cluster), "--verbose")
    runs.wait_until("work", lambda: committed(lake) >= moment or driver.poll() is not None)
    victim = next(process for process in worker_processes(cluster.pid) if process not in before)
    runs.kill(victim)
    run = runs.finish(driver)
    assert run.code == 0, run.err
    assert_undisturbed(lake, undisturbed)

    reports = re.findall(r"shard \w+-g\d+-(\d+)-(\d+)\.parquet ShardReport\(.*committed=(True|False)", run.err)
    assert run.err.count("its engine was lost") == 1
    assert len(reports) == len(shards(lake))  # the shard in hand was reported once: by who did it again
    assert sum(committed == "False" for _, _, committed in reports) <= 1


@long_only
@pytest.mark.slow
def test_kill_of_the_driver_three_times_loses_only_what_was_in_hand(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, done = tmp_path / "lake", 0
    for moment in moments(3):
        kept = shard_files(lake)
        kill_driver(slow_config(tmp_path, None), lake, max(moment, done + 1))
        assert kept.items() <= shard_files(lake).items()
        done = committed(lake)
    left = sum(file.name.endswith(".tmp") for file in lake.rglob("*"))
    assert left <= 3 * WORKERS  # a file that was being written when its writer died: no reader sees it

    last = collect_here(capsys, slow_config(tmp_path, cluster))
    assert last.code == 0
    assert f"to collect: {TOTAL - done} items" in last.out
    assert f"already in the lake: {done}" in last.out
    assert_undisturbed(lake, undisturbed)
    assert len({facts["run_id"] for facts in runs.shard_metadata(lake)}) >= 2


@long_only
@pytest.mark.slow
def test_kill_of_an_engine_by_itself_once_is_survived_by_the_run(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    fault = tmp_path / "fault"
    path = slow_config(tmp_path, cluster, options={"crash_after": 30, "fault_once": str(fault)})
    assert main(["--config", str(path)]) == 0
    assert fault.exists()
    assert caplog.text.count("its engine was lost") == 1
    assert_undisturbed(tmp_path / "lake", undisturbed)


@long_only
@pytest.mark.slow
def test_kill_of_every_engine_of_one_model_fails_that_model_alone(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, bad = tmp_path / "lake", {"source": "stub/beta", "engine": {"crash_after": 0}}
    run = collect_here(capsys, slow_config(tmp_path, cluster, models=["stub/alpha", bad, "stub/gamma"]))
    assert run.code == 1
    assert run.out.count("failed: stub/beta on ") == 2
    found = [(row["kind"], row["model"], row["task"]) for row in runs.failures(lake)]
    assert found == [("engine_died", "stub/beta", TEXT), ("engine_died", "stub/beta", CHOICE)]
    stored = runs.stored_records(lake)
    assert set(stored["model"].to_pylist()) == {"stub/alpha", "stub/gamma"}
    for model in ("stub/alpha", "stub/gamma"):
        runs.assert_same(runs.of_model(stored, model), runs.of_model(undisturbed, model))

    left_out = collect_here(capsys, slow_config(tmp_path, cluster))
    assert left_out.code == 1
    assert (
        "quarantined: 2 cells of 1 models that broke engines or their cap before (stub/beta); --retry-failed"
        in left_out.out
    )
    assert "except quarantined cells; no model was loaded" in left_out.out
    healed = collect_here(capsys, slow_config(tmp_path, cluster), "--retry-failed")
    assert healed.code == 0
    runs.assert_same(runs.stored_records(lake), undisturbed)
    assert collect_here(capsys, slow_config(tmp_path, cluster)).code == 0  # the memory of collected items is free again


@long_only
@pytest.mark.slow
def test_engine_that_never_answers_is_ended_and_its_shard_done_again(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"hang_after": 30, "fault_once": str(tmp_path / "fault")}
    path = slow_config(tmp_path, cluster, options=options, stall_seconds=60)
    assert main(["--config", str(path)]) == 0
    assert "no answer within 60 s (fleet.stall_seconds)" in caplog.text
    assert_undisturbed(tmp_path / "lake", undisturbed)


@long_only
@pytest.mark.slow
def test_engine_that_never_answers_under_one_model_fails_that_model_alone(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"source": "stub/beta", "engine": {"hang_after": 0}}
    run = collect_here(capsys, slow_config(tmp_path, cluster, models=["stub/alpha", bad], stall_seconds=60))
    assert (run.code, run.out.count("failed: stub/beta on ")) == (1, 2)
    assert {row["kind"] for row in runs.failures(tmp_path / "lake")} == {"engine_stalled"}
    stored = runs.stored_records(tmp_path / "lake")
    runs.assert_same(runs.of_model(stored, "stub/alpha"), runs.of_model(undisturbed, "stub/alpha"))


@long_only
@pytest.mark.slow
def test_two_runs_at_once_on_one_lake_share_the_work(
    tmp_path: Path, cluster: Cluster, undisturbed: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    first = runs.start_collect(slow_config(tmp_path, cluster))
    runs.wait_until("the first run's plan", lambda: list(lake.glob("runs/2*.parquet")) or first.poll() is not None)
    second = collect_here(capsys, slow_config(tmp_path, cluster))
    run = runs.finish(first)
    assert (run.code, second.code) == (0, 0), run.err
    planned = [int(re.search(r"to collect: (\d+) items", one.out)[1]) for one in (run, second)]  # type: ignore[index]
    assert sum(planned) > TOTAL  # both set out for the same items

    runs.assert_same(runs.viewed_records(lake), undisturbed)
    assert runs.failures(lake) == []
    # Ranges cut differently may overlap in the files; whoever wrote a record, it is the same one.
    stored = runs.stored_records(lake)
    key = ["cell_id", "item", "filter", "repeat"]
    copies = stored.group_by(key).aggregate([(name, "count_distinct") for name in ("metrics", "filtered")])
    assert copies.num_rows == undisturbed.num_rows
    assert max(copies["metrics_count_distinct"].to_pylist()) == 1
    in_hand = 2 * WORKERS * AHEAD * max(shard.last - shard.first + 1 for shard in shards(lake))
    assert committed(lake) - TOTAL <= in_hand
    assert "by other runs)" in second.err + run.err
    assert not list(lake.glob("claims/*"))
