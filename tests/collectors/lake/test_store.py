"""The lake's promises, in a folder and on a real S3 server: whole objects, one winner, full listings, plain errors."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import itertools
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.lake.holdings import committed, read_holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.runs.status import RunWatch
from schemas.failures import ConfigError, StorageError, UnreachableError
from schemas.identity import MAX_GENERATION, ShardName, missing_ranges, safe_name
from schemas.records import RECORD, SCHEMA_FILES, SCHEMA_VERSION, TABLES
from schemas.views import create_views
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.object_store import BUCKET, PATIENCE, ObjectStore

ROOT = Path(__file__).parents[3]
CELL = "0123456789abcdef"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet."""
    if request.param == "folder":
        return str(tmp_path / "lake")
    request.getfixturevalue("s3_environment")
    return f"s3://{BUCKET}/{tmp_path.name}-{secrets.token_hex(4)}"


@pytest.fixture
def lake(uri: str) -> Lake:
    return Lake(uri).open_for_writing()


def read(lake: Lake, name: str) -> bytes:
    data: bytes = lake.filesystem.cat_file(f"{lake.root}/{name}")
    return data


def shard(first: int, last: int, generation: int = 0, cell: str = CELL) -> ShardName:
    return ShardName(cell, generation, first, last)


# ---- opening


def test_lake_opened_for_writing_holds_every_tables_schema(lake: Lake) -> None:
    names = list(SCHEMA_FILES.values())
    assert [name for folder in TABLES for name in lake.names(folder)] == names
    for name, schema in zip(names, TABLES.values(), strict=True):
        assert pq.read_schema(io.BytesIO(read(lake, name))).equals(schema)


def test_lake_opened_twice_is_the_same_and_leaves_no_probe(lake: Lake, uri: str) -> None:
    before = lake.names("")
    assert Lake(uri).open_for_writing().names("") == before
    assert Lake(uri).open_for_reading().exists()
    assert not [name for name in before if "probe" in name or name.endswith(".tmp")]


def test_lake_not_there_reading_is_refused_and_makes_nothing(uri: str) -> None:
    lake = Lake(uri)
    assert not lake.exists()
    assert (lake.names("shards"), committed(lake), lake.has("x")) == ([], {}, False)
    with pytest.raises(ConfigError, match=re.escape(f"no lake at {lake.uri}")):
        lake.open_for_reading()
    assert lake.names("") == []


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0])
def test_lake_of_another_schema_version_is_refused_unchanged(uri: str, version: int) -> None:
    lake = Lake(uri)
    sink = io.BytesIO()
    metadata = {b"routerlake_schema_version": str(version).encode()} if version else {}
    pq.write_table(RECORD.empty_table().replace_schema_metadata(metadata), sink)
    lake.create(SCHEMA_FILES["shards"], sink.getvalue())
    for open_lake in (lake.open_for_reading, lake.open_for_writing):
        with pytest.raises(ConfigError, match=f"schema version {version}, this program reads"):
            open_lake()
    assert lake.names("") == [SCHEMA_FILES["shards"]]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet" * 100])
def test_lake_damaged_schema_file_is_a_storage_error(uri: str, data: bytes) -> None:
    lake = Lake(uri)
    lake.create(SCHEMA_FILES["shards"], data)
    with pytest.raises(StorageError, match=re.escape(SCHEMA_FILES["shards"])):
        lake.open_for_writing()


def test_lake_uri_of_one_slash_is_no_folder() -> None:
    with pytest.raises(ConfigError, match="two slashes"):
        Lake("s3:/bucket/lake")


@pytest.mark.parametrize("uri", ["nosuch://x/y", "s3://key:hidden@bucket/x"])
def test_lake_uri_that_cannot_be_one_is_a_config_error_without_secrets(uri: str) -> None:
    with pytest.raises(ConfigError, match="lake") as caught:
        Lake(uri)
    assert "hidden" not in str(caught.value)


# ---- exclusive creation


def test_create_name_is_taken_first_content_stays(lake: Lake) -> None:
    assert lake.create("runs/x", b"first")
    assert not lake.create("runs/x", b"second")
    assert read(lake, "runs/x") == b"first"
    assert lake.has("runs/x")


def test_create_sixteen_threads_race_exactly_one_wins_each_name(lake: Lake) -> None:
    names = [f"shards/task=t/{shard(i, i)}" for i in range(20 if lake.local else 3)]
    for name in names:
        gate = threading.Barrier(16)

        def write(writer: int, name: str = name, gate: threading.Barrier = gate) -> bool:
            gate.wait(PATIENCE)
            return lake.create(name, b"%d" % writer * 50_000)

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, range(16)))
        assert sum(won) == 1
        assert read(lake, name) == b"%d" % won.index(True) * 50_000
    assert [str(s) for s in committed(lake)[CELL]] == [name.rsplit("/", 1)[-1] for name in names]


RACER = """
import sys
from collectors.lake.store import Lake
lake, me, count = Lake(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
print(*(i for i in range(count) if lake.create(f"shards/{i}", f"{me}:{i}".encode() * 1000)))
"""


def python(code: str, *args: Any) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], cwd=ROOT, **pipes)


def test_create_processes_race_exactly_one_wins_each_name(lake: Lake, uri: str) -> None:
    count = 300 if lake.local else 40
    racers = [python(RACER, uri, number, count) for number in range(4)]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    wins = [racer.communicate("go\n", timeout=PATIENCE)[0].split() for racer in racers]
    owners = {int(name): number for number, names in enumerate(wins) for name in names}
    assert sum(map(len, wins)) == len(owners) == count
    assert all(read(lake, f"shards/{i}") == f"{owner}:{i}".encode() * 1000 for i, owner in owners.items())


WRITER = """
import hashlib, os, sys
from collectors.lake.store import Lake
lake, me = Lake(sys.argv[1]), sys.argv[2]
for number in range(10**6):
    data = os.urandom(int(sys.argv[3]))
    lake.create(f"shards/task=t/{me}-{number}", hashlib.sha256(data).digest() + data)
    print(number, flush=True)
"""


def test_create_writer_killed_at_random_moments_only_whole_objects_are_listed(lake: Lake, uri: str) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print("seed", seed)
    draw = random.Random(seed)
    for number in range(5):
        writer = python(WRITER, uri, number, draw.choice([1000, 300_000, 3_000_000]))
        assert writer.stdout
        for _ in range(draw.randrange(1, 12)):
            writer.stdout.readline()
        deadline = draw.random() * 0.02  # somewhere inside the next write
        try:
            writer.wait(deadline)
        except subprocess.TimeoutExpired:
            writer.kill()
        written = len(writer.communicate(timeout=PATIENCE)[0].split())
        names = [name for name in lake.names("shards") if f"/{number}-" in name]
        assert len(names) >= written
        for name in names:
            data = read(lake, name)
            assert hashlib.sha256(data[32:]).digest() == data[:32], name
    assert committed(lake) == {}
    lake.open_for_writing()


# ---- listing


def test_names_are_in_byte_order_whole_and_below_the_folder_only(lake: Lake) -> None:
    names = ["runs/Z", "runs/a", "runs/a-b", "runs/aa/b", "runs/b", "runs/z/y", "runs/é", "runs/日"]
    for name in [*reversed(names), "runs2/c", "other/d"]:
        lake.create(name, b"1")
    assert [name for name in lake.names("runs") if name != "runs/schema.parquet"] == names
    assert lake.names("nothing") == []


def test_names_another_process_created_are_seen_at_once(lake: Lake, uri: str) -> None:
    assert committed(lake) == {}
    Lake(uri).create(Lake.shard_path("t", shard(0, 4)), b"1")
    assert committed(lake) == {CELL: [shard(0, 4)]}
    assert lake.has(Lake.shard_path("t", shard(0, 4)))


@pytest.mark.slow
def test_names_more_than_a_page_of_listing_are_all_there(s3_environment: ObjectStore) -> None:
    lake = Lake(f"s3://{BUCKET}/pages-{secrets.token_hex(4)}")
    shards = [shard(i, i) for i in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: lake.create(Lake.shard_path("t", one), b"1"), shards))
    assert committed(lake) == {CELL: shards}


def test_committed_only_shards_count_and_in_order(lake: Lake) -> None:
    other = "f" * 16
    shards = [shard(0, 4), shard(5, 4100), shard(0, 4, 1), shard(0, 0, 10), shard(7, 9, cell=other)]
    for number, one in enumerate(shards):
        lake.create(Lake.shard_path(f"task {number}", one), b"1")
    leftovers = ["schema.txt", ".0123.tmp", f"copy-of-{shard(9, 9)}", f"{shard(9, 9)}.tmp", f"{shard(9, 9)}.bak"]
    for name in [*leftovers, "0123456789ABCDEF-g0-0000000-0000001.parquet", "x.parquet", f"{CELL}-g0-1-2.parquet"]:
        lake.create(f"shards/task=t/{name}", b"1")
    assert {cell: sorted(found) for cell, found in committed(lake).items()} == {
        CELL: sorted(shards[:4]),
        other: [shards[4]],
    }


HOSTILE = [
    "..",
    ".",
    "a/b",
    "a b",
    "it's",
    '"',
    "$x",
    "*",
    "a\nb",
    "%2F",
    "ü",
    "=",
    "task=t",
    "a" * 200,
    "\x00",
    "?",
    "#",
]


@pytest.mark.parametrize("task", HOSTILE)
def test_shard_path_hostile_task_name_is_committed_in_one_folder(lake: Lake, task: str) -> None:
    path = Lake.shard_path(task, shard(0, 1))
    assert path.count("/") == 2
    assert lake.create(path, b"1")
    assert committed(lake) == {CELL: [shard(0, 1)]}
    assert lake.names("shards") == sorted([path, SCHEMA_FILES["shards"]])


# ---- Parquet


def full_rows() -> list[dict[str, Any]]:
    """Rows that fill every column, with nulls, empty and nested lists, extremes and texts of all kinds."""
    texts = ["", "日本\x00\n'\"", "x" * 100_000]
    filled: dict[Any, Any] = {
        pa.string(): texts[1],
        pa.int16(): -(2**15),
        pa.int32(): 2**31 - 1,
        pa.int64(): -(2**63),
        pa.float64(): 1e-300,
        pa.bool_(): True,
        pa.list_(pa.string()): [*texts, None],
        pa.list_(pa.float64()): [1.5, None, float("inf")],
        pa.list_(pa.bool_()): [True, None, False],
        pa.date32(): dt.date(2026, 1, 2),
        pa.timestamp("us", tz="UTC"): dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    }
    return [filled]


@pytest.mark.parametrize("table", TABLES)
def test_create_table_nulls_and_nested_columns_come_back_as_they_were(lake: Lake, table: str) -> None:
    schema = TABLES[table]
    (filled,) = full_rows()
    full = {field.name: filled[field.type] for field in schema}
    least = {field.name: None if field.nullable else filled[field.type] for field in schema}
    empty = {f.name: [] if pa.types.is_list(f.type) else filled[f.type] for f in schema}
    rows = [full, least, empty] * 50
    assert lake.create_table(f"{table}/x.parquet", pa.Table.from_pylist(rows, schema=schema), {"shard": {"a": "é"}})
    found = pq.ParquetFile(io.BytesIO(read(lake, f"{table}/x.parquet")))
    assert found.read().to_pylist() == rows
    assert found.schema_arrow.equals(schema)
    assert found.schema_arrow.metadata[b"routerlake_schema_version"] == str(SCHEMA_VERSION).encode()
    assert found.schema_arrow.metadata[b"shard"] == b'{"a": "\\u00e9"}'
    assert not lake.create_table(f"{table}/x.parquet", schema.empty_table())


# ---- folders


@pytest.mark.parametrize(
    "name", ["a b", 'it\'s "x"', "ü日本", "[a]*?", "a::b", "100%", "$x", "#", "s3x", "s3", "a=b", "-"]
)
def test_lake_folder_with_any_name_works(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name)).open_for_writing()
    assert lake.create(Lake.shard_path("t", shard(0, 1)), b"1")
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
    said = "passed over in the lake, its name is no text: "
    assert [line for line in caplog.messages if line.startswith(said)].count(f"{said}{os.fsdecode(bad[0])!a}") == 1
    with duckdb.connect() as con:
        create_views(con, lake.uri, read_holdings(lake).view_files(live=True))
        assert con.execute("SELECT count(*) FROM records").fetchall() == [(2,)]
    assert ask(lake, lambda con, _: con.execute("SELECT count(*) FROM records").fetchall()) == [(2,)]


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
    assert linked.create(Lake.shard_path("t", shard(0, 1)), b"1")
    assert not lake.create(Lake.shard_path("t", shard(0, 1)), b"2")
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
        lake.open_for_writing().create(Lake.shard_path("t", shard(0, 1)), b"1")


def test_create_longest_names_fit_with_their_temporary_file(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    assert lake.create(f"models/{safe_name('m' * 200)}-{safe_name('0' * 300)}.parquet", b"1")


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
    """Links are followed by both or by neither, and what is no file is no shard."""
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


@pytest.mark.parametrize("kind", ["folder", "dangling"])
def test_create_where_something_else_than_a_file_is_is_an_error_never_a_lost_race(tmp_path: Path, kind: str) -> None:
    lake, name = Lake(str(tmp_path)).open_for_writing(), Lake.shard_path("t", shard(0, 1))
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).mkdir() if kind == "folder" else (tmp_path / name).symlink_to("nowhere")
    for use in (lambda: lake.has(name), lambda: lake.create(name, b"1")):
        with pytest.raises(StorageError, match="is in the way"):
            use()


def test_lake_that_no_other_process_can_reach_is_refused() -> None:
    for uri in ("memory://lake", "/tmp/l\udcff", "/tmp/a\nb"):
        with pytest.raises(ConfigError, match=r"lake|no text"):
            Lake(uri)


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

    with tempfile.TemporaryDirectory() as folder:  # not pytest's: others may not even look into that
        os.chmod(folder, 0o755)
        lake = Lake(folder).open_for_writing()
        lake.create(Lake.shard_path("t", shard(0, 1)), b"1")
        if hidden:
            os.chmod(Path(folder) / "shards" / "task=t", 0)
        process = python(READ_ONLY, folder)
        writing, creating, listing = process.communicate("\n", timeout=PATIENCE)[0].splitlines()
        assert lake.names("runs") == ["runs/schema.parquet"]
    for line in (writing, creating):
        assert re.match(rf"cannot write \S+ to the lake at {folder}: PermissionError", line)
    expected = f"cannot list shards in the lake at {folder}: PermissionError" if hidden else f"{{'{CELL}': [ShardName("
    assert listing.startswith(expected)


# ---- names and ranges

shard_names = st.builds(
    lambda cell, generation, first, length: ShardName(cell, generation, first, first + length),
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.integers(0, MAX_GENERATION),
    st.integers(0, 9_000_000),
    st.integers(0, 4095),
)


@given(shard_names, st.sampled_from(["", "shards/task=x/", "/a b/ü\n/", "s3://b/"]))
def test_shard_name_any_comes_back_from_its_path(name: ShardName, folder: str) -> None:
    assert ShardName.parse(f"{folder}{name}") == name
    assert safe_name(str(name)) == str(name)


@given(shard_names, st.text(min_size=1, max_size=3).filter(lambda text: "/" not in text))
def test_shard_name_with_anything_more_is_no_shard(name: ShardName, more: str) -> None:
    assert ShardName.parse(f"{name}{more}") is None
    assert ShardName.parse(f"{more}{name}") is None


@given(st.lists(shard_names, max_size=8))
def test_shard_name_of_one_cell_and_generation_sorts_as_its_text(names: list[ShardName]) -> None:
    names = [ShardName(CELL, 3, name.first, name.last) for name in names]
    assert sorted(names) == sorted(names, key=str)


ranges = st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 15))


@given(st.lists(ranges, max_size=10), st.integers(0, 45))
def test_missing_ranges_any_shards_equal_the_items_one_by_one(done: list[tuple[int, int, int]], items: int) -> None:
    shards = [shard(first, first + length, g) for g, first, length in done]
    found = missing_ranges(iter(shards), items)
    covered = {i for s in shards for i in range(s.first, s.last + 1)}
    assert [i for first, last in found for i in range(first, last + 1)] == [i for i in range(items) if i not in covered]
    # each gap is one range: nothing is cut that belongs together
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(found))
