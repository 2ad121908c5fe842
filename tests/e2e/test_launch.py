"""Two ways to start collect.py: as a job with an uploaded folder, as a job where it is installed.

tests/e2e/test_collect.py has the third: as a script.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, Cluster
from tests.helpers import runs
from tests.helpers.runs import CHOICE, ROOT, TEXT, Run, config
from tests.helpers.thorough import long_only

ITEMS = 3
EXPECTED = {("stub/alpha", CHOICE): ITEMS, ("stub/alpha", TEXT): ITEMS}


def submit(cluster: Cluster, cwd: Path, options: list[str], entrypoint: list[str]) -> Run:
    """`ray job submit` as a person types it in `cwd`; returns when the job has ended."""
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard, *options, "--", *entrypoint]
    return runs.finish(runs.start(command, cwd=cwd))


def collected(lake: Path) -> dict[tuple[str, str], int]:
    sql = "SELECT model, task, count(DISTINCT item) AS items FROM records GROUP BY ALL"
    return {(row["model"], row["task"]): row["items"] for row in runs.query(lake, sql)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tracked files of the repository, with the files that an environment and its caches would add."""
    folder = tmp_path / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for heavy in (".venv/lib/weights.bin", ".cache/models/weights.bin", ".git/objects/pack", "demo-lake/shards/a"):
        (folder / heavy).parent.mkdir(parents=True)
        with open(folder / heavy, "wb") as file:
            file.truncate(200 * 2**20)  # sparse: takes no room here, would in an upload
    return folder


@long_only
@pytest.mark.slow
def test_launch_as_a_job_with_the_checkout_uploaded_collects(
    tmp_path: Path, own_home: Path, cluster: Cluster, checkout: Path
) -> None:
    lake = tmp_path / "lake"
    config(checkout, models=["stub/alpha"], limit=ITEMS, datasets="pipelines/configs/demo_data", lake="lake")
    working = ["--working-dir", "."]
    command = ["python", "pipelines/collect.py", "--config", "run-0.yaml"]

    refused = submit(cluster, checkout, working, command)
    assert refused.code == 1
    assert "failed" in refused.out + refused.err
    assert "a relative path would be lost with the job" in refused.out

    job = submit(cluster, checkout, working, [*command, "--lake", str(lake)])
    assert job.code == 0, job.out + job.err
    assert "succeeded" in job.out + job.err
    assert collected(lake) == EXPECTED
    [unpacked] = own_home.glob("cluster/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    uploaded = {entry.name for entry in unpacked.iterdir()}
    assert {"pipelines", "collectors", "schemas"} <= uploaded
    assert not uploaded & {".venv", ".cache", ".git", "demo-lake"}


@long_only
@pytest.mark.slow
def test_launch_as_a_job_of_the_script_itself_on_an_installed_node_collects(tmp_path: Path, cluster: Cluster) -> None:
    path, lake = config(tmp_path, models=["stub/alpha"], limit=ITEMS), tmp_path / "lake"
    job = submit(cluster, tmp_path, [], ["pipelines/collect.py", "--config", str(path)])
    assert job.code == 0, job.out + job.err
    assert "succeeded" in job.out + job.err
    assert collected(lake) == EXPECTED
