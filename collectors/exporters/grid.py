"""The rows that an export writes: for each task the items × models of a pool, the same models in all of them.

Owns the part of a pool (collectors.matrix.pools) that a format sees. Knows no format. Everything is in memory: about
60 bytes an answer, and the answers' texts if a format asks for them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.holdings import Holdings
from collectors.lake.keyless import without_keys_in
from collectors.lake.store import Lake
from collectors.matrix import pools
from collectors.matrix.described import head, with_more_is_better
from collectors.matrix.pool_arrays import NUMBERS, Pools
from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.views import PoolChoice

Floats = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

#: A number that few formats take.
THOUGHTS = "reasoning_tokens"

_ITEM_COLUMNS = ("item_hash", "prompt", "target", "choices", "subject", "source_key")


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
    #: Router -> (task, question) -> the candidate that it chose, for formats of routers.
    routers: Mapping[str, Mapping[tuple[str, str], str]] | None = None
    #: "source": models are called as in the source of their imported records.
    names: str | None = None


@dataclass(frozen=True)
class Grid:
    """One task: questions × the candidates of all grids. An unknown number is NaN."""

    task: str
    #: Of its item table, or of all of them.
    items_digest: str
    metric: str
    #: Names of the candidates.
    models: list[str]
    #: Each candidate's row of the view candidates, with the columns of its cell; None if it is not of this task.
    cells: list[dict[str, Any] | None]
    #: Each question's id, and the columns item_hash, prompt, target, choices, subject and source_key of the view items.
    #: `item` is its position in the item table, or in the grid where that has questions of several tables.
    items: list[dict[str, Any]]
    #: Each (items, models) float64: score, usd, latency_s, prompt_tokens, completion_tokens, cached_tokens, and
    #: reasoning_tokens where the format takes them.
    numbers: dict[str, Floats]
    #: (items, models): failure kind; None where scored.
    failures: Objects
    #: (items, models): whether the matrix has a row.
    asked: npt.NDArray[np.bool_]
    #: (items, models): the position of the item in the table of the model's cell; -1: it is not there.
    own_items: npt.NDArray[np.int64]
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
            own_items=self.own_items[part],
            responses=self.responses[part] if self.responses.size else self.responses,
        )


# ---- loading


def needed_views(holdings: Holdings, numbers: Collection[str]) -> tuple[str, ...]:
    """The views that read_grids reads."""
    return (*pools.needed_views(holdings, numbers), "matrix", "items", "responses", "imports")


def read_grids(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    holdings: Holdings,
    tasks: Sequence[str] | None,
    choice: PoolChoice,
    *,
    texts: bool = False,
    unread: Collection[str] = (),
    unscored: bool = False,
) -> tuple[list[Grid], list[str]]:
    """One grid for each task of the pool, in order of name, and lines about the pool for the user.

    `con` was made with `choice` and has needed_views. `texts`: with the responses. `unread`: usd and cached_tokens that
    stay NaN, and reasoning_tokens that are left out, which saves a reading of the matrix each. `unscored`: also
    questions and answers without a score that some candidate was asked. Tasks whose metric is better where it is less
    are left out. Raises ConfigError where the pool is empty, or nothing but such tasks is there.
    """
    numbers = [name for name in NUMBERS if name not in unread]
    loaded = pools.read_pools(con, lake, holdings, tasks, choice, numbers=numbers)
    if lost := sorted(set(tasks or ()) - set(loaded.tasks)):
        raise ConfigError(f"the pool has no candidate with a score in {some(lost)}: see --task, --pool and --include")
    kept, less = with_more_is_better(loaded, loaded.tasks)
    if not kept:
        raise ConfigError(less[0])
    reading = _Reading(con, loaded, without_keys_in(loaded.every.cells))
    asked, failures = reading.failures() if unscored else (None, None)
    responses = reading.responses() if texts else None
    thoughts = None if THOUGHTS in unread else reading.thoughts()
    encoded = con.execute("SELECT DISTINCT imported_from FROM imports WHERE format = 'routerbench'").fetchall()
    names = frozenset(name for (name,) in encoded)
    items = reading.items()
    made = [reading.grid(task, items, asked, failures, responses, names) for task in kept]
    if thoughts is not None:
        made = [reading.with_thoughts(grid, thoughts, asked) for grid in made]
    return made, [*head(loaded), *less]


@dataclass(frozen=True)
class _Reading:
    """The pools and the connection, which has the tables places and rows_of_blocks of them."""

    con: duckdb.DuckDBPyConnection
    loaded: Pools
    #: Those of `every`. A lake of an older release may hold keys in their texts, and files for others do not.
    cells: pa.Table

    @cached_property
    def rows_of(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Task -> candidate -> its row. For a time with a zone Arrow imports pandas, so it comes as a number."""
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        cells: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self.cells.to_pylist():
            row["started_at"] = epoch + dt.timedelta(microseconds=row["started_at"])
            cells.setdefault(row["task"], {})[row["candidate"]] = row
        return cells

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.loaded.every.scores.shape
        return rows, columns

    def failures(self) -> tuple[npt.NDArray[np.bool_], Objects]:
        """(rows, columns) of `every`: whether the matrix has a row, and its failure."""
        asked, failures = np.zeros(self.shape, np.bool_), np.full(self.shape, None, object)
        read = self.con.execute(
            "SELECT row_number, model_column, failure FROM matrix "
            "JOIN places USING (cell_id) JOIN rows_of_blocks USING (block, item)"
        ).fetchnumpy()
        at = read["row_number"], read["model_column"]
        asked[at] = True
        kinds: Any = read["failure"]
        nothing: Any = None  # as an argument of filled() it stands for '?'
        failures[at] = np.where(kinds.mask, nothing, kinds.data) if isinstance(kinds, np.ma.MaskedArray) else kinds
        return asked, failures

    def thoughts(self) -> Floats:
        """(rows, columns) of `every`: tokens of a thought; NaN where nobody counted them apart."""
        found = np.full(self.shape, np.nan)
        read = self.con.execute(
            "SELECT row_number, model_column, reasoning_tokens::DOUBLE AS tokens FROM matrix "
            "JOIN places USING (cell_id) JOIN rows_of_blocks USING (block, item) WHERE reasoning_tokens IS NOT NULL"
        ).fetchnumpy()
        found[read["row_number"], read["model_column"]] = read["tokens"]
        return found

    def with_thoughts(self, grid: Grid, thoughts: Floats, asked: npt.NDArray[np.bool_] | None) -> Grid:
        rows = self.loaded.places[grid.task][0]
        counted = np.asarray(self.loaded.counted[rows] if asked is None else asked[rows].any(axis=1))
        return replace(grid, numbers={**grid.numbers, THOUGHTS: thoughts[rows][counted]})

    def responses(self) -> Objects:
        """(rows, columns) of `every`: the answer's texts. They stand on the rows of a task's first filter."""
        responses = np.full(self.shape, None, object)
        rows = self.con.execute(
            """
            SELECT row_number, model_column, any_value(responses)
            FROM (SELECT cell_id, item, responses FROM responses WHERE repeat = 0 AND responses IS NOT NULL)
            JOIN places USING (cell_id) JOIN rows_of_blocks USING (block, item)
            GROUP BY row_number, model_column
            """
        ).fetchall()
        for row, column, texts in rows:
            responses[row, column] = texts
        return responses

    def grid(
        self,
        task: str,
        items: Sequence[dict[str, Any]],
        asked: npt.NDArray[np.bool_] | None,
        failures: Objects | None,
        responses: Objects | None,
        encoded: frozenset[str],
    ) -> Grid:
        every, rows = self.loaded.every, self.loaded.places[task][0]
        counted = np.asarray(self.loaded.counted[rows] if asked is None else asked[rows].any(axis=1))
        numbers = {name: np.full((int(counted.sum()), self.shape[1]), np.nan) for name in ("score", *NUMBERS)}
        numbers["score"][:] = every.scores[rows][counted]
        for name, values in every.numbers.items():
            numbers[name][:] = values[rows][counted]
        cells = self.rows_of[task]
        digests = sorted({row["items_digest"] for row in cells.values()})
        has_score = ~np.isnan(numbers["score"])
        return Grid(
            task=task,
            items_digest=digests[0] if len(digests) == 1 else digest(digests),
            metric=next(iter(cells.values()))["metric"],
            models=every.candidates,
            cells=[cells.get(name) for name in every.candidates],
            items=[
                {**items[place + rows.start], **({"item": number} if len(digests) > 1 else {})}
                for number, place in enumerate(np.flatnonzero(counted).tolist())
            ],
            numbers=numbers,
            failures=np.full(has_score.shape, None, object) if failures is None else failures[rows][counted],
            asked=has_score if asked is None else asked[rows][counted],
            own_items=self._own_items(task, rows, cells)[counted],
            responses=np.empty((0, 0), object) if responses is None else responses[rows][counted],
            encoded=encoded,
        )

    def items(self) -> list[dict[str, Any]]:
        """(rows,) of `every`: a question's id and the columns of its item, which has its hash alone without a table."""
        axis = self.loaded.every.questions.rename_columns({"task": "of_task"})
        self.con.register("grid_questions", axis.append_column("place", pa.array(np.arange(len(axis)))))
        items: list[dict[str, Any]] = (
            self.con.execute(
                f"""
                SELECT question, grid_questions.item, {", ".join(_ITEM_COLUMNS)}
                FROM grid_questions
                LEFT JOIN items
                    ON of_task = task
                    AND grid_questions.items_digest = items.items_digest
                    AND grid_questions.item = items.item
                ORDER BY place
                """
            )
            .to_arrow_table()
            .to_pylist()
        )
        self.con.unregister("grid_questions")
        if any(item["item_hash"] is None for item in items):
            hashes = self.con.execute(
                "SELECT row_number, any_value(item_hash) FROM matrix "
                "JOIN places USING (cell_id) JOIN rows_of_blocks USING (block, item) GROUP BY row_number"
            ).fetchall()
            for row, item_hash in hashes:
                if items[row]["item_hash"] is None:
                    items[row]["item_hash"] = item_hash
        return items

    def _own_items(self, task: str, rows: slice, cells: Mapping[str, dict[str, Any]]) -> npt.NDArray[np.int64]:
        own = np.full((rows.stop - rows.start, self.shape[1]), -1, np.int64)
        for column, name in enumerate(self.loaded.every.candidates):
            if name in cells:
                into = self.loaded.tables[task, cells[name]["items_digest"]]
                own[into - rows.start, column] = np.arange(len(into))
        return own


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
