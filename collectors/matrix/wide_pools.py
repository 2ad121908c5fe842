"""Pools of all tasks of a lake at once, in 4 bytes per score: thousands of models, tens of thousands of items.

Owns the way from columns of the matrix to pools, and the models and items that they leave out. pools.py loads the pool
of one task in more detail. Knows no metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.arrays import Matrix
from collectors.matrix.dense import BATCH_ROWS, load_matrix
from collectors.matrix.pools import check_cells
from schemas.failures import ConfigError, one_line
from schemas.identity import BLOCK_KEY, COLUMN_KEY
from schemas.reading_only import check_condition
from schemas.views import named_in

#: The kinds of cost: columns of the view costs.
COSTS = ("usd", "latency_s")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WidePool:
    """Items × models of one task. An unknown score or cost is NaN."""

    task: str
    metric: str
    #: Name of each column's model, and its cell id.
    models: list[str]
    cells: list[str]
    #: (items,): position of each row's item in the task's table, ascending. Items without any score are left out.
    items: npt.NDArray[np.int64]
    #: (items, models)
    scores: Array
    #: Kind of COSTS -> (items, models), without kinds that have no known value. USD or seconds per item.
    costs: dict[str, Array]

    def of_models(self, columns: npt.NDArray[np.int64]) -> WidePool:
        """The pool with only these columns, in this order."""
        if np.array_equal(columns, np.arange(len(self.models))):
            return self
        return replace(
            self,
            models=[self.models[column] for column in columns],
            cells=[self.cells[column] for column in columns],
            scores=self.scores[:, columns],
            costs={kind: values[:, columns] for kind, values in self.costs.items()},
        )


def load_wide_pools(
    lake: Lake, tasks: Sequence[str] | None = None, where: str = "true", include: str = "collected"
) -> tuple[list[WidePool], dict[str, str]]:
    """The pools of `tasks`, by default all, and for each task without a pool the reason.

    The pool of a task is its cells that meet `where`, a condition in SQL on columns of the view cells. `include` is a
    key of schemas.views.INCLUDED. Memory is 9 bytes per element of the matrix, and 4 more for each kind of cost with
    known values. Raises ConfigError if no task has a pool or the condition is wrong.
    """
    cells = ask(lake, lambda con, _: _cells(con, where), only=named_in(f"cells {where}"), include=include)
    import pyarrow.compute as pc  # 75 ms

    by_task = {task: cells.filter(pc.equal(cells["task"], task)) for task in pc.unique(cells["task"]).to_pylist()}
    wanted = sorted(by_task) if tasks is None else list(dict.fromkeys(tasks))
    why: dict[str, str] = {}
    for task in wanted:
        try:
            check_cells(task, by_task.get(task, cells.slice(0, 0)))
        except ConfigError as error:
            why[task] = str(error)
    good = [task for task in wanted if task not in why]
    if not good:
        which = "" if include == "all" else f"{include} "
        none = f"the lake at {lake.uri} has no {which}cell that meets --pool: see --pool and --include"
        raise ConfigError(next(iter(why.values()), none))
    matrix = load_matrix(lake, good, tokens=False, include=include)
    pools = [_pool(matrix, task, by_task[task]) for task in good]
    del matrix  # frees `valid`; the scores stay, because pools of the whole width are views of them
    why |= {pool.task: f"{pool.task}: its cells have no scores" for pool in pools if not len(pool.items)}
    pools = [pool for pool in pools if len(pool.items)]
    if not pools:
        raise ConfigError(next(iter(why.values())))
    costs = ask(lake, lambda con, _: _costs(con, pools), only=["costs"], include=include)
    return [replace(pool, costs=arrays) for pool, arrays in zip(pools, costs, strict=True)], why


def without_sparse(pool: WidePool, least: float) -> tuple[WidePool, int]:
    """The pool of models with a score on at least the share `least` of the items, and the number of other models."""
    share = np.mean(~np.isnan(pool.scores), axis=0)
    kept = np.flatnonzero(share >= least)
    return pool.of_models(kept), len(pool.models) - len(kept)


def joined(pools: Sequence[WidePool], name: str) -> WidePool | None:
    """One pool of the items of all `pools` and the models that all of them have.

    Returns None for fewer than two such models, or if metrics differ and a score is outside 0 to 1.
    """
    common = sorted(set[str].intersection(*(set(pool.models) for pool in pools)))
    metrics = {pool.metric for pool in pools}
    within = all(np.nanmin(pool.scores) >= 0 and np.nanmax(pool.scores) <= 1 for pool in pools)
    if len(common) < 2 or (len(metrics) > 1 and not within):
        return None
    places = [{model: column for column, model in enumerate(pool.models)} for pool in pools]
    same = [
        pool.of_models(np.array([place[model] for model in common])) for pool, place in zip(pools, places, strict=True)
    ]
    return WidePool(
        task=name,
        metric=metrics.pop() if len(metrics) == 1 else "score",
        models=common,
        cells=[""] * len(common),
        items=np.concatenate([pool.items for pool in same]),
        scores=np.concatenate([pool.scores for pool in same]),
        costs={
            kind: np.concatenate([pool.costs[kind] for pool in same])
            for kind in COSTS
            if all(kind in pool.costs for pool in same)
        },
    )


def _cells(con: duckdb.DuckDBPyConnection, where: str) -> pa.Table:
    try:
        check_condition(con, where)
        return con.execute(f"SELECT * FROM cells WHERE ({where}) ORDER BY task, model, cell_id").to_arrow_table()
    except (duckdb.Error, ConfigError) as error:  # the condition is wrong: the query reads no file of the lake
        raise ConfigError(f"the pool's condition: {one_line(error, 200)}") from error


def _pool(matrix: Matrix, task: str, cells: pa.Table) -> WidePool:
    column = {tuple(row.values()): number for number, row in enumerate(matrix.models.select(COLUMN_KEY).to_pylist())}
    keys = cells.select(COLUMN_KEY).to_pylist()
    columns = np.array([column[tuple(row.values())] for row in keys])
    scores = _rows(matrix, task, columns, cells.select(BLOCK_KEY).to_pylist())
    has_score = np.zeros(len(scores), np.bool_)
    for of_model in scores.T:
        has_score |= ~np.isnan(of_model)
        if has_score.all():
            break
    return WidePool(
        task=task,
        metric=cells["metric"][0].as_py(),
        models=cells["model"].to_pylist(),
        cells=cells["cell_id"].to_pylist(),
        items=np.flatnonzero(has_score),
        scores=scores if has_score.all() else scores[has_score],
        costs={},
    )


def _rows(matrix: Matrix, task: str, columns: npt.NDArray[np.int64], cells: Sequence[dict[str, Any]]) -> Array:
    """(items, cells): the scores of each cell, taken from its column and block; a view of the matrix if possible."""
    import pyarrow.compute as pc

    places = np.flatnonzero(pc.equal(matrix.items["task"], task).to_numpy())
    blocks = matrix.items.take(places)
    keys = list(zip(*(blocks[name].to_pylist() for name in BLOCK_KEY), strict=True))
    numbers = blocks["item"].to_numpy()
    wanted = [tuple(cell.values()) for cell in cells]
    is_whole = np.array_equal(columns, np.arange(matrix.scores.shape[1]))
    if len(set(wanted)) == 1 and set(keys) == set(wanted) and is_whole:
        return matrix.scores[places[0] : places[-1] + 1]
    scores = np.full((int(numbers.max()) + 1, len(columns)), np.nan, np.float32)
    for block in set(wanted):
        rows = np.flatnonzero([key == block for key in keys])
        of_block = np.flatnonzero([key == block for key in wanted])
        scores[np.ix_(numbers[rows], of_block)] = matrix.scores[np.ix_(places[rows], columns[of_block])]
    return scores


def _costs(con: duckdb.DuckDBPyConnection, pools: Sequence[WidePool]) -> list[dict[str, Array]]:
    """For each pool its kinds of COSTS with known values."""
    cells = [(cell, number, column) for number, pool in enumerate(pools) for column, cell in enumerate(pool.cells)]
    names = ("cell_id", "pool", "place")
    con.register("places", pa.table(dict(zip(names, map(pa.array, zip(*cells, strict=True)), strict=True))))
    costs: list[dict[str, Array]] = [{} for _ in pools]
    records = con.execute(
        f"SELECT pool, item, place, {', '.join(COSTS)} FROM costs JOIN places USING (cell_id) "
        f"WHERE coalesce({', '.join(COSTS)}) IS NOT NULL"
    )
    for batch in records.to_arrow_reader(BATCH_ROWS):
        columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
        for number in np.unique(columns["pool"]):
            rows = {name: values[columns["pool"] == number] for name, values in columns.items()}
            _lay(pools[number], costs[number], rows)
    return costs


def _lay(pool: WidePool, costs: dict[str, Array], rows: dict[str, npt.NDArray[Any]]) -> None:
    at = np.minimum(np.searchsorted(pool.items, rows["item"]), len(pool.items) - 1)
    is_item = pool.items[at] == rows["item"]
    for kind in COSTS:
        used = is_item & ~np.isnan(rows[kind].astype(np.float64))
        if used.any():
            if kind not in costs:
                costs[kind] = np.full(pool.scores.shape, np.nan, np.float32)
            costs[kind][at[used], rows["place"][used]] = rows[kind][used]
