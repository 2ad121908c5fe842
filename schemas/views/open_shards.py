"""Reads the rows of open shards into a table: each file once, side by side, in batches that bound the memory.

Owns the choice between that table and the views of the same names. Knows nothing of which shards are open.

A view opens every file anew wherever a query names it, and each file takes about a millisecond of CPU, whatever its
rows.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import duckdb
import pyarrow as pa

from schemas.identity import ShardName
from schemas.records import ANSWERS
from schemas.views.files import Placeholders
from schemas.views.order import view_files

#: The table, in place of the view of that name; and the steps before it, which the table makes needless.
TABLE, STEPS = "_open_verdicts", ("_stored", "_open_rows")

#: The rows of open shards become a table from so many shards on, up to so many rows: a row takes 350 bytes of memory.
#: The pool and the numbers of its answers name them five times.
MANY_SHARDS, MOST_ROWS = 1000, 4_000_000
SOME_SHARDS, FEW_ROWS = 20, 100_000
#: Shards that are read by one statement, and most rows by their names: DuckDB keeps up to 450 KB for each of its files
#: until its end.
SHARDS_AT_ONCE, ROWS_AT_ONCE = 250, 100_000
#: Columns that only the view _rows shows. Each column of each file takes 25 microseconds.
_UNSHOWN = ("cut_tokens", "ttft_s", "source_file", "source_row")


def read_open_shards(con: duckdb.DuckDBPyConnection, names: Placeholders, wanted: Collection[str]) -> bool:
    """Makes the table _open_verdicts of all open shards, in the order of their names. `wanted` are the views to come.

    False where shards are few, or hold more than MOST_ROWS: then nothing is made.
    """
    if names.open_shards is None or len(names.open_shards) < min(SOME_SHARDS, MANY_SHARDS):
        return False
    most = MOST_ROWS if len(names.open_shards) >= MANY_SHARDS else FEW_ROWS
    batches = list(_batches(names.open_shards))
    if sum(rows for _, rows in batches) > most:
        return False
    left_out = [*ANSWERS, *(() if "_rows" in wanted else _UNSHOWN)]
    left_out += [] if "_rows" in wanted or names.files.filled else ["metrics"]
    made = 0
    # A second thread of DuckDB doubles the CPU time of reading small files: threads of our own have a cursor each.
    [(threads,)] = con.execute("SELECT current_setting('threads')").fetchall()
    con.execute("SET threads = 1")
    con.execute("SET enable_external_file_cache = false")  # it keeps 200 KB for each file: 2 GB for 10,000 shards
    try:
        queries = (_select(names, paths, left_out) for paths, _ in batches)
        with contextlib.closing(_in_order(con, queries, threads)) as read:
            for number, rows in enumerate(read):
                con.register("read_rows", rows)
                con.execute(f"{f'INSERT INTO {TABLE}' if number else f'CREATE TABLE {TABLE} AS'} FROM read_rows")
                con.unregister("read_rows")
                made += len(rows)
                if made > most:  # an item may have many: a row for each filter and repeat
                    con.execute(f"DROP TABLE {TABLE}")
                    return False
    finally:
        con.execute(f"SET threads = {threads}")
        con.execute("RESET enable_external_file_cache")
    return True


def _batches(paths: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Yields paths that are read by one statement, and their rows by the names of the files."""
    batch: list[str] = []
    rows = 0
    for path in paths:
        shard = ShardName.parse(path)
        assert shard, path
        more = shard.last - shard.first + 1
        if batch and (len(batch) >= SHARDS_AT_ONCE or rows + more > ROWS_AT_ONCE):
            yield batch, rows
            batch, rows = [], 0
        batch.append(path)
        rows += more
    if batch:
        yield batch, rows


def _select(names: Placeholders, paths: Sequence[str], left_out: Sequence[str]) -> str:
    stored, rows = (view_files()[name].query for name in STEPS)
    stored = stored.replace("{shards}", names.rows_of_shards(paths))
    return (
        f"WITH _stored AS ({stored}), _open_rows AS ({rows}) SELECT * EXCLUDE ({', '.join(left_out)}) FROM _open_rows"
    )


def _in_order(con: duckdb.DuckDBPyConnection, queries: Iterable[str], threads: int) -> Generator[pa.Table]:
    """Yields the rows of each query. Of those that are read ahead there are as many as threads."""

    def rows(query: str) -> pa.Table:
        with contextlib.closing(con.cursor()) as cursor:
            return cursor.execute(query).to_arrow_table()

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[pa.Table]] = deque()
        for query in queries:
            ahead.append(pool.submit(rows, query))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
