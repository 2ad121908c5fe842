"""Finds the item table of the lake for the items of a source, or makes a new one.

Owns how items of a source get their positions and hashes. An item table is a task's items in their order; verdicts on
the same table can be compared. A source's items go into a table that holds all of them: one of the lake, else one that
another run of the source makes, else one of their own.
"""

from __future__ import annotations

import functools
import io
import itertools
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.staging import Staging
from collectors.lake.layout import items_digest_of, items_folder, items_name
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.identity import digest
from schemas.records import ITEM
from schemas.sql import quoted


@dataclass
class ItemTable:
    """A task's items: position -> hash."""

    task: str
    hashes: dict[int, str]
    #: Digest of a table that the lake holds; None: the table has to be written.
    stored: str | None = None
    #: Position -> (run, key) of the staged item; of a stored table only the items that it lacks.
    staged: dict[int, tuple[str, str]] = field(default_factory=dict)
    #: Whether this source made it, and may make it longer.
    is_own: bool = False

    @functools.cached_property
    def digest(self) -> str:
        """That of a collected task with the same items, if no position is left out.

        Ask for it when all items are in, like for `items`.
        """
        if self.stored:
            return self.stored
        whole = [self.hashes[position] for position in sorted(self.hashes)]
        return digest(whole if len(whole) == self.items else sorted(self.hashes.items()))

    @functools.cached_property
    def items(self) -> int:
        return max(self.hashes, default=-1) + 1

    @functools.cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.int64], pa.Array]:
        positions = sorted(self.hashes)
        return np.array(positions, np.int64), pa.array([self.hashes[position] for position in positions], pa.string())

    def hashes_of(self, items: npt.NDArray[Any]) -> pa.Array:
        """The hash of each of `items`, positions that are here."""
        positions, hashes = self._sorted
        return hashes.take(pa.array(np.searchsorted(positions, items)))

    @property
    def name(self) -> str:
        return items_name(self.task, self.digest, min(self.staged) if self.stored else None)

    def positions(self, wanted: dict[int, str], *, fixed: bool) -> dict[int, int] | None:
        """Position of the source -> position here; None unless all items are here. `fixed`: positions must be equal."""
        if fixed:
            return {p: p for p in wanted} if all(self.hashes.get(p) == h for p, h in wanted.items()) else None
        places: dict[str, list[int]] = {}
        for position, item_hash in self.hashes.items():
            places.setdefault(item_hash, []).append(position)
        if any(len(places.get(item_hash, ())) != 1 for item_hash in wanted.values()):
            return None
        moves = {position: places[item_hash][0] for position, item_hash in wanted.items()}
        return moves if len(set(moves.values())) == len(moves) else None

    def lengthened(self, wanted: dict[int, str]) -> dict[int, int] | None:
        """Position of the source -> position here, new items behind the others; None if few items are common."""
        places = {item_hash: position for position, item_hash in self.hashes.items()}
        common = sum(item_hash in places for item_hash in wanted.values())
        if len(places) < len(self.hashes) or len(set(wanted.values())) < len(wanted) or 2 * common < len(self.hashes):
            return None
        behind = itertools.count(max(self.hashes, default=-1) + 1)
        return {p: places[h] if h in places else next(behind) for p, h in sorted(wanted.items())}

    def admits(self, wanted: dict[int, str]) -> bool:
        """Whether `wanted` can be added: the two share items, and no position has two of them."""
        common = [position for position in wanted if position in self.hashes]
        return bool(common) and all(self.hashes[position] == wanted[position] for position in common)


def number_items(staging: Staging, lake: Lake | None, source: str) -> dict[tuple[str, str], ItemTable]:
    """Makes the table `numbers` (run, task, key, item, item_hash) of staged verdicts. Returns (run, task) -> table.

    Expects the view `trusted`. `lake`: may have tables already.
    """
    con = staging.con
    con.execute(
        f"""
        CREATE TABLE staged_items AS
        WITH keys AS (
            SELECT run, task, key, min(file::BIGINT * {2**40} + row) AS place FROM trusted GROUP BY ALL
        ),
        -- A key that stands for several questions is one item, as in its source, and it is unclear which one it asks.
        firsts AS (
            SELECT min(rowid) AS first, min(content_hash) IS NOT DISTINCT FROM max(content_hash) AS is_one
            FROM raw_items GROUP BY run, task, key
        ),
        described AS (
            SELECT raw_items.* REPLACE (CASE WHEN is_one THEN content_hash END AS content_hash), is_one
            FROM raw_items JOIN firsts ON raw_items.rowid = first
        )
        SELECT
            keys.run, keys.task, keys.key, described.* EXCLUDE (run, task, key, position, item_hash),
            position IS NOT NULL AS is_fixed,
            coalesce(
                position, row_number() OVER (PARTITION BY keys.run, keys.task ORDER BY place) - 1
            )::INTEGER AS position,
            coalesce(
                item_hash, content_hash, sha256(json_array({quoted(source)}, keys.task, keys.key)::VARCHAR)
            ) AS item_hash
        FROM keys LEFT JOIN described USING (run, task, key)
        """
    )
    con.execute(
        """
        CREATE VIEW staged_texts AS
        SELECT staged_items.* EXCLUDE (is_one, text), target, choices, subject, doc,
            CASE WHEN is_one THEN prompt END AS prompt
        FROM staged_items
        LEFT JOIN (SELECT text, min(rowid) AS first FROM raw_texts GROUP BY text) USING (text)
        LEFT JOIN raw_texts ON raw_texts.rowid = first
        """
    )
    _reject_doubled_positions(staging)
    sets = con.execute(
        """
        SELECT task, bool_and(is_fixed), count(*) AS items, list(DISTINCT run ORDER BY run), signature
        FROM (
            SELECT run, task, bool_and(is_fixed) AS is_fixed, count(*) AS size,
                bit_xor(md5_number(position || ' ' || item_hash)) AS signature
            FROM staged_items GROUP BY run, task
        )
        GROUP BY task, signature, size ORDER BY task, size DESC, signature
        """
    ).fetchall()
    con.execute("CREATE TABLE moved (run VARCHAR, task VARCHAR, position INTEGER, item INTEGER)")
    own = _own_tables(lake, source) if lake else set()
    homes: dict[tuple[str, str], ItemTable] = {}
    tables: dict[str, list[ItemTable]] = {}
    for task, fixed, _, runs, _ in sets:
        rows = con.execute(
            "SELECT position, item_hash, key FROM staged_items WHERE run = ? AND task = ?", [runs[0], task]
        ).fetchall()
        wanted = {position: item_hash for position, item_hash, _ in rows}
        candidates = tables.setdefault(task, _stored_tables(lake, task, own) if lake else [])
        home, places = _home(candidates, wanted, fixed=fixed)
        if home is None:
            home, places = ItemTable(task, {}), {position: position for position in wanted}
            candidates.append(home)
        if not home.stored:
            home.hashes |= wanted
            home.staged |= {position: (runs[0], key) for position, _, key in rows}
        else:
            new = {places[position]: (item_hash, key) for position, item_hash, key in rows}
            new = {place: item for place, item in new.items() if place not in home.hashes}
            home.hashes |= {place: item_hash for place, (item_hash, _) in new.items()}
            home.staged |= {place: (runs[0], key) for place, (_, key) in new.items()}
        homes |= {(run, task): home for run in runs}
        if any(place != position for position, place in places.items()):
            con.register("given", pa.table({"position": list(places), "item": list(places.values())}))
            con.execute("INSERT INTO moved SELECT ?, ?, position, item FROM given", [runs[0], task])
            con.unregister("given")
            for run in runs[1:]:
                con.execute(
                    "INSERT INTO moved SELECT ?, task, position, item FROM moved WHERE run = ? AND task = ?",
                    [run, runs[0], task],
                )
    con.execute(
        """
        CREATE TABLE numbers AS
        SELECT run, task, key, coalesce(item, position) AS item, item_hash, content_hash
        FROM staged_items LEFT JOIN moved USING (run, task, position)
        """
    )
    return homes


def _home(tables: list[ItemTable], wanted: dict[int, str], *, fixed: bool) -> tuple[ItemTable | None, dict[int, int]]:
    for table in tables:
        if (places := table.positions(wanted, fixed=fixed)) is not None:
            return table, places
    for table in tables:
        if fixed and not table.stored and table.admits(wanted):
            return table, {position: position for position in wanted}
        if not fixed and table.is_own and (places := table.lengthened(wanted)) is not None:
            return table, places
    return None, {}


def _reject_doubled_positions(staging: Staging) -> None:
    """Rejects items of a run that claim the position of another one: either may be right."""
    con = staging.con
    doubled = con.execute(
        """
        SELECT run, task, key FROM staged_items
        QUALIFY row_number() OVER (PARTITION BY run, task, position ORDER BY key) > 1
        """
    ).fetchall()
    for run, task, key in doubled:
        for file, row, model in con.execute(
            "SELECT file, row, model FROM trusted WHERE run = ? AND task = ? AND key = ?", [run, task, key]
        ).fetchall():
            message = "another document stands at the same position of the task"
            staging.reject(file, row, "bad_item", message, model=model, task=task, source_key=key)
        con.execute("DELETE FROM staged_items WHERE run = ? AND task = ? AND key = ?", [run, task, key])


def _own_tables(lake: Lake, source: str) -> set[str]:
    """Digests of the item tables of the source's imports that no collected cell uses: these alone grow with it."""
    query = """
        SELECT items_digest FROM cells GROUP BY items_digest
        HAVING bool_and(imported_from IS NOT NULL)
            AND bool_or(imported_from = $1 OR starts_with(imported_from, $1 || '#'))
        """
    only = ["_run_cells", "_cell_rows", "cells"]
    rows = ask(lake, lambda con, _: con.execute(query, [source]).fetchall(), only=only)
    return {items_digest for (items_digest,) in rows}


def _stored_tables(lake: Lake, task: str, own: set[str]) -> list[ItemTable]:
    tables: dict[str, ItemTable] = {}
    for name in sorted(lake.names(items_folder(task))):
        if name.endswith(".parquet"):
            file = pq.ParquetFile(io.BytesIO(lake.read(name)), page_checksum_verification=True)
            rows = file.read(["item", "item_hash"])
            stored = items_digest_of(name)
            table = tables.setdefault(stored, ItemTable(task, {}, stored=stored, is_own=stored in own))
            table.hashes |= dict(zip(rows["item"].to_pylist(), rows["item_hash"].to_pylist(), strict=True))
    return list(tables.values())


def item_rows(con: duckdb.DuckDBPyConnection, table: ItemTable) -> pa.Table:
    """A new table as rows of schemas.records.ITEM."""
    places = {"item": list(table.staged), "run": [run for run, _ in table.staged.values()]}
    con.register("given", pa.table({**places, "key": [key for _, key in table.staged.values()]}))
    rows = con.execute(
        """
        SELECT ? AS task, ? AS items_digest, given.item, key AS source_key, staged_texts.* EXCLUDE (run, task, key)
        FROM given JOIN staged_texts USING (run, key) WHERE task = ? ORDER BY given.item
        """,
        [table.task, table.digest, table.task],
    ).to_arrow_table()
    con.unregister("given")
    return rows.select(ITEM.names).cast(ITEM)
