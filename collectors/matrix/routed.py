"""Reads the choices of routers from a file or an array: a model for each item.

Owns the columns of a choice. Knows no metrics.
"""

from __future__ import annotations

import difflib
import itertools
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.importers.files import BadFile
from collectors.importers.json_values import decoded
from collectors.lake.holdings import Holdings
from collectors.lake.store import Lake
from collectors.matrix.item_rows import key_of, line_of, load_rows, name_items
from collectors.matrix.pool_arrays import Pool
from collectors.metrics.gaps import NO_CHOICE
from schemas.failures import ConfigError
from schemas.texts import without_keys
from schemas.views import object_path

#: The columns of a choice beside the name of its item.
COLUMNS = ("model", "router", "task", "probabilities")
#: Returns the kinds of records, collected or imported, that a lake has of a task and the pool leaves out by its kind.
Elsewhere = Callable[[str], list[str]]


def elsewhere(con: duckdb.DuckDBPyConnection, lake: Lake, holdings: Holdings) -> Elsewhere:
    """Looks in the runs and imports of a lake that a connection leaves out."""

    def kinds_of(task: str) -> list[str]:
        paths = [object_path(lake.uri, name) for name in holdings.listed["runs"]]
        if not paths:
            return []
        query = "SELECT DISTINCT imported_from IS NULL FROM read_parquet(?, union_by_name = true) WHERE task = ?"
        try:
            kinds = ["collected" if own else "imported" for (own,) in con.execute(query, [paths, task]).fetchall()]
        except duckdb.Error:  # a hint is not worth an error
            return []
        return [] if holdings.include in ("all", *kinds) else kinds

    return kinds_of


class Choice(NamedTuple):
    """The model that a router chose for one item, and the probabilities that it chose by."""

    task: str
    #: Id of the view questions.
    question: str
    model: str
    #: Row of the file, counted from 1.
    row: int
    #: JSON of model -> probability; None: the file states none.
    probabilities: str | None = None


@dataclass(frozen=True)
class Choices:
    """The choices in a file, or those of arrays (choices_of)."""

    #: None: they stand in arrays.
    path: Path | None
    #: Name of a router -> its choices. Without a column `router` the name is that of the file.
    routers: dict[str, list[Choice]]

    @property
    def tasks(self) -> list[str]:
        """The tasks of all routers."""
        return sorted({choice.task for chosen in self.routers.values() for choice in chosen})

    def tasks_of(self, router: str) -> list[str]:
        return sorted({choice.task for choice in self.routers[router]})

    def columns(
        self, pool: Pool, router: str, absent: Mapping[tuple[str, str], str] = MappingProxyType({})
    ) -> npt.NDArray[np.int64]:
        """(questions,): the column that `router` chose for each question of `pool`, or metrics.gaps.NO_CHOICE.

        `absent` says why a task's model is not in the pool (Pools.absent). Raises ConfigError if the router chose a
        candidate that is not in the pool.
        """
        place = {candidate: column for column, candidate in enumerate(pool.candidates)}
        columns = np.full(len(pool.questions), NO_CHOICE, np.int64)
        for row, choice in self._of(pool, router):
            if choice.model not in place:
                near = _nearest(choice.model, pool.candidates)
                advice = "" if near.startswith("did") else " (see --pool and --include)"
                if why := absent.get((choice.task, choice.model)):
                    near, advice = f"left out: {why}", ""
                raise ConfigError(
                    f"{_place(self.path, choice.row)}: {router} chose {choice.model!r} on {choice.task}, which is not "
                    f"in the pool; {near}",
                    advice=advice,
                )
            columns[row] = place[choice.model]
        return columns

    def probabilities(self, pool: Pool, router: str) -> npt.NDArray[np.float64] | None:
        """(questions, candidates): the router's probabilities, 0 for one that it does not name; NaN without any.

        None if the file states none for this pool. Raises ConfigError, with the line, for a value that is no mapping of
        the pool's candidates to numbers from 0 on, the chosen one's above it.
        """
        stated = [(row, choice) for row, choice in self._of(pool, router) if choice.probabilities is not None]
        if not stated:
            return None
        whole = np.full((len(pool.questions), len(pool.candidates)), np.nan)
        for row, choice in stated:
            try:
                whole[row] = _probabilities(choice.probabilities or "", pool.candidates, choice.model)
            except (BadFile, ValueError) as error:
                place = _place(self.path, choice.row)
                raise ConfigError(f"{place}: probabilities: {str(error)[:200]}") from error
        return whole

    def _of(self, pool: Pool, router: str) -> Iterator[tuple[int, Choice]]:
        """The row of each of the router's choices in the pool. Other questions do not count in it."""
        keys = zip(pool.questions["task"].to_pylist(), pool.questions["question"].to_pylist(), strict=True)
        rows = {key: row for row, key in enumerate(keys)}
        for choice in self.routers[router]:
            row = rows.get((choice.task, choice.question))
            if row is not None:
                yield row, choice


def _probabilities(text: str, models: list[str], chosen: str) -> list[float]:
    """(models,): of JSON of model -> number. Raises ValueError."""
    value = decoded(text.encode())
    if not isinstance(value, dict):
        raise ValueError("no mapping of models to numbers")
    given = {model: one for model, one in value.items() if one is not None}
    if foreign := [model for model, one in given.items() if one and model not in models]:
        raise ValueError(f"{foreign[0]!r} is not in the pool; {_nearest(foreign[0], models)}")
    numbers = [given.get(model, 0) for model in models]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one <= 1e300 for one in numbers):
        raise ValueError("a value is no number from 0 on")
    if not sum(numbers) > 0:
        raise ValueError("none is above 0")
    if not given.get(chosen):
        raise ValueError(f"{chosen!r} was chosen and has none")
    return [float(one) for one in numbers]


def read_choices(
    con: duckdb.DuckDBPyConnection, path: Path, elsewhere: Elsewhere | None = None, most: int | None = None
) -> Choices:
    """Reads a file of choices: CSV, Parquet or JSON lines with a column `model` and one of KEYS.

    A column `probabilities` holds for each model of the pool the probability that the router chose it with, as JSON.
    `model` is the name of a candidate, `question` an id of the view questions, `item` the position in the task's table
    of items. A column `task` is needed if items of several tasks have the same name. `con` has VIEWS, with the pool
    that the choices refer to. `elsewhere` returns the kind of records that a task has, for a hint. Raises ConfigError,
    with the line, for a missing or unreadable file, an item that no cell has, an item of several tasks, or two choices
    for one item; and for more rows than `most`.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file")
    columns = load_rows(con, path, COLUMNS, most)
    key = key_of(path, columns, "model")
    name_items(con, key)
    router = "router::VARCHAR" if "router" in columns else "?"
    task = "rows_of_file.task::VARCHAR" if "task" in columns else "NULL::VARCHAR"
    types = dict(
        con.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'rows_of_file'").fetchall()
    )
    probabilities = {"VARCHAR": "probabilities", None: "NULL"}.get(types.get("probabilities"), "to_json(probabilities)")
    matches = con.execute(
        f"""
        SELECT rows_of_file.row, {router}, {task}, rows_of_file.{key}::VARCHAR, rows_of_file.model::VARCHAR,
            asked_items.task, asked_items.question, {probabilities}
        FROM rows_of_file
        LEFT JOIN asked_items
            ON name = rows_of_file.{key}::VARCHAR AND asked_items.task = coalesce({task}, asked_items.task)
        ORDER BY rows_of_file.row
        """,
        [path.stem] if router == "?" else [],
    ).fetchall()
    tasks = con.execute("SELECT task, count(DISTINCT question) FROM asked_items GROUP BY task ORDER BY task").fetchall()
    if not tasks and not matches:
        raise ConfigError("the pool has no candidate with a score", advice=": see --pool and --include")
    reading = _Reading(path, key, "task" in columns, dict(tasks), {}, elsewhere)
    for _, rows in itertools.groupby(matches, key=lambda row: row[0]):
        reading.take(list(rows))
    if not reading.chosen:
        raise ConfigError(f"{path}: it has no rows")
    for number, router in enumerate(reading.chosen, 1):
        if without_keys(router) != router:  # pictures and boards show it
            raise ConfigError(f"{path}: the name of router {number} holds a user, query or token")
    return Choices(path, {router: list(choices.values()) for router, choices in reading.chosen.items()})


def choices_of(pool: Pool, routers: Mapping[str, Any]) -> Choices:
    """The choices of routers as arrays: for each question of `pool` the name of a candidate, or its column.

    None, NaN or NO_CHOICE stands for no choice. Raises ConfigError for an array of another length, and for a value that
    is neither a name nor a column.
    """
    keys = list(zip(pool.questions["task"].to_pylist(), pool.questions["question"].to_pylist(), strict=True))
    chosen: dict[str, list[Choice]] = {}
    for router, values in routers.items():
        given = _flat(values)
        if given is None or len(given) != len(keys):
            count = "something else" if given is None else f"{len(given):,}"
            raise ConfigError(f"choices of {router}: expected one for each of the {len(keys):,} questions, not {count}")
        named = ((row, _candidate(value, pool.candidates, row)) for row, value in enumerate(given))
        chosen[router] = [Choice(*keys[row], name, row + 1) for row, name in named if name is not None]
        if not chosen[router]:
            raise ConfigError(f"choices of {router}: all are empty")
    return Choices(None, chosen)


def _flat(values: Any) -> list[Any] | None:
    """The values of a list, a tuple or an array of one axis (of numpy, pandas, polars, Arrow); None for another."""
    if isinstance(values, list | tuple):
        return list(values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return None
    return array.tolist() if array.ndim == 1 else None


def _candidate(value: Any, candidates: Sequence[str], row: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:  # pandas' missing
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        if value == NO_CHOICE:
            return None
        if 0 <= value < len(candidates):
            return candidates[int(value)]
    raise ConfigError(
        f"{_place(None, row + 1)}: {reprlib.repr(value)} is neither a candidate nor one of the columns 0 to "
        f"{len(candidates) - 1}"
    )


def chosen_models(con: duckdb.DuckDBPyConnection, path: Path) -> dict[str, dict[tuple[str, str], str]]:
    """Router -> (task, question) -> the candidate that it chose, from a file as read_choices reads it."""
    routers = read_choices(con, path).routers
    return {router: {(one.task, one.question): one.model for one in chosen} for router, chosen in routers.items()}


@dataclass(frozen=True)
class _Reading:
    """The state of reading a file row by row."""

    path: Path
    #: One of KEYS.
    key: str
    has_task: bool
    #: Task -> number of items that the cells were asked.
    tasks: dict[str, int]
    #: Router -> (task, question) -> choice.
    chosen: dict[str, dict[tuple[str, str], Choice]]
    elsewhere: Elsewhere | None

    def take(self, rows: list[tuple[Any, ...]]) -> None:
        """Takes one row of the file. `rows` repeat it for each item of the lake with its name."""
        number, router, task, name, model, *_ = rows[0]
        needed = {self.key: name, "model": model, "router": router} | ({"task": task} if self.has_task else {})
        for column, value in needed.items():
            if value is None or not value.strip():
                raise self._wrong(number, f"{column} is empty")
        matches = [row[5:7] for row in rows if row[6] is not None]
        if not matches:
            raise self._wrong(number, *self._unknown(task, name))
        meant = sorted({task for task, _ in matches})
        if len(meant) > 1 and self.key == "item":  # equal hashes are one question, equal positions are not
            some = ", ".join(meant[:5]) + (", …" if len(meant) > 5 else "")
            raise self._wrong(number, f"item {name} is in {len(meant)} tasks ({some}): add a column task")
        if len(matches) > 1 and self.key == "item":
            raise self._wrong(
                number,
                f"item {name} is another question in each of {len(matches)} item tables of {meant[0]}: name it by a "
                "column question (view questions), item_hash or source_key",
            )
        choices = self.chosen.setdefault(router, {})
        for task, question in matches:
            choice = Choice(task, question, model, number, rows[0][7] or None)
            before = choices.setdefault((task, question), choice)
            if before.model == model and before.probabilities != choice.probabilities:
                raise self._wrong(
                    number,
                    f"{router} states other probabilities for {self.key} {name} of {task} than in "
                    f"{line_of(self.path, before.row)}",
                )
            if before.model != model:
                raise self._wrong(
                    number,
                    f"{router} chose {model} for {self.key} {name} of {task}, and {before.model} in "
                    f"{line_of(self.path, before.row)}",
                )

    def _unknown(self, task: str | None, name: str) -> tuple[str, str]:
        """What is wrong with an item that matches none, and an advice."""
        if task is not None and task not in self.tasks:
            kinds = self.elsewhere(task) if self.elsewhere else []
            if kinds:
                of = f"only {' and '.join(kinds)} records have the task {task!r}"
                return of, f": add --include {kinds[0]}, or all"
            if self.tasks:
                return f"the pool has no cell of task {task!r}; {_nearest(task, self.tasks)}", ""
        if not self.tasks:
            return "the pool has no candidate with a score", ": see --pool and --include"
        of = "" if task is None else f" of task {task}"
        counts = {task: self.tasks[task]} if task in self.tasks else self.tasks
        if self.key == "item" and len(counts) == 1:
            [(one, count)] = counts.items()
            return f"item {name!r} is not among the {count:,} of task {one}, counted from 0", ""
        return f"no cell has an item{of} with the {self.key} {name!r}", ""

    def _wrong(self, row: int, what: str, advice: str = "") -> ConfigError:
        return ConfigError(f"{_place(self.path, row)}: {what}", advice=advice)


def _nearest(name: str, candidates: Iterable[str]) -> str:
    """A phrase with the candidates most like `name`, or with the first few."""
    names = list(candidates)
    folded = {one.casefold(): one for one in names}
    short = {one.casefold().rpartition("/")[2]: one for one in names}
    wanted = name.casefold()
    near = [folded[one] for one in difflib.get_close_matches(wanted, folded, n=3)]
    near += [short[one] for one in difflib.get_close_matches(wanted.rpartition("/")[2], short, n=3)]
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(near[:3]))}?"
    return f"it has {', '.join(names[:5])}" + (", …" if len(names) > 5 else "") if names else "there is none"


def _place(path: Path | None, row: int) -> str:
    """What a message begins with: the place of row number `row`, counted from 1."""
    return f"choices[{row - 1}]" if path is None else f"{path}, {line_of(path, row)}"
