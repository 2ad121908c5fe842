"""Lakes in folders: odd names, links, moved mounts, and folders of other users."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.lake.holdings import committed, read_holdings
from collectors.lake.layout import shard_name
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.runs.watching import RunWatch
from schemas.failures import ConfigError, StorageError, UnreachableError
from schemas.identity import safe_name
from schemas.records import SCHEMA_FILES
from schemas.views import create_views
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.object_store import PATIENCE
from tests.helpers.opened_lakes import CELL, lake, python, shard, uri

__all__ = ["lake", "uri"]  # fixtures


@pytest.mark.parametrize(
    "name", ["a b", 'it\'s "x"', "ü日本", "[a]*?", "a::b", "100%", "$x", "#", "s3x", "s3", "a=b", "-"]
)
def test_lake_folder_with_any_name_works(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name)).open_for_writing()
    assert lake.create(shard_name("t", shard(0, 1)), b"1")
    assert committed(Lake(str(tmp_path / name)).open_for_reading()) == {CELL: [shard(0, 1)]}
    assert [folder.name for folder in tmp_path.iterdir()] == [name]


def test_lake_names_that_are_no_text_are_passed_over_by_every_reader_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = LakeBuilder(tmp_path / "lake")
    run = built.run(cell := BuiltCell())
    built.scores(cell, [1.0, 0.0])
    [shard] = [name for name in built.lake.names("shards") if "task=" in name]
    whole, folder = os.fsencode(built.lake.root) + b"/" + shard.encode(), os.fsencode(built.lake.root)
    (tmp_path / "lake" / os.fsdecode(b"shards/task=\xff")).mkdir()
    bad = [b"shards/task=\xff/" + os.path.basename(whole), shard.encode()[:-8] + b"\n.parquet", b"runs/\xff.parquet"]
    for name in bad:
        shutil.copy(whole, folder + b"/" + name)
    lake = Lake(str(tmp_path / "lake"))
    assert [name for name in lake.names("shards") if "task=" in name] == [shard]
    assert list(lake.listing("shards")) == lake.names("shards")
    with contextlib.closing(RunWatch(lake, run)) as watched:
        assert watched.look(10).items_done == 2
    said = "passed over in the lake, its name is not text: "
    assert [line for line in caplog.messages if line.startswith(said)].count(f"{said}{os.fsdecode(bad[0])!a}") == 1
    with duckdb.connect() as con:
        create_views(con, lake.uri, read_holdings(lake).view_files(live=True), only=["records"], comments=False)
        assert con.execute("SELECT count(*) FROM records").fetchall() == [(2,)]
    assert ask(lake, lambda con, _: con.execute("SELECT count(*) FROM records").fetchall(), only=["records"]) == [(2,)]


def test_lake_file_uri_relative_path_and_home_mean_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lake(str(tmp_path / "lake")).open_for_writing()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    lakes = [
        Lake(uri)
        for uri in (f"file://{tmp_path}/lake", "lake", "./lake/", "~/lake", f"{tmp_path}/../{tmp_path.name}/lake")
    ]
    monkeypatch.chdir("/")
    assert all(lake.exists() for lake in lakes)


def test_lake_symlinked_root_and_folders_are_one_lake(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lake" / "shards" / "task=t").symlink_to(tmp_path / "elsewhere")
    linked = Lake(str(tmp_path / "link")).open_for_writing()
    assert linked.create(shard_name("t", shard(0, 1)), b"1")
    assert not lake.create(shard_name("t", shard(0, 1)), b"2")
    assert committed(lake) == committed(linked) == {CELL: [shard(0, 1)]}


@pytest.mark.parametrize("mount_point_stays", [False, True])
def test_lake_that_was_moved_away_is_waited_for_and_not_begun_anew(tmp_path: Path, mount_point_stays: bool) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    Path(lake.root).rename(tmp_path / "away")
    if mount_point_stays:
        Path(lake.root).mkdir()
    with pytest.raises(UnreachableError, match="is gone: was the lake moved, or is it not mounted"):
        lake.create("shards/task=t/one.parquet", b"1")
    assert list(tmp_path.glob("lake/*")) == []
    if mount_point_stays:
        Path(lake.root).rmdir()
    (tmp_path / "away").rename(lake.root)
    assert lake.create("shards/task=t/one.parquet", b"1")


@pytest.mark.parametrize("where", ["", "shards", "shards/task=t"])
def test_lake_file_where_a_folder_should_be_is_an_error_never_a_lost_race(tmp_path: Path, where: str) -> None:
    lake = Lake(str(tmp_path / "lake"))
    if where:
        lake.open_for_writing()
        shutil.rmtree(tmp_path / "lake" / where, ignore_errors=True)
    (tmp_path / "lake" / where).write_text("a file")
    with pytest.raises(StorageError, match=re.escape(str(tmp_path))):
        lake.open_for_writing().create(shard_name("t", shard(0, 1)), b"1")


@given(st.text(), st.text())
def test_safe_name_of_two_names_is_never_the_same(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,100}", safe_name(one))


def test_names_leftovers_of_a_crash_are_not_listed(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    (tmp_path / "shards" / ".0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "shards" / "task=t").mkdir()
    (tmp_path / "shards" / "task=t" / f".{shard(0, 1)}.abc.tmp").write_bytes(b"half")
    assert lake.names("shards") == [SCHEMA_FILES["shards"]]
    assert committed(lake.open_for_writing()) == {}


def test_committed_is_what_the_views_read(tmp_path: Path) -> None:
    """Listings and views both follow links, and only files are shards."""
    lake = LakeBuilder(tmp_path / "lake")
    cells = [BuiltCell(task=f"t{i}") for i in range(4)]
    names = [str(lake.shard(cell, [cell.record(0, score=1.0)])) for cell in cells]
    shards, elsewhere = tmp_path / "lake" / "shards", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (shards / "task=t0").rename(elsewhere / "t0")
    (shards / "task=t0").symlink_to(elsewhere / "t0")
    (shards / "task=t1" / names[1]).rename(elsewhere / names[1])
    (shards / "task=t1" / names[1]).symlink_to(elsewhere / names[1])
    (shards / "task=t2" / names[2]).unlink()
    (shards / "task=t2" / names[2]).symlink_to(elsewhere / "gone")
    (shards / "task=t2" / "loop").symlink_to(shards)
    (shards / "task=t3" / names[3]).unlink()
    (shards / "task=t3" / names[3]).mkdir()
    shutil.copy(elsewhere / names[1], shards / names[1])  # not deep enough to be one
    found = committed(lake.lake)
    assert set(found) == {cells[0].cell_id, cells[1].cell_id}
    read = lake.views().execute("SELECT DISTINCT cell_id FROM records").fetchall()
    assert {cell for (cell,) in read} == set(found)


def test_lake_that_no_other_process_can_reach_is_refused() -> None:
    for bad in ("memory://lake", "/tmp/l\udcff", "/tmp/a\nb"):
        with pytest.raises(ConfigError, match=r"lake|no text"):
            Lake(bad)


READ_ONLY = """
import os, sys
from collectors.lake.holdings import committed, read_holdings
from collectors.lake.store import Lake
from schemas.failures import StorageError
sys.stdin.readline()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for attempt in (
    lambda: Lake(sys.argv[1]).open_for_writing(),
    lambda: Lake(sys.argv[1]).open_for_reading().create("runs/x", b"1"),
    lambda: committed(Lake(sys.argv[1])),
):
    try:
        print(attempt())
    except StorageError as error:
        print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="the tests' own user has to be one whom permissions do not stop")
@pytest.mark.parametrize("hidden", [False, True])
def test_lake_folder_of_another_user_is_an_error_of_one_line_each(hidden: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # others may not even look into pytest's and Ray's
        os.chmod(folder, 0o755)
        lake = Lake(folder).open_for_writing()
        lake.create(shard_name("t", shard(0, 1)), b"1")
        if hidden:
            os.chmod(Path(folder) / "shards" / "task=t", 0)
        process = python(READ_ONLY, folder)
        writing, creating, listing = process.communicate("\n", timeout=PATIENCE)[0].splitlines()
        assert lake.names("runs") == ["runs/schema.parquet"]
    for line in (writing, creating):
        assert re.match(rf"cannot write \S+ to the lake at {folder}: PermissionError", line)
    expected = f"cannot list shards in the lake at {folder}: PermissionError" if hidden else f"{{'{CELL}': [ShardName("
    assert listing.startswith(expected)
