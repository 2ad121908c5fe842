"""Rounds of a run with `until`: after each, the errors that remain decide which items of which model come next.

Owns the end of the rounds. Without enough complete models in the lake there is one round: the share of all items whose
sample is good enough for any model. Knows nothing of engines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from collectors.forecasts.adaptive import expected_errors, next_items
from collectors.forecasts.smoothing import learn
from collectors.lake.holdings import committed
from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from collectors.runs.learned import Answered, Table, answered
from collectors.runs.plan import Plan, PlannedCell
from schemas.identity import COLUMN_KEY

#: Share of the items of a first round, which is the same for all models, and of each later one.
ROUND_SHARE = 0.025


@dataclass(frozen=True)
class Wanted:
    """The items to ask in a round, by cell."""

    sets: ItemSets
    #: Cell id -> its list; empty: nothing is left to ask.
    lists: Mapping[str, str] = field(default_factory=dict)
    #: One line for a person.
    words: str = ""


def first_share(lake: Lake, tables: Sequence[Table], error: float) -> float:
    """The share of each task to ask first, so that the means of all models get an error of at most `error`."""
    read = answered(lake, tables)
    return ROUND_SHARE if read.can_teach else read.sampling_share(error)


def tables_of(plan: Plan) -> list[Table]:
    """The tables of a plan's cells."""
    cells = {(cell.of_task["task"], cell.cell.prompting): cell for cell in plan.cells}
    return [
        Table(cell.of_task["task"], cell.of_task["items_digest"], cell.cell.prompting, cell.cell.items)
        for cell in cells.values()
    ]


def next_round(plan: Plan, lake: Lake, error: float) -> Wanted | None:
    """What to ask after the rounds so far; None: every model's expected error is small enough, or unknown.

    Without lists there is nothing left to ask, though some model's error is too large.
    """
    tables = tables_of(plan)
    read = answered(lake, tables)
    if not read.can_teach:
        return None
    is_complete = read.is_complete
    whole = np.flatnonzero(is_complete)
    learned = learn(read.answers[whole], read.labels, names=[read.names[row] for row in whole])
    by_row: dict[int, dict[int, PlannedCell]] = defaultdict(dict)
    numbers = {(table.task, table.prompting): number for number, table in enumerate(tables)}
    for cell in plan.cells:
        identity = cell.row
        row = read.rows.get(tuple(identity.get(name) for name in COLUMN_KEY))
        if row is not None and not is_complete[row]:
            by_row[row][numbers[cell.of_task["task"], cell.cell.prompting]] = cell
    rows = sorted(by_row)
    if not rows:
        return None
    answers = read.answers[rows]
    errors = expected_errors(learned, answers)
    open_models = int((errors > error).sum())
    if not open_models:
        return None
    count = open_models * max(1, round(ROUND_SHARE * answers.shape[1]))
    sets, cells = ItemSets(lake), [by_row[row] for row in rows]
    held = _held(lake, read, cells, sets)
    # An item that is held without a score, by our own fault, is not asked again: it counts as asked.
    known = answers.copy()
    starts = _starts(read)
    for model, of_model in enumerate(held):
        places = [starts[number] + item for number, items in of_model.items() for item in items]
        known[model, places] = np.where(np.isnan(known[model, places]), 0.5, known[model, places])
    pairs = next_items(learned, known, count, matters=(errors > error).astype(np.float64))
    words = f"{open_models} of {len(rows)} models are above an error of {error:g}, the worst at {errors.max():.3g}"
    lists = _lists(read, cells, held, pairs, sets)
    return Wanted(sets, lists, words) if lists else Wanted(sets, {}, f"{words}, and they have nothing left to ask")


def _starts(read: Answered) -> npt.NDArray[np.int64]:
    """(tables,): the place of each table's first item."""
    return np.cumsum([0, *(table.items for table in read.tables)])[:-1]


def _held(
    lake: Lake, read: Answered, cells: Sequence[Mapping[int, PlannedCell]], sets: ItemSets
) -> list[dict[int, set[int]]]:
    """The items that the lake holds of each model: number of a table -> items."""
    shards = committed(lake)
    return [
        {
            number: {
                item
                for shard in shards.get(planned.cell.cell_id, ())
                for item in sets.items_of(shard)
                if item < read.tables[number].items
            }
            for number, planned in of_model.items()
        }
        for of_model in cells
    ]


def _lists(
    read: Answered,
    cells: Sequence[Mapping[int, PlannedCell]],
    held: Sequence[Mapping[int, set[int]]],
    pairs: Sequence[tuple[int, int]],
    sets: ItemSets,
) -> dict[str, str]:
    """Cell -> the list of its asked and its next items."""
    starts = _starts(read)
    more: dict[tuple[int, int], set[int]] = defaultdict(set)
    for model, place in pairs:
        number = int(read.labels[place])
        if number in cells[model]:  # it has no cell of a task that could not be planned
            more[model, number].add(int(place - starts[number]))
    if not more:
        return {}
    lists = {}
    for model, of_model in enumerate(cells):
        for number, planned in of_model.items():
            if items := sorted(held[model][number] | more[model, number]):
                lists[planned.cell.cell_id] = sets.add(items)
    return lists
