"""Rounds of a run with `until`: after each, what the answers leave open decides which items of which model come next.

Owns the end of the rounds. Without enough complete models in the lake there is one round: the share of all items whose
sample is good enough for any model. Knows nothing of engines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

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
    #: Cell id -> its list.
    lists: Mapping[str, str] = field(default_factory=dict)
    #: One line for a person.
    words: str = ""


def first_share(lake: Lake, tables: Sequence[Table], error: float) -> float:
    """The share of each task to ask first, so that the means of all models get an error of at most `error`."""
    read = answered(lake, tables)
    return ROUND_SHARE if read.can_teach else read.sampling_share(error)


def tables_of(plan: Plan) -> list[Table]:
    """The tables of a plan's cells."""
    cells = {(cell.row["task"], cell.cell.prompting): cell for cell in plan.cells}
    return [
        Table(cell.row["task"], cell.row["items_digest"], cell.cell.prompting, cell.cell.items)
        for cell in cells.values()
    ]


def next_round(plan: Plan, lake: Lake, error: float) -> Wanted | None:
    """What to ask after the rounds so far; None: every model's expected error is small enough, or nobody can tell."""
    tables = tables_of(plan)
    read = answered(lake, tables)
    if not read.can_teach:
        return None
    whole = np.flatnonzero(read.is_complete)
    learned = learn(read.answers[whole], read.labels, names=[read.names[row] for row in whole])
    by_row: dict[int, dict[int, PlannedCell]] = defaultdict(dict)
    numbers = {(table.task, table.prompting): number for number, table in enumerate(tables)}
    for cell in plan.cells:
        row = read.rows.get(tuple(cell.row.get(name) for name in COLUMN_KEY))
        if row is not None and not read.is_complete[row]:
            by_row[row][numbers[cell.row["task"], cell.cell.prompting]] = cell
    rows = sorted(by_row)
    if not rows:
        return None
    answers = read.answers[rows]
    errors = expected_errors(learned, answers)
    open_models = int((errors > error).sum())
    if not open_models:
        return None
    count = open_models * max(1, round(ROUND_SHARE * answers.shape[1]))
    pairs = next_items(learned, answers, count, until=error)
    lists = _lists(lake, read, [by_row[row] for row in rows], pairs)
    words = f"{open_models} of {len(rows)} models are above an error of {error:g}, the worst at {errors.max():.3g}"
    return Wanted(lists[0], lists[1], words) if lists[1] else None


def _lists(
    lake: Lake, read: Answered, cells: Sequence[Mapping[int, PlannedCell]], pairs: Sequence[tuple[int, int]]
) -> tuple[ItemSets, dict[str, str]]:
    """Cell -> the list of what it was asked and what comes next."""
    sets, shards = ItemSets(lake), committed(lake)
    starts = np.cumsum([0, *(table.items for table in read.tables)])
    more: dict[str, set[int]] = defaultdict(set)
    for model, place in pairs:
        number = int(read.labels[place])
        if number in cells[model]:
            more[cells[model][number].cell.cell_id].add(int(place - starts[number]))
    lists = {}
    for of_model in cells:
        for number, planned in of_model.items():
            cell_id, upto = planned.cell.cell_id, read.tables[number].items
            held = {item for shard in shards.get(cell_id, ()) for item in sets.items_of(shard) if item < upto}
            if items := sorted(held | more[cell_id]):
                lists[cell_id] = sets.add(items)
    return sets, lists
