"""Takes records back: works out which cells, generations and items a person means, and writes that as a retraction.

Owns the choice, the writing, and the taking back of a retraction. Readers, planning, compaction and prune follow what
is written (schemas/views/_retracted.sql, collectors.lake.retractions). Nothing is deleted here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.holdings import (
    Holdings,
    Manifest,
    ever_committed,
    newest_manifest,
    read_folded,
    read_holdings,
    read_manifest,
)
from collectors.lake.reading import ask, connect
from collectors.lake.retractions import Retracted, read_retracted, retraction_rows
from collectors.lake.store import Lake
from schemas.failures import ConfigError, one_line
from schemas.identity import ShardName, new_run_id
from schemas.reading_only import check_condition
from schemas.records import ANSWERS, KEY, RECORD, RETRACTION
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
    """The lines of a retraction that is not written yet, and what it hides."""

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
    views = [*_VIEWS, "shards"] if wish.run_id else _VIEWS
    planned = ask(lake, lambda con, _: _worked_out(con, wish, generations), only=views)
    if not planned.lines:
        raise ConfigError(f"nothing to forget: no cell of {lake.uri} meets {wish.words!r}")
    return planned


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


# ---- what is meant


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
                raise ConfigError(f"nothing to forget: the lake has no {what} {name}; {hint}")


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
    for cell_id, of_run, first, last in con.execute(
        "SELECT cell_id, run_id, first_item, last_item FROM shards ORDER BY ALL"
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
    #: Shards that were written again, from the compaction before the one that left them out.
    restored: int
    #: Cells of which no object holds anything any more.
    lost: int


def take_back(lake: Lake, retraction_id: str, reason: str) -> TakenBack:
    """Writes that a retraction does not hold any more.

    Rows that a compaction left out meanwhile are written again, as far as an older compaction still holds them. Raises
    ConfigError unless it stands.
    """
    retracted = read_retracted(lake)
    if retraction_id not in retracted.ids:
        written = [row["retraction_id"] for row in retraction_rows(lake)]
        why = "was taken back already" if retraction_id in written else "is not in the lake: --list shows all"
        raise ConfigError(f"the retraction {retraction_id} {why}")
    taken = retracted.only([retraction_id])
    restored = _restore(lake, taken)
    new = _write(lake, [{"takes_back": retraction_id}], f"take back {retraction_id}", reason)
    return TakenBack(new, restored, len(taken.ranges.keys() - ever_committed(lake).keys()))


def _restore(lake: Lake, taken: Retracted) -> int:
    """Writes the shards anew that the newest compaction left out. Returns their number."""
    newest = newest_manifest(lake)
    if newest is None or not taken.ids & set(newest.retracted):
        return 0
    ever = ever_committed(lake)
    names = layout.manifest_names(lake.names(layout.COMPACTIONS))
    manifests = [read_manifest(lake, name) for name in names]
    before = [one for one in manifests if not taken.ids & set(one.retracted)]
    restored, held = 0, set[str]()
    if before:
        held = {str(row["file"]) for row in read_folded(lake, before[-1], columns=["file"])}
        restored = sum(
            _write_again(lake, before[-1], name, shard, facts)
            for name, shard, facts in _left_out(lake, before[-1], taken, ever)
        )
    return restored + _restore_from_shards(lake, newest, taken, ever, held)


def _restore_from_shards(
    lake: Lake, newest: Manifest, taken: Retracted, ever: Mapping[str, Sequence[ShardName]], held: set[str]
) -> int:
    """Writes items again of shards that were first folded without them, while the shards are there."""
    there, restored = set(lake.names(layout.SHARDS)), 0
    for row in read_folded(lake, newest):
        name = str(row["file"])
        shard = ShardName.parse(name)
        if shard is None or name in held or name not in there or taken.covers(shard):
            continue
        for one in taken.over(shard):
            first, last = max(one.first, shard.first), min(one.last, shard.last)
            above = max(other.generation for other in ever[shard.cell_id]) + 1
            rows = pq.ParquetFile(lake.open_object(name)).read()
            for lost in set(RECORD.names) - set(rows.column_names):  # of an older schema version
                rows = rows.append_column(RECORD.field(lost), pa.nulls(len(rows), RECORD.field(lost).type))
            item = rows["item"].to_numpy()
            rows = rows.select(RECORD.names).cast(RECORD).filter(pa.array((item >= first) & (item <= last)))
            metadata = {"shard": json.loads(str(row["facts"]))} if row["facts"] else None
            new = f"{name.rpartition('/')[0]}/{ShardName(shard.cell_id, above, first, last)}"
            rows = rows.replace_schema_metadata(RECORD.metadata)
            restored += bool(len(rows)) and lake.create_table(new, rows, metadata)
    return restored


def _left_out(
    lake: Lake, manifest: Manifest, taken: Retracted, ever: Mapping[str, Sequence[ShardName]]
) -> Iterator[tuple[str, ShardName, str | None]]:
    """Yields the name to write a shard by, its rows as a shard, and its metadata."""
    for row in read_folded(lake, manifest):
        name, facts = str(row["file"]), row["facts"]
        shard = ShardName.parse(name)
        assert shard
        held = ever.get(shard.cell_id, ())
        metadata = None if facts is None else str(facts)
        if taken.covers(shard):
            if shard not in held:
                yield name, shard, metadata
            continue
        # The compaction holds the other items under this name.
        for one in taken.over(shard):
            first, last = max(one.first, shard.first), min(one.last, shard.last)
            above = max(s.generation for s in held) + 1 if held else shard.generation
            new = ShardName(shard.cell_id, above, first, last)
            yield f"{name.rpartition('/')[0]}/{new}", dataclasses.replace(shard, first=first, last=last), metadata


def _write_again(lake: Lake, manifest: Manifest, name: str, shard: ShardName, facts: str | None) -> bool:
    holdings = _before(lake, manifest, shard)
    columns = ", ".join(f"old.{column}" for column in RECORD.names if column not in ANSWERS)
    answers = ", ".join(f"responses.{column}" for column in ANSWERS)
    key = [column for column in KEY if column in ("cell_id", "item", "filter", "repeat")]
    where = "cell_id = ? AND generation = ? AND item BETWEEN ? AND ?"
    of_shard = [shard.cell_id, shard.generation, shard.first, shard.last]
    with contextlib.closing(connect(lake, holdings, only=["records", "responses", "superseded"])) as con:
        newest = con.execute(
            f"""
            SELECT {columns}, {answers}
            FROM (FROM records WHERE {where}) AS old LEFT JOIN responses USING ({", ".join(key)})
            """,
            of_shard,
        ).to_arrow_table()
        older = con.execute(f"SELECT * EXCLUDE (generation) FROM superseded WHERE {where}", of_shard).to_arrow_table()
    rows = pa.concat_tables([t.select(RECORD.names).cast(RECORD) for t in (newest, older)]).combine_chunks()
    rows = rows.sort_by([("item", "ascending"), ("filter", "ascending"), ("repeat", "ascending")])
    metadata = {"shard": json.loads(facts)} if facts else None
    return bool(len(rows)) and lake.create_table(name, rows.replace_schema_metadata(RECORD.metadata), metadata)


def _before(lake: Lake, manifest: Manifest, shard: ShardName) -> Holdings:
    """What a reader of an older compaction saw of one cell, before anything was forgotten."""
    holdings = read_holdings(lake)
    listed = {**holdings.listed, layout.SHARDS: [], layout.RETRACTIONS: []}
    rows = read_folded(lake, manifest, columns=["cell_id", "part"])
    parts = {str(row["part"]) for row in rows if row["cell_id"] == shard.cell_id}
    one = dataclasses.replace(manifest, parts=tuple(part for part in manifest.parts if part.records in parts))
    return dataclasses.replace(holdings, listed=listed, manifest=one)
