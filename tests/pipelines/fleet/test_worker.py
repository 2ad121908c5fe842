"""A worker process while the store is away: it keeps its shards, reports it, and continues."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from collectors.harness.loading import use_datasets
from collectors.lake.store import Lake
from collectors.runs.config import RunConfig
from collectors.runs.planning import make_plan
from collectors.runs.work import ShardReport
from pipelines.fleet import waiting
from pipelines.fleet.waiting import Away
from pipelines.fleet.worker import Worker, WorkerSpec
from schemas.failures import StorageError
from tests.helpers.fault_proxy import Faults, faulty
from tests.helpers.object_store import BUCKET, ObjectStore
from tests.helpers.runs import CHOICE, DATA


@pytest.fixture
def faults(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faults]:
    """A proxy between this process and the object store, with clients that give up soon."""
    found = Faults(refused=0, cut_before=0, cut_after=0, late=0)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with faulty(object_store.endpoint, found) as endpoint:
        for name, value in {**object_store.environment, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield found
    s3fs.S3FileSystem.clear_instance_cache()


def test_worker_whose_store_is_away_keeps_both_shards_and_commits_them_when_it_is_back(faults: Faults) -> None:
    uri = f"s3://{BUCKET}/{secrets.token_hex(4)}"
    use_datasets(str(DATA))
    keys = {"models": ["stub/a"], "tasks": [CHOICE], "lake": uri, "engine": "stub", "datasets": str(DATA)}
    config = RunConfig.model_validate(keys)
    lake = Lake(uri).open_for_writing()
    [planned] = make_plan(config, lake).cells
    spec = WorkerSpec("a-run", uri, "stub", {}, [], str(DATA), None, os.getcwd())
    worker = Worker.__ray_metadata__.modified_class(spec)  # type: ignore[attr-defined]

    worker.begin(planned.cell, 0, 4, None)
    worker.begin(planned.cell, 5, 9, None)
    faults.away = True
    told = [worker.finish() for _ in range(3)]  # judged, and not written
    assert all(isinstance(one, Away) and one.kind == "storage" and uri in one.message for one in told), told
    faults.away = False
    report = worker.finish()
    assert isinstance(report, ShardReport)
    assert (report.items, report.committed) == (5, True)

    worker.finish()
    faults.away = True
    worker.begin(planned.cell, 10, 14, None)  # not even begun
    assert isinstance(worker.finish(), Away)
    faults.away = False
    assert worker.finish().committed
    names = sorted(name.rsplit("-g", 1)[1] for name in lake.names("shards") if "-g0-" in name)
    assert names == ["0-0000000-0000004.parquet", "0-0000005-0000009.parquet", "0-0000010-0000014.parquet"]


def test_worker_whose_store_refuses_it_says_so_at_once(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = WorkerSpec("a-run", f"s3://{BUCKET}-none/lake", "stub", {}, [], str(DATA), None, os.getcwd())
    use_datasets(str(DATA))
    keys = {"models": ["stub/a"], "tasks": [CHOICE], "lake": "/nowhere", "engine": "stub", "datasets": str(DATA)}
    [planned] = make_plan(RunConfig.model_validate(keys), Lake("/nowhere")).cells
    worker = Worker.__ray_metadata__.modified_class(spec)  # type: ignore[attr-defined]
    worker.begin(planned.cell, 0, 4, None)
    with pytest.raises(StorageError, match="make the bucket first"):
        worker.finish()
