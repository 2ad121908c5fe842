"""The answers of a lake as one array, for forecasts.

Owns the axes: a row for each model at a revision and precision, a column for each item of each task under one
prompting. Knows no forecast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.forecasts.factors import WHOLE, Floats, Places
from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.blocks import load_blocks
from schemas.failures import ConfigError
from schemas.identity import BLOCK_KEY, COLUMN_KEY

#: Tasks that an error names.
MOST_NAMED = 5


@dataclass(frozen=True)
class Block:
    """One task under one prompting, which a forecast calls a task."""

    task: str
    items_digest: str
    prompting: str
    metric: str
    #: The ends of its scores: 0 and 1, unless some lie beyond.
    low: float
    high: float
    #: Digest of its cells and their scores (view _forecast_basis).
    basis: str
    higher_is_better: bool = True

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.task, self.items_digest, self.prompting, self.metric


@dataclass(frozen=True)
class LakeAnswers:
    #: (models, items): scores, put on a scale from 0 to 1; NaN where there is none.
    answers: Floats
    blocks: list[Block]
    #: (items,): the block of each item, and its position in the task's item table.
    block_of: Places
    item_of: Places
    #: (models,)
    names: list[str]
    bases: list[str | None]
    parameters: npt.NDArray[np.float64]
    #: (models, blocks): cell ids; None: the model has no cell there.
    cells: npt.NDArray[Any]
    #: A line for each task that cannot be foretold.
    left_out: list[str]
    #: Names of models in the view models that have no cell -> base model and parameters.
    others: dict[str, tuple[str | None, float]]

    def of_block(self, number: int) -> LakeAnswers:
        """One task alone, of the models that were planned for it or answered it."""
        own = self.block_of == number
        rows = np.flatnonzero([cell is not None for cell in self.cells[:, number]])
        return LakeAnswers(
            self.answers[np.ix_(rows, np.flatnonzero(own))],
            [self.blocks[number]],
            np.zeros(int(own.sum()), np.int64),
            self.item_of[own],
            [self.names[row] for row in rows],
            [self.bases[row] for row in rows],
            self.parameters[rows],
            self.cells[rows][:, [number]],
            [],
            self.others,
        )


def read_answers(lake: Lake, tasks: list[str] | None = None, include: str = "collected") -> LakeAnswers:
    """All answers to `tasks`, by default to all. `include` is a key of schemas.views.INCLUDED.

    A task of which more than 1 - WHOLE of the items have no score of any model is left out: models that were all asked
    the same part would pass for complete ones. Raises ConfigError if no task is left.
    """
    blocks = load_blocks(lake, tasks, include, tokens=False)
    cells, basis, described = ask(lake, _look, only=["cells", "_forecast_basis", "models"], include=include)
    keys = list(zip(*(blocks.items[name].to_pylist() for name in BLOCK_KEY), strict=True))
    columns = list(zip(*(blocks.models[name].to_pylist() for name in COLUMN_KEY), strict=True))
    kept, left_out = list[Block](), list[str]()
    of_item = np.full(len(keys), -1)
    answers = np.where(blocks.valid, blocks.scores, np.float32(np.nan)).T
    for key in dict.fromkeys(keys):
        items = np.flatnonzero([one == key for one in keys])
        own = answers[:, items]
        if np.isnan(own).all():
            left_out.append(f"{key[0]}: no answer has a score")
            continue
        blank = int(np.isnan(own).all(axis=0).sum())
        if blank > (1 - WHOLE) * len(items):
            left_out.append(f"{key[0]}: {blank:,} of {len(items):,} items have no score of any model")
            continue
        low, high = min(0.0, float(np.nanmin(own))), max(1.0, float(np.nanmax(own)))
        answers[:, items] = (own - low) / (high - low)
        of_item[items] = len(kept)
        task, items_digest, prompting, metric, is_better = key
        kept.append(Block(task, items_digest, prompting, metric, low, high, basis.get(key[:4], ""), is_better))
    if not kept:
        more = f"; and {len(left_out) - MOST_NAMED:,} more" if len(left_out) > MOST_NAMED else ""
        raise ConfigError(
            f"the lake at {lake.uri} has no task to foretell: {'; '.join(left_out[:MOST_NAMED])}{more}; collect some "
            "models whole first"
        )
    place = {block.key: number for number, block in enumerate(kept)}
    row = {column: number for number, column in enumerate(columns)}
    cell_of = np.full((len(columns), len(kept)), None, object)
    for cell_id, block_key, column_key in cells:
        if block_key[:4] in place and column_key in row:
            cell_of[row[column_key], place[block_key[:4]]] = cell_id
    names = [column[COLUMN_KEY.index("model")] for column in columns]
    nothing: tuple[str | None, float] = (None, float("nan"))
    return LakeAnswers(
        np.ascontiguousarray(answers[:, of_item >= 0]),
        kept,
        of_item[of_item >= 0],
        np.array(blocks.items["item"].to_pylist(), np.int64)[of_item >= 0],
        names,
        [described.get(name, nothing)[0] for name in names],
        np.array([described.get(name, nothing)[1] for name in names]),
        cell_of,
        left_out,
        {name: one for name, one in described.items() if name not in set(names)},
    )


def _look(con: duckdb.DuckDBPyConnection, _: Holdings) -> tuple[list[Any], dict[Any, str], dict[str, Any]]:
    width = len(BLOCK_KEY)
    query = f"SELECT cell_id, {', '.join((*BLOCK_KEY, *COLUMN_KEY))} FROM cells ORDER BY run_id, cell_id"
    cells = [(row[0], row[1 : 1 + width], row[1 + width :]) for row in con.execute(query).fetchall()]
    basis = {
        row[:4]: row[4]
        for row in con.execute("SELECT task, items_digest, prompting, metric, basis FROM _forecast_basis").fetchall()
    }
    query = "SELECT model, max(base_model), max(parameters)::DOUBLE FROM models GROUP BY model ORDER BY model"
    described = {
        name: (base, float("nan") if parameters is None else parameters)
        for name, base, parameters in con.execute(query).fetchall()
    }
    return cells, basis, described
