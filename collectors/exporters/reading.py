"""Reads the grids of an export from a pool, group of tasks by group.

Owns the way from a pool (collectors.matrix.pools) to grids. Knows no format. In memory are the scores, and of one large
task or some small ones about 60 bytes an answer, and the answers' texts if a format asks for them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.exporters.grid import THOUGHTS, Floats, Grid, Grids, Objects, some
from collectors.lake.holdings import Holdings
from collectors.lake.keyless import without_keys_in
from collectors.lake.store import Lake
from collectors.matrix import pools
from collectors.matrix.described import head, with_more_is_better
from collectors.matrix.laying import Placement, placed
from collectors.matrix.pool_arrays import NUMBERS, Pools
from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.views import PoolChoice

_ITEM_COLUMNS = ("item_hash", "prompt", "target", "choices", "subject", "source_key")


def needed_views(holdings: Holdings, numbers: Collection[str]) -> tuple[str, ...]:
    """The views that read_grids and its grids read."""
    return (*pools.needed_views(holdings, numbers), "matrix", "items", "responses", "imports")


def read_grids(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    holdings: Holdings,
    tasks: Sequence[str] | None,
    choice: PoolChoice,
    *,
    texts: bool = False,
    numbers: Collection[str] = (*NUMBERS, THOUGHTS),
    unscored: bool = False,
) -> tuple[Grids, list[str]]:
    """One grid for each task of the pool, in order of name, and lines about the pool for the user.

    `con` was made with `choice`, has needed_views, and is open while grids are read. `texts`: with the responses.
    `numbers`: those that grids have beside scores, of NUMBERS and THOUGHTS. `unscored`: also questions and answers
    without a score that some candidate was asked. Tasks whose metric is better where it is less are left out. Raises
    ConfigError where the pool is empty, or nothing but such tasks is there.
    """
    loaded = pools.read_pools(con, lake, holdings, tasks, choice)
    if lost := sorted(set(tasks or ()) - set(loaded.tasks)):
        raise ConfigError(f"the pool has no candidate with a score in {some(lost)}: see --task, --pool and --include")
    kept, less = with_more_is_better(loaded, loaded.tasks)
    if not kept:
        raise ConfigError(less[0])
    encoded = con.execute("SELECT DISTINCT imported_from FROM imports WHERE format = 'routerbench'").fetchall()
    names = frozenset(name for (name,) in encoded)
    reading = _Reading(con, loaded, kept, frozenset(numbers), texts=texts, unscored=unscored, encoded=names)
    models = loaded.every.candidates
    cells = {task: [reading.rows_of[task].get(name) for name in models] for task in kept}
    return Grids(models, cells, reading.grid), [*head(loaded), *less]


@dataclass
class _Reading:
    """The pools and the connection. Tasks are read in groups, and those of the last one are kept."""

    con: duckdb.DuckDBPyConnection
    loaded: Pools
    #: The tasks to read, in order.
    tasks: Sequence[str]
    numbers: frozenset[str]
    _: KW_ONLY
    texts: bool
    unscored: bool
    encoded: frozenset[str]
    _last: tuple[list[str], _Group] | None = None

    @cached_property
    def rows_of(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Task -> candidate -> its row. For a time with a zone Arrow imports pandas, so it comes as a number."""
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        cells: dict[str, dict[str, dict[str, Any]]] = {}
        # A lake of an older release may hold keys in texts, and files for others do not.
        for row in without_keys_in(self.loaded.every.cells).to_pylist():
            row["started_at"] = epoch + dt.timedelta(microseconds=row["started_at"])
            cells.setdefault(row["task"], {})[row["candidate"]] = row
        return cells

    @cached_property
    def groups(self) -> list[list[str]]:
        """The tasks in groups that are read together, each with as many answers as its part of the arrays has room."""
        places = {task: self.loaded.places[task][0] for task in self.tasks}
        candidates = len(self.loaded.every.candidates)
        return pools.in_groups({task: (rows.stop - rows.start) * candidates for task, rows in places.items()})

    def grid(self, task: str) -> Grid:
        if self._last is None or task not in self._last[0]:
            [tasks] = [group for group in self.groups if task in group]
            self._last = None  # its memory is needed
            self._last = tasks, self.group(tasks)
        return self._grid(task, self._last[1])

    def group(self, tasks: Sequence[str]) -> _Group:
        """What these tasks have beside scores: the rows from the first to the last of them."""
        loaded, every = self.loaded, self.loaded.every
        rows = slice(loaded.places[tasks[0]][0].start, loaded.places[tasks[-1]][0].stop)
        shape = (rows.stop - rows.start, len(every.candidates))
        cells = every.cells.filter(pa.array([task in tasks for task in every.cells["task"].to_pylist()], pa.bool_()))
        blocks = {table: into - rows.start for table, into in loaded.tables.items() if table[0] in tasks}
        placement = pools.placement_of(cells, every.candidates, blocks)
        some = None if len(self.groups) == 1 else tasks
        numbers = [name for name in NUMBERS if name in self.numbers]
        group = _Group(rows, shape, pools.numbers_of(self.con, shape, placement, numbers, some))
        if self.unscored:
            group.asked, group.failures = np.zeros(shape, np.bool_), np.full(shape, None, object)
            for into, columns, batch in self._placed("failure", "matrix", placement, some):
                group.asked[into, columns] = True
                group.failures[into, columns] = batch.column("failure").to_numpy(zero_copy_only=False)
        if self.texts:
            group.responses = np.full(shape, None, object)
            source = "(SELECT task, cell_id, item, responses FROM responses WHERE repeat = 0 AND responses IS NOT NULL)"
            for into, columns, batch in self._placed("responses", f"{source} AS texts", placement, some):
                # They stand on the rows of a task's first filter.
                for row, column, texts in zip(into, columns, batch.column("responses").to_pylist(), strict=True):
                    group.responses[row, column] = texts
        if THOUGHTS in self.numbers:
            group.numbers[THOUGHTS] = np.full(shape, np.nan)
            for into, columns, batch in self._placed(THOUGHTS, "matrix", placement, some):
                values = batch.column(THOUGHTS).cast(pa.float64()).to_numpy(zero_copy_only=False)
                group.numbers[THOUGHTS][into, columns] = values
        group.items = self._items(rows, placement, some)
        return group

    def _placed(
        self, column: str, source: str, placement: Placement, tasks: Sequence[str] | None
    ) -> Iterator[tuple[Any, Any, pa.RecordBatch]]:
        of = source.rpartition(" ")[2]
        return placed(
            self.con, placement, [column], f"{source} JOIN places USING (cell_id) WHERE {pools.of_tasks(tasks, of)}"
        )

    def _grid(self, task: str, group: _Group) -> Grid:
        every, rows = self.loaded.every, self.loaded.places[task][0]
        mine = slice(rows.start - group.rows.start, rows.stop - group.rows.start)
        counted = self.loaded.counted[rows] if group.asked is None else group.asked[mine].any(axis=1)
        counted = np.asarray(counted)

        def part(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return values[mine] if counted.all() else values[mine][counted]

        shape = (int(counted.sum()), len(every.candidates))
        unknown = np.broadcast_to(np.nan, shape)
        numbers = {"score": every.scores[rows][counted].astype(np.float64)}
        for name in (*NUMBERS, THOUGHTS):
            if name in self.numbers:
                numbers[name] = part(group.numbers[name]) if name in group.numbers else unknown
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
                {**group.items[place + mine.start], **({"item": number} if len(digests) > 1 else {})}
                for number, place in enumerate(np.flatnonzero(counted).tolist())
            ],
            numbers=numbers,
            failures=np.full(shape, None, object) if group.failures is None else part(group.failures),
            asked=has_score if group.asked is None else part(group.asked),
            own_items=self._own_items(task, rows, cells)[counted],
            responses=np.empty((0, 0), object) if group.responses is None else part(group.responses),
            encoded=self.encoded,
        )

    def _items(self, rows: slice, placement: Placement, tasks: Sequence[str] | None) -> list[dict[str, Any]]:
        """Of these rows of `every` a question's id and the columns of its item, or its hash alone without a table."""
        axis = self.loaded.every.questions.slice(rows.start, rows.stop - rows.start).rename_columns({"task": "of_task"})
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
            for into, _, batch in self._placed("item_hash", "matrix", placement, tasks):
                first, places = np.unique(into, return_index=True)
                for row, item_hash in zip(first, batch.column("item_hash").take(places).to_pylist(), strict=True):
                    if items[row]["item_hash"] is None:
                        items[row]["item_hash"] = item_hash
        return items

    def _own_items(self, task: str, rows: slice, cells: Mapping[str, dict[str, Any]]) -> npt.NDArray[np.int64]:
        own = np.full((rows.stop - rows.start, len(self.loaded.every.candidates)), -1, np.int64)
        for column, name in enumerate(self.loaded.every.candidates):
            if name in cells:
                into = self.loaded.tables[task, cells[name]["items_digest"]]
                own[into - rows.start, column] = np.arange(len(into))
        return own


@dataclass
class _Group:
    """Some tasks: arrays (rows, candidates) and items (rows,) of the rows of `every` from the first to the last."""

    rows: slice
    shape: tuple[int, int]
    #: Those of NUMBERS and THOUGHTS that are known.
    numbers: dict[str, Floats]
    #: Whether the matrix has a row, and its failure.
    asked: npt.NDArray[np.bool_] | None = None
    failures: Objects | None = None
    responses: Objects | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
