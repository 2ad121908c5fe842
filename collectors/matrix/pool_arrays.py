"""The arrays of pools: questions × candidates of a task, of several, and of all that these have in common.

Owns the arrays, and which questions count over several tasks. Knows no origin of the numbers and no metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.failures import ConfigError
from schemas.views import PoolChoice

#: Name of the pool over all tasks.
ALL = "all"
#: Numbers of an answer beside its score: columns of the view costs, but cached_tokens of the matrix.
NUMBERS = ("usd", "latency_s", "prompt_tokens", "completion_tokens", "cached_tokens")
#: Numbers that a router's choice costs.
COSTS = ("usd", "latency_s")

#: Why a model is not a candidate of a task.
UNSCORED = "no score yet"
SAMPLED = "asked only a sample, and others all items: --sparse mixed lets it in"
OTHER = "another metric"
SCARCE = "it lacks scores: --questions any keeps it"

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
        """One of `numbers`, or NaN everywhere, which nobody may write into, if no answer has it."""
        return self.numbers[name] if name in self.numbers else np.broadcast_to(np.float64(np.nan), self.scores.shape)

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
    #: Rows of the view candidates that are left out, with the round in which they were.
    left_out: pa.Table
    #: Task and model or candidate of cells to choose among that are not in the task's pool, and why: UNSCORED, SAMPLED,
    #: OTHER, or the settings in which it differs where these had to be the same.
    dropped: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        return list(self.places)

    @property
    def absent(self) -> dict[tuple[str, str], str]:
        """Task and model or candidate of those that are not in the pool -> why."""
        keys = zip(self.left_out["task"].to_pylist(), self.left_out["candidate"].to_pylist(), strict=True)
        return {(task, name): why for task, name, why in self.dropped} | dict.fromkeys(keys, SCARCE)

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
            metric=common(cells["metric"].to_pylist()) or "",
            higher_is_better=all(cells["higher_is_better"].to_pylist()),
            cells=cells,
        )
        pool = pool.taken(rows, columns)
        asked = sum(self.places[task][0].stop - self.places[task][0].start for task in tasks)
        return replace(pool, left_out=asked - len(pool.questions))

    def is_more_better(self, task: str) -> bool:
        """Whether more of the task's metric is better."""
        return task not in self._less_is_better

    @cached_property
    def _less_is_better(self) -> frozenset[str]:
        cells = self.every.cells
        pairs = zip(cells["task"].to_pylist(), cells["higher_is_better"].to_pylist(), strict=True)
        return frozenset(task for task, more in pairs if not more)

    def of_task_columns(self, task: str) -> Rows:
        """The columns of the task's candidates. Raises ConfigError if the lake has none under the choice."""
        if task not in self.places:
            raise ConfigError(f"the pool has no candidate in task {task}", advice=": see --pool, --include and --task")
        return self.places[task][1]

    def over_all(self) -> Pool | None:
        """The pool over all tasks, as in the view oracle; None if it has not two tasks and two candidates."""
        try:
            pool = self.over(self.tasks)
        except ValueError:
            return None
        return pool if len(self.places) > 1 and len(pool.candidates) > 1 else None


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


def common(values: Sequence[str]) -> str | None:
    """The one value of all; None if they differ."""
    return values[0] if len(set(values)) == 1 else None


def _to_bytes(table: pa.Table) -> npt.NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)
