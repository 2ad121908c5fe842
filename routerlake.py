"""Reads lakes and published versions of routerlake from Python.

    import routerlake

    lake = routerlake.open("/data/lake")     # or s3://bucket/prefix, hf://datasets/owner/name@version
    lake.sql("FROM leaderboard")             # a DuckDB relation over the views
    m = lake.pool("gsm8k")                   # questions × candidates
    m.scores, m.usd, m.candidates            # arrays; unknown is NaN, never a zero
    m.score(["model-a"] * len(m))            # the figures of a router by its choices

Owns what a notebook shows. The numbers are those of collectors: views, the pool's loader, and the figures of routers.
"""

from __future__ import annotations

import datetime as dt
import html
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.exporters.splitting import split
from collectors.extras import advice
from collectors.lake.holdings import Holdings, read_holdings
from collectors.lake.narrowing import only_parts_of
from collectors.lake.reading import ask, connect, pass_over_damage
from collectors.lake.store import Lake
from collectors.matrix.described import best_first, head
from collectors.matrix.item_rows import VIEWS
from collectors.matrix.long_form import BESIDE, long_form
from collectors.matrix.pool_arrays import NUMBERS, Pool, Pools
from collectors.matrix.pool_files import ChosenPool, choose_pool, kept_pools
from collectors.matrix.pools import load_pools
from collectors.matrix.routed import choices_of, read_choices
from collectors.matrix.scoring import AGAINST, score_choices
from schemas.failures import ConfigError, RouterlakeError, StorageError
from schemas.reading_only import check_query
from schemas.texts import visible
from schemas.views import views_of

if TYPE_CHECKING:
    import pandas
    import polars

__all__ = ["ConfigError", "Matrix", "OpenLake", "PoolOptions", "RouterlakeError", "StorageError", "open"]

logger = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int32]

#: Rows of a repr.
_MOST = 8


class PoolOptions(TypedDict, total=False):
    """How a pool is chosen, as by the options of the commands.

    pool: the cells to choose among: SQL on columns of the view cells, @NAME of a pool that the version keeps, or a file
        NAME.yaml. Default: all cells.
    same: settings that all candidates must share, such as "dtype,prompting" or a list. Default: they may differ.
    questions: those that every candidate has a score for ("every", the default), or "any".
    include: which records: "collected" (the default), "imported" or "all".
    prices_on: the day of the prices, such as "2026-01-31". Default: the newest.
    price_provider: the provider of the prices. Default: any.
    """

    pool: str
    same: str | Sequence[str]
    questions: Literal["every", "any"]
    include: Literal["collected", "imported", "all"]
    prices_on: str | dt.date
    price_provider: str


def open(uri: str | os.PathLike[str]) -> OpenLake:
    """Opens a lake or published version for reading: a folder, s3://bucket/prefix, hf://datasets/owner/name@version.

    Object stores take credentials from the environment, and need `pip install 'routerlake[s3]'` or `[hf]`. Raises
    ConfigError if no lake is there or a newer release wrote it, StorageError if its store cannot be read.
    """
    return OpenLake(os.fspath(uri))


class OpenLake:
    """A lake or published version. It holds no data: each call reads what the lake has at that moment."""

    def __init__(self, uri: str) -> None:
        self._lake = Lake(uri).open_for_reading()

    @property
    def uri(self) -> str:
        return self._lake.uri

    @property
    def tasks(self) -> list[str]:
        """The tasks that some cell has, collected or imported."""
        query = "SELECT DISTINCT task FROM cells ORDER BY 1"
        return [task for (task,) in ask(self._lake, lambda con, _: con.execute(query).fetchall(), only=["cells"])]

    @property
    def pools(self) -> list[str]:
        """Names of the pools that a published version keeps: `pool("task", pool="@NAME")`."""
        return kept_pools(self._lake)

    def sql(self, query: str, **options: Unpack[PoolOptions]) -> duckdb.DuckDBPyRelation:
        """A query over the views, its rows read when they are asked for: `.fetchall()`, `.to_arrow_table()`, `.df()`.

        `lake.sql("SHOW TABLES")` lists the views, `lake.sql("DESCRIBE matrix")` the columns of one. Answers' texts are
        in the view responses. An unknown value is NULL. Raises duckdb.Error for a wrong query, ConfigError for one that
        may do more than read.
        """
        chosen = _chosen(self._lake, **options)

        def attempt(holdings: Holdings) -> duckdb.DuckDBPyRelation:
            con = connect(self._lake, holdings, only=views_of(query), choice=chosen.choice)
            check_query(con, query)
            rows = con.sql(query)
            if rows is None:
                raise ConfigError("the query returns no rows: give a SELECT")
            return rows

        return pass_over_damage(self._lake, lambda damaged: read_holdings(self._lake, damaged, chosen.include), attempt)

    def pool(self, task: str | None = None, **options: Unpack[PoolOptions]) -> Matrix:
        """The pool of a task as arrays of questions × candidates; without a task, `matrix()`.

        A candidate is a choice of a router: a model at a revision, with its quantization. One cell stands for it;
        its other settings may differ from those of others, which the repr counts. The rows are those of the view pool.
        Options: PoolOptions. Raises ConfigError for a wrong option, and if no cell of the task has a score.
        """
        return self.matrix(task, **options)

    def matrix(self, tasks: str | Sequence[str] | None = None, **options: Unpack[PoolOptions]) -> Matrix:
        """The pools of these tasks, by default of all, below each other: questions × all candidates.

        A candidate that is not of a task is unknown (NaN, -1) there. Options and errors as for `pool`.
        """
        chosen = _chosen(self._lake, **options)
        wanted = [tasks] if isinstance(tasks, str) else None if tasks is None else list(tasks)
        pools = load_pools(self._lake, wanted, chosen.choice, include=chosen.include)
        if lost := sorted(set(wanted or ()) - set(pools.tasks)):
            raise ConfigError(f"no cell with a score of task {', '.join(lost)} in the pool")
        return Matrix(self._lake, chosen, wanted, pools)

    def __repr__(self) -> str:
        version = f"published version {Path(self.uri).name}" if self._lake.is_published() else "lake"
        tasks = self.tasks
        some = ", ".join(tasks[:_MOST]) + (", …" if len(tasks) > _MOST else "")
        return visible(f"{version} at {self.uri}\n{len(tasks):,} tasks: {some}\n.sql(query) .pool(task) .matrix()")

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in repr(self).splitlines())


class Matrix:
    """Questions × candidates. Axis 0 of every array is `questions`, axis 1 is `candidates`.

    `scores` is there at once; costs, tokens and seconds are read from the lake when they are first asked for.
    """

    def __init__(
        self, lake: Lake, chosen: ChosenPool, tasks: Sequence[str] | None, pools: Pools, rows: Mask | None = None
    ) -> None:
        self._lake, self._chosen, self._tasks, self._pools, self._rows = lake, chosen, tasks, pools, rows
        #: Names of NUMBERS, and tokens, that were read.
        self._read: set[str] = set()
        self._shown = self._taken()

    def _taken(self) -> Pool:
        [*tasks] = self._pools.tasks
        pool = self._pools.of_task(tasks[0]) if len(tasks) == 1 else self._pools.matrix()
        return pool if self._rows is None else pool.taken(self._rows, np.arange(len(pool.candidates)))

    def __len__(self) -> int:
        """The number of questions."""
        return len(self._shown.scores)

    # ---- arrays

    @property
    def candidates(self) -> list[str]:
        """The names of the columns."""
        return self._shown.candidates

    @property
    def tasks(self) -> list[str]:
        return self._pools.tasks

    @property
    def scores(self) -> Floats:
        """(questions, candidates): the primary metric's value; NaN if there is none, which does not mean wrong.

        float32 if that holds every score exactly, as it does 0 and 1, else float64.
        """
        return self._shown.scores

    @property
    def valid(self) -> Mask:
        """(questions, candidates) bool: whether there is a score."""
        return self._shown.valid

    @property
    def usd(self) -> Floats:
        """(questions, candidates) float64: USD of the answer by the view costs; NaN if unknown, which is not free."""
        return self._with("usd").number("usd")

    @property
    def latency_s(self) -> Floats:
        """(questions, candidates) float64: seconds of the answer; NaN if unknown."""
        return self._with("latency_s").number("latency_s")

    latency = latency_s

    @property
    def prompt_tokens(self) -> Counts:
        """(questions, candidates) int32; -1 if unknown."""
        return self._with("tokens").prompt_tokens

    @property
    def completion_tokens(self) -> Counts:
        """(questions, candidates) int32; -1 if unknown."""
        return self._with("tokens").completion_tokens

    @property
    def tokens(self) -> Counts:
        """(questions, candidates) int32: prompt and completion tokens; -1 if one of them is unknown."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return np.where((prompt < 0) | (completion < 0), np.int32(-1), prompt + completion)

    def _with(self, *names: str) -> Pool:
        """The pool with these NUMBERS, or tokens. Raises StorageError if the lake has another pool by now."""
        missing = set(names) - self._read
        if missing:
            numbers = [name for name in NUMBERS if name in missing]
            choice, include = self._chosen.choice, self._chosen.include
            more = load_pools(
                self._lake, self._tasks, choice, include=include, tokens="tokens" in missing, numbers=numbers
            )
            old, new = self._pools.every, more.every
            is_same = new.questions.equals(old.questions) and new.cells["cell_id"].equals(old.cells["cell_id"])
            if not (is_same and np.array_equal(more.counted, self._pools.counted)):
                raise StorageError(f"the lake at {self._lake.uri} has changed since this pool was read: read it again")
            every = replace(old, numbers={**old.numbers, **new.numbers})
            if "tokens" in missing:
                every = replace(every, prompt_tokens=new.prompt_tokens, completion_tokens=new.completion_tokens)
            self._pools = replace(self._pools, every=every)
            self._read |= missing
            self._shown = self._taken()
        return self._shown

    # ---- tables

    @cached_property
    def questions(self) -> pa.Table:
        """One row for each row of the arrays, in their order.

        task, question (an id that depends on its content alone), prompt and choices (texts; choices is a list), gold
        (the right answer as JSON), subject, content_hash, and items_digest and item: its place in one of its item
        tables. Null where the lake does not have it.
        """
        keys = self._shown.questions.select(["task", "question"])
        keys = keys.append_column("row", pa.array(np.arange(len(keys))))

        def read(con: duckdb.DuckDBPyConnection, _: Holdings) -> pa.Table:
            con.register("asked", keys)
            columns = "prompt, choices, gold, subject, content_hash, items_digest, item"
            query = (
                f"SELECT task, question, {columns} FROM asked LEFT JOIN questions USING (task, question) ORDER BY row"
            )
            return con.execute(query).to_arrow_table()

        return self._ask(read, ["questions"])

    @property
    def cells(self) -> pa.Table:
        """One row for each task and candidate: the cell that stands for it, with its settings (view candidates)."""
        return self._shown.cells

    def to_arrow(self) -> pa.Table:
        """The long form: one row for each question and candidate of its task, also without a score.

        task, question, candidate (each with a dictionary), score, prompt_tokens, completion_tokens, cached_tokens, usd,
        latency_s. Null if unknown.
        """
        return long_form(self._with("tokens", *BESIDE))

    def to_pandas(self) -> pandas.DataFrame:
        """`to_arrow` as a data frame of pandas; names are categories. Needs pip install 'routerlake[pandas]'."""
        try:
            import pandas  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(advice(error), name=error.name) from error
        frame: pandas.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> polars.DataFrame:
        """`to_arrow` as a data frame of polars; names are categories. Needs pip install 'routerlake[polars]'."""
        try:
            import polars
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(advice(error), name=error.name) from error
        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    # ---- routers

    def take(self, rows: Mask | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Matrix:
        """Only some questions, by a mask or by positions; they keep their order. Raises IndexError for others."""
        wanted = np.asarray(rows)
        mask = np.zeros(len(self), np.bool_)
        mask[wanted if wanted.size else wanted.astype(np.int64)] = True
        whole = mask if self._rows is None else np.zeros_like(self._rows)
        if self._rows is not None:
            whole[np.flatnonzero(self._rows)[mask]] = True
        taken = Matrix(self._lake, self._chosen, self._tasks, self._pools, whole)
        taken._read = set(self._read)
        return taken

    def split(
        self, rule: Literal["routereval", "routerbench"] = "routereval", *, fraction: float | None = None
    ) -> dict[str, Matrix]:
        """Part -> its questions, by a benchmark's own rule.

        "routereval": train, val and test, 8:1:1 of each task; the tasks of one data set share a random state, as in
        get_router_dataset.py. "routerbench": train and test, `fraction` (0.7) of each task. Raises ConfigError for
        another rule.
        """
        return {part: self.take(rows) for part, rows in split(self._shown, rule, fraction).items()}

    def score(self, choices: Any, *, against: Literal["usd", "latency"] = "usd") -> list[dict[str, Any]]:
        """The figures of routers by their choices, equal to those of `routerlake score --json`.

        `choices` is one candidate for each question, a name or a column (None or -1: no choice), as a list or an array;
        a mapping of routers' names to such arrays; or the path of a file, as `routerlake score --help` describes it.
        Returns a row for each router and task, and one over all tasks where there are several. Costs are USD (or
        seconds) per question; None if unknown. Raises ConfigError if the choices do not fit the questions.
        """
        if against not in AGAINST:
            raise ConfigError(f"against: {against!r} is none of {', '.join(AGAINST)}")
        if isinstance(choices, str | os.PathLike):
            path = Path(choices)
            chosen = self._ask(lambda con, _: read_choices(con, path), VIEWS)
        else:
            routers = choices if isinstance(choices, Mapping) else {"router": choices}
            chosen = choices_of(self._shown, routers)
        self._with(AGAINST[against])
        keys = self._shown.questions.select(["task", "question"]).to_pydict()
        only = None if self._rows is None else set(zip(keys["task"], keys["question"], strict=True))
        scored, notes = score_choices(chosen, self._pools, AGAINST[against], only)
        for note in notes:
            logger.warning("%s", note)
        return [one.row() for one in scored]

    def _ask(self, question: Any, views: Collection[str]) -> Any:
        """The answer of `question`, which is about this pool's tasks alone."""

        def asked(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> Any:
            with only_parts_of(con, self._lake.uri, holdings, tasks=self.tasks):
                return question(con, holdings)

        return ask(self._lake, asked, only=views, include=self._chosen.include, choice=self._chosen.choice)

    # ---- shown

    def _lines(self) -> list[str]:
        pool = self._shown
        some = f"{len(self.tasks):,} tasks" if len(self.tasks) > 1 else self.tasks[0]
        metric = f" ({pool.metric}, {'more' if pool.higher_is_better else 'less'} is better)" if pool.metric else ""
        first = f"{len(self):,} questions × {len(self.candidates):,} candidates of {some}{metric} in {self._lake.uri}"
        return [first, *self._chosen.cited(self._lake.uri), *(head(self._pools) if self._rows is None else [])]

    def _means(self) -> list[tuple[str, str, str]]:
        """Candidate, mean score and number of scores of the first few candidates, the best first."""
        best = best_first(self._shown, _MOST)
        return [(name, "" if mean is None else f"{mean:.4f}", f"{count:,}") for name, mean, count in best]

    def __repr__(self) -> str:
        rows = [("candidate", "mean score", "scores"), *self._means()]
        widths = [max(len(row[place]) for row in rows) for place in range(3)]
        table = [f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows]
        more = len(self.candidates) - _MOST
        return visible("\n".join([*self._lines(), *table, *([f"  … {more:,} more"] if more > 0 else [])]))

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{html.escape(visible(line))}</div>" for line in self._lines())
        rows = ("".join(f"<td>{html.escape(visible(value))}</td>" for value in row) for row in self._means())
        cells = "".join(f"<tr>{row}</tr>" for row in rows)
        more = len(self.candidates) - _MOST
        rest = f"<div>… {more:,} more</div>" if more > 0 else ""
        return f"{lines}<table><tr><th>candidate</th><th>mean score</th><th>scores</th></tr>{cells}</table>{rest}"


def _chosen(
    lake: Lake,
    *,
    pool: str | None = None,
    same: str | Sequence[str] | None = None,
    questions: str | None = None,
    include: str | None = None,
    prices_on: str | dt.date | None = None,
    price_provider: str | None = None,
) -> ChosenPool:
    settings = tuple(filter(None, same.split(","))) if isinstance(same, str) else same and tuple(same)
    try:
        day = None if prices_on is None else dt.date.fromisoformat(str(prices_on)).isoformat()
    except ValueError as error:
        raise ConfigError(f"prices_on: {prices_on!r} names no day, such as 2026-01-31") from error
    options = {"same": settings, "questions": questions, "prices_on": day, "price_provider": price_provider}
    return choose_pool(lake, pool, include, options)
