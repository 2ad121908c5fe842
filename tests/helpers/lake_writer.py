"""Processes that write into a lake, or compact one, until they are killed, for the kill tests.

Owns the contents of objects, by which a reader recognises a whole one. Imports little, because it is started often.
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


def write(uri: str, writer: int, reports: Connection) -> None:
    """Creates names in its own order and reports those that it created, until it is killed or at the end."""
    lake = Lake(uri)
    names = [f"shards/task=t/{i}" for i in range(NAMES)]
    random.Random(writer).shuffle(names)
    reports.send("started")
    for name in names:
        if lake.create(name, content(name, writer)):
            reports.send(name)
    reports.send("done")


def fold(uri: str, number: int, reports: Connection) -> None:
    """Compacts the lake, and with every third `number` prunes it, until it is killed."""
    from collectors.lake.compaction import compact
    from collectors.lake.pruning import prune

    reports.send("started")
    compact(Lake(uri))
    if number % 3 == 0:
        prune(Lake(uri), dt.timedelta(0))
    reports.send("done")
