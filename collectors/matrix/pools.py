"""A pool of models on the items of one task as arrays, for scoring routers.

Owns the check that cells can form a pool. Knows no metrics.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.failures import ConfigError, one_line
from schemas.sql import quoted

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


def load_pool(con: duckdb.DuckDBPyConnection, task: str, where: str = "true") -> Pool:
    """The pool of the task's cells that meet `where`, a condition in SQL on columns of the view cells.

    `con` has the views of a lake or published version. Memory is 24 bytes per element. Raises ConfigError for a wrong
    condition, and as `check_cells` does.
    """
    try:
        table = con.execute(
            f"SELECT * FROM cells WHERE task = ? AND ({where}) ORDER BY model, cell_id", [task]
        ).to_arrow_table()
    except duckdb.Error as error:
        raise ConfigError(f"the pool's condition: {one_line(error, 200)}") from error
    check_cells(task, table)
    cells = table["cell_id"].to_pylist()
    rows = con.execute(
        "SELECT item, cell_id, score, usd, latency_s FROM costs WHERE task = ? AND list_contains(?, cell_id)",
        [task, cells],
    ).to_arrow_table()
    items, row = np.unique(rows["item"].to_numpy(), return_inverse=True)
    places = {cell: place for place, cell in enumerate(cells)}
    dictionary = rows["cell_id"].combine_chunks().dictionary_encode()
    dictionary = dictionary.combine_chunks() if isinstance(dictionary, pa.ChunkedArray) else dictionary
    place = np.array([places[cell] for cell in dictionary.dictionary.to_pylist()], np.int64)
    column = place[dictionary.indices.to_numpy()] if len(rows) else np.zeros(0, np.int64)

    def laid(name: str) -> npt.NDArray[np.float64]:
        values = np.full((len(items), len(cells)), np.nan)
        values[row, column] = rows[name].to_numpy()
        return values

    return Pool(
        task=task,
        items_digest=table["items_digest"][0].as_py(),
        metric=table["metric"][0].as_py(),
        models=table["model"].to_pylist(),
        cells=cells,
        items=items.astype(np.int32),
        scores=laid("score"),
        usd=laid("usd"),
        latency_s=laid("latency_s"),
    )


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
