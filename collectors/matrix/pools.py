"""A pool of models on the items of one task as arrays, for scoring routers.

Owns the check that cells can form a pool. Knows no metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.failures import ConfigError, one_line
from schemas.reading_only import check_condition
from schemas.sql import quoted, text_rows

#: Columns that help a person to recognise a cell.
_RECOGNISED_BY = ("prompting", "imported_from")
#: Columns that may differ between cells of one model and task.
_DIFFER_IN = ("prompting", "num_fewshot", "chat_template", "revision", "dtype", "quantization", "imported_from")


@dataclass(frozen=True)
class Pool:
    """Items × models of one task. An unknown score, cost or time is NaN."""

    task: str
    items_digest: str
    metric: str
    #: Name of each column's model, and its cell id.
    models: list[str]
    cells: list[str]
    #: (items,): position of each row's item in the task's table of items, ascending.
    items: npt.NDArray[np.int32]
    #: The arrays are (items, models): scores, USD and seconds per item.
    scores: npt.NDArray[np.float64]
    usd: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """The answers of one task's cells, and their places in (items, cells)."""

    #: Column -> (answers,): its values; of numbers NaN where null, of texts None.
    columns: dict[str, npt.NDArray[Any]]
    #: (items,): positions of the items in the task's table, ascending.
    items: npt.NDArray[np.int32]
    #: (answers,): places of its item and its cell.
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    cells: int

    def laid(self, name: str) -> npt.NDArray[Any]:
        """(items, cells): a column; NaN, or None, where it is null or has no row."""
        values = self.columns[name]
        fill = None if values.dtype == object else np.nan
        laid = np.full((len(self.items), self.cells), fill, values.dtype if fill is None else np.float64)
        laid[self.row, self.column] = values
        return laid


def load_pool(con: duckdb.DuckDBPyConnection, task: str, where: str = "true") -> Pool:
    """The pool of one task, as `load_pools`."""
    return load_pools(con, [task], where)[0]


def load_pools(con: duckdb.DuckDBPyConnection, tasks: Sequence[str], where: str = "true") -> list[Pool]:
    """The pools of `tasks`, each of its cells that meet `where`, a condition in SQL on columns of the view cells.

    `con` has the views of a lake or published version, which are read once for all tasks. Memory is 24 bytes per
    element. Raises ConfigError for a wrong condition, and as `check_cells` does.
    """
    cells = chosen_cells(con, tasks, where)
    answers = read_answers(con, cells, "costs", ("score", "usd", "latency_s"))
    return [
        Pool(
            task=task,
            items_digest=table["items_digest"][0].as_py(),
            metric=table["metric"][0].as_py(),
            models=table["model"].to_pylist(),
            cells=table["cell_id"].to_pylist(),
            items=answers[task].items,
            scores=answers[task].laid("score"),
            usd=answers[task].laid("usd"),
            latency_s=answers[task].laid("latency_s"),
        )
        for task, table in cells.items()
    ]


def chosen_cells(con: duckdb.DuckDBPyConnection, tasks: Sequence[str], where: str = "true") -> dict[str, pa.Table]:
    """Task -> its cells that meet `where`, by model; without `tasks` those of all tasks that have any, by name.

    Raises ConfigError for a wrong condition, and as `check_cells` does.
    """
    of_tasks = f"task IN ({tasks_of(tasks)})" if tasks else "true"
    try:
        check_condition(con, where)
        table = con.execute(
            f"SELECT * FROM cells WHERE {of_tasks} AND ({where}) ORDER BY task, model, cell_id"
        ).to_arrow_table()
    except (duckdb.Error, ConfigError) as error:
        raise ConfigError(f"the pool's condition: {one_line(error, 200)}") from error
    cells, first = {}, 0
    for task, count in Counter(table["task"].to_pylist()).items():  # in the table's order
        cells[task] = table.slice(first, count)
        first += count
    chosen = {task: cells.get(task, table.slice(0, 0)) for task in tasks or cells}
    for task, of_task in chosen.items():
        check_cells(task, of_task)
    return chosen


def read_answers(
    con: duckdb.DuckDBPyConnection, cells: Mapping[str, pa.Table], source: str, columns: Sequence[str]
) -> dict[str, Answers]:
    """Task -> the answers of its cells, with `columns` of `source`: a view with a row per item and cell, or a query."""
    read = con.execute(
        f"SELECT place, item, {', '.join(columns)} FROM {source} JOIN {ids_of(cells)} USING (cell_id) "
        f"WHERE task IN ({tasks_of(cells)})"
    ).fetchnumpy()  # Arrow's own way to numpy imports pandas, 0.4 s of CPU
    order = np.argsort(read["place"], kind="stable")
    filled = {name: _filled(values)[order] for name, values in read.items()}
    place, item = filled.pop("place"), filled.pop("item")
    answers, first = {}, 0
    for task, table in cells.items():
        rows = slice(*np.searchsorted(place, [first, first + len(table)]))
        items, row = np.unique(item[rows], return_inverse=True)
        of_task = {name: values[rows] for name, values in filled.items()}
        answers[task] = Answers(of_task, items.astype(np.int32), row, place[rows] - first, len(table))
        first += len(table)
    return answers


def _filled(values: Any) -> npt.NDArray[Any]:
    """DuckDB's column, an array or a masked one, with its nulls as NaN, or None."""
    if not isinstance(values, np.ma.MaskedArray) or values.mask is np.ma.nomask:
        return np.asarray(values)
    fill: Any = None if values.dtype == object else np.nan
    return np.where(values.mask, fill, values.data)


def ids_of(cells: Mapping[str, pa.Table]) -> str:
    """SQL: a relation with the column cell_id of all `cells`, as chosen_cells returns them, and their places in it."""
    ids = text_rows(cell for table in cells.values() for cell in table["cell_id"].to_pylist())
    return f"(SELECT text AS cell_id, place FROM {ids})"


def tasks_of(tasks: Iterable[str]) -> str:
    """SQL: tasks as literals, so that DuckDB passes over the files of other tasks."""
    return ", ".join(map(quoted, tasks)) or "NULL"


def check_cells(task: str, cells: pa.Table) -> None:
    """Raises ConfigError unless `cells`, rows of the view cells, are one for each model and can be compared.

    The message names the columns that differ, and conditions for --pool that choose among the cells.
    """
    if not len(cells):
        raise ConfigError(f"the pool holds no cell of task {task}; use --include imported for imported records")
    for name, plural in (("items_digest", "item tables"), ("metric", "metrics")):
        if len(set(cells[name].to_pylist())) > 1:
            raise ConfigError(
                f"{task}: the pool's cells have several {plural}, which cannot be compared: "
                f"{_ways(task, name, cells.to_pylist())}"
            )
    if not all(cells["higher_is_better"].to_pylist()):
        raise ConfigError(f"{task}: less is better for {cells['metric'][0]}, and routers need a metric where more is")
    models = cells["model"].to_pylist()
    for doubled in (model for model, count in Counter(models).items() if count > 1):
        own = [row for row in cells.to_pylist() if row["model"] == doubled]
        differing = [name for name in _DIFFER_IN if len({str(row[name]) for row in own}) > 1]
        ways = _ways(task, differing[0], own) if differing else "choose by --pool"
        raise ConfigError(
            f"{task}: {doubled} has {len(own)} cells, which differ in {', '.join(differing) or 'settings'}: {ways}"
        )


def _ways(task: str, name: str, cells: list[dict[str, Any]]) -> str:
    """A phrase with a condition for --pool for each value of the column `name` in `cells`."""
    ways = []
    for value in sorted({cell[name] for cell in cells}, key=lambda value: (value is None, value)):
        held = [cell for cell in cells if cell[name] == value]
        others = [column for column in ("items", "num_fewshot", *_RECOGNISED_BY) if column != name]
        texts = {column: sorted({str(cell[column]) for cell in held if cell[column] is not None}) for column in others}
        hints = [f"{column} {', '.join(values[:3])}" for column, values in texts.items() if values]
        models = len({cell["model"] for cell in held})
        # The condition keeps the cells of all other tasks.
        way = f'--pool "task <> {_sql(task)} OR {name} {"IS NULL" if value is None else f"= {_sql(value)}"}"'
        ways.append(f"{way} ({models} model{'' if models == 1 else 's'}; {'; '.join(hints)})")
    return "choose by " + ", or ".join(ways[:3]) + (f", or one of {len(ways) - 3} more" if len(ways) > 3 else "")


def _sql(value: Any) -> str:
    return str(value) if isinstance(value, int) else quoted(str(value))
