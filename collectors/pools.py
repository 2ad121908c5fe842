"""A pool of models on the items of one task as arrays: what routers are judged on.

Owns which cells make a pool, and how a file of a router's choices names items and models. Knows no metrics.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.metrics.known import NO_CHOICE
from schemas.failures import ConfigError, one_line

#: What tells cells of one model and task apart.
_APART = ("prompting", "num_fewshot", "chat_template", "revision", "dtype", "quantization", "imported_from")


@dataclass(frozen=True)
class Pool:
    """Models × items of one task. An unknown score, cost or time is NaN."""

    task: str
    items_digest: str
    metric: str
    #: Columns: name of each model, and its cell.
    models: list[str]
    cells: list[str]
    #: Rows: positions of the items in the task's table, ascending; (items,) int32.
    items: npt.NDArray[np.int32]
    #: (items, models) float64
    scores: npt.NDArray[np.float64]
    usd: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]


#: A router's choice: task, items_digest, item, model.
Choice = tuple[str, str, int, str]


def load_pool(con: duckdb.DuckDBPyConnection, task: str, where: str = "true") -> Pool:
    """The pool of the task's cells for which `where` holds, SQL over columns of the view cells.

    `con`: views of a lake or snapshot. Memory: 24 bytes per element. Raises ConfigError where the cells are not one per
    model and comparable, with what tells them apart.
    """
    try:
        found = con.execute(
            f"SELECT * FROM cells WHERE task = ? AND ({where}) ORDER BY model, cell_id", [task]
        ).to_arrow_table()
    except duckdb.Error as error:
        raise ConfigError(f"the pool's condition: {one_line(error, 200)}") from error
    check_cells(task, found)
    cells = found["cell_id"].to_pylist()
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
        items_digest=found["items_digest"][0].as_py(),
        metric=found["metric"][0].as_py(),
        models=found["model"].to_pylist(),
        cells=cells,
        items=items.astype(np.int32),
        scores=laid("score"),
        usd=laid("usd"),
        latency_s=laid("latency_s"),
    )


def check_cells(task: str, cells: pa.Table) -> None:
    """Raises ConfigError unless `cells`, rows of the view cells, are one per model and comparable."""
    if not len(cells):
        raise ConfigError(
            f"the pool holds no cell of task {task}; imported records are asked for by --include imported"
        )
    for name, said in (("items_digest", "item tables"), ("metric", "metrics")):
        if len(values := sorted(set(map(str, cells[name].to_pylist())))) > 1:
            raise ConfigError(
                f"{task}: the pool's cells have {len(values)} {said}, which cannot be compared: choose by --pool, such "
                f"as --pool \"{name} = '{values[0]}'\""
            )
    if not all(cells["higher_is_better"].to_pylist()):
        raise ConfigError(f"{task}: of {cells['metric'][0]} less is better, and a router is judged by what is more")
    models = cells["model"].to_pylist()
    for doubled in (model for model, count in Counter(models).items() if count > 1):
        own = [row for row in cells.to_pylist() if row["model"] == doubled]
        differing = [name for name in _APART if len({str(row[name]) for row in own}) > 1]
        example = f'--pool "{differing[0]} = …"' if differing else "--pool"
        raise ConfigError(
            f"{task}: {doubled} has {len(own)} cells, which differ in {', '.join(differing) or 'their settings'}: "
            f"choose by {example}"
        )


# ---- a router's choices


def read_choices(con: duckdb.DuckDBPyConnection, path: Path) -> dict[str, list[Choice]]:
    """Router -> its choices, of a file; one without a column `router` is called after the file.

    CSV, Parquet or JSON lines with columns `model` and one of `item` (position in the task's table), `item_hash` or
    `source_key`; `task`, where items of several tasks have it. `con`: views by whose items the last two are found.
    Raises ConfigError for a file that is none, an item that is not in the lake, or two choices for one item.
    """
    reader = {".csv": "read_csv", ".tsv": "read_csv", ".parquet": "read_parquet"}.get(path.suffix.lower(), "read_json")
    options = ", all_varchar = true" if reader == "read_csv" else ""
    if not os.path.isfile(path):
        raise ConfigError(f"--choices {path}: no such file")
    name = str(path).replace("'", "''")
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE choices AS SELECT * FROM {reader}('{name}'{options})")
        columns = {row[0] for row in con.execute("DESCRIBE choices").fetchall()}
        key = next((column for column in ("item", "item_hash", "source_key") if column in columns), None)
        if key is None or "model" not in columns:
            raise ConfigError(
                f"--choices {path}: it needs a column model, and item, item_hash or source_key; it has "
                f"{', '.join(sorted(columns))}"
            )
        con.execute("CREATE OR REPLACE TEMP VIEW known_items AS FROM items")
        router = "router::VARCHAR" if "router" in columns else "?"
        task = "AND known_items.task = choices.task::VARCHAR" if "task" in columns else ""
        found = con.execute(
            f"""
            SELECT {router}, known_items.task, items_digest, known_items.item, choices.model::VARCHAR,
                choices.{key}::VARCHAR
            FROM choices LEFT JOIN known_items ON known_items.{key}::VARCHAR = choices.{key}::VARCHAR {task}
            ORDER BY choices.rowid
            """,
            [path.stem] if router == "?" else [],
        ).fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"--choices {path}: {one_line(error, 200)}") from error
    return _by_router(path, key, found)


def _by_router(path: Path, key: str, found: Sequence[tuple[Any, ...]]) -> dict[str, list[Choice]]:
    chosen: dict[str, dict[tuple[str, str, int], str]] = {}
    for router, task, items_digest, item, model, said in found:
        if item is None or model is None or router is None:
            what = f"{key} {said} is in no table of the lake" if model and router else "a row lacks router or model"
            raise ConfigError(f"--choices {path}: {what}")
        before = chosen.setdefault(router, {}).setdefault((task, items_digest, item), model)
        if before != model:
            raise ConfigError(
                f"--choices {path}: {router} chose both {before} and {model} for {key} {said}; items of several tasks "
                "need a column task"
            )
    if not chosen:
        raise ConfigError(f"--choices {path}: no row in it")
    return {router: [(*key, model) for key, model in of.items()] for router, of in chosen.items()}


def columns_of(pool: Pool, router: str, chosen: Sequence[Choice]) -> npt.NDArray[np.int64]:
    """(items,): the pool's column that the router chose for each item, metrics.known.NO_CHOICE where it chose none.

    Raises ConfigError where it chose a model that is not in the pool.
    """
    place = {model: column for column, model in enumerate(pool.models)}
    row = {int(item): number for number, item in enumerate(pool.items)}
    choices = np.full(len(pool.items), NO_CHOICE, np.int64)
    for task, items_digest, item, model in chosen:
        if (task, items_digest) != (pool.task, pool.items_digest):
            continue
        if model not in place:
            some = ", ".join(pool.models[:5]) + (", …" if len(pool.models) > 5 else "")
            raise ConfigError(f"{router} chose {model} on {task}, which the pool does not have; it has {some}")
        if item in row:  # else nobody was asked
            choices[row[item]] = place[model]
    return choices
