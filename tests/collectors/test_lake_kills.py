"""Writers killed at any moment: what was acknowledged is there, what is there is whole, nothing is there twice."""

from __future__ import annotations

import multiprocessing
import random
import secrets
from pathlib import Path

import pytest

from collectors.lake import Lake
from tests.lake_writer import content, write
from tests.object_store import BUCKET

#: Writers that are killed, per store; each writes until then.
KILLS = 100


def killed(uri: str, writer: int, draw: random.Random) -> list[str]:
    """The names that a writer said it won before it was killed, at most 150 ms after it began to write."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=write, args=(uri, writer, there), daemon=True)
    process.start()
    there.close()
    assert here.recv() == "started"
    process.join(draw.uniform(0, 0.15))
    process.kill()
    process.join()
    won = []
    try:
        while (name := here.recv()) != "done":
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
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.lake_writer", "s3fs"])
    owner: dict[str, int] = {}
    for writer in range(KILLS):
        for name in killed(uri, writer, draw):
            assert name not in owner, "two writers won the same object"
            owner[name] = writer
    found = [name for name in lake.names("shards/task=t") if name != "shards/task=t"]
    assert set(owner) <= set(found)
    assert len(found) == len(set(found))
    for name in found:
        data = lake.filesystem.cat_file(f"{lake.root}/{name}")
        writers = [owner[name]] if name in owner else range(KILLS)
        assert any(data == content(name, writer) for writer in writers), f"{name} is not whole"
