"""compact.py and publish.py spread over a Ray cluster: by its address, as a job of it, and killed half way."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from collectors.lake.store import Lake
from pipelines import compact, publish
from tests.benchmarks.synthetic import Synthetic
from tests.e2e.conftest import Cluster
from tests.e2e.test_launch import submit
from tests.helpers import runs
from tests.helpers.filled_lakes import contents, filled
from tests.helpers.runs import ROOT
from tests.helpers.thorough import long_only


def compacted(folder: Path) -> dict[str, Any]:
    """Name -> bytes of the objects of compactions; of a manifest all but its time and its seal."""
    found: dict[str, Any] = contents(folder / "compact")
    for name in (name for name in found if name.endswith("manifest.json")):
        found[name] = json.loads(found[name]) | {"created_at": "", "seal": ""}
    return found


@pytest.mark.slow
def test_compact_and_publish_on_a_cluster_write_the_bytes_of_one_process(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = (filled(tmp_path / name).lake for name in ("here", "there"))
    ray = ["--ray", cluster.address]
    assert compact.main(["--lake", here.uri]) == 0
    assert compact.main(["--lake", there.uri, *ray]) == 0
    assert "5 shards folded" in capsys.readouterr().out
    assert compact.main(["--lake", there.uri, "--verify", *ray]) == 0
    assert publish.main(["--lake", here.uri, "--to", str(tmp_path / "of-one"), "--version", "1.0.0"]) == 0
    assert publish.main(["--lake", here.uri, "--to", str(tmp_path / "of-many"), "--version", "1.0.0", *ray]) == 0
    assert compacted(Path(there.root)) == compacted(Path(here.root))
    assert contents(tmp_path / "of-many") == contents(tmp_path / "of-one")


@pytest.mark.slow
@long_only
def test_compact_and_publish_as_jobs_of_a_cluster_write_the_bytes_of_one_process(
    tmp_path: Path, cluster: Cluster
) -> None:
    here, job = (filled(tmp_path / name).lake for name in ("here", "job"))
    versions = {"here": str(tmp_path / "of-one"), "job": str(tmp_path / "of-job")}
    assert compact.main(["--lake", here.uri]) == 0
    assert publish.main(["--lake", here.uri, "--to", versions["here"], "--version", "1.0.0"]) == 0
    for name, options in (("compact", []), ("publish", ["--to", versions["job"], "--version", "1.0.0"])):
        script = str(ROOT / "pipelines" / f"{name}.py")
        done = submit(cluster, tmp_path, [], ["python", script, "--lake", job.uri, *options, "--ray"])
        assert done.code == 0, done.out + done.err
    assert compacted(Path(job.root)) == compacted(Path(here.root))
    assert contents(tmp_path / "of-job") == contents(tmp_path / "of-one")


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of single shards in `raw`, and what one process that nobody ends makes of it in `lake` and `version`."""
    folder = tmp_path_factory.mktemp("quiet")
    Synthetic(40).write(Lake(str(folder / "raw")))
    shutil.copytree(folder / "raw", folder / "lake")
    assert compact.main(["--lake", str(folder / "lake")]) == 0
    assert publish.main(["--lake", str(folder / "lake"), "--to", str(folder / "version"), "--version", "1.0.0"]) == 0
    return folder


def tasks_of(cluster: Cluster, name: str) -> list[psutil.Process]:
    """The processes of the cluster that are at work on a function."""
    return [one for one in runs.tree(cluster.pid) if "".join(runs.command_line(one)[:1]).startswith(f"ray::{name}")]


def killed_half_way(command: list[str], cluster: Cluster, victim: str, has_begun: Callable[[], bool]) -> runs.Run:
    """Runs a command until the cluster is at work on it, kills the driver or a task, and waits for the end."""
    function = "made_parts" if "publish.py" in command[1] else "write_group"
    driver = runs.start(command)
    found = lambda: tasks_of(cluster, function) if has_begun() else []  # noqa: E731
    at_work = runs.wait_until("work", lambda: found() or driver.poll() is not None)
    assert driver.poll() is None, runs.finish(driver)
    runs.kill(at_work[0]) if victim == "task" else driver.kill()
    return runs.finish(driver)


@pytest.mark.slow
@long_only
@pytest.mark.parametrize("victim", ["driver", "task"])
def test_compact_and_publish_on_a_cluster_killed_half_way_end_with_the_same_bytes(
    tmp_path: Path, cluster: Cluster, in_one_process: Path, victim: str
) -> None:
    lake, version = tmp_path / "lake", tmp_path / "version"
    shutil.copytree(in_one_process / "raw", lake)
    expected = -signal.SIGKILL if victim == "driver" else 0
    python = [sys.executable]

    command = [*python, "pipelines/compact.py", "--lake", str(lake), "--ray", cluster.address]
    commits = lambda: [path.name for path in lake.glob("compact/*/*/part-*.json")]  # noqa: E731
    done = killed_half_way(command, cluster, victim, lambda: bool(commits()))
    assert done.code == expected, done.err
    if victim == "driver":
        assert not list(lake.glob("compact/*/manifest.json"))
        assert commits()
    assert runs.finish(runs.start(command)).code == 0
    assert compacted(lake) == compacted(in_one_process / "lake")

    # A second compaction of the same records would be another one: the version is made of the lake of one process.
    source = str(in_one_process / "lake")
    command = [*python, "pipelines/publish.py", "--lake", source, "--to", str(version), "--version", "1.0.0"]
    command += ["--ray", cluster.address]
    done = killed_half_way(command, cluster, victim, lambda: True)
    assert done.code == expected, done.err
    assert (version / "1.0.0" / "manifest.json").exists() == (victim == "task")
    assert victim == "task" or runs.finish(runs.start(command)).code == 0
    assert contents(version) == contents(in_one_process / "version")
