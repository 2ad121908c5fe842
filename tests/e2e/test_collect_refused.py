"""Runs that collect.py refuses or only plans: one line, and nothing is written."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.records import RECORD, SCHEMA_FILES
from tests.helpers import runs
from tests.helpers.collect_calls import NO_RAY, Collect, collect, own_tasks, plan
from tests.helpers.runs import CHOICE, TEXT, Run, config
from tests.helpers.thorough import long_only

__all__ = ["collect", "plan"]  # fixtures


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


@long_only
@pytest.mark.slow
def test_collect_dry_run_names_members_of_a_group_that_cannot_be_read(tmp_path: Path, plan: Collect) -> None:
    """Ten by default, and all on request: after a dry run no view shows the others."""
    path = config(tmp_path, tasks=[CHOICE, "leaderboard_bbh", "leaderboard_musr"])
    few = plan(path, "--dry-run").out.splitlines()
    assert sum(line.startswith("  cannot be planned: ") for line in few) == 10
    assert "  … and 17 more planning failures (no_data): --verbose names them" in few
    run = plan(path, "--dry-run", "--verbose")
    named = [line.split(": ")[1] for line in run.out.splitlines() if line.startswith("  cannot be planned: ")]
    assert len(named) == len(set(named)) == 24 + 3
    assert {name.split("_")[1] for name in named} == {"bbh", "musr"}
    assert "more planning failures" not in run.out
    assert f"task {CHOICE} (0-shot" in run.out
    assert run.code == 1


def test_configure_logging_keeps_retries_of_the_hub_out_of_the_log() -> None:
    """Their logger gets its level when it is imported, after ours is set."""
    code = (
        "import logging, pipelines.collect as c; c.configure_logging(verbose=False); import huggingface_hub; "
        "print(logging.getLogger('huggingface_hub.utils._http').isEnabledFor(logging.WARNING))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_VERBOSITY"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=runs.ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_collect_dry_run_shows_the_plan_and_writes_nothing(tmp_path: Path, plan: Collect) -> None:
    path = config(tmp_path)
    before = files(tmp_path)
    run = plan(path, "--dry-run", "--limit", "20")
    assert run.code == 0
    assert "4 cells = 2 models × 2 tasks" in run.out
    assert "to collect: 80 items in 4 cells" in run.out
    assert f"{CHOICE} (0-shot, multiple_choice, 20 of 50 items): 40 items to collect, 160 requests" in run.out
    assert "nothing was started or written" in run.out
    assert files(tmp_path) == before


@pytest.mark.slow
def test_collect_with_nothing_but_bad_tasks_says_so_and_fails(tmp_path: Path, plan: Collect) -> None:
    run = plan(
        config(tmp_path, tasks=["no_items"], include_tasks=[str(own_tasks(tmp_path / "tasks"))], allow_code=True)
    )
    assert run.code == 1
    assert "nothing to collect: no cell could be planned" in run.out
    assert [row["kind"] for row in runs.failures(tmp_path / "lake")] == ["empty_task"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"modles": ["x"]}, "modles: unknown key"),
    "unknown key below": ({"fleet": {"worker": 2}}, "fleet.worker: unknown key"),
    "no models": ({"models": None}, "models"),
    "model twice": ({"models": ["stub/alpha", "stub/alpha"]}, "'stub/alpha' is given to both"),
    "task twice": ({"tasks": [TEXT, TEXT]}, "gsm8k comes twice"),
    "unknown task": ({"tasks": ["gsm8kk"]}, "unknown task 'gsm8kk'; did you mean gsm8k"),
    "unknown metric": ({"tasks": [{"task": TEXT, "metric": "accuracy"}]}, "no metric 'accuracy'; it has exact_match"),
    "no such folder": ({"include_tasks": ["nowhere"]}, "include_tasks: no folder"),
    "no such data": ({"datasets": "nowhere"}, "datasets: no folder nowhere"),
    "unknown engine": ({"engine": {"name": "stab"}}, "engine.name"),
    "unknown option": ({"engine": {"name": "stub", "options": {"latency": 1}}}, "option 'latency' is unknown"),
    "option of a model": ({"models": [{"source": "a/b", "engine": {"x": 1}}]}, "'x' is unknown"),
    "limit": ({"limit": 0}, "limit: "),
    "unknown store": ({"lake": "nostore://x"}, "lake 'nostore://x' is not a folder or a supported URI"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_collect_with_a_wrong_config_says_one_line_and_writes_nothing(
    tmp_path: Path, plan: Collect, changes: dict[str, Any], message: str
) -> None:
    path = config(tmp_path, **changes)
    before = files(tmp_path)
    refused(plan(path), message)
    assert files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("flag", [(), ("--dry-run",)], ids=["collect", "dry run"])
def test_collect_into_a_lake_that_cannot_be_written_says_so_before_any_planning(
    tmp_path: Path, plan: Collect, flag: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = config(tmp_path, tasks=["no_such_task"]), tmp_path / "file"
    file.write_text("no folder")
    refused(
        plan(path, "--lake", f"{file}/lake", *flag), f"cannot be written: {file} is not a folder; nothing was started"
    )
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    refused(plan(path, *flag), f"cannot be written: you may not write to {tmp_path}; nothing was started")


@pytest.mark.slow
def test_collect_with_a_limit_of_zero_says_one_line(tmp_path: Path, plan: Collect) -> None:
    refused(plan(config(tmp_path), "--limit", "0"), "limit: ")


@pytest.mark.slow
def test_collect_with_no_cluster_at_the_address_says_one_line(tmp_path: Path, plan: Collect) -> None:
    refused(plan(config(tmp_path, fleet={"address": "127.0.0.1:1"})), "no Ray cluster at 127.0.0.1:1")


@pytest.mark.slow
def test_collect_with_something_else_at_the_address_says_one_line(tmp_path: Path, plan: Collect) -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        refused(plan(config(tmp_path, fleet={"address": address})), f"no Ray cluster at {address}")
        server.shutdown()
    refused(plan(config(tmp_path, fleet={"address": "nowhere"})), "give its host:port")


@pytest.mark.slow
def test_collect_with_workers_that_no_node_can_hold_says_one_line_and_starts_none(tmp_path: Path) -> None:
    path = config(tmp_path, fleet={"workers": 1, "cpus_per_worker": 4096})
    run = runs.finish(runs.start_collect(path, env={"TMPDIR": str(long_folder(tmp_path))}))
    assert run.code == 2
    assert "no node fits a worker of 4096 CPUs" in run.err.splitlines()[-1]


def long_folder(tmp_path: Path) -> Path:
    """A TMPDIR that leaves no room for the names of Ray's sockets."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return folder


@long_only
@pytest.mark.slow
def test_collect_when_the_lake_is_complete_needs_no_right_to_write(tmp_path: Path, collect: Collect) -> None:
    path, lake = config(tmp_path, models=["stub/alpha"], tasks=[TEXT], limit=2), tmp_path / "lake"
    assert collect(path).code == 0
    (lake / "runs").rename(tmp_path / "runs")
    (lake / "runs").write_text("no folder any more")  # root may write anywhere
    again = collect(path)
    assert (again.code, "nothing to collect" in again.out) == (0, True)


BROKEN = {
    "missing": (None, "cannot read the config"),
    "not YAML": ("models: [a, b\ntasks: {", "is not valid YAML"),
    "key twice": ("models: [a/b]\ntasks: [gsm8k]\nmodels: [c/d]\n", "key 'models' is given twice"),
    "a list": ("- gsm8k\n", "must be a mapping"),
    "empty": ("", "must be a mapping"),
    "not text": ("\0\x01", "is not valid YAML"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_collect_with_a_broken_config_file_says_one_line(
    tmp_path: Path, plan: Collect, text: str | None, message: str
) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    run = plan(path)
    refused(run, message)
    assert str(path) in run.err


@pytest.mark.slow
@pytest.mark.parametrize("flag", [(), ("--dry-run",)], ids=["collect", "dry run"])
def test_collect_into_a_lake_of_another_schema_version_is_refused(
    tmp_path: Path, plan: Collect, flag: tuple[str, ...]
) -> None:
    path, marker = config(tmp_path), tmp_path / "lake" / SCHEMA_FILES["shards"]
    marker.parent.mkdir(parents=True)
    schema = RECORD.with_metadata({"routerlake_schema_version": "999"})
    pq.write_table(schema.empty_table(), marker)
    before = files(tmp_path)
    refused(plan(path, *flag), "has schema version 999")
    assert files(tmp_path) == before


@long_only
@pytest.mark.slow
def test_collect_in_a_process_of_its_own_with_a_wrong_config_shows_no_traceback(tmp_path: Path) -> None:
    path = config(tmp_path, engine={"name": "stub", "options": {"latency": 1}})
    run = runs.finish(runs.start_collect(path, env={"RAY_ADDRESS": NO_RAY}))
    assert run.code == 2
    assert "Traceback" not in run.err
    assert [line for line in run.err.splitlines() if line.startswith("error: ")] == run.err.splitlines()[-1:]
    assert not (tmp_path / "lake").exists()


def refused(run: Run, message: str) -> None:
    """Exit code 2 and nothing on stderr but one line with `message`."""
    assert run.code == 2
    [line] = run.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
