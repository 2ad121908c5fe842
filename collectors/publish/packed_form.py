"""Whether the packed form of a version is what its records give: Python loads the matrix from it.

Knows nothing of digests.
"""

from __future__ import annotations

import contextlib

import pyarrow.parquet as pq

from collectors.lake.holdings import read_holdings
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.matrix.blocks import blocks_of_tasks
from collectors.matrix.packed import FILES, write_packed
from collectors.scratch import scratch
from schemas.identity import COLUMN_KEY


def packed_of_others(store: Lake) -> list[str]:
    """Returns a line if this release would pack the records otherwise. All files of the version must be whole.

    Another release packed them, or somebody changed it: only the manifest's SHA-256 tells. A version in a store is not
    read a second time for it.
    """
    if not store.local:
        return []
    with contextlib.closing(connect(store, read_holdings(store, include="all"), only=["cells"])) as con:
        keys = ", ".join(COLUMN_KEY)
        models = con.sql(f"SELECT DISTINCT {keys} FROM cells ORDER BY {keys}").to_arrow_table()
        tasks = [task for (task,) in con.execute("SELECT DISTINCT task FROM cells ORDER BY task").fetchall()]
    with scratch("packed-") as folder:
        write_packed(blocks_of_tasks(store, tasks, "all"), models, folder)
        # Not the bytes: another pyarrow may write the same rows in others.
        own = {name: pq.read_table(folder / name) for name in FILES.values()}
        unlike = [name for name, rows in own.items() if not rows.equals(pq.read_table(store.open_object(name)))]
    if not unlike:
        return []
    return [
        f"{unlike[0]}: {len(unlike)} of the files of the packed matrix are not what this release makes of the records: "
        "another release wrote them, or somebody changed them"
    ]
