"""Writers and compactors are killed at any moment: committed rows are read, whole and once."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from collectors.lake.compaction import compact
from collectors.lake.holdings import committed
from collectors.lake.layout import shard_name
from collectors.lake.pruning import prune
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from schemas.identity import ShardName
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.lake_writer import content, fold, write
from tests.helpers.object_store import BUCKET
from tests.helpers.thorough import often

#: Writers that are killed, per store; each writes until then.
KILLS = often(100)
#: Compactors that are killed, per store: each takes half a second.
FOLD_KILLS = often(30, few=10)


def killed(uri: str, writer: int, seconds: float, target: Callable[..., None] = write) -> list[str]:
    """The names that a writer reported as created before it was killed, at most `seconds` after it began."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(uri, writer, there), daemon=True)
    process.start()
    there.close()
    assert here.recv() == "started"
    process.join(seconds)
    process.kill()
    process.join()
    won = []
    try:
        while (name := here.recv()) != "done":
            won.append(name)
        won.append(name)
    except EOFError:
        pass
    return won


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_lake_writers_killed_at_random_lose_and_double_nothing(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri, seed = str(tmp_path / "lake"), secrets.randbelow(10**6)
    print(f"seed {seed}")
    if place == "s3":
        request.getfixturevalue("s3_environment")
        uri = f"s3://{BUCKET}/{secrets.token_hex(4)}/lake"
    lake, draw = Lake(uri).open_for_writing(), random.Random(seed)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.helpers.lake_writer", "s3fs"])
    owner: dict[str, int] = {}
    for writer in range(KILLS):
        for name in [name for name in killed(uri, writer, draw.uniform(0, 0.15)) if name != "done"]:
            assert name not in owner, "two writers won the same object"
            owner[name] = writer
    found = [name for name in lake.names("shards/task=t") if name != "shards/task=t"]
    assert set(owner) <= set(found)
    assert len(found) == len(set(found))
    for name in found:
        data = lake.filesystem.cat_file(f"{lake.root}/{name}")
        writers = [owner[name]] if name in owner else range(KILLS)
        assert any(data == content(name, writer) for writer in writers), f"{name} is not whole"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_lake_compactors_killed_at_random_lose_and_double_nothing(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, seed = str(tmp_path / "lake"), secrets.randbelow(10**6)
    print(f"seed {seed}")
    if place == "s3":
        request.getfixturevalue("s3_environment")
        uri = f"s3://{BUCKET}/{secrets.token_hex(4)}/lake"
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.helpers.lake_writer", "s3fs"])
    builder, draw = LakeBuilder(uri), random.Random(seed)
    cells = [BuiltCell(model=f"m{i}", task=task, items=40) for i in range(6) for task in "tu"]
    builder.run(*cells)
    expected: dict[tuple[str, int], float] = {}
    finished = 0
    for number in range(FOLD_KILLS):
        # One more shard each time; every fourth is of a new generation over the existing ones.
        cell, generation = draw.choice(cells), number if number % 4 == 3 else 0
        first = draw.randrange(0, 36, 4) if generation else 4 * (number % 10)
        name = shard_name(cell.task, ShardName(cell.cell_id, generation, first, first + 3))
        if name not in {shard_name(cell.task, shard) for shard in committed(builder.lake).get(cell.cell_id, [])}:
            builder.scores(cell, [float(number)] * 4, first=first, generation=generation)
            for item in range(first, first + 4):
                key = (cell.cell_id, item)
                if generation or not any(
                    s.generation and s.first <= item <= s.last for s in _others(builder, cell, name)
                ):
                    expected[key] = float(number)
        # Every third is killed early: on a fast machine all others may finish.
        seconds = draw.uniform(0, 0.8 if number % 3 else 0.1)
        finished += "done" in killed(uri, number, seconds, fold)
        if number % 5 == 4:
            assert _read(builder.lake) == expected
    compact(builder.lake)
    prune(builder.lake, dt.timedelta(0))
    assert _read(builder.lake) == expected
    assert finished < FOLD_KILLS, "no compactor was killed at work"


def _others(builder: LakeBuilder, cell: BuiltCell, name: str) -> list[ShardName]:
    found = committed(builder.lake)[cell.cell_id]
    return [shard for shard in found if shard_name(cell.task, shard) != name]


def _read(lake: Lake) -> dict[tuple[str, int], float]:
    with connect(lake, only=["matrix"]) as con:
        found = con.execute("SELECT cell_id, item, score FROM matrix").fetchall()
    assert len({row[:2] for row in found}) == len(found), "a row is there twice"
    return {(cell_id, item): score for cell_id, item, score in found}
