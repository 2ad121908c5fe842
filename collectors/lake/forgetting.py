"""Takes records back: works out which cells, generations and items a person means, and writes that as a retraction.

Owns the choice, the writing, and the taking back of a retraction. Readers, planning, compaction and prune follow what
is written (schemas/views/_retracted.sql, collectors.lake.retractions). Nothing is deleted here.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from collectors.lake import layout
from collectors.lake.holdings import ever_committed
from collectors.lake.reading import ask
from collectors.lake.restoring import restore
from collectors.lake.retractions import Retracted, read_retracted, retraction_rows
from collectors.lake.store import Lake
from schemas.failures import ConfigError, one_line
from schemas.identity import ShardName, new_run_id
from schemas.reading_only import check_condition
from schemas.records import RETRACTION
from schemas.sql import quoted

_VIEWS = ["_run_cells", "_cell_rows", "cells", "records", "imports", "failures", "models"]


@dataclass(frozen=True)
class Wish:
    """What a person asks to forget. All that is given must hold of a cell."""

    #: A condition in SQL on columns of the view cells.
    where: str = "true"
    models: tuple[str, ...] = ()
    #: First letters of a revision; of a task digest, an items digest or a prompting.
    revision: str | None = None
    definition: str | None = None
    tasks: tuple[str, ...] = ()
    #: A run of collect.py: its shards alone.
    run_id: str | None = None
    #: The name of a source.
    source: str | None = None
    #: Items (first, last, both included); empty: all.
    items: tuple[tuple[int, int], ...] = ()

    @property
    def words(self) -> str:
        """The wish in one line; '' for one that asks nothing."""
        items = [str(first) if first == last else f"{first}-{last}" for first, last in self.items]
        asked = {
            "model": ", ".join(self.models),
            "task": ", ".join(self.tasks),
            "revision": self.revision,
            "definition": self.definition,
            "run": self.run_id,
            "import": self.source,
            "where": None if self.where == "true" else self.where,
            "items": ", ".join(items),
        }
        return "; ".join(f"{name} {value}" for name, value in asked.items() if value)

    @property
    def condition(self) -> str:
        """On the columns of the view cells."""
        parts = [f"(\n{self.where}\n)"]
        if self.models:
            parts.append(f"model IN ({', '.join(map(quoted, self.models))})")
        if self.tasks:
            parts.append(f"task IN ({', '.join(map(quoted, self.tasks))})")
        if self.revision:
            parts.append(_begins(["revision"], self.revision))
        if self.definition:
            parts.append(_begins(["task_digest", "items_digest", "prompting"], self.definition))
        if self.source:
            parts.append(f"(imported_from = {quoted(self.source)} OR {_begins(['imported_from'], self.source + '#')})")
        return " AND ".join(parts)


def _begins(columns: Sequence[str], text: str) -> str:
    conditions = (f"coalesce(starts_with({column}, {quoted(text)}), false)" for column in columns)
    return f"({' OR '.join(conditions)})"


@dataclass
class Forgetting:
    """The lines of a retraction that is not written yet, and counts of all that it hides."""

    wish: Wish
    lines: list[dict[str, Any]] = field(default_factory=list)
    cells: int = 0
    records: int = 0
    models: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def plan_forgetting(lake: Lake, wish: Wish) -> Forgetting:
    """Works out what `wish` means in `lake` now. Raises ConfigError for a wrong condition, or if nothing meets it."""
    generations = {cell_id: max(s.generation for s in shards) for cell_id, shards in ever_committed(lake).items()}
    views = [*_VIEWS, "shards", "_item_sets"] if wish.run_id else _VIEWS
    try:
        planned = ask(lake, lambda con, _: _worked_out(con, wish, generations), only=views)
        if not planned.lines:
            raise _NothingMeant(f"nothing to forget: no cell of {lake.uri} meets {wish.words!r}", wish)
    except _NothingMeant as error:
        if row := _forgotten_by(read_retracted(lake).rows, error.wish):
            by, at = row["retraction_id"], f"{row['retracted_at']:%Y-%m-%d %H:%M} UTC"
            raise ConfigError(
                f"forgotten already: {error.wish.words} by retraction {by} of {at} ({row['reason']}); "
                f"--take-back {by} brings it back"
            ) from None
        raise
    return planned


class _NothingMeant(ConfigError):
    """Nothing that counts meets this part of a wish."""

    def __init__(self, message: str, wish: Wish) -> None:
        super().__init__(message)
        self.wish = wish


def _forgotten_by(rows: Sequence[Mapping[str, Any]], wish: Wish) -> Mapping[str, Any] | None:
    """The newest line of a standing retraction that was written by the same wish, or names all that this one names."""
    names = wish.models or wish.tasks or wish.source

    def is_meant(row: Mapping[str, Any]) -> bool:
        source = str(row["imported_from"] or "").split("#", 1)[0]
        return row["condition"] == wish.words or bool(
            names
            and wish == Wish(models=wish.models, tasks=wish.tasks, source=wish.source)
            and (not wish.models or row["model"] in wish.models)
            and (not wish.tasks or row["task"] in wish.tasks)
            and (not wish.source or wish.source in (row["imported_from"], source))
        )

    meant = [row for row in rows if is_meant(row)]
    return max(meant, key=lambda row: row["retracted_at"], default=None)


def write_retraction(lake: Lake, planned: Forgetting, reason: str) -> str:
    """Writes the retraction. Returns its id."""
    return _write(lake, planned.lines, planned.wish.words, reason)


def _write(lake: Lake, lines: Sequence[Mapping[str, Any]], condition: str, reason: str) -> str:
    retraction_id = new_run_id()
    head = {"retraction_id": retraction_id, "retracted_at": dt.datetime.now(dt.UTC)}
    shared = {**dict.fromkeys(RETRACTION.names), **head, "reason": reason, "condition": condition}
    rows = [{**shared, **line} for line in lines]
    lake.create_table(layout.retraction_name(retraction_id), pa.Table.from_pylist(rows, RETRACTION))
    return retraction_id


# ---- which records are meant


def _worked_out(con: duckdb.DuckDBPyConnection, wish: Wish, generations: Mapping[str, int]) -> Forgetting:
    try:
        check_condition(con, wish.where)
        if len(con.extract_statements(f"SELECT {wish.where}")) != 1:
            raise ConfigError("the condition holds a statement of its own")
        rows = con.execute(
            f"SELECT cell_id, model, task, imported_from, generation FROM cells WHERE {wish.condition} ORDER BY ALL"
        ).fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"the condition: {one_line(error, 200)}") from error
    _check_names(con, wish)
    found = Forgetting(wish)
    ranges = _ranges_of_run(con, wish.run_id) if wish.run_id else {}
    whole: list[str] = []
    for cell_id, model, task, source, generation in rows:
        if wish.run_id and cell_id not in ranges:
            continue
        cell = {"cell_id": cell_id, "model": model, "task": task, "imported_from": source}
        cell["generation"] = max(generation, generations.get(cell_id, 0))
        lines = [{"first_item": first, "last_item": last} for first, last in _cut(ranges.get(cell_id), wish.items)]
        whole += [] if lines else [cell_id]
        found.lines += [{**cell, **line} for line in lines or [{}]]
    found.cells = len({line["cell_id"] for line in found.lines})
    for name, column in (("models", "model"), ("tasks", "task"), ("sources", "imported_from")):
        setattr(found, name, sorted({line[column] for line in found.lines} - {None}))
    found.records = _records(con, found.lines)
    if not wish.items:
        found.lines += [{"run_id": run_id} for run_id in _whole_runs(con, wish, whole)]
        found.lines += [{"model": model} for model in _whole_models(con, wish, whole)]
    return found


def _check_names(con: duckdb.DuckDBPyConnection, wish: Wish) -> None:
    """Raises ConfigError for a model, task or source that the lake does not have."""
    for what, wanted, query in (
        (
            "model",
            wish.models,
            "SELECT model FROM cells UNION SELECT model FROM models UNION SELECT model FROM failures",
        ),
        ("task", wish.tasks, "SELECT task FROM cells"),
        ("import", (wish.source,) if wish.source else (), "SELECT imported_from FROM imports"),
    ):
        if not wanted:
            continue
        there = {name for (name,) in con.execute(query).fetchall()} - {None}
        for name in wanted:
            if name not in there:
                near = difflib.get_close_matches(name, sorted(there), n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(there)[:5]) or 'none'}"
                raise _NothingMeant(f"nothing to forget: the lake has no {what} {name}; {hint}", _naming(what, name))


def _naming(what: str, name: str) -> Wish:
    if what == "import":
        return Wish(source=name)
    return Wish(models=(name,)) if what == "model" else Wish(tasks=(name,))


def _cut(ranges: Sequence[tuple[int, int]] | None, items: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges of items of one cell; empty: all items."""
    if not ranges or not items:
        return [*(ranges or items)]
    both = [(max(a, c), min(b, d)) for a, b in ranges for c, d in items]
    return [(first, last) for first, last in both if first <= last]


def _ranges_of_run(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, list[tuple[int, int]]]:
    """Cell -> items of the run's shards; an empty list where all shards of the cell are the run's."""
    planned = {cell for (cell,) in con.execute("SELECT cell_id FROM _run_cells WHERE run_id = ?", [run_id]).fetchall()}
    ranges: dict[str, list[tuple[int, int]]] = {cell_id: [] for cell_id in planned}
    others: set[str] = set()
    # Of a sparse shard each item: others of the cell hold those between.
    for cell_id, of_run, first, last in con.execute(
        """
        SELECT shards.cell_id, run_id, coalesce(item, first_item), coalesce(item, last_item)
        FROM shards
        LEFT JOIN _item_sets AS listed
            ON shards.item_set = listed.item_set AND listed.item BETWEEN first_item AND last_item
        ORDER BY ALL
        """
    ).fetchall():
        if of_run == run_id:
            ranges.setdefault(cell_id, []).append((first, last))
        else:
            others.add(cell_id)
    return {c: found if c in others else [] for c, found in ranges.items() if found or c not in others}


def _records(con: duckdb.DuckDBPyConnection, lines: Sequence[Mapping[str, Any]]) -> int:
    """Number of records that the lines hide."""
    if not lines:
        return 0
    names = ("cell_id", "generation", "first_item", "last_item")
    columns = {name: pa.array([line.get(name) for line in lines]) for name in names}
    columns |= {name: columns[name].cast(pa.int32()) for name in names[1:]}
    con.register("lines", pa.table(columns))
    [(count,)] = con.execute(
        """
        SELECT count(*) FROM records SEMI JOIN lines
        ON records.cell_id = lines.cell_id AND records.generation <= lines.generation
            AND item BETWEEN coalesce(first_item, 0) AND coalesce(last_item, 2147483647)
        """
    ).fetchall()
    return int(count)


def _whole_runs(con: duckdb.DuckDBPyConnection, wish: Wish, whole: Sequence[str]) -> list[str]:
    """The run, and the imports with nothing left, also those that gave no record: their files can be read anew."""
    imports = con.execute(
        """
        SELECT run_id FROM _run_cells WHERE imported_from IS NOT NULL
        GROUP BY run_id HAVING bool_and(list_contains(?, cell_id))
        """,
        [list(whole)],
    ).fetchall()
    of_source = []
    if wish == Wish(source=wish.source):
        of_source = con.execute(
            "SELECT DISTINCT import_id FROM imports WHERE imported_from = ? ORDER BY ALL", [wish.source]
        ).fetchall()
    runs = {run_id for (run_id,) in [*imports, *of_source]}
    if wish.run_id and con.execute("SELECT 1 FROM _run_cells WHERE run_id = ?", [wish.run_id]).fetchall():
        runs.add(wish.run_id)
    return sorted(runs)


def _whole_models(con: duckdb.DuckDBPyConnection, wish: Wish, whole: Sequence[str]) -> list[str]:
    """The models with nothing left."""
    rows = con.execute(
        "SELECT model FROM cells GROUP BY model HAVING bool_and(list_contains(?, cell_id))", [list(whole)]
    ).fetchall()
    models = {model for (model,) in rows}
    if wish == Wish(models=wish.models):  # such as one that never loaded
        query = """
            SELECT model FROM failures WHERE list_contains($1, model)
            UNION SELECT model FROM models WHERE list_contains($1, model) AND listed_at IS NULL
        """
        models |= {model for (model,) in con.execute(query, [list(wish.models)]).fetchall()}
    return sorted(models)


# ---- taking back


@dataclass(frozen=True)
class TakenBack:
    """The result of `take_back`."""

    retraction_id: str
    #: Shards that were written again.
    restored: int
    #: Cells of which no object holds anything any more.
    lost: int
    #: Items of other cells that no object holds any more. They stay forgotten, so that they are collected again.
    lost_items: int


def take_back(lake: Lake, retraction_id: str, reason: str) -> TakenBack:
    """Writes that a retraction does not hold any more.

    Rows that a compaction left out meanwhile are written again (collectors.lake.restoring). Raises ConfigError unless
    the retraction stands.
    """
    retracted = read_retracted(lake)
    if retraction_id not in retracted.ids:
        written = [row["retraction_id"] for row in retraction_rows(lake)]
        name = layout.retraction_name(retraction_id)
        why = "is not in the lake: --list shows all"
        if retraction_id in written:
            why = "was taken back already"
        elif name in lake.names(layout.RETRACTIONS):
            why = f"is damaged, and hides nothing: {name} cannot be read"
        raise ConfigError(f"the retraction {retraction_id} {why}")
    taken = retracted.only([retraction_id])
    restored = restore(lake, taken, retracted.only(retracted.ids - {retraction_id}))
    if restored.lost:
        why = "they were deleted before their retraction was taken back"
        _write(lake, _lines(taken, restored.lost), f"items of {retraction_id}", why)
    new = _write(lake, [{"takes_back": retraction_id}], f"take back {retraction_id}", reason)
    lost_items = sum(one.last - one.first + 1 for one in restored.lost)
    return TakenBack(new, restored.shards, len(taken.ranges.keys() - ever_committed(lake).keys()), lost_items)


def _lines(taken: Retracted, lost: Sequence[ShardName]) -> list[dict[str, Any]]:
    """Lines of a retraction of these items, with the names that `taken` gives their cells."""
    names = {row["cell_id"]: {key: row[key] for key in ("model", "task", "imported_from")} for row in taken.rows}
    return [
        {
            **names[one.cell_id],
            "cell_id": one.cell_id,
            "generation": max(old.generation for old in taken.ranges[one.cell_id]),
            "first_item": one.first,
            "last_item": one.last,
        }
        for one in lost
    ]
