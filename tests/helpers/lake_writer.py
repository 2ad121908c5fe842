"""Processes that write into a lake, or compact one, until they are killed: what the kill tests start.

Owns what is written, so that a reader can tell a whole object from a part. Imports little: it is started often.
"""

from __future__ import annotations

import datetime as dt
import random
from multiprocessing.connection import Connection

from collectors.lake.store import Lake

NAMES = 40


def content(name: str, writer: int) -> bytes:
    """What `writer` puts into `name`: up to 300 KB, another length for each."""
    return f"{writer} {name} ".encode() * random.Random(f"{name} {writer}").randrange(1, 20_000)


def write(uri: str, writer: int, told: Connection) -> None:
    """Creates names in an order of its own and tells what it won, until it is killed or has been through all."""
    lake = Lake(uri)
    names = [f"shards/task=t/{i}" for i in range(NAMES)]
    random.Random(writer).shuffle(names)
    told.send("started")
    for name in names:
        if lake.create(name, content(name, writer)):
            told.send(name)
    told.send("done")


def fold(uri: str, number: int, told: Connection) -> None:
    """Compacts the lake, and with every third `number` prunes it, until it is killed."""
    from collectors.lake.compaction import compact
    from collectors.lake.pruning import prune

    told.send("started")
    compact(Lake(uri))
    if number % 3 == 0:
        prune(Lake(uri), dt.timedelta(0))
    told.send("done")
