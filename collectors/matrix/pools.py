"""The one loader of pools: questions × candidates as arrays, for training and scoring routers, pictures and exports.

Owns the arrays, and which questions count over several tasks. The views choose the candidates and questions
(schemas/views: candidates, questions, pool); this module lays what they chose. Knows no metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.arrays import Arrays, empty_arrays
from collectors.matrix.laying import BATCH_ROWS, Inexact, Placement, lay, register, views_of
from collectors.matrix.packed import FILES, lay_packed
from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import BLOCK_KEY, COLUMN_KEY
from schemas.sql import quoted
from schemas.views import PoolChoice

#: Name of the pool over all tasks.
ALL = "all"
#: Numbers of an answer beside its score: columns of the view costs, but cached_tokens of the matrix.
NUMBERS = ("usd", "latency_s", "prompt_tokens", "completion_tokens", "cached_tokens")
#: Numbers that a router's choice costs.
COSTS = ("usd", "latency_s")

Floats = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Questions × candidates: of one task, of all tasks (`task` 'all'), or of several tasks below each other."""

    task: str
    #: '' if its tasks have several.
    metric: str
    higher_is_better: bool
    #: Names of the columns, in order.
    candidates: list[str]
    #: One row for each row of the arrays: task, question (the id of the view questions), and items_digest and item, its
    #: place in one of its item tables.
    questions: pa.Table
    #: One row for each task and candidate, as in the view candidates.
    cells: pa.Table
    #: (questions, candidates): the primary metric's value; NaN where there is none, which does not mean wrong. float32
    #: if that holds every score exactly, as it does 0 and 1, else float64.
    scores: Floats
    #: (questions, candidates) int32; -1 if unknown. Shape (0, 0) where no tokens were asked for.
    prompt_tokens: npt.NDArray[np.int32]
    completion_tokens: npt.NDArray[np.int32]
    #: Those of NUMBERS that were asked for -> (questions, candidates) float64: USD or seconds of an answer, or tokens.
    #: NaN if unknown.
    numbers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    #: Questions that candidates were asked and that do not count.
    left_out: int = 0

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(questions, candidates): whether there is a score."""
        return ~np.isnan(self.scores)

    @property
    def items(self) -> npt.NDArray[np.int32]:
        """(questions,): the places of the questions in their item tables."""
        return np.asarray(self.questions["item"].to_numpy())

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """One of `numbers`, or NaN everywhere if no answer has it."""
        return self.numbers[name] if name in self.numbers else np.full(self.scores.shape, np.nan)

    def taken(self, rows: npt.NDArray[np.bool_], columns: Rows) -> Pool:
        """The questions of the mask `rows` and the candidates in `columns`, in this order."""
        every = bool(rows.all())
        in_order = np.array_equal(columns, np.arange(len(self.candidates)))

        def part(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if not array.size:
                return array
            array = array if every else array[rows]
            return array if in_order else array[:, columns]

        names = [self.candidates[column] for column in columns]
        return replace(
            self,
            candidates=names,
            questions=self.questions if every else self.questions.filter(pa.array(rows)),
            cells=self.cells if in_order else _cells_of(self.cells, names),
            scores=part(self.scores),
            prompt_tokens=part(self.prompt_tokens),
            completion_tokens=part(self.completion_tokens),
            numbers={name: part(values) for name, values in self.numbers.items()},
            left_out=self.left_out + int((~rows).sum()),
        )

    def save(self, path: Path) -> None:
        """Writes the scores and tokens as a .npz file for `load`, with the axes as Arrow IPC. Replaces a file."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _SAVED} | self.numbers
        names = pa.table({"candidate": pa.array(self.candidates, pa.string())})
        head = pa.table({name: [getattr(self, name)] for name in _HEAD})
        tables = {"questions": self.questions, "cells": self.cells, "candidates": names, "head": head}
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays, **{name: _to_bytes(table) for name, table in tables.items()})

    @classmethod
    def load(cls, path: Path) -> Pool:
        """Reads a file that `save` wrote; runs nothing of it."""
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        tables = {
            name: pa.ipc.open_file(pa.py_buffer(arrays.pop(name).tobytes())).read_all()
            for name in ("questions", "cells", "candidates", "head")
        }
        [head] = tables["head"].to_pylist()
        return cls(
            **head,
            candidates=tables["candidates"]["candidate"].to_pylist(),
            questions=tables["questions"],
            cells=tables["cells"],
            **{name: arrays.pop(name) for name in _SAVED},
            numbers=arrays,
        )


_SAVED = ("scores", "prompt_tokens", "completion_tokens")
_HEAD = ("task", "metric", "higher_is_better", "left_out")


@dataclass(frozen=True)
class Pools:
    """The pools of some tasks of a lake, before questions are left out. The arrays are shared, so nothing is copied."""

    choice: PoolChoice
    #: All questions that a kept candidate was asked × all kept candidates.
    every: Pool
    #: Task -> its rows in `every`, and the columns of its candidates.
    places: dict[str, tuple[slice, Rows]]
    #: Task and items_digest -> (items,): the row in `every` of each item of this table.
    tables: dict[tuple[str, str], Rows]
    #: Rows of the view candidates that are left out.
    left_out: pa.Table

    @property
    def tasks(self) -> list[str]:
        return list(self.places)

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """(questions of `every`,): whether the question counts in its task's pool (view pool)."""
        counted = np.zeros(len(self.every.scores), np.bool_)
        for rows, columns in self.places.values():
            counted[rows] = self._counted(self.every.scores[rows], columns)
        return counted

    def _counted(self, scores: Floats, columns: Rows) -> npt.NDArray[np.bool_]:
        """(rows,): whether every one of the candidates `columns` has a score, or any if the choice says so."""
        whole = len(columns) == scores.shape[1]
        size = max(1, (1 << 22) // max(1, scores.shape[1]))  # bounds the memory beside the arrays
        counted = np.zeros(len(scores), np.bool_)
        for first in range(0, len(scores), size):
            block = scores[first : first + size]
            has = ~np.isnan(block if whole else block[:, columns])
            counted[first : first + size] = has.any(axis=1) if self.choice.questions == "any" else has.all(axis=1)
        return counted

    def matrix(self) -> Pool:
        """All tasks below each other, with their counted questions. NaN where a candidate is not of a task."""
        return self.every.taken(self.counted, np.arange(len(self.every.candidates)))

    def of_task(self, task: str) -> Pool:
        """The task's pool. Raises ConfigError if the lake has none under the choice."""
        columns = self.of_task_columns(task)
        rows, _ = self.places[task]
        part = _rows_of(self.every, rows)
        cells = part.cells.filter(pa.array([one == task for one in part.cells["task"].to_pylist()]))
        part = replace(
            part,
            task=task,
            metric=cells["metric"][0].as_py(),
            higher_is_better=cells["higher_is_better"][0].as_py(),
            cells=cells,
        )
        return part.taken(self.counted[rows], columns)

    def over(self, tasks: Sequence[str]) -> Pool:
        """The pool over these tasks: the candidates that all of them have, on the questions that all of these score.

        Raises ValueError if no candidate is in all of them, or their scores cannot be averaged: those of one metric,
        and those in [0, 1], can.
        """
        of = [self.of_task_columns(task) for task in tasks]
        columns = np.array(sorted(set.intersection(*(set(one.tolist()) for one in of))), np.int64)
        cells = self.every.cells.filter(pa.array([task in set(tasks) for task in self.every.cells["task"].to_pylist()]))
        if not len(columns):
            raise ValueError("no candidate is in all of its tasks")
        if not _can_be_averaged(cells):
            raise ValueError(f"scores beyond 0 to 1, of {', '.join(sorted(set(cells['metric'].to_pylist())))}")
        rows = np.zeros(len(self.every.scores), np.bool_)
        for task in tasks:
            place = self.places[task][0]
            rows[place] = self._counted(self.every.scores[place], columns)
        pool = replace(
            self.every,
            task=ALL,
            metric=_common(cells["metric"].to_pylist()) or "",
            higher_is_better=all(cells["higher_is_better"].to_pylist()),
            cells=cells,
        )
        pool = pool.taken(rows, columns)
        asked = sum(self.places[task][0].stop - self.places[task][0].start for task in tasks)
        return replace(pool, left_out=asked - len(pool.questions))

    def of_task_columns(self, task: str) -> Rows:
        """The columns of the task's candidates. Raises ConfigError if the lake has none under the choice."""
        if task not in self.places:
            raise ConfigError(f"the pool has no candidate in task {task}: see --pool, --include and --tasks")
        return self.places[task][1]

    def over_all(self) -> Pool | None:
        """The pool over all tasks, as in the view oracle; None if it has not two tasks and two candidates."""
        try:
            pool = self.over(self.tasks)
        except ValueError:
            return None
        return pool if len(self.places) > 1 and len(pool.candidates) > 1 else None


def load_pools(
    lake: str | Lake,
    tasks: Sequence[str] | None = None,
    choice: PoolChoice | None = None,
    *,
    include: str = "collected",
    tokens: bool = False,
    numbers: Collection[str] = (),
) -> Pools:
    """The pools of a lake or published version, or of these tasks.

    `include` is a key of schemas.views.INCLUDED, `numbers` are some of NUMBERS. Memory is 5 bytes per element, 9 where
    scores need float64, 8 more with tokens and 8 for each number, plus one file of a compaction. A damaged object is
    skipped and named in the log and in the lake's failures. Raises ConfigError for a wrong condition, and if no cell of
    these tasks has a score.
    """
    choice = choice or PoolChoice()
    lake = (lake if isinstance(lake, Lake) else Lake(lake)).open_for_reading()

    def read(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> Pools:
        return read_pools(con, lake, holdings, tasks, choice, tokens=tokens, numbers=numbers)

    return ask(lake, read, only=lambda holdings: needed_views(holdings, numbers), include=include, choice=choice)


def load_matrix(
    lake: str | Lake,
    tasks: Sequence[str] | None = None,
    choice: PoolChoice | None = None,
    *,
    include: str = "collected",
    tokens: bool = True,
    numbers: Collection[str] = (),
) -> Pool:
    """The router matrix as arrays: the counted questions of all tasks × candidates. Arguments as load_pools."""
    return load_pools(lake, tasks, choice, include=include, tokens=tokens, numbers=numbers).matrix()


def needed_views(holdings: Holdings, numbers: Collection[str] = ()) -> tuple[str, ...]:
    """The views that read_pools reads."""
    needed = {"cached_tokens": "matrix"}
    return ("candidates", "questions", *views_of(holdings), *(needed.get(name, "costs") for name in numbers))


def read_pools(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    holdings: Holdings,
    tasks: Sequence[str] | None,
    choice: PoolChoice,
    *,
    tokens: bool = False,
    numbers: Collection[str] = (),
) -> Pools:
    """As load_pools, for a caller whose connection was made with `choice` and has needed_views."""
    cells, left_out = _chosen(con, tasks)
    if not len(cells):
        raise _nothing(lake, holdings, tasks, choice)
    names = sorted(set(cells["candidate"].to_pylist()))
    questions, blocks = _questions(con, cells)
    placement = _placement(cells, names, blocks)
    shape = (len(questions), len(names))
    arrays = _laid(lake, holdings, con, placement, shape, tokens=tokens)
    every = Pool(
        task="",
        metric=_common(cells["metric"].to_pylist()) or "",
        higher_is_better=all(cells["higher_is_better"].to_pylist()),
        candidates=names,
        questions=questions,
        cells=cells,
        scores=arrays["scores"],
        prompt_tokens=arrays["prompt_tokens"],
        completion_tokens=arrays["completion_tokens"],
        numbers=_numbers(con, shape, placement, numbers),
    )
    return Pools(choice, every, _places(questions, cells, names), blocks, left_out)


def _nothing(lake: Lake, holdings: Holdings, tasks: Sequence[str] | None, choice: PoolChoice) -> ConfigError:
    which = "" if holdings.include == "all" else f"{holdings.include} "
    of = f" of task {', '.join(tasks)}" if tasks else ""
    meets = "" if choice.where.strip().lower() == "true" else " that meets the pool's condition"
    return ConfigError(f"the lake at {lake.uri} has no {which}cell with a score{of}{meets}: see --pool and --include")


def _chosen(con: duckdb.DuckDBPyConnection, tasks: Sequence[str] | None) -> tuple[pa.Table, pa.Table]:
    """The cells of the pool, by task and candidate, and those that are left out, as in the view candidates."""
    of_tasks = "true" if tasks is None else f"task IN ({', '.join(map(quoted, tasks)) or 'NULL'})"
    # For a time with a zone Arrow imports pandas, 0.4 s of CPU.
    rows = con.execute(
        f"""
        SELECT _pool_cells.* REPLACE (epoch_us(started_at) AS started_at), _left_out.cell_id IS NOT NULL AS is_left_out,
            gained
        FROM _pool_cells LEFT JOIN _left_out USING (task, cell_id)
        WHERE {of_tasks} ORDER BY task, candidate
        """
    ).to_arrow_table()
    import pyarrow.compute as pc  # 75 ms

    is_left_out = rows["is_left_out"]
    rows = rows.drop_columns(["is_left_out"])
    return rows.filter(pc.invert(is_left_out)), rows.filter(is_left_out)


def _questions(con: duckdb.DuckDBPyConnection, cells: pa.Table) -> tuple[pa.Table, dict[tuple[str, str], Rows]]:
    """The axis of questions by task and place, and for each item table of a task the rows of its items."""
    con.register("pool_tables", cells.select(["task", "items_digest"]).group_by(["task", "items_digest"]).aggregate([]))
    read = con.execute(
        """
        SELECT task, items_digest, item,
            dense_rank() OVER (ORDER BY task, place.is_imported, place.item, place.items_digest) - 1 AS row_number
        FROM _questions_of SEMI JOIN pool_tables USING (task, items_digest)
        ORDER BY task, items_digest, item
        """
    ).fetchnumpy()
    axis = con.execute(
        """
        SELECT task, question, names.items_digest, names.item
        FROM _question_names AS names
        SEMI JOIN (
            SELECT question_number FROM _questions_of SEMI JOIN pool_tables USING (task, items_digest)
        ) AS asked ON names.question_number = asked.question_number
        INNER JOIN (SELECT DISTINCT question_number, place FROM _questions_of) AS places
            ON names.question_number = places.question_number
        ORDER BY task, place.is_imported, place.item, place.items_digest
        """
    ).to_arrow_table()
    con.unregister("pool_tables")
    row_numbers = np.asarray(read["row_number"], np.int64)
    blocks: dict[tuple[str, str], Rows] = {}
    starts = _starts(np.asarray(read["task"]), np.asarray(read["items_digest"]))
    for first, stop in zip(starts, [*starts[1:], len(row_numbers)], strict=True):
        blocks[str(read["task"][first]), str(read["items_digest"][first])] = row_numbers[first:stop]
    return axis, blocks


def _starts(*columns: npt.NDArray[Any]) -> list[int]:
    """The rows where a value of `columns` differs from the one before."""
    if not len(columns[0]):
        return []
    differs = np.zeros(len(columns[0]), np.bool_)
    differs[0] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return [int(row) for row in np.flatnonzero(differs)]


def _placement(cells: pa.Table, names: list[str], blocks: dict[tuple[str, str], Rows]) -> Placement:
    import pyarrow.compute as pc

    numbers = {block: number for number, block in enumerate(blocks)}
    tables = zip(cells["task"].to_pylist(), cells["items_digest"].to_pylist(), strict=True)
    columns = {name: column for column, name in enumerate(names)}
    order = pc.sort_indices(cells.select(COLUMN_KEY), [(name, "ascending") for name in COLUMN_KEY]).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    places = {
        **{name: cells[name] for name in dict.fromkeys(("cell_id", "filter", *BLOCK_KEY, *COLUMN_KEY))},
        "block": np.array([numbers[table] for table in tables], np.int64),
        "model_column": np.array([columns[name] for name in cells["candidate"].to_pylist()], np.int64),
        "rank": rank,
    }
    return Placement(pa.table(places), list(blocks.values()))


def _laid(
    lake: Lake,
    holdings: Holdings,
    con: duckdb.DuckDBPyConnection,
    placement: Placement,
    shape: tuple[int, int],
    *,
    tokens: bool,
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a pool. Its scores are float32 unless one of them needs float64."""
    is_packed = not holdings.has_older_rows and _is_packed(lake, con)  # version 6 packed other scores
    for kind in (np.float32, np.float64):
        arrays = empty_arrays(*shape, tokens=tokens, scores=kind, valid=False)
        try:
            if not (is_packed and _lay_packed(lake, Arrays(**arrays), placement)):
                lay(lake, holdings, con, Arrays(**arrays), placement, exact=True)
            return arrays
        except Inexact:
            is_packed = False
    raise AssertionError("float64 holds every score")


def _lay_packed(lake: Lake, arrays: Arrays, placement: Placement) -> bool:
    try:
        return lay_packed({table: lake.open_object(name) for table, name in FILES.items()}, arrays, placement)
    except (OSError, ValueError) as error:
        raise StorageError(f"packed/ in {lake.uri} is damaged: {one_line(error)}") from error


def _is_packed(lake: Lake, con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the lake has the packed form, and this names cells by no more than their keys."""
    if not all(lake.has(name) for name in FILES.values()):
        return False
    keys = ", ".join(dict.fromkeys((*BLOCK_KEY, *COLUMN_KEY)))
    doubled = con.execute(f"SELECT 1 FROM cells GROUP BY {keys} HAVING count(*) > 1 LIMIT 1").fetchall()
    return not doubled


def _numbers(
    con: duckdb.DuckDBPyConnection, shape: tuple[int, int], placement: Placement, names: Collection[str]
) -> dict[str, npt.NDArray[np.float64]]:
    """Those of `names` that some answer has."""
    arrays: dict[str, npt.NDArray[np.float64]] = {}
    register(con, placement)
    for source in ("costs", "matrix"):
        mine = [name for name in names if (name == "cached_tokens") == (source == "matrix")]
        if not mine:
            continue
        read = con.execute(
            f"SELECT row_number * {shape[1]} + model_column AS at, {', '.join(mine)} FROM {source} "
            "JOIN places USING (cell_id) JOIN rows_of_blocks USING (block, item) "
            f"WHERE coalesce({', '.join(mine)}) IS NOT NULL"
        )
        for batch in read.to_arrow_reader(BATCH_ROWS):
            at = batch.column("at").to_numpy(zero_copy_only=False)
            for name in mine:
                values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)  # null is NaN
                if name not in arrays and np.isnan(values).all():
                    continue
                arrays.setdefault(name, np.full(shape, np.nan)).ravel()[at] = values
    return arrays


def _places(questions: pa.Table, cells: pa.Table, names: list[str]) -> dict[str, tuple[slice, Rows]]:
    of_row = questions["task"].to_pylist()
    columns = {name: column for column, name in enumerate(names)}
    of_task: dict[str, list[int]] = {}
    for task, candidate in zip(cells["task"].to_pylist(), cells["candidate"].to_pylist(), strict=True):
        of_task.setdefault(task, []).append(columns[candidate])
    first = {task: of_row.index(task) for task in of_task}  # the axis is in the order of tasks
    stops = [*sorted(first.values()), len(of_row)]
    return {
        task: (slice(first[task], stops[stops.index(first[task]) + 1]), np.array(sorted(of), np.int64))
        for task, of in of_task.items()
    }


def _rows_of(pool: Pool, rows: slice) -> Pool:
    def part(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array[rows] if array.size else array

    return replace(
        pool,
        questions=pool.questions.slice(rows.start, rows.stop - rows.start),
        scores=part(pool.scores),
        prompt_tokens=part(pool.prompt_tokens),
        completion_tokens=part(pool.completion_tokens),
        numbers={name: part(values) for name, values in pool.numbers.items()},
    )


def _cells_of(cells: pa.Table, names: Iterable[str]) -> pa.Table:
    kept = set(names)
    return cells.filter(pa.array([name in kept for name in cells["candidate"].to_pylist()], pa.bool_()))


def _can_be_averaged(cells: pa.Table) -> bool:
    rows = cells.select(["metric", "higher_is_better", "correct_threshold"]).to_pylist()
    if len({(row["metric"], row["higher_is_better"]) for row in rows}) == 1:
        return True
    return all(row["higher_is_better"] and row["correct_threshold"] is not None for row in rows)


def _common(values: Sequence[str]) -> str | None:
    return values[0] if len(set(values)) == 1 else None


def _to_bytes(table: pa.Table) -> npt.NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)
