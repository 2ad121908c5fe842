"""The rows that an export writes: for each task the items × models of a pool, the same models in all of them.

Owns the choice of these answers, and the rules for missing ones. Knows no format. Everything is in memory: about 100
bytes an answer, and the answers' texts if a format asks for them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.matrix.pools import Answers, chosen_cells, ids_of, read_answers, tasks_of
from schemas.failures import ConfigError

Floats = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

_ITEM_COLUMNS = ("item", "item_hash", "prompt", "target", "choices", "subject", "source_key")
_NUMBERS = ("score", "usd", "latency_s", "prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(frozen=True)
class Options:
    """Settings of an export that only some formats take; `names` is of all."""

    #: Folder of a sentence-transformers model, for formats with embeddings.
    encoder: Path | None = None
    #: YAML of task -> keywords, for capability texts.
    keywords: Path | None = None
    #: The lowest graded score that is right, for formats of right and wrong.
    threshold: float | None = None
    #: Parquet file of pipelines/tokens.py, for answers without token counts.
    tokens: Path | None = None
    #: Neither token counts nor costs.
    accuracy_only: bool = False
    #: Router -> (task, item) -> the model that it chose, for formats of routers.
    routers: Mapping[str, Mapping[tuple[str, int], str]] | None = None
    #: "source": models are called as in the source of their imported records.
    names: str | None = None


@dataclass(frozen=True)
class Grid:
    """One task: items in the order of its table × the models of all grids. An unknown number is NaN."""

    task: str
    items_digest: str
    metric: str
    models: list[str]
    #: Each model's row of the view cells; None if it was never asked this task.
    cells: list[dict[str, Any] | None]
    #: Each item's columns item, item_hash, prompt, target, choices, subject and source_key of the view items.
    items: list[dict[str, Any]]
    #: Each (items, models) float64: score, usd, latency_s, prompt_tokens, completion_tokens, cached_tokens.
    numbers: dict[str, Floats]
    #: (items, models): failure kind; None where scored.
    failures: Objects
    #: (items, models): whether the matrix has a row.
    asked: npt.NDArray[np.bool_]
    #: (items, models): list of texts, one a repeat; None: not kept. Empty if the format asks for no texts.
    responses: Objects
    #: Names of sources whose texts are in RouterBench's encoding.
    encoded: frozenset[str] = frozenset()
    #: Those of `numbers` that the format needs; see `gaps`.
    needs: tuple[str, ...] = field(default=("score",))

    @property
    def scores(self) -> Floats:
        return self.numbers["score"]

    @property
    def usd(self) -> Floats:
        return self.numbers["usd"]

    @property
    def prompts(self) -> list[Any]:
        return [item["prompt"] for item in self.items]

    def gaps(self) -> npt.NDArray[np.bool_]:
        """(items, models): whether a number that the format needs is unknown."""
        gaps = np.zeros(self.scores.shape, np.bool_)
        for name in self.needs:
            gaps |= np.isnan(self.numbers[name])
        return gaps

    def taken(self, rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> Grid:
        """Only these items and models."""
        part = np.ix_(rows, columns)
        return replace(
            self,
            models=[model for model, keep in zip(self.models, columns, strict=True) if keep],
            cells=[cell for cell, keep in zip(self.cells, columns, strict=True) if keep],
            items=[item for item, keep in zip(self.items, rows, strict=True) if keep],
            numbers={name: values[part] for name, values in self.numbers.items()},
            failures=self.failures[part],
            asked=self.asked[part],
            responses=self.responses[part] if self.responses.size else self.responses,
        )


# ---- loading


def load_grids(
    con: duckdb.DuckDBPyConnection,
    tasks: Sequence[str] = (),
    where: str = "true",
    *,
    texts: bool = False,
    unread: Collection[str] = (),
) -> list[Grid]:
    """One grid a task (all tasks of the pool by default), in order of name; `texts`: with the responses.

    `con` has the views of a lake or published version and reads each once for all tasks; `where` is SQL over columns of
    the view cells. `unread`: usd, cached_tokens or both stay NaN, which saves a reading of the matrix each. Raises
    ConfigError where the cells of a task are not one per model and comparable (collectors.matrix.pools), and for a task
    without any answer.
    """
    cells = chosen_cells(con, sorted(set(tasks)), where)
    if not cells:
        raise ConfigError("the pool holds no cell: nothing was collected, or --pool and --include leave all out")
    read = [name for name in _NUMBERS if name not in unread]
    source = "matrix" if "usd" not in read else "costs" if "cached_tokens" not in read else _COSTS_AND_CACHED
    answers = read_answers(con, cells, source, ("failure", *read))
    if empty := [task for task, of_task in answers.items() if not len(of_task.items)]:
        raise ConfigError(f"nothing was collected yet of {some(empty)}: name other tasks with --tasks")
    models = sorted({model for table in cells.values() for model in table["model"].to_pylist()})
    described = _items(con, cells, answers)
    stored = _responses(con, cells) if texts else {}
    encoded = con.execute("SELECT DISTINCT imported_from FROM imports WHERE format = 'routerbench'").fetchall()
    names = frozenset(name for (name,) in encoded)
    return [
        _grid(task, table, models, answers[task], described, stored if texts else None, names)
        for task, table in cells.items()
    ]


#: The view costs has no cached tokens, and the matrix no costs.
_COSTS_AND_CACHED = "costs JOIN (SELECT task, cell_id, item, cached_tokens FROM matrix) USING (task, cell_id, item)"

Described = Mapping[str, Mapping[int, dict[str, Any]]]
Stored = Mapping[str, Mapping[int, Any]]


def _grid(
    task: str,
    cells: pa.Table,
    models: list[str],
    answers: Answers,
    described: Described,
    stored: Stored | None,
    encoded: frozenset[str],
) -> Grid:
    rows = _cell_rows(cells)
    by_model = {row["model"]: row for row in rows}
    numbered = {model: number for number, model in enumerate(models)}
    place = np.array([numbered[row["model"]] for row in rows], np.int64)
    shape = (len(answers.items), len(models))

    def spread(values: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        whole = np.full(shape, fill, values.dtype)
        whole[:, place] = values
        return whole

    asked = np.zeros((len(answers.items), len(rows)), np.bool_)
    asked[answers.row, answers.column] = True
    digest = rows[0]["items_digest"]
    positions = [int(item) for item in answers.items]
    responses = np.empty((0, 0), object)
    if stored is not None:
        responses = np.full(asked.shape, None, object)
        for column, row in enumerate(rows):
            of_cell = stored.get(row["cell_id"], {})
            responses[:, column] = _objects([of_cell.get(item) for item in positions])
        responses = spread(responses, None)
    return Grid(
        task=task,
        items_digest=digest,
        metric=rows[0]["metric"],
        models=models,
        cells=[by_model.get(model) for model in models],
        items=[described[task][item] for item in positions],
        numbers={name: _number(answers, name, spread) for name in _NUMBERS},
        failures=spread(answers.laid("failure"), None),
        asked=spread(asked, False),
        responses=responses,
        encoded=encoded,
    )


def _number(answers: Answers, name: str, spread: Callable[[npt.NDArray[Any], Any], npt.NDArray[Any]]) -> Floats:
    read = name in answers.columns
    return spread(answers.laid(name) if read else np.full((len(answers.items), answers.cells), np.nan), np.nan)


def _cell_rows(cells: pa.Table) -> list[dict[str, Any]]:
    """The rows as dictionaries. For a time with a zone Arrow imports pandas, 0.4 s of CPU, so it goes as a number."""
    times = cells["started_at"].cast(pa.int64()).to_pylist()
    rows = cells.drop_columns(["started_at"]).to_pylist()
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    pairs = zip(rows, times, strict=True)
    return [{**row, "started_at": epoch + dt.timedelta(microseconds=time)} for row, time in pairs]


def _objects(values: Sequence[Any]) -> Objects:
    """(values,): an array of objects, also where all are lists of one length."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _items(con: duckdb.DuckDBPyConnection, cells: Mapping[str, pa.Table], answers: Mapping[str, Answers]) -> Described:
    """Task -> position -> the item's columns; an item without a row of the view items has its hash alone."""
    digests = {task: table["items_digest"][0].as_py() for task, table in cells.items()}
    sql = f"SELECT task, items_digest, {', '.join(_ITEM_COLUMNS)} FROM items WHERE task IN ({tasks_of(cells)})"
    described: dict[str, dict[int, dict[str, Any]]] = {task: {} for task in cells}
    for row in con.execute(sql).to_arrow_table().to_pylist():
        task = row.pop("task")
        if digests[task] == row.pop("items_digest"):
            described[task][row["item"]] = row
    bare = [task for task, of_task in answers.items() if not described[task].keys() >= set(of_task.items.tolist())]
    if bare:
        hashes = f"SELECT task, item, any_value(item_hash) FROM matrix SEMI JOIN {ids_of(cells)} USING (cell_id)"
        blank = dict.fromkeys(_ITEM_COLUMNS)
        for task, item, item_hash in con.execute(f"{hashes} WHERE task IN ({tasks_of(bare)}) GROUP BY ALL").fetchall():
            described[task].setdefault(item, {**blank, "item": item, "item_hash": item_hash})
    return described


def _responses(con: duckdb.DuckDBPyConnection, cells: Mapping[str, pa.Table]) -> Stored:
    """Cell -> position -> its texts. They stand on the rows of a task's first filter, whichever that is."""
    rows = con.execute(
        f"""
        SELECT cell_id, item, any_value(responses) FROM responses SEMI JOIN {ids_of(cells)} USING (cell_id)
        WHERE task IN ({tasks_of(cells)}) AND repeat = 0 AND responses IS NOT NULL GROUP BY cell_id, item
        """
    ).fetchall()
    stored: dict[str, dict[int, Any]] = defaultdict(dict)
    for cell, item, texts in rows:
        stored[cell][item] = texts
    return stored


# ---- names


def source_names(grids: Sequence[Grid]) -> list[Grid]:
    """The grids with each model called as in the source of its imported records; collected ones keep their names.

    Raises ConfigError where a model has several such names, or two models one.
    """
    models = grids[0].models
    names = [_source_names(grids, column) or {model} for column, model in enumerate(models)]
    if several := [(model, of) for model, of in zip(models, names, strict=True) if len(of) > 1]:
        model, of = several[0]
        raise ConfigError(f"--names source: {model} has {len(of)} names in its sources: {some(sorted(of))}")
    single = [of.pop() for of in names]
    if len(set(single)) < len(single):
        [(name, count)] = Counter(single).most_common(1)
        raise ConfigError(f"--names source: {count} models are called {name} in their sources: leave out by --pool")
    return [replace(grid, models=single) for grid in grids]


def renamed_models(grids: Sequence[Grid]) -> list[str]:
    """The models that an alias renamed when they were imported."""
    return [model for column, model in enumerate(grids[0].models) if _source_names(grids, column) - {model}]


def _source_names(grids: Sequence[Grid], column: int) -> set[str]:
    cells = [cell for grid in grids if (cell := grid.cells[column])]
    return {cell["source"] for cell in cells if cell["imported_from"] is not None}


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names as a phrase, and how many more there are."""
    return ", ".join(names[:most]) + (f", … {len(names) - most:,} more" if len(names) > most else "")
