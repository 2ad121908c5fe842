"""Rounds of a run with `until`: after each, the errors that remain decide which items of which model come next.

Owns the end of the rounds. Without enough complete models in the lake there is one round: the share of all items whose
sample is good enough for any model. Knows nothing of engines.

A model's rounds follow each other while an engine has it loaded (Rounds). What they do not see, such as what a killed
run left, is found in the lake at the end of a run (next_round), which a further run then asks.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from collectors.forecasts.adaptive import expected_errors, next_items
from collectors.forecasts.factors import Floats, Places
from collectors.forecasts.smoothing import Learned, learn
from collectors.lake.holdings import committed
from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from collectors.runs.learned import Answered, Table, answered
from collectors.runs.plan import Plan, PlannedCell
from collectors.runs.work import Cell
from schemas.identity import COLUMN_KEY, ShardName

if TYPE_CHECKING:
    from collectors.engines import ModelRef

#: Share of the items of a first round, which is the same for all models, and of each later one.
ROUND_SHARE = 0.025

Mask = npt.NDArray[np.bool_]


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
    """The tables of a plan's cells, without those of repeats."""
    once = (cell for cell in plan.cells if not cell.cell.spec.repeats)
    cells = {(cell.of_task["task"], cell.cell.prompting): cell for cell in once}
    return [
        Table(cell.of_task["task"], cell.of_task["items_digest"], cell.cell.prompting, cell.cell.items)
        for cell in cells.values()
    ]


@dataclass
class _Model:
    """A model of a plan that has not answered everything."""

    #: (items,): NaN where it has no score.
    answers: Floats
    #: Number of a table -> its cell.
    cells: dict[int, PlannedCell]
    #: (items,): whether the item was asked, or is about to be.
    held: Mask

    @property
    def known(self) -> Floats:
        """(items,): an item that was asked and has no score, by our own fault, is not asked again: it counts as ½."""
        return np.where(self.held & np.isnan(self.answers), np.float32(0.5), self.answers)


def next_round(plan: Plan, lake: Lake, error: float) -> Wanted | None:
    """What to ask after the rounds so far; None: every model's expected error is small enough, or unknown.

    Without lists there is nothing left to ask, though some model's error is too large.
    """
    read = answered(lake, tables_of(plan))
    if not read.can_teach:
        return None
    sets = ItemSets(lake)
    models = [one for key, one in _models(plan, read, committed(lake), sets).items() if key in read.rows]
    if not models:
        return None
    learned, answers = _learn(read), np.stack([one.answers for one in models])
    errors = expected_errors(learned, answers)
    open_models = int((errors > error).sum())
    if not open_models:
        return None
    known = np.stack([one.known for one in models])
    pairs = next_items(learned, known, open_models * _round_items(read), matters=(errors > error).astype(np.float64))
    words = f"{open_models} of {len(models)} models are above an error of {error:g}, the worst at {errors.max():.3g}"
    lists: dict[str, str] = {}
    for number, one in enumerate(models):
        more = np.array([place for model, place in pairs if model == number], np.int64)
        of_cells = _by_cell(read, one, more)
        if of_cells:  # the list of a cell has what was asked before, too
            one.held[more] = True
            lists |= {
                cell.cell.cell_id: sets.add(items)
                for table, cell in one.cells.items()
                if (items := np.flatnonzero(one.held[_rows(read, table)]).tolist())
            }
    return Wanted(sets, lists, words) if lists else Wanted(sets, {}, f"{words}, and they have nothing left to ask")


class Rounds:
    """The rounds of each model of a run, by the complete models that the lake had at its start.

    Make it with `of`. One model after another may be asked for its next round, whenever its last one is in the lake.
    """

    def __init__(self, plan: Plan, lake: Lake, read: Answered, error: float) -> None:
        self._read, self._error, self._learned = read, error, _learn(read)
        self.sets = plan.item_sets or ItemSets(lake)
        self._models = _models(plan, read, committed(lake), self.sets)
        self._of_cell = {
            planned.cell.cell_id: (one, number)
            for one in self._models.values()
            for number, planned in one.cells.items()
        }
        for one, number in self._of_cell.values():
            planned = one.cells[number]
            listed = range(planned.cell.items) if planned.listed is None else planned.listed
            todo = [listed[place] for first, last in planned.todo for place in range(first, last + 1)]
            one.held[read.starts[number] + np.array(todo, np.int64)] = True

    @classmethod
    def of(cls, plan: Plan, lake: Lake) -> Rounds | None:
        """The rounds of a plan with `until`; None: it has none, or the lake's models cannot teach."""
        if plan.config.until is None or not plan.cells:
            return None
        read = answered(lake, tables_of(plan))
        return cls(plan, lake, read, plan.config.until.error) if read.can_teach else None

    def saw(self, cell: Cell, scores: Mapping[int, float]) -> None:
        """Takes the scores of items that are in the lake now."""
        if cell.cell_id in self._of_cell and scores:
            one, number = self._of_cell[cell.cell_id]
            low, high = self._read.ends[number]
            places = self._read.starts[number] + np.array(list(scores), np.int64)
            one.answers[places] = np.clip((np.array(list(scores.values())) - low) / (high - low), 0, 1)

    def more(self, model: ModelRef, failed: Collection[str]) -> list[PlannedCell]:
        """Cells of a model with the items of its next round as their open ones; [] if it needs none.

        Nothing of the model may be in hand: its cells are changed in place. `failed` are ids of cells that failed.
        """
        opened = []
        for one in self._models.values():
            if next(iter(one.cells.values())).cell.model.key == model.key:
                opened += self._more(one, model, failed)
        return opened

    def _more(self, one: _Model, model: ModelRef, failed: Collection[str]) -> list[PlannedCell]:
        if expected_errors(self._learned, one.answers[None])[0] <= self._error:
            return []
        for number, planned in one.cells.items():
            if planned.cell.cell_id in failed:
                one.held[_rows(self._read, number)] = True
        pairs = next_items(self._learned, one.known[None], _round_items(self._read))
        opened = []
        for number, items in _by_cell(self._read, one, np.array([place for _, place in pairs], np.int64)).items():
            planned = one.cells[number]
            one.held[self._read.starts[number] + np.array(items)] = True
            planned.cell = dataclasses.replace(planned.cell, model=model, item_set=self.sets.add(items))
            planned.listed, planned.todo = items, [(0, len(items) - 1)]
            opened.append(planned)
        return opened


def _learn(read: Answered) -> Learned:
    whole = np.flatnonzero(read.is_complete)
    return learn(read.answers[whole], read.labels, names=[read.names[row] for row in whole])


def _round_items(read: Answered) -> int:
    return max(1, round(ROUND_SHARE * len(read.labels)))


def _numbers(read: Answered) -> dict[tuple[str, str], int]:
    return {(table.task, table.prompting): number for number, table in enumerate(read.tables)}


def _rows(read: Answered, table: int) -> slice:
    return slice(int(read.starts[table]), int(read.starts[table]) + read.tables[table].items)


def _by_cell(read: Answered, model: _Model, places: Places) -> dict[int, list[int]]:
    """Number of a table -> the items among `places`. A model has no cell of a task that could not be planned."""
    of_cells = {}
    for number in model.cells:
        own = places[read.labels[places] == number] - read.starts[number]
        if len(own):
            of_cells[number] = sorted(own.tolist())
    return of_cells


def _models(
    plan: Plan, read: Answered, shards: Mapping[str, list[ShardName]], sets: ItemSets
) -> dict[tuple[object, ...], _Model]:
    """Those of the plan that have not answered everything, by COLUMN_KEY and in the order of `read`, others last."""
    numbers, complete = _numbers(read), read.is_complete
    found: dict[tuple[object, ...], _Model] = {}
    cells: dict[tuple[object, ...], dict[int, PlannedCell]] = defaultdict(dict)
    for planned in plan.cells:
        identity = planned.row
        key = tuple(identity.get(name) for name in COLUMN_KEY)
        cells[key][numbers[planned.of_task["task"], planned.cell.prompting]] = planned
    for key in sorted(cells, key=lambda key: read.rows.get(key, len(read.rows))):
        row = read.rows.get(key)
        if row is not None and complete[row]:
            continue
        answers = np.full(len(read.labels), np.nan, np.float32) if row is None else read.answers[row].copy()
        held = np.zeros(len(read.labels), np.bool_)
        for number, planned in cells[key].items():
            own = held[_rows(read, number)]  # a view
            for shard in shards.get(planned.cell.cell_id, ()):
                own[[item for item in sets.items_of(shard) if item < len(own)]] = True
        found[key] = _Model(answers, cells[key], held)
    return found
