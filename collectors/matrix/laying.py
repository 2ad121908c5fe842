"""Lays records into arrays: from files of a compaction, from their bits, and from single shards.

Owns the way of a record to its place. Does not know the meaning of the arrays' rows and columns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.holdings import Holdings, Part
from collectors.lake.seals import broken_seal
from collectors.lake.store import Lake
from collectors.matrix.arrays import Arrays
from schemas.failures import StorageError, one_line
from schemas.views import OWNERSHIP, lake_place

logger = logging.getLogger(__name__)

#: Views that `lay` reads.
_VIEWS = (*OWNERSHIP, "_stored", "_open_rows", "_open_verdicts")
#: Records in one batch. It bounds the memory beside the arrays.
BATCH_ROWS = 1_000_000

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Placement:
    """The places of cells in arrays."""

    #: One row for each cell, with the columns cell_id and filter, `block`, a number in `rows`, and `model_column`, its
    #: column; and `rank`, its place in the order of a compaction's axis (schemas.identity.COLUMN_KEY, nulls last).
    cells: pa.Table
    #: Block -> (items,): the row of each item of its cells' table of items.
    rows: Sequence[Rows]

    @cached_property
    def _flat(self) -> tuple[Rows, Rows]:
        """The rows of all blocks, one block after the other, and where each begins in them, with the end."""
        return np.concatenate([*self.rows, np.zeros(0, np.int64)]), np.cumsum([0, *map(len, self.rows)])

    def rows_at(self, blocks: Rows, items: Rows) -> Rows:
        """The row of each item of a block; -1: the block has no such item."""
        rows, starts = self._flat
        first = starts[blocks]
        is_there = (items >= 0) & (items < starts[blocks + 1] - first)
        found = np.full(len(items), -1, np.int64)
        found[is_there] = rows[(first + items)[is_there]]
        return found


class Inexact(Exception):
    """A score is not a number that the array of scores can hold."""


def views_of(holdings: Holdings) -> tuple[str, ...]:
    """The views that `lay` reads."""
    return (*_VIEWS, "matrix") if holdings.has_other_scores else _VIEWS


def lay(
    lake: Lake,
    holdings: Holdings,
    con: duckdb.DuckDBPyConnection,
    arrays: Arrays,
    placement: Placement,
    *,
    exact: bool = False,
) -> None:
    """Lays the primary verdicts of the placed cells, and their tokens, into `arrays`, and unknown values elsewhere.

    NaN, False and -1 are unknown. `con` has the views of views_of. With `exact` raises Inexact where a score does not
    fit the array of scores; otherwise it is rounded. Raises StorageError for a file that cannot be read.
    """
    con.register("places", placement.cells)
    work = _Laying(lake, con, arrays, placement, exact)
    has_open = bool(con.execute("SELECT 1 FROM _shard_files WHERE NOT is_folded LIMIT 1").fetchall())
    if holdings.has_other_scores and (has_open or not holdings.has_ruled_parts):  # the view knows them
        clear(arrays)
        work.lay_rows("matrix JOIN places USING (cell_id)")
        return
    places = work.places(holdings.parts)
    outdated = {part for (part,) in con.execute("SELECT DISTINCT part FROM _outdated").fetchall()}
    parts = [part for part in holdings.parts if part.records in places]
    grids = [part for part in parts if part.is_grid and part.records not in outdated]
    laid = 0
    for part in grids:
        blocks, counts = np.unique(places[part.records][:, 1], return_counts=True)
        rows = (len(work.rows_of(part, block)) for block in blocks.tolist())
        laid += sum(count * many for count, many in zip(counts.tolist(), rows, strict=True))
    if laid < arrays.scores.size:
        clear(arrays)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(work.lay_grid, part, places[part.records]) for part in grids]
        for part in parts:
            if part not in grids:
                work.lay_part(f"{lake_place(lake.uri)}/{part.records}")
        if has_open:
            work.lay_rows("_open_verdicts JOIN places USING (cell_id, filter)", "repeat = 0")
        for job in jobs:
            job.result()


def placed(
    con: duckdb.DuckDBPyConnection,
    placement: Placement,
    columns: Sequence[str],
    source: str,
    parameters: Sequence[Any] = (),
) -> Iterator[tuple[Rows, Rows, pa.RecordBatch]]:
    """Yields the rows of `source`, SQL after FROM, in any order: batches, with their rows and columns in the arrays.

    `source` joins the table `places` by cell_id or more. It is the only one that it need join: with the rows of items
    as a second one DuckDB joined these two first, to a row for each record.
    """
    con.register("places", placement.cells)
    read = con.execute(f"SELECT block, item, model_column, {', '.join(columns)} FROM {source}", parameters)
    for batch in read.to_arrow_reader(BATCH_ROWS):
        blocks, items, into = (batch.column(place).to_numpy(zero_copy_only=False) for place in range(3))
        rows = placement.rows_at(blocks, items)
        is_there = rows >= 0
        if not is_there.all():
            batch, rows, into = batch.filter(pa.array(is_there)), rows[is_there], into[is_there]
        yield rows, into, batch


@dataclass(frozen=True)
class _Laying:
    """One call of `lay`. The connection has the table `places`."""

    lake: Lake
    con: duckdb.DuckDBPyConnection
    arrays: Arrays
    placement: Placement
    exact: bool

    @property
    def tokens(self) -> list[str]:
        return [name for name in ("prompt_tokens", "completion_tokens") if getattr(self.arrays, name).size]

    def rows_of(self, part: Part, block: int) -> Rows:
        """The rows of the items of a grid, in their order, for its cells of a block."""
        assert part.first_item is not None
        assert part.last_item is not None
        rows: Rows = self.placement.rows[block][part.first_item : part.last_item + 1]
        return rows

    def places(self, parts: list[Part]) -> dict[str, Rows]:
        """Part -> a row for each of its placed cells: place in the part, block, column, rank."""
        names = [part.records for part in parts]
        self.con.execute(
            "CREATE OR REPLACE TEMP TABLE parts AS SELECT unnest($names::VARCHAR[]) AS part", {"names": names}
        )
        columns = self.con.execute(
            """
            SELECT parts.rowid AS number, place, block, model_column, rank
            FROM _folded JOIN places USING (cell_id) JOIN parts USING (part)
            """
        ).fetchnumpy()
        numbers = np.stack([np.asarray(column, np.int64) for column in columns.values()], axis=1)
        # Until here one row for each shard; the shards of a cell were folded together.
        numbers = numbers[np.unique(numbers[:, 0] << 32 | numbers[:, 1], return_index=True)[1]]
        starts = np.searchsorted(numbers[:, 0], np.arange(len(names) + 1))
        return {
            name: numbers[first:stop, 1:]
            for name, first, stop in zip(names, starts[:-1], starts[1:], strict=True)
            if stop > first
        }

    def lay_grid(self, part: Part, cells: Rows) -> None:
        """Lays a part that is a whole grid: by the order of its rows, without a look at their keys."""
        bits = _bits(self.lake, part) if len(cells) == part.cells else None
        columns = [*(["score"] if bits is None else []), *self.tokens]
        grids: dict[str, npt.NDArray[Any]] = {}
        if columns:
            try:
                file = pq.ParquetFile(self.lake.open_object(part.records), memory_map=self.lake.local)
                table = file.read(columns, use_threads=False).slice(0, part.primary_rows)
            except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
                raise StorageError(f"{part.records} cannot be read: {one_line(error)}") from error
            grids = {name: table[name].fill_null(-1).to_numpy().reshape(-1, part.cells) for name in self.tokens}
            if bits is None:
                grids["score"] = self.fitting(table["score"].to_numpy()).reshape(-1, part.cells)
        # The columns of bits are in the order of the axis.
        ranks = np.argsort(np.argsort(cells[:, 3]))
        for block in np.unique(cells[:, 1]).tolist():
            mine = cells[:, 1] == block
            self._put_grid(part, block, cells[mine], grids, None if bits is None else (bits, ranks[mine]))

    def _put_grid(
        self,
        part: Part,
        block: int,
        cells: Rows,
        grids: dict[str, npt.NDArray[Any]],
        bits: tuple[npt.NDArray[np.uint8], Rows] | None,
    ) -> None:
        rows = self.rows_of(part, block)
        if not len(rows):
            return
        # Neighbours in the arrays are copied row by row.
        order = np.argsort(cells[:, 2])
        into, places = cells[order, 2], cells[order, 0]

        def taken(grid: npt.NDArray[Any], columns: Rows) -> npt.NDArray[Any]:
            if len(columns) == grid.shape[1] and _is_run(columns):
                return grid[: len(rows)]
            return np.take(grid[: len(rows)], columns, axis=1)

        for name in self.tokens:
            put(getattr(self.arrays, name), rows, into, taken(grids[name], places))
        scores = taken(grids["score"], places) if bits is None else taken(bits[0], bits[1][order])
        put(self.arrays.scores, rows, into, scores)
        if self.arrays.valid.size:
            put(self.arrays.valid, rows, into, ~np.isnan(scores) if bits is None else True)

    def lay_part(self, path: str) -> None:
        """Lays a part that has gaps or outdated rows."""
        self.scatter(
            """
            read_parquet(?) AS part JOIN places USING (cell_id)
            ANTI JOIN _outdated
                ON part.cell_id = _outdated.cell_id
                AND part.generation < _outdated.generation
                AND part.item BETWEEN _outdated.first_item AND _outdated.last_item
            WHERE is_primary
            """,
            [path],
        )

    def lay_rows(self, rows: str, where: str = "true") -> None:
        """Lays `rows`, SQL after FROM that joins places, in any order."""
        self.scatter(f"{rows} WHERE {where}", [])

    def scatter(self, source: str, parameters: list[str]) -> None:
        for rows, columns, batch in placed(self.con, self.placement, ["score", *self.tokens], source, parameters):
            scores = self.fitting(batch.column("score").to_numpy(zero_copy_only=False))
            self.arrays.scores[rows, columns] = scores
            if self.arrays.valid.size:
                self.arrays.valid[rows, columns] = ~np.isnan(scores)
            for name in self.tokens:
                values = batch.column(name).fill_null(-1).to_numpy(zero_copy_only=False)
                getattr(self.arrays, name)[rows, columns] = values

    def fitting(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.floating[Any]]:
        """The scores in the type of the array. Scores beyond the range of float32 become the ends of that range."""
        if self.arrays.scores.dtype == np.float64:
            return scores
        with np.errstate(over="ignore"):
            narrow = scores.astype(np.float32)
        if self.exact and not np.array_equal(narrow, scores, equal_nan=True):
            raise Inexact
        if np.isinf(narrow).any():
            np.clip(narrow, -3.4e38, 3.4e38, out=narrow)
        return narrow


def clear(arrays: Arrays) -> None:
    """Sets all elements to unknown values."""
    arrays.scores.fill(np.nan)
    arrays.valid.fill(False)
    arrays.prompt_tokens.fill(-1)
    arrays.completion_tokens.fill(-1)


def put(array: npt.NDArray[Any], rows: Rows, columns: Rows, values: npt.NDArray[Any] | bool) -> None:
    """Sets these rows and columns of `array` to `values` (rows, columns). Runs of neighbours are copied as slices."""
    lines: slice | Rows = slice(int(rows[0]), int(rows[0]) + len(rows)) if _is_run(rows) else rows
    if _is_run(columns):
        array[lines, int(columns[0]) : int(columns[0]) + len(columns)] = values
    elif isinstance(lines, slice):
        array[lines, columns] = values
    else:
        array[np.ix_(lines, columns)] = values


def _is_run(places: Rows) -> bool:
    """Whether each place is one above the one before."""
    return bool(len(places)) and bool((np.diff(places) == 1).all())


def _bits(lake: Lake, part: Part) -> npt.NDArray[np.uint8] | None:
    """(items, cells): 1 for a right answer, with the cells in the order of the axis; None if the records must be read.

    The bits take a tenth of the time of the column of scores.
    """
    if not part.bits:
        return None
    try:
        data = lake.read(part.bits)
    except FileNotFoundError:
        data = b""
    if len(data) != part.bits_size or broken_seal(data, part.bits, part.recorded.get(part.bits)):
        logger.warning("skipped: %s is not as it was written; reading the scores instead", part.bits)
        return None
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=part.primary_rows, bitorder="little")
    return bits.reshape(-1, part.cells)
