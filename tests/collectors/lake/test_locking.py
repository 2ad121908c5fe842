"""A locked connection reads its lake alone, and nothing can unlock it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from collectors.lake.locking import lock
from collectors.lake.reading import ask, connect
from collectors.lake.store import Lake
from pipelines.matrix import main
from tests.helpers.filled_lakes import plain_lake

#: Each would read beyond the lake, write, or change a setting.
REFUSED = [
    "FROM read_text('{outside}')",
    "FROM '{lake}/../outside.csv'",
    "FROM glob('{folder}/*')",
    "FROM read_csv('/etc/passwd')",
    "FROM 'http://127.0.0.1:9/x.parquet'",
    "COPY (SELECT 1) TO '{folder}/x.csv'",
    "ATTACH '{folder}/x.db'",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "SET temp_directory = '{folder}/t'",
    "INSTALL json",
    "LOAD httpfs",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "PRAGMA profiling_output = '{folder}/x.json'",
]


def test_locked_connection_reads_its_views_and_nothing_else(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path / "it's a [lake]"), 1).lake
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n")
    before = sorted(tmp_path.rglob("*"))
    with connect(lake, only=["matrix"]) as con:
        lock(con, lake)
        assert con.execute("SELECT count(*) > 0 FROM matrix").fetchone() == (True,)
        names = {"lake": lake.uri.replace("'", "''"), "folder": tmp_path, "outside": outside}
        for query in REFUSED:
            with pytest.raises(duckdb.Error):
                con.execute(query.format(**names)).fetchall()
        con.execute("SET VARIABLE prices_on = '2026-01-01'")
    assert sorted(tmp_path.rglob("*")) == before


def test_ask_is_locked(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path / "lake"), 1).lake
    settings = "SELECT value FROM duckdb_settings() WHERE name IN ('enable_external_access', 'lock_configuration')"
    assert ask(lake, lambda con, _: con.execute(settings).fetchall(), only=["cells"]) == [("false",), ("true",)]


def test_matrix_sql_beyond_the_lake_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = plain_lake(str(tmp_path / "lake"), 1).lake
    (tmp_path / "x.csv").write_text("secret\n")
    assert main(["--lake", lake.uri, "--sql", f"FROM read_text('{tmp_path}/x.csv')"]) == 2
    assert "Permission Error" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("client", ["httpfs", "fsspec"])
def test_locked_connection_of_a_store_reads_its_views_and_nothing_else(
    client: str, s3_environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import secrets

    from collectors.lake import reading
    from tests.helpers.object_store import BUCKET

    if client == "fsspec":
        monkeypatch.setattr(reading, "_load_httpfs", lambda con: False)
    prefix = secrets.token_hex(4)
    lake = plain_lake(f"s3://{BUCKET}/{prefix}/it's a lake", 1).lake
    other = Lake(f"s3://{BUCKET}/{prefix}/other")
    other.create("x.csv", b"a\n1\n")
    with connect(lake, only=["matrix"]) as con:
        lock(con, lake)
        assert con.execute("SELECT count(*) > 0 FROM matrix").fetchone() == (True,)
        with pytest.raises(duckdb.Error):
            con.execute(f"FROM read_text('{other.uri}/x.csv')").fetchall()
