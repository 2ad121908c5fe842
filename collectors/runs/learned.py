"""What the lake's complete models teach about the tasks of a plan: which items to ask, and the error to expect.

Owns the way from a plan's tasks to the arrays of collectors.forecasts. A score is put on a scale from 0 to 1. Knows
nothing of shards and of the order of work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collectors.forecasts.choice import FEWEST_MODELS, choose_items
from collectors.forecasts.expecting import Expected, expected_error
from collectors.forecasts.factors import Answers
from collectors.lake.store import Lake
from collectors.matrix.arrays import Blocks
from collectors.matrix.blocks import load_blocks, models_with_all
from schemas.failures import ConfigError
from schemas.identity import BLOCK_KEY, COLUMN_KEY

if TYPE_CHECKING:
    from collectors.harness.tasks import BoundTask

#: Complete models that take part in an estimate before a run: an estimate from 300 took 4 s, and more change little.
MOST_MODELS = 300


@dataclass(frozen=True)
class Table:
    """The first `items` items of a task under one prompting."""

    task: str
    items_digest: str
    prompting: str
    items: int

    @classmethod
    def of(cls, task: BoundTask, items: int) -> Table:
        return cls(task.name, task.settings.items_digest, task.settings.prompting, items)


@dataclass(frozen=True)
class Answered:
    """The answers of the lake's models to some tables, one beside the other."""

    tables: list[Table]
    #: (models, items of all tables): NaN where there is no score.
    answers: Answers
    #: (items,): the number of each item's table.
    labels: npt.NDArray[np.int64]
    #: Names of the models, and the rows of their identities (schemas.identity.COLUMN_KEY).
    names: list[str]
    rows: Mapping[tuple[Any, ...], int]
    #: (tables, 2): the scores that became 0 and 1.
    ends: npt.NDArray[np.float64]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """(tables,): the place of each table's first item."""
        return np.cumsum([0, *(table.items for table in self.tables)])[:-1]

    @property
    def is_complete(self) -> npt.NDArray[np.bool_]:
        """(models,): which have a score for every item."""
        return np.asarray(~np.isnan(self.answers).any(axis=1), np.bool_)

    @property
    def complete(self) -> int:
        return int(self.is_complete.sum())

    @property
    def can_teach(self) -> bool:
        return self.complete >= FEWEST_MODELS

    def expected(self, shares: Sequence[float]) -> list[Expected]:
        """The error to expect of each share of the items: by complete models that were held out, or of sampling."""
        rows = np.flatnonzero(self.is_complete)[:MOST_MODELS]
        names = [self.names[row] for row in rows]
        try:
            return expected_error(self.answers[rows], shares, tasks=self.labels, names=names)
        except ValueError:  # they are all of one family, so that nothing is left to learn from
            return expected_error(self._nothing, shares, tasks=self.labels)

    @property
    def _nothing(self) -> Answers:
        return np.full((1, len(self.labels)), np.nan, np.float32)

    def sampling_share(self, error: float) -> float:
        """The least share, in steps of 1 %, whose random sample has at most this error for any model."""
        shares = [step / 100 for step in range(1, 101)]
        found = expected_error(self._nothing, shares, tasks=self.labels)
        return next((one.share for one in found if one.of_mean <= error), 1.0)

    def probe(self, size: int, strata: Sequence[Sequence[int]]) -> list[int]:
        """The items of one table that teach most of new models, in ascending order."""
        labels = np.zeros(len(self.labels), np.int64)
        for number, stratum in enumerate(strata):
            labels[list(stratum)] = number
        return sorted(choose_items(self.answers[self.is_complete], size, strata=labels).tolist())


def answered(lake: Lake, tables: Sequence[Table], *, any_prompting: bool = False) -> Answered:
    """The lake's answers to these tables.

    With `any_prompting` each table is that of the prompting under which most models answered all of it. No model is
    there when fewer than FEWEST_MODELS can be complete by the names of their shards: these are not read in vain.
    """
    blocks = _blocks(lake, tables, any_prompting=any_prompting)
    of_models = [] if blocks is None else list(zip(*(blocks.models[n].to_pylist() for n in COLUMN_KEY), strict=True))
    wide = np.full((len(of_models), sum(table.items for table in tables)), np.nan, np.float32)
    start, ends = 0, np.tile([0.0, 1.0], (len(tables), 1))
    for number, table in enumerate(tables):
        if blocks is not None:
            found = _scores(blocks, table, any_prompting=any_prompting)
            if not np.isnan(found).all():
                ends[number] = min(0.0, float(np.nanmin(found))), max(1.0, float(np.nanmax(found)))
            low, high = ends[number]
            wide[:, start : start + table.items] = (found - low) / (high - low)
        start += table.items
    labels = np.repeat(np.arange(len(tables)), [table.items for table in tables])
    names = [str(key[COLUMN_KEY.index("model")]) for key in of_models]
    return Answered(list(tables), wide, labels, names, {key: row for row, key in enumerate(of_models)}, ends)


def _blocks(lake: Lake, tables: Sequence[Table], *, any_prompting: bool) -> Blocks | None:
    keys = ("task", "items_digest") if any_prompting else ("task", "items_digest", "prompting")
    wanted = list(dict.fromkeys(tuple(str(getattr(table, key)) for key in keys) for table in tables))
    if not lake.exists() or models_with_all(lake, keys, wanted) < FEWEST_MODELS:
        return None
    try:
        return load_blocks(lake, sorted({table.task for table in tables}), tokens=False)
    except ConfigError:  # no run planned these tasks
        return None


def _scores(blocks: Blocks, table: Table, *, any_prompting: bool) -> npt.NDArray[np.float32]:
    """(models, items of the table)"""
    best = np.full((len(blocks.models), table.items), np.nan, np.float32)
    keys = list(zip(*(blocks.items[name].to_pylist() for name in BLOCK_KEY), strict=True))
    for key in dict.fromkeys(keys):
        task, items_digest, prompting, *_ = key
        if (task, items_digest) != (table.task, table.items_digest) or not (
            any_prompting or prompting == table.prompting
        ):
            continue
        first, count = keys.index(key), keys.count(key)
        rows = slice(first, first + min(count, table.items))
        own = np.full_like(best, np.nan)
        own[:, : rows.stop - first] = np.where(blocks.valid[rows], blocks.scores[rows], np.nan).T
        if _complete(own) > _complete(best) or np.isnan(best).all():
            best = own
    return best


def _complete(answers: npt.NDArray[np.float32]) -> int:
    return int((~np.isnan(answers).any(axis=1)).sum())
