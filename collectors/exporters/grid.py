"""The rows that an export writes: for each task the items × models of a pool, the same models in all of them.

Owns the choice of these answers, and the rules for missing ones. Knows no format. Everything is in memory: about 100
bytes an answer, and the answers' texts if a format asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.matrix.pools import Pool, load_pool
from schemas.failures import ConfigError, one_line

Floats = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

MISSING = ("error", "drop-items", "drop-models")

_ITEM_COLUMNS = ("item", "item_hash", "prompt", "target", "choices", "subject", "source_key")
_NUMBERS = ("score", "usd", "latency_s", "prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(frozen=True)
class Options:
    """Settings of an export that only some formats take."""

    #: Folder of a sentence-transformers model, for formats with embeddings.
    encoder: Path | None = None
    #: YAML of task -> keywords, for capability texts.
    keywords: Path | None = None


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
    con: duckdb.DuckDBPyConnection, tasks: Sequence[str] = (), where: str = "true", *, texts: bool = False
) -> list[Grid]:
    """One grid a task (all tasks of the pool by default), in order of name; `texts`: with the responses.

    `con` has the views of a lake or published version; `where` is SQL over columns of the view cells. Raises
    ConfigError where the cells of a task are not one per model and comparable (collectors.matrix.pools), and for a task
    without any answer.
    """
    names = sorted(set(tasks)) or _tasks_of(con, where)
    pools = [load_pool(con, name, where) for name in names]
    models = sorted({model for pool in pools for model in pool.models})
    if empty := [pool.task for pool in pools if not len(pool.items)]:
        raise ConfigError(f"nothing was collected yet of {_some(empty)}: name other tasks with --tasks")
    return [_load(con, pool, models, texts=texts) for pool in pools]


def _tasks_of(con: duckdb.DuckDBPyConnection, where: str) -> list[str]:
    try:
        rows = con.execute(f"SELECT DISTINCT task FROM cells WHERE ({where}) ORDER BY task").fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"the pool's condition: {one_line(error, 200)}") from error
    if not rows:
        raise ConfigError("the pool holds no cell: nothing was collected, or --pool and --include leave all out")
    return [task for (task,) in rows]


def _load(con: duckdb.DuckDBPyConnection, pool: Pool, models: list[str], *, texts: bool) -> Grid:
    cells = _dicts(con, "SELECT * FROM cells WHERE list_contains(?, cell_id)", [pool.cells])
    by_model = {row["model"]: row for row in cells}
    priced = ", ".join(f"costs.{name}" for name in _NUMBERS if name != "cached_tokens")
    answers = con.execute(
        f"""
        SELECT item, cell_id, costs.item_hash, costs.failure, {priced}, matrix.cached_tokens
        FROM costs JOIN matrix USING (task, cell_id, item)
        WHERE task = ? AND list_contains(?, cell_id)
        """,
        [pool.task, pool.cells],
    ).to_arrow_table()
    positions, row = np.unique(answers["item"].to_numpy(), return_inverse=True)
    places = {cell["cell_id"]: models.index(model) for model, cell in by_model.items()}
    column = np.array([places[cell] for cell in answers["cell_id"].to_pylist()], np.int64)
    shape = (len(positions), len(models))
    numbers = {name: np.full(shape, np.nan) for name in _NUMBERS}
    for name, values in numbers.items():
        values[row, column] = answers[name].to_numpy()
    failures, asked = np.full(shape, None, object), np.zeros(shape, np.bool_)
    failures[row, column] = np.array(answers["failure"].to_pylist(), object)
    asked[row, column] = True
    hashes = dict(zip(answers["item"].to_pylist(), answers["item_hash"].to_pylist(), strict=True))
    encoded = con.execute("SELECT DISTINCT imported_from FROM imports WHERE format = 'routerbench'").fetchall()
    return Grid(
        task=pool.task,
        items_digest=pool.items_digest,
        metric=pool.metric,
        models=models,
        cells=[by_model.get(model) for model in models],
        items=_items(con, pool, {int(position): hashes[int(position)] for position in positions}),
        numbers=numbers,
        failures=failures,
        asked=asked,
        responses=_responses(con, positions, places, shape) if texts else np.empty((0, 0), object),
        encoded=frozenset(name for (name,) in encoded),
    )


def _items(con: duckdb.DuckDBPyConnection, pool: Pool, hashes: dict[int, str]) -> list[dict[str, Any]]:
    sql = f"SELECT {', '.join(_ITEM_COLUMNS)} FROM items WHERE task = ? AND items_digest = ?"
    described = {row["item"]: row for row in _dicts(con, sql, [pool.task, pool.items_digest])}
    blank = dict.fromkeys(_ITEM_COLUMNS)
    return [{**blank, "item": item, "item_hash": hash_, **described.get(item, {})} for item, hash_ in hashes.items()]


def _responses(
    con: duckdb.DuckDBPyConnection, positions: npt.NDArray[Any], places: dict[str, int], shape: tuple[int, int]
) -> Objects:
    """(items, models): texts. They stand on the rows of a task's first filter, whichever that is."""
    answers = np.full(shape, None, object)
    row = {int(position): number for number, position in enumerate(positions)}
    rows = con.execute(
        """
        SELECT cell_id, item, any_value(responses) FROM responses
        WHERE list_contains(?, cell_id) AND repeat = 0 AND responses IS NOT NULL GROUP BY cell_id, item
        """,
        [list(places)],
    ).fetchall()
    for cell, item, texts in rows:
        if item in row:
            answers[row[item], places[cell]] = texts
    return answers


def _dicts(con: duckdb.DuckDBPyConnection, sql: str, values: list[Any]) -> list[dict[str, Any]]:
    cursor = con.execute(sql, values)
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


# ---- gaps


def complete(grids: Sequence[Grid], missing: str, *, prompt: bool = False) -> tuple[list[Grid], list[str]]:
    """Returns the grids without gaps in the numbers that they need, and a note for the user on the parts left out.

    `missing`: one of MISSING; `prompt`: items need their text, too. Raises ConfigError for gaps if `missing` is
    "error", and where nothing would be left.
    """
    gaps = [grid.gaps() for grid in grids]
    no_prompt = [np.array([prompt and not item["prompt"] for item in grid.items], np.bool_) for grid in grids]
    rows = [~(gap.any(axis=1) | no) for gap, no in zip(gaps, no_prompt, strict=True)]
    columns = ~np.logical_or.reduce([gap.any(axis=0) for gap in gaps])
    total, kept = sum(map(len, rows)), int(sum(row.sum() for row in rows))
    if kept == total and columns.all():
        return list(grids), []
    everyone = np.ones_like(columns)
    if missing == "drop-items" and kept:
        pairs = zip(grids, rows, strict=True)
        whole = [grid.taken(row, everyone) for grid, row in pairs if row.any()]
        lost = [grid.task for grid, row in zip(grids, rows, strict=True) if not row.any()]
        note = f"left out: {total - kept:,} of {total:,} items{_because(grids)}"
        return whole, [note + (f"; nothing is left of {', '.join(lost)}" if lost else "")]
    if missing == "drop-models" and columns.any() and not any(no.any() for no in no_prompt):
        names = [model for model, keep in zip(grids[0].models, columns, strict=True) if not keep]
        whole = [grid.taken(np.ones(len(grid.items), np.bool_), columns) for grid in grids]
        return whole, [f"left out: {len(names):,} of {len(columns):,} models{_because(grids)}: {_some(names)}"]
    raise ConfigError(_refusal(grids, missing, (kept, total), columns, sum(int(no.sum()) for no in no_prompt)))


def _refusal(
    grids: Sequence[Grid], missing: str, items: tuple[int, int], columns: npt.NDArray[np.bool_], no_prompt: int
) -> str:
    parts = []
    for name, unknown in (("score", "no score"), ("usd", "no known cost")):
        if name in grids[0].needs:
            by_model = _count(grids, name)
            if by_model:
                some = _some([f"{model} {count:,}" for model, count in by_model.most_common()])
                answers = sum(grid.scores.size for grid in grids)
                parts.append(f"{by_model.total():,} of {answers:,} answers have {unknown} ({some})")
    if no_prompt:
        parts.append(f"{no_prompt:,} items have no text in the lake")
    kept, total = items
    if missing != "error":
        return f"--missing {missing} would leave nothing: {'; '.join(parts)}"
    ways = []
    if kept:
        ways.append(f"drop-items leaves out {total - kept:,} of {total:,} items")
    if columns.any() and not no_prompt:
        ways.append(f"drop-models {int((~columns).sum()):,} of {len(columns):,} models")
    priced = "; prices.py puts prices into the lake" if "usd" in grids[0].needs and _count(grids, "usd") else ""
    way = f": --missing {', '.join(ways)}" if ways else ": choose other models by --pool, or other --tasks"
    return f"{'; '.join(parts)}{way}{priced}"


def _count(grids: Sequence[Grid], name: str) -> Counter[str]:
    """Model -> how many of its answers lack the number `name`."""
    unknown: Counter[str] = Counter()
    for grid in grids:
        for model, count in zip(grid.models, np.isnan(grid.numbers[name]).sum(axis=0), strict=True):
            unknown[model] += int(count)
    return +unknown


def _because(grids: Sequence[Grid]) -> str:
    return " with an answer of unknown score or cost" if "usd" in grids[0].needs else " with an answer of unknown score"


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", … {len(names) - most:,} more" if len(names) > most else "")
