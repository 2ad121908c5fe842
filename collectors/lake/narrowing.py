"""Chooses the parts of a compaction that a query needs, by the manifest and the list of folded shards.

Owns the choice: parts of other tasks, models, cells or items are not opened, not even for their footers, of which a
store with 5,000 parts asks two requests each. Knows nothing of the views, but that they read the files of records in a
variable (schemas.views.kept_parts). To keep too many parts is safe: the query itself still has its conditions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from collectors.lake.holdings import Holdings, Part
from schemas.sql import quoted, quoted_path
from schemas.views import PART_SCAN, keep_parts, lake_place, only_parts, reads_pool_alone

#: Of so many parts all are read: to open one takes 0.2 ms, and to plan a query twice several.
FEW_PARTS = 16
_ITEM = re.compile(r"item(=|>=|<=|>|<)(\d+)")


def is_narrowable(holdings: Holdings) -> bool:
    """Whether the views of a lake are to let queries leave out parts."""
    return len(holdings.parts) > FEW_PARTS


def narrow(con: duckdb.DuckDBPyConnection, uri: str, holdings: Holdings, query: str) -> None:
    """Lets `con` read, from now on, no parts but those that may hold rows for `query`, by the conditions of its plan.

    `con` has the views of `holdings` that the query names, from collectors.lake.reading.connect, and the query was
    checked to only read. Does nothing for a query that cannot be planned: it raises its error when it is asked.
    """
    if not is_narrowable(holdings):
        return
    try:
        plan = json.loads(con.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()[0][1])
    except (duckdb.Error, ValueError, IndexError):  # such as DESCRIBE
        return
    scans = list(_scans(plan))
    if not scans:  # it reads no records
        return
    kept = _Parts(con, uri, holdings).that_meet(scans)
    if reads_pool_alone(query):
        of_pool = _with_cells(con, "_pool_choice")
        kept = [part for part in kept if part.records in of_pool]
    if len(kept) < len(holdings.parts):
        keep_parts(con, lake_place(uri), _objects(kept))


@contextmanager
def only_parts_of(
    con: duckdb.DuckDBPyConnection,
    uri: str,
    holdings: Holdings,
    *,
    cells: str | None = None,
    tasks: Collection[str] | None = None,
) -> Iterator[None]:
    """Lets `con` read, meanwhile, no parts but those with some of these cells or tasks.

    `cells` is a relation of `con` with a column cell_id, and `con` has the view _folded.
    """
    parts = holdings.parts
    if not is_narrowable(holdings) or (cells is None and tasks is None):
        yield
        return
    if tasks is not None:
        parts = [part for part in parts if part.task in tasks]
    if cells is not None:
        named = _with_cells(con, cells)
        parts = [part for part in parts if part.records in named]
    with only_parts(con, lake_place(uri), _objects(parts)):
        yield


def _with_cells(con: duckdb.DuckDBPyConnection, cells: str) -> set[str]:
    query = f"SELECT DISTINCT part FROM _folded SEMI JOIN {cells} AS wanted USING (cell_id)"
    return {name for (name,) in con.execute(query).fetchall()}


def _objects(parts: Iterable[Part]) -> list[str]:
    return [name for part in parts for name in part.parquet_objects]


def _scans(plan: Any) -> Iterator[list[str]]:
    """The conditions of each scan of records in a plan, as SQL."""
    if isinstance(plan, list):
        for node in plan:
            yield from _scans(node)
        return
    about = plan.get("extra_info") or {}
    if about.get("Function") == PART_SCAN:
        filters = about.get("Filters") or []
        yield [filters] if isinstance(filters, str) else list(filters)
    yield from _scans(plan.get("children") or [])


class _Parts:
    """The parts of a compaction by what their rows have in common."""

    def __init__(self, con: duckdb.DuckDBPyConnection, uri: str, holdings: Holdings) -> None:
        self.con, self.uri, self.holdings = con, uri, holdings
        self._made = set[str]()

    def that_meet(self, scans: Collection[Sequence[str]]) -> list[Part]:
        """The parts with rows that may meet all conditions of one of `scans`. A condition on other columns is none."""
        every = self.holdings.parts
        kept = set[str]()
        try:
            for conditions in {tuple(sorted(one)) for one in scans}:
                mine = {part.records for part in every if all(_has_items(part, one) for one in conditions)}
                for one in conditions:
                    met = self._meeting(one.removeprefix("optional: "))
                    mine &= mine if met is None else met
                kept |= mine
        finally:
            for table in self._made:
                self.con.execute(f"DROP TABLE {table}")
        return [part for part in every if part.records in kept]

    def _meeting(self, condition: str) -> set[str] | None:
        """The parts with a cell that may meet a condition; None where what they have in common does not decide it."""
        columns = set(re.findall(r"\w+", condition)) & {"task", "prompting", "cell_id", "model"}
        if not columns:
            return None
        source = self._cells() if columns & {"cell_id", "model"} else self._parts()
        try:
            query = f"SELECT DISTINCT part FROM {source} WHERE (\n{condition}\n) IS NOT FALSE"
            return {part for (part,) in self.con.execute(query).fetchall()}
        except duckdb.Error:  # it has other columns, too, or is no SQL
            return None

    def _parts(self) -> str:
        columns = {"part": "records", "task": "task", "prompting": "prompting"}
        lists = {
            name: ", ".join(quoted(getattr(part, of)) for part in self.holdings.parts) for name, of in columns.items()
        }
        rows = ", ".join(f"unnest([{values}]) AS {name}" for name, values in lists.items())
        return self._table("_narrowed_parts", f"SELECT {rows}")

    def _cells(self) -> str:
        """Also the cells of each part, with every name that a run gave to their model: null without a run."""
        runs = [f"{lake_place(self.uri)}/{name}" for name in self.holdings.listed["runs"]]
        files = ", ".join(map(quoted_path, runs))
        models = f"SELECT DISTINCT cell_id, model FROM read_parquet([{files}], hive_partitioning = false)"
        none = "SELECT '' AS cell_id, '' AS model WHERE false"
        return self._table(
            "_narrowed_cells",
            f"SELECT * FROM (SELECT DISTINCT part, cell_id FROM _folded) JOIN {self._parts()} USING (part) "
            f"LEFT JOIN ({models if runs else none}) USING (cell_id)",
        )

    def _table(self, name: str, query: str) -> str:
        if name not in self._made:
            self.con.execute(f"CREATE TEMP TABLE {name} AS {query}")
            self._made.add(name)
        return name


def _has_items(part: Part, condition: str) -> bool:
    """Whether a part may have rows with the items and repeats of a condition, by its numbers."""
    first, last = part.first_item, part.last_item
    if first is None or last is None or part.rows != part.primary_rows:  # other rows may have other items
        return True
    if condition == "repeat>0":
        return False
    for one in condition.split(" AND "):
        if match := _ITEM.fullmatch(one):
            item = int(match[2])
            least, most = {"=": (item, item), ">=": (item, last), ">": (item + 1, last)}.get(match[1], (first, item))
            if match[1] == "<":
                most = item - 1
            if max(least, first) > min(most, last):
                return False
    return True
