"""The router matrix as arrays: items × models, for training and judging routers.

Owns how records are laid into the arrays: from the packed form, from files of a compaction and from single shards.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.arrays import BLOCK_KEY, COLUMN_KEY, Matrix, empty_matrix
from collectors.holdings import Holdings, Part
from collectors.lake import Lake
from collectors.packed import FILES, read_packed
from collectors.reading import ask
from schemas.failures import ConfigError, StorageError, one_line
from schemas.views import OWNERSHIP, lake_place

logger = logging.getLogger(__name__)

_VIEWS = (*OWNERSHIP, "_run_cells", "_stored", "_open_rows")
#: Records laid into the arrays at a time: bounds what is in memory beside them.
BATCH_ROWS = 1_000_000


def load_matrix(
    lake: str | Lake, tasks: list[str] | None = None, models: list[str] | None = None, *, tokens: bool = True
) -> Matrix:
    """The matrix of a lake or snapshot, or of some of its tasks and models by name; without `tokens`, no token counts.

    A block has as many rows as the most that any run asked of its task. Memory: 13 bytes per element, 5 without tokens,
    and one file of a compaction. A damaged object is named in the log and the lake's failures and passed over. Raises
    ConfigError when nothing was ever planned for such names.
    """
    lake = (lake if isinstance(lake, Lake) else Lake(lake)).open_for_reading()
    if all(lake.has(name) for name in FILES.values()):
        files = {table: lake.open_object(name) for table, name in FILES.items()}
        try:
            matrix = read_packed(files, tasks, models, tokens=tokens)
        except (OSError, ValueError) as error:
            raise StorageError(f"packed/ in {lake.uri} is damaged: {one_line(error)}") from error
        if not len(matrix.models):
            raise _nothing(lake)
        return matrix
    wanted = _Wanted(tasks, models, tokens)
    return ask(lake, lambda con, holdings: _read(lake, holdings, con, wanted), only=_VIEWS)


def _nothing(lake: Lake) -> ConfigError:
    return ConfigError(f"the lake at {lake.uri} has no cell of these tasks and models")


@dataclass(frozen=True)
class _Wanted:
    tasks: list[str] | None
    models: list[str] | None
    tokens: bool

    @property
    def columns(self) -> list[str]:
        return ["prompt_tokens", "completion_tokens"] if self.tokens else []


def _read(lake: Lake, holdings: Holdings, con: duckdb.DuckDBPyConnection, wanted: _Wanted) -> Matrix:
    items, models = _axes(con, wanted)
    if not len(models):
        raise _nothing(lake)
    places = _places(con, holdings.parts)
    outdated = {part for (part,) in con.execute("SELECT DISTINCT part FROM _outdated").fetchall()}
    parts = [part for part in holdings.parts if part.records in places]
    grids = [part for part in parts if part.is_grid and part.records not in outdated]
    laid = sum(len(range(*_span(part, places[part.records]))) * len(places[part.records]) for part in grids)
    matrix = empty_matrix(items, models, tokens=wanted.tokens, filled=laid < len(items) * len(models))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_lay_grid, lake, matrix, wanted, part, places[part.records]) for part in grids]
        for part in parts:
            if part not in grids:
                _lay_part(con, matrix, wanted, f"{lake_place(lake.uri)}/{part.records}")
        _lay_open_rows(con, matrix, wanted)
        for job in jobs:
            job.result()
    return matrix


def _axes(con: duckdb.DuckDBPyConnection, wanted: _Wanted) -> tuple[pa.Table, pa.Table]:
    """Items and models; makes the table `places`: the first row of each cell's block, its length, and its column."""
    columns, blocks = ", ".join(COLUMN_KEY), ", ".join(BLOCK_KEY)
    same = ", ".join(f"any_value({name}) AS {name}" for name in (*COLUMN_KEY, *BLOCK_KEY, "filter"))
    # What is asked here of a cell is its identity, the same in every run; the view cells asks for the newest run.
    con.execute(
        f"""
        CREATE TEMP TABLE chosen AS
        SELECT cell_id, {same}, max(planned_items) AS planned_items
        FROM _run_cells
        WHERE ? IS NULL OR list_contains(?, task)
        GROUP BY cell_id
        """,
        [wanted.tasks, wanted.tasks],
    )
    # Before the models are chosen: a task has as many rows, whoever is asked for.
    con.execute(
        f"CREATE TEMP TABLE lengths AS SELECT {blocks}, max(planned_items)::BIGINT AS length FROM chosen GROUP BY ALL"
    )
    con.execute("DELETE FROM chosen WHERE NOT (? IS NULL OR list_contains(?, model))", [wanted.models, wanted.models])
    on_model = " AND ".join(f"chosen.{name} IS NOT DISTINCT FROM axis.{name}" for name in COLUMN_KEY)
    con.execute(
        f"""
        CREATE TEMP TABLE blocks AS
        SELECT *, (sum(length) OVER (ORDER BY {blocks}) - length)::BIGINT AS first_row
        FROM lengths SEMI JOIN chosen USING ({blocks});
        CREATE TEMP TABLE axis AS
        SELECT *, row_number() OVER (ORDER BY {columns}) - 1 AS model_column
        FROM (SELECT DISTINCT {columns} FROM chosen);
        CREATE TEMP TABLE places AS
        SELECT cell_id, filter, first_row, length, model_column
        FROM chosen JOIN blocks USING ({blocks}) JOIN axis ON {on_model};
        """
    )
    models = con.sql(f"SELECT {columns} FROM axis ORDER BY model_column").to_arrow_table()
    items = con.sql(
        f"SELECT {blocks}, unnest(range(length))::INTEGER AS item FROM blocks ORDER BY first_row, item"
    ).to_arrow_table()
    return items, models


def _places(con: duckdb.DuckDBPyConnection, parts: list[Part]) -> dict[str, npt.NDArray[np.int64]]:
    """Part of the compaction -> a row for each chosen cell: place in the part, block's first row and length, column."""
    names = [part.records for part in parts]
    con.execute("CREATE TEMP TABLE parts AS SELECT unnest($names::VARCHAR[]) AS part", {"names": names})
    found = con.execute(
        """
        SELECT parts.rowid AS number, place, first_row, length, model_column
        FROM (SELECT DISTINCT part, place, cell_id FROM _folded) JOIN places USING (cell_id) JOIN parts USING (part)
        ORDER BY number, place
        """
    ).fetchnumpy()
    numbers = np.stack([np.asarray(column, np.int64) for column in found.values()], axis=1)
    starts = np.searchsorted(numbers[:, 0], np.arange(len(names) + 1))
    return {
        name: numbers[first:stop, 1:]
        for name, first, stop in zip(names, starts[:-1], starts[1:], strict=True)
        if stop > first
    }


def _span(part: Part, chosen: npt.NDArray[np.int64]) -> tuple[int, int]:
    """First row of the matrix that a whole grid fills, and the one after its last."""
    assert part.first_item is not None
    assert part.last_item is not None
    first_row, length = chosen[0, 1:3].tolist()  # one task under one prompting: one block
    return first_row + part.first_item, first_row + min(part.last_item + 1, length)


def _lay_grid(lake: Lake, matrix: Matrix, wanted: _Wanted, part: Part, chosen: npt.NDArray[np.int64]) -> None:
    """A part whose rows are a whole grid: its columns are laid into the arrays as they come, without a look at keys."""
    start, stop = _span(part, chosen)
    count = stop - start
    if count <= 0:
        return
    bits = _bits(lake, part) if len(chosen) == part.cells else None
    columns = [*(["score"] if bits is None else []), *wanted.columns]
    # The part's columns in the order of the matrix; where they are neighbours there, they are copied row by row.
    places, into = chosen[np.argsort(chosen[:, 3])][:, [0, 3]].T
    is_run = into[-1] - into[0] + 1 == len(into)
    where = slice(into[0], into[-1] + 1) if is_run else into

    def lay(array: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        block = values.reshape(-1, part.cells)[:count]
        array[start:stop, where] = np.take(block, places, axis=1)

    if bits is not None:
        matrix.scores[start:stop, where] = bits[:count]
        matrix.valid[start:stop, where] = True
    if not columns:
        return
    try:
        file = pq.ParquetFile(lake.open_object(part.records), memory_map=lake.local)
        found = file.read(columns, use_threads=False).slice(0, part.primary_rows)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise StorageError(f"{part.records} cannot be read: {one_line(error)}") from error
    for name in wanted.columns:
        lay(getattr(matrix, name), found[name].fill_null(-1).to_numpy())
    if bits is not None:
        return
    scores = found["score"]
    if scores.null_count or not _fits_float32(file.metadata):
        values = _float32(scores.to_numpy())
        lay(matrix.scores, values)
        lay(matrix.valid, ~np.isnan(values))
    else:
        lay(matrix.scores, scores.to_numpy())
        matrix.valid[start:stop, where] = True


def _bits(lake: Lake, part: Part) -> npt.NDArray[np.uint8] | None:
    """Items × cells, 1 where the answer is right, the cells in the order of the axis; None: the records are to be read.

    A tenth of the time that the column of scores takes.
    """
    if not part.bits:
        return None
    try:
        data = lake.read(part.bits)
    except FileNotFoundError:
        data = b""
    if len(data) != part.bits_size:
        logger.warning("passed over: %s has not %d bytes: the scores are read instead", part.bits, part.bits_size)
        return None
    found = np.unpackbits(np.frombuffer(data, np.uint8), count=part.primary_rows, bitorder="little")
    return found.reshape(-1, part.cells)


def _lay_part(con: duckdb.DuckDBPyConnection, matrix: Matrix, wanted: _Wanted, path: str) -> None:
    """A part with gaps, or of which some rows are outdated."""
    _scatter(
        matrix,
        con.execute(
            f"""
            SELECT {_at(matrix)}, {", ".join(["score", *wanted.columns])}
            FROM read_parquet(?) AS part JOIN places USING (cell_id)
            ANTI JOIN _outdated
                ON part.cell_id = _outdated.cell_id
                AND part.generation < _outdated.generation
                AND part.item BETWEEN _outdated.first_item AND _outdated.last_item
            WHERE is_primary AND item < length
            """,
            [path],
        ),
    )


def _lay_open_rows(con: duckdb.DuckDBPyConnection, matrix: Matrix, wanted: _Wanted) -> None:
    """What no compaction holds, in whatever order it comes."""
    _scatter(
        matrix,
        con.execute(
            f"""
            SELECT {_at(matrix)}, {", ".join(["score", *wanted.columns])}
            FROM _open_rows JOIN places USING (cell_id, filter)
            WHERE repeat = 0 AND item < length
            """
        ),
    )


def _at(matrix: Matrix) -> str:
    return f"(first_row + item) * {matrix.scores.shape[1]} + model_column AS at"


def _scatter(matrix: Matrix, records: duckdb.DuckDBPyConnection) -> None:
    for batch in records.to_arrow_reader(BATCH_ROWS):
        at = batch.column("at").to_numpy(zero_copy_only=False)
        scores = _float32(batch.column("score").to_numpy(zero_copy_only=False))
        matrix.scores.ravel()[at] = scores  # ravel() of an array in C order is a view
        matrix.valid.ravel()[at] = ~np.isnan(scores)
        for name in batch.schema.names[2:]:
            getattr(matrix, name).ravel()[at] = batch.column(name).fill_null(-1).to_numpy(zero_copy_only=False)


def _fits_float32(metadata: pq.FileMetaData) -> bool:
    """Whether the statistics say that no score needs to be cut (see _float32)."""
    column = metadata.schema.names.index("score")
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group).column(column).statistics
        if not found or not found.has_min_max or max(abs(found.min), abs(found.max)) > 3.4e38:
            return False
    return True


def _float32(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Finite scores beyond float32, which ends at 3.4e38, become its last number."""
    with np.errstate(over="ignore"):
        found = scores.astype(np.float32)
    if np.isinf(found).any():
        np.clip(found, -3.4e38, 3.4e38, out=found)
    return found
