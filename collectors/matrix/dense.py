"""The router matrix as arrays: items × models, for training and scoring routers.

Owns the way of records into the arrays: from the packed form, from files of a compaction and from single shards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.holdings import Holdings, Part
from collectors.lake.reading import ask
from collectors.lake.seals import broken_seal
from collectors.lake.store import Lake
from collectors.matrix.arrays import Matrix, empty_matrix
from collectors.matrix.packed import FILES, read_packed
from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import BLOCK_KEY, COLUMN_KEY
from schemas.records import RUN_CELL
from schemas.views import OWNERSHIP, lake_place

logger = logging.getLogger(__name__)

_VIEWS = (*OWNERSHIP, "_stored", "_open_rows")
#: Records in one batch. It bounds the memory beside the arrays.
BATCH_ROWS = 1_000_000


def load_matrix(
    lake: str | Lake,
    tasks: list[str] | None = None,
    models: list[str] | None = None,
    *,
    tokens: bool = True,
    include: str = "collected",
) -> Matrix:
    """The matrix of a lake or published version, or of these tasks and models; without `tokens`, no token counts.

    `include` is a key of schemas.views.INCLUDED; imported cells are columns and blocks of their own. A block has as
    many rows as the largest number of items that any run planned for its task. Memory is 13 bytes per element, 5
    without tokens, plus one file of a compaction. A damaged object is skipped and named in the log and in the lake's
    failures. Raises ConfigError if no run ever planned these tasks and models, StorageError if the packed form is
    damaged.
    """
    lake = (lake if isinstance(lake, Lake) else Lake(lake)).open_for_reading()
    if all(lake.has(name) for name in FILES.values()):
        files = {table: lake.open_object(name) for table, name in FILES.items()}
        try:
            matrix = read_packed(files, tasks, models, tokens=tokens, include=include)
        except (OSError, ValueError) as error:
            raise StorageError(f"packed/ in {lake.uri} is damaged: {one_line(error)}") from error
        if not len(matrix.models):
            raise _nothing(lake, include)
        return matrix
    wanted = _Wanted(tasks, models, tokens)
    return ask(lake, lambda con, holdings: _read(lake, holdings, con, wanted), only=_views, include=include)


def _views(holdings: Holdings) -> tuple[str, ...]:
    return (*_VIEWS, "matrix") if holdings.has_older_rows else _VIEWS


def _nothing(lake: Lake, include: str) -> ConfigError:
    which = "" if include == "all" else f"{include} "
    return ConfigError(f"the lake at {lake.uri} has no {which}cell of these tasks and models")


@dataclass(frozen=True)
class _Wanted:
    tasks: list[str] | None
    models: list[str] | None
    tokens: bool

    @property
    def columns(self) -> list[str]:
        return ["prompt_tokens", "completion_tokens"] if self.tokens else []


def _read(lake: Lake, holdings: Holdings, con: duckdb.DuckDBPyConnection, wanted: _Wanted) -> Matrix:
    items, models = _axes(con, lake, holdings, wanted)
    if not len(models):
        raise _nothing(lake, holdings.include)
    places = _places(con, holdings.parts)
    outdated = {part for (part,) in con.execute("SELECT DISTINCT part FROM _outdated").fetchall()}
    parts = [part for part in holdings.parts if part.records in places]
    grids = [part for part in parts if part.is_grid and part.records not in outdated]
    laid = sum(len(range(*_span(part, places[part.records]))) * len(places[part.records]) for part in grids)
    older = holdings.has_older_rows
    matrix = empty_matrix(items, models, tokens=wanted.tokens, filled=older or laid < len(items) * len(models))
    if older:  # the view applies today's rules to them
        _lay_rows(con, matrix, wanted, "matrix JOIN places USING (cell_id) WHERE true")
        return matrix
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_lay_grid, lake, matrix, wanted, part, places[part.records]) for part in grids]
        for part in parts:
            if part not in grids:
                _lay_part(con, matrix, wanted, f"{lake_place(lake.uri)}/{part.records}")
        # Those that no compaction holds.
        _lay_rows(con, matrix, wanted, "_open_rows JOIN places USING (cell_id, filter) WHERE repeat = 0")
        for job in jobs:
            job.result()
    return matrix


def _axes(con: duckdb.DuckDBPyConnection, lake: Lake, holdings: Holdings, wanted: _Wanted) -> tuple[pa.Table, pa.Table]:
    """The two axes. Also makes the table `places`: the first row of each cell's block, its length, and its column.

    It needs only a cell's identity, which every run repeats; the view cells also finds the newest run. Dictionaries of
    strings take 0.1 s for 102,000 cells, and SQL 0.3 s.
    """
    import pyarrow.compute as pc  # 75 ms

    plans = _plans(lake, holdings.listed["runs"])
    if holdings.include != "all":
        imported = plans["imported_from"].is_valid()
        plans = plans.filter(imported if holdings.include == "imported" else pc.invert(imported))
    cells, first = np.unique(_codes(plans, ["cell_id"]), return_inverse=True)
    planned = np.zeros(len(cells), np.int64)
    np.maximum.at(planned, first, plans["planned_items"].to_numpy())
    rows = np.empty(len(cells), np.int64)
    rows[first] = np.arange(len(plans))  # the newest row of each cell, because runs are in order of time
    order = np.argsort(rows)
    plans, planned = plans.take(rows[order]), planned[order]
    keep = _among(plans["task"], wanted.tasks)
    plans, planned = plans.filter(pa.array(keep)), planned[keep]
    # Before the models are chosen, because the length of a block does not depend on them.
    of_block, blocks = _keys(plans, BLOCK_KEY)
    lengths = np.zeros(len(blocks), np.int64)
    np.maximum.at(lengths, of_block, planned)
    keep = _among(plans["model"], wanted.models)
    plans, of_block = plans.filter(pa.array(keep)), of_block[keep]
    lengths[np.setdiff1d(np.arange(len(blocks)), of_block)] = 0  # blocks without a wanted model
    of_model, models = _keys(plans, COLUMN_KEY)
    first_rows = np.cumsum(lengths) - lengths
    newest = _newest_of_each(of_block * max(len(models), 1) + of_model)
    if dropped := len(plans) - len(newest):
        logger.warning(
            "%d cells are left out: a newer one of the same model, task and prompting differs from them in the date of "
            "its chat template or in generation_config",
            dropped,
        )
    plans, of_block, of_model = plans.take(newest), of_block[newest], of_model[newest]
    places = {
        "cell_id": plans["cell_id"],
        "filter": plans["filter"],
        "first_row": first_rows[of_block],
        "length": lengths[of_block],
        "model_column": of_model,
    }
    con.register("places", pa.table(places))
    items = blocks.take(np.repeat(np.arange(len(blocks)), lengths))
    numbers = np.arange(len(items)) - np.repeat(first_rows, lengths)
    return items.append_column("item", pa.array(numbers.astype(np.int32))), models


def _newest_of_each(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The last position of each distinct key, in order."""
    _, from_end = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - from_end)


def _plans(lake: Lake, runs: list[str]) -> pa.Table:
    """The plans of all runs as one table, with texts as dictionaries. Raises StorageError for a damaged plan."""
    columns = ["cell_id", *COLUMN_KEY, *BLOCK_KEY, "filter", "planned_items"]
    texts = [name for name in columns if pa.types.is_string(RUN_CELL.field(name).type)]
    empty = pa.schema([RUN_CELL.field(name) for name in columns]).empty_table()
    tables = [_dictionaries(empty, texts)]
    for name in runs:
        try:
            source = lake.open_object(name)
            file = pq.ParquetFile(source, read_dictionary=texts, page_checksum_verification=True)
            table = file.read(columns)
            tables.append(_dictionaries(table, texts))
        except FileNotFoundError as error:
            raise StorageError(f"{name} in {lake.uri} is gone") from error
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise StorageError(f"{name} in {lake.uri} cannot be read: {one_line(error)}") from error
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def _dictionaries(table: pa.Table, texts: list[str]) -> pa.Table:
    """The table with `texts` as dictionaries of 32-bit codes and without metadata, ready for pa.concat_tables."""
    kinds = {name: pa.dictionary(pa.int32(), pa.string()) for name in texts}
    fields = [pa.field(f.name, kinds.get(f.name, f.type)) for f in table.schema]
    return table.cast(pa.schema(fields))


def _codes(table: pa.Table, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """(rows,): a number for each row, equal for rows that are equal in all columns `names`, nulls included."""
    codes, many = np.zeros(len(table), np.int64), 1
    for name in names:
        column = table[name]
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        size = len(column.dictionary) + 1
        if many * size >= 2**62:
            codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
            many = len(table)
        codes = codes * size + column.indices.fill_null(size - 1).to_numpy()
        many *= size
    return codes


def _keys(table: pa.Table, names: Sequence[str]) -> tuple[npt.NDArray[np.int64], pa.Table]:
    """The place of each row's key, and the distinct keys in the columns `names`, sorted with nulls last."""
    import pyarrow.compute as pc

    _, rows, number = np.unique(_codes(table, names), return_index=True, return_inverse=True)
    keys = table.select(list(names)).take(rows).cast(pa.schema([(name, RUN_CELL.field(name).type) for name in names]))
    order = pc.sort_indices(keys, [(name, "ascending") for name in names]).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[number], keys.take(order)


def _among(column: pa.ChunkedArray, names: list[str] | None) -> npt.NDArray[np.bool_]:
    if names is None:
        return np.ones(len(column), np.bool_)
    return np.isin(np.asarray(column.to_pylist(), object), names) if len(column) else np.zeros(0, np.bool_)


def _places(con: duckdb.DuckDBPyConnection, parts: list[Part]) -> dict[str, npt.NDArray[np.int64]]:
    """Part of the compaction -> a row for each wanted cell: place in the part, block's first row and length, column."""
    names = [part.records for part in parts]
    con.execute("CREATE TEMP TABLE parts AS SELECT unnest($names::VARCHAR[]) AS part", {"names": names})
    columns = con.execute(
        """
        SELECT parts.rowid AS number, place, first_row, length, model_column
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


def _span(part: Part, chosen: npt.NDArray[np.int64]) -> tuple[int, int]:
    """The first row of the matrix that a whole grid fills, and the end of its rows."""
    assert part.first_item is not None
    assert part.last_item is not None
    first_row, length = chosen[0, 1:3].tolist()  # all cells of a part are of one block
    return first_row + part.first_item, first_row + min(part.last_item + 1, length)


def _lay_grid(lake: Lake, matrix: Matrix, wanted: _Wanted, part: Part, chosen: npt.NDArray[np.int64]) -> None:
    """Lays a part that is a whole grid into the arrays: by the order of its rows, without a look at their keys."""
    start, stop = _span(part, chosen)
    count = stop - start
    if count <= 0:
        return
    bits = _bits(lake, part) if len(chosen) == part.cells else None
    columns = [*(["score"] if bits is None else []), *wanted.columns]
    # The part's columns in the order of the matrix. If they are neighbours there, a slice copies them row by row.
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
        table = file.read(columns, use_threads=False).slice(0, part.primary_rows)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise StorageError(f"{part.records} cannot be read: {one_line(error)}") from error
    for name in wanted.columns:
        lay(getattr(matrix, name), table[name].fill_null(-1).to_numpy())
    if bits is not None:
        return
    scores = table["score"]
    if scores.null_count or not _fits_float32(file.metadata):
        values = _float32(scores.to_numpy())
        lay(matrix.scores, values)
        lay(matrix.valid, ~np.isnan(values))
    else:
        lay(matrix.scores, scores.to_numpy())
        matrix.valid[start:stop, where] = True


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


def _lay_part(con: duckdb.DuckDBPyConnection, matrix: Matrix, wanted: _Wanted, path: str) -> None:
    """Lays a part into the arrays that has gaps or outdated rows."""
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


def _lay_rows(con: duckdb.DuckDBPyConnection, matrix: Matrix, wanted: _Wanted, rows: str) -> None:
    """Lays `rows`, SQL after FROM that joins places, into the arrays, in any order."""
    columns = ", ".join(["score", *wanted.columns])
    _scatter(matrix, con.execute(f"SELECT {_at(matrix)}, {columns} FROM {rows} AND item < length"))


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
    """Whether the column's statistics prove that `_float32` changes no score."""
    column = metadata.schema.names.index("score")
    for group in range(metadata.num_row_groups):
        bounds = metadata.row_group(group).column(column).statistics
        if not bounds or not bounds.has_min_max or max(abs(bounds.min), abs(bounds.max)) > 3.4e38:
            return False
    return True


def _float32(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The scores as float32. Scores beyond its range of ±3.4e38 become the ends of that range."""
    with np.errstate(over="ignore"):
        narrow = scores.astype(np.float32)
    if np.isinf(narrow).any():
        np.clip(narrow, -3.4e38, 3.4e38, out=narrow)
    return narrow
