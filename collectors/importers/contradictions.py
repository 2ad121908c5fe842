"""Finds cells of other imports that score the same answers otherwise: same model, task, metric and questions.

Changes nothing. An answer is another one only where both sources have its text, and the texts differ. Answers are
compared by digests, and the cells of other imports are read some at a time, so memory depends on neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import duckdb

from collectors.importers.cells import ImportedCell
from collectors.importers.staging import Staging
from collectors.importers.suspicions import Suspicion
from collectors.lake.reading import ask
from collectors.lake.store import Lake

#: Kind of these suspicions.
CONTRADICTS = "contradicts"
#: Items of others' cells that are compared at once: 130 bytes each.
ITEMS_AT_ONCE = 1_000_000

_CELLS = """
SELECT cell_id, imported_from, planned_items, model, task, metric FROM cells
WHERE imported_from IS NOT NULL AND list_contains($tasks, task) AND list_contains($models, model)
ORDER BY imported_from, cell_id
"""
#: Scores of a cell by question. A question that stands twice in a cell has no single score.
_THEIRS = """
SELECT matrix.cell_id, coalesce(content_hash, matrix.item_hash) AS content, any_value(score) AS score,
    any_value(answer) AS answer
FROM matrix
LEFT JOIN items USING (task, items_digest, item)
LEFT JOIN (
    SELECT cell_id, item, md5(to_json(responses)) AS answer
    FROM responses
    WHERE repeat = 0 AND list_contains($cells, cell_id)
) AS answers ON matrix.cell_id = answers.cell_id AND matrix.item = answers.item
WHERE list_contains($cells, matrix.cell_id) AND score IS NOT NULL
GROUP BY ALL HAVING count(*) = 1
"""
_OURS = """
CREATE OR REPLACE TEMP TABLE own_scores AS
SELECT cell, coalesce(content_hash, item_hash) AS content, any_value(score) AS score,
    any_value(md5(to_json(responses))) AS answer
FROM trusted JOIN cell_numbers USING (run, model, task) JOIN numbers USING (run, task, key)
WHERE repeat = 0 AND trusted.filter = cell_numbers.filter AND score IS NOT NULL
GROUP BY ALL HAVING count(*) = 1
"""
_COMPARED = """
SELECT count(*), count(*) FILTER (abs(own_scores.score - their_scores.score) > 1e-6)
FROM own_scores JOIN their_scores USING (content)
WHERE cell = ? AND cell_id = ?
    AND coalesce(own_scores.answer = their_scores.answer, true)
"""


def contradictions(staging: Staging, cells: Sequence[ImportedCell], lake: Lake) -> list[Suspicion]:
    """Returns a suspicion for each imported cell and cell of another import whose scores differ."""
    own = {cell.cell_id for cell in cells}
    given = {"tasks": sorted({cell.task for cell in cells}), "models": sorted({cell.model for cell in cells})}
    ours = defaultdict(list)
    for number, cell in enumerate(cells):
        ours[cell.model, cell.task, cell.description.metric].append(number)
    others = [
        _Other(cell_id, source, items, ours[key])
        for cell_id, source, items, *of in ask(
            lake, lambda con, _: con.execute(_CELLS, given).fetchall(), only=["cells"]
        )
        if (key := tuple(of)) in ours and cell_id not in own
    ]
    if not others:
        return []
    staging.con.execute(_OURS)
    found = [one for some in _some(others) for one in _compared(staging, cells, some, lake)]
    return [suspicion for _, _, suspicion in sorted(found, key=lambda one: one[:2])]


class _Other(NamedTuple):
    """A cell of another import, and the numbers of ours to compare it with."""

    cell_id: str
    source: str
    items: int
    ours: list[int]


def _some(others: Sequence[_Other]) -> Iterator[list[_Other]]:
    """Cuts the cells by ITEMS_AT_ONCE."""
    some: list[_Other] = []
    size = 0
    for other in others:
        if some and size + other.items > ITEMS_AT_ONCE:
            yield some
            some, size = [], 0
        some.append(other)
        size += other.items
    yield some


def _compared(
    staging: Staging, cells: Sequence[ImportedCell], others: Sequence[_Other], lake: Lake
) -> list[tuple[int, tuple[str, str], Suspicion]]:
    """Our cell's number, the other import and cell, and the suspicion."""
    wanted = {"cells": [other.cell_id for other in others]}
    views = ["matrix", "items", "responses"]
    read = ask(lake, lambda con, _: con.execute(_THEIRS, wanted).to_arrow_table(), only=views)
    staging.con.register("their_scores", read)
    found = [
        (number, (other.source, other.cell_id), one)
        for other in others
        for number in other.ours
        if (one := _suspicion(staging.con, cells[number], number, other.cell_id, other.source))
    ]
    staging.con.unregister("their_scores")
    return found


def _suspicion(
    con: duckdb.DuckDBPyConnection, cell: ImportedCell, number: int, cell_id: str, source: str
) -> Suspicion | None:
    [(common, differing)] = con.execute(_COMPARED, [number, cell_id]).fetchall()
    if not differing:
        return None
    message = f"{differing:,} of {common:,} questions have other scores than in the import {source} (cell {cell_id})"
    return Suspicion(CONTRADICTS, message, cell.model, cell.task, cell.cell_id)
