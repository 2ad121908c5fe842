"""Finds cells of other imports that score the same answers otherwise: same model, task, metric and questions.

Changes nothing. An answer is another one only where both sources have its text, and the texts differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import duckdb

from collectors.importers.cells import ImportedCell
from collectors.importers.staging import Staging
from collectors.importers.suspicions import Suspicion
from collectors.lake.reading import ask
from collectors.lake.store import Lake

#: Kind of these suspicions.
CONTRADICTS = "contradicts"

_CELLS = """
SELECT cell_id, imported_from, model, task, metric FROM cells
WHERE imported_from IS NOT NULL AND list_contains($tasks, task) AND list_contains($models, model)
ORDER BY imported_from, cell_id
"""
#: Scores of a cell by question. A question that stands twice in a cell has no single score.
_THEIRS = """
SELECT matrix.cell_id, coalesce(content_hash, matrix.item_hash) AS content, any_value(score) AS score,
    any_value(responses) AS responses
FROM matrix
LEFT JOIN items USING (task, items_digest, item)
LEFT JOIN (SELECT cell_id, item, responses FROM responses WHERE repeat = 0) AS answers
    ON matrix.cell_id = answers.cell_id AND matrix.item = answers.item
WHERE list_contains($cells, matrix.cell_id) AND score IS NOT NULL
GROUP BY ALL HAVING count(*) = 1
"""
_OURS = """
CREATE OR REPLACE TEMP TABLE own_scores AS
SELECT cell, coalesce(content_hash, item_hash) AS content, any_value(score) AS score, any_value(responses) AS responses
FROM trusted JOIN cell_numbers USING (run, model, task) JOIN numbers USING (run, task, key)
WHERE repeat = 0 AND trusted.filter = cell_numbers.filter AND score IS NOT NULL
GROUP BY ALL HAVING count(*) = 1
"""
_COMPARED = """
SELECT count(*), count(*) FILTER (abs(own_scores.score - their_scores.score) > 1e-6)
FROM own_scores JOIN their_scores USING (content)
WHERE cell = ? AND cell_id = ?
    AND coalesce(own_scores.responses = their_scores.responses, true)
"""


def contradictions(staging: Staging, cells: Sequence[ImportedCell], lake: Lake) -> list[Suspicion]:
    """Returns a suspicion for each imported cell and cell of another import whose scores differ."""
    own = {cell.cell_id for cell in cells}
    given = {"tasks": sorted({cell.task for cell in cells}), "models": sorted({cell.model for cell in cells})}
    theirs = defaultdict(list)
    for cell_id, source, *key in ask(lake, lambda con, _: con.execute(_CELLS, given).fetchall(), only=["cells"]):
        if cell_id not in own:
            theirs[tuple(key)].append((cell_id, source))
    pairs = [
        (number, *other)
        for number, cell in enumerate(cells)
        for other in theirs[cell.model, cell.task, cell.description.metric]
    ]
    if not pairs:
        return []
    wanted = {"cells": sorted({cell_id for _, cell_id, _ in pairs})}
    views = ["matrix", "items", "responses"]
    read = ask(lake, lambda con, _: con.execute(_THEIRS, wanted).to_arrow_table(), only=views)
    con = staging.con
    con.execute(_OURS)
    con.register("their_scores", read)
    found = [_suspicion(con, cells[number], number, cell_id, source) for number, cell_id, source in pairs]
    con.unregister("their_scores")
    return [one for one in found if one]


def _suspicion(
    con: duckdb.DuckDBPyConnection, cell: ImportedCell, number: int, cell_id: str, source: str
) -> Suspicion | None:
    [(common, differing)] = con.execute(_COMPARED, [number, cell_id]).fetchall()
    if not differing:
        return None
    message = f"{differing:,} of {common:,} questions have other scores than in the import {source} (cell {cell_id})"
    return Suspicion(CONTRADICTS, message, cell.model, cell.task, cell.cell_id)
