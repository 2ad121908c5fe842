"""All cells of a lake as arrays, block after block: the source of the packed form of published versions.

Owns the axes, items × models. A block holds the answers to one way of asking: a task's item table under one
prompting, for one metric (schemas.identity.BLOCK_KEY). Routers read a pool instead (collectors.matrix.pools).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.holdings import Holdings, ever_committed, read_holdings
from collectors.lake.reading import ask, connect, pass_over_damage
from collectors.lake.store import Lake
from collectors.matrix.arrays import Blocks, empty_arrays
from collectors.matrix.laying import Placement, lay, views_of
from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import BLOCK_KEY, COLUMN_KEY
from schemas.records import RUN_CELL
from schemas.versions import with_columns

logger = logging.getLogger(__name__)


def load_blocks(
    lake: Lake, tasks: list[str] | None = None, include: str = "collected", *, tokens: bool = True
) -> Blocks:
    """The cells of `tasks`, by default of all, with their token counts or without.

    `include` is a key of schemas.views.INCLUDED; imported cells are columns and blocks of their own. A block has as
    many rows as the largest number of items that any run planned for its task. Memory is 13 bytes per element, 5
    without tokens, plus one file of a compaction. A damaged object is skipped and named in the log and in the lake's
    failures. Raises ConfigError if no run ever planned these tasks.
    """

    def read(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> Blocks:
        return _blocks(lake, holdings, con, tasks, tokens=tokens)

    return ask(lake, read, only=views_of, include=include)


def blocks_of_tasks(lake: Lake, tasks: Sequence[str], include: str) -> Iterator[Blocks]:
    """Yields load_blocks of each task, by one connection: the views cost .2 CPU-seconds. Nothing may be damaged."""
    holdings = read_holdings(lake, include=include)
    with contextlib.closing(connect(lake, holdings, only=views_of(holdings))) as con:
        for task in tasks:
            yield _blocks(lake, holdings, con, [task], tokens=True)


def models_with_all(lake: Lake, keys: Sequence[str], wanted: Sequence[tuple[str, ...]]) -> int:
    """The number of models that collected something in each of the `wanted` blocks, by the names of shards alone.

    A block is given by its values of `keys`, some of BLOCK_KEY. Imported cells do not count. A damaged plan is passed
    over, as in load_blocks.
    """
    import pyarrow.compute as pc

    def count(holdings: Holdings) -> int:
        plans = _plans(lake, holdings.listed["runs"])
        held = pa.array(ever_committed(lake), pa.string())
        is_held = pc.is_in(plans["cell_id"].cast(pa.string()), value_set=held)
        plans = plans.filter(pc.and_(is_held, pc.is_null(plans["imported_from"])))
        models, texts = _codes(plans, COLUMN_KEY), {key: plans[key].cast(pa.string()) for key in keys}
        found = np.unique(models)
        for values in wanted:
            fits = np.ones(len(plans), np.bool_)
            for key, value in zip(keys, values, strict=True):
                fits &= pc.fill_null(pc.equal(texts[key], value), False).to_numpy()
            found = np.intersect1d(found, models[fits])
        return len(found)

    return pass_over_damage(lake, lambda damaged: read_holdings(lake, damaged, "collected"), count)


def _blocks(
    lake: Lake, holdings: Holdings, con: duckdb.DuckDBPyConnection, tasks: list[str] | None, *, tokens: bool
) -> Blocks:
    items, models, placement = _axes(lake, holdings, tasks)
    if not len(models):
        which = "" if holdings.include == "all" else f"{holdings.include} "
        raise ConfigError(f"the lake at {lake.uri} has no {which}cell of these tasks")
    blocks = Blocks(**empty_arrays(len(items), len(models), tokens=tokens), items=items, models=models)
    lay(lake, holdings, con, blocks, placement)
    return blocks


def _axes(lake: Lake, holdings: Holdings, tasks: list[str] | None) -> tuple[pa.Table, pa.Table, Placement]:
    """The two axes, and the places of the cells.

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
    keep = _among(plans["task"], tasks)
    plans, planned = plans.filter(pa.array(keep)), planned[keep]
    of_block, blocks = _keys(plans, BLOCK_KEY)
    lengths = np.zeros(len(blocks), np.int64)
    np.maximum.at(lengths, of_block, planned)
    of_model, models = _keys(plans, COLUMN_KEY)
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
        "block": of_block,
        "model_column": of_model,
        "rank": of_model,
    }
    first_rows = np.cumsum(lengths) - lengths
    numbers = [np.arange(length) for length in lengths]
    placement = Placement(pa.table(places), [first + own for first, own in zip(first_rows, numbers, strict=True)])
    items = blocks.take(np.repeat(np.arange(len(blocks)), lengths))
    item = np.concatenate(numbers) if numbers else np.zeros(0)
    return items.append_column("item", pa.array(item.astype(np.int32))), models, placement


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
    for run in runs:
        try:
            source = lake.open_object(run)
            there = set(pq.ParquetFile(source).schema_arrow.names)  # pyarrow knows no dictionary of a column not there
            named = [name for name in texts if name in there]
            file = pq.ParquetFile(source, read_dictionary=named, page_checksum_verification=True)
            tables.append(_dictionaries(with_columns(file.read(columns), empty.schema), texts))
        except FileNotFoundError as error:
            raise StorageError(f"{run} in {lake.uri} is gone") from error
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise StorageError(f"{run} in {lake.uri} cannot be read: {one_line(error)}") from error
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
