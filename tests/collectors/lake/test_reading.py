"""Reading a lake in an object store: the same rows by every way, plain errors, and no secret anywhere."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import duckdb
import pytest
import s3fs

from collectors.lake import reading
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from pipelines.matrix import main
from schemas.failures import StorageError
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.object_store import BUCKET, ObjectStore
from tests.helpers.thorough import long_only

pytestmark = pytest.mark.slow
CELLS = [BuiltCell(), BuiltCell(model="model-b"), BuiltCell(task="it's [a] *task?")]
VIEWS = ("matrix", "records", "responses", "cells", "coverage", "leaderboard", "oracle", "failures", "runs", "items")


def fill(lake: LakeBuilder) -> Lake:
    for cell in CELLS:
        lake.planned(cell, [1.0, 0.0, None, 1.0])
    lake.scores(CELLS[0], [0.5], first=1, generation=1)
    lake.items("quiz", "i0", 4)
    lake.failure(lake.run(CELLS[0]), "no_weights", "model-x has none")
    return lake.lake


def everything(lake: Lake) -> dict[str, list[Any]]:
    """All rows; fractions to 12 digits, because files come in another order and sums differ in the last one."""
    with connect(lake, only=VIEWS) as con:
        found = {view: rows(con, f"FROM {view} ORDER BY ALL") for view in VIEWS}
    return {
        view: [tuple(round(v, 12) if isinstance(v, float) else v for v in row) for row in table]
        for view, table in found.items()
    }


@pytest.fixture
def remote(s3_environment: ObjectStore) -> Lake:
    return fill(LakeBuilder(f"s3://{BUCKET}/{secrets.token_hex(4)}/it's a lake"))


@pytest.mark.parametrize("way", ["httpfs", pytest.param("fsspec", marks=long_only)])
def test_lake_in_a_store_reads_as_the_same_lake_in_a_folder(
    remote: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    used = []
    create_secret = reading._create_s3_secret
    monkeypatch.setattr(reading, "_create_s3_secret", lambda con: used.append("httpfs") or create_secret(con))
    if way == "fsspec":
        monkeypatch.setattr(reading, "_packaged_httpfs", lambda: None)
    assert everything(remote) == everything(fill(LakeBuilder(tmp_path / "lake")))
    assert used == (["httpfs"] if way == "httpfs" else [])


@long_only
def test_matrix_of_a_lake_in_a_store_shows_it_and_keeps_no_secret(
    remote: Lake, s3_environment: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.duckdb"
    assert main(["--lake", remote.uri, "--out", str(out), "--show"]) == 0
    shown = capsys.readouterr()
    assert "cells: 3" in shown.out
    assert s3_environment.secret.encode() not in out.read_bytes()
    assert s3_environment.secret not in shown.out + shown.err
    with duckdb.connect(out, read_only=True) as con:
        reading.open_store(con, remote)
        assert rows(con, "SELECT count(*) FROM matrix") == [(9,)]


def test_matrix_of_a_store_that_refuses_or_lacks_it_is_one_line(
    remote: Lake, s3_environment: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--lake", f"s3://{BUCKET}-none/lake", "--sql", "FROM cells"]) == 2
    assert "no lake at" in capsys.readouterr().err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    with pytest.raises(StorageError, match="cannot read the lake at"):
        connect(remote)
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["--lake", remote.uri, "--sql", "FROM cells"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "wrong" not in error
