"""Answers judged again on a Ray cluster: by its address, and as a job of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from collectors.lake import layout
from collectors.lake.store import Lake
from pipelines.judge import main
from tests.e2e.conftest import Cluster
from tests.e2e.test_launch import submit
from tests.helpers.judged_lakes import ITEMS, collected_lake, shards_of
from tests.helpers.runs import CHOICE, ROOT, TEXT
from tests.helpers.thorough import long_only

KEY = ("cell_id", "item", "filter", "repeat")
VERDICT = ("score", "correct", "metrics", "filtered", "outcome")


def rows(lake: Lake, names: list[str]) -> list[str]:
    tables = [pq.read_table(Path(lake.root, name)).to_pylist() for name in names]
    return sorted(json.dumps([row[name] for name in (*KEY, *VERDICT)]) for table in tables for row in table)


def judged(lake: Lake) -> list[str]:
    return rows(lake, [name for name in lake.names(layout.VERDICTS) if layout.parse_verdicts(name)])


@long_only
@pytest.mark.slow
def test_judge_on_a_cluster_and_as_its_job_gives_the_verdicts_of_the_records(
    tmp_path: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = collected_lake(tmp_path / "lake")
    expected = rows(lake, [*shards_of(lake, CHOICE), *shards_of(lake, TEXT)])
    monkeypatch.chdir(tmp_path)

    assert main(["--lake", "lake", "--judge", "again", "--address", cluster.address]) == 0
    out, err = capfd.readouterr()
    assert f"{4 * ITEMS} answers judged in 8 shards" in out
    assert re.match(r"\d\d:\d\d:\d\d lm-eval loads", err)
    assert judged(lake) == expected

    lake.remove([name for name in lake.names(layout.VERDICTS) if layout.parse_verdicts(name)])
    script = str(ROOT / "pipelines" / "judge.py")
    job = submit(cluster, tmp_path, [], ["python", script, "--lake", lake.uri, "--judge", "again", "--address", "auto"])
    assert job.code == 0, job.out + job.err
    assert judged(lake) == expected
