"""An object is created by one writer, whole or not at all, whoever races or dies."""

from __future__ import annotations

import hashlib
import random
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collectors.lake.holdings import committed
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from schemas.failures import StorageError
from schemas.identity import safe_name
from tests.helpers.object_store import PATIENCE
from tests.helpers.opened_lakes import CELL, lake, python, read, shard, uri

__all__ = ["lake", "uri"]  # fixtures


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


@pytest.mark.few(1)
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


@pytest.mark.few(1)
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


# ---- folders


def test_create_longest_names_fit_with_their_temporary_file(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    assert lake.create(f"models/{safe_name('m' * 200)}-{safe_name('0' * 300)}.parquet", b"1")


@pytest.mark.parametrize("kind", ["folder", "dangling"])
def test_create_where_something_else_than_a_file_is_is_an_error_never_a_lost_race(tmp_path: Path, kind: str) -> None:
    lake, name = Lake(str(tmp_path)).open_for_writing(), shard_name("t", shard(0, 1))
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).mkdir() if kind == "folder" else (tmp_path / name).symlink_to("nowhere")
    for use in (lambda: lake.has(name), lambda: lake.create(name, b"1")):
        with pytest.raises(StorageError, match="is in the way"):
            use()
