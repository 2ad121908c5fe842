"""compact.py and publish.py spread over a Ray cluster: by its address, and as a job of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines import compact, publish
from tests.e2e.conftest import Cluster
from tests.e2e.test_launch import submit
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
