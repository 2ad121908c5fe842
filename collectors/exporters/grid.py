"""The rows that an export writes: for each task the items × models of a pool, the same models in all of them.

Owns the part of a pool that a format sees, and the models' names in the lake or in their source. Knows no format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from schemas.failures import ConfigError

Floats = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

#: A number that few formats take.
THOUGHTS = "reasoning_tokens"


@dataclass(frozen=True)
class Options:
    """Settings of an export that only some formats take; `names` is of all."""

    #: Folder of a sentence-transformers model, for formats with embeddings.
    encoder: Path | None = None
    #: YAML of task -> keywords, for capability texts.
    keywords: Path | None = None
    #: The lowest graded score that is right, for formats of right and wrong.
    threshold: float | None = None
    #: Parquet file of pipelines/tokens.py, for answers without token counts.
    tokens: Path | None = None
    #: Neither token counts nor costs.
    accuracy_only: bool = False
    #: Router -> (task, question) -> the candidate that it chose, for formats of routers.
    routers: Mapping[str, Mapping[tuple[str, str], str]] | None = None
    #: "source": models are called as in the source of their imported records.
    names: str | None = None


@dataclass(frozen=True)
class Grid:
    """One task: questions × the candidates of all grids. An unknown number is NaN."""

    task: str
    #: Of its item table, or of all of them.
    items_digest: str
    metric: str
    #: Names of the candidates.
    models: list[str]
    #: Each candidate's row of the view candidates, with the columns of its cell; None if it is not of this task.
    cells: list[dict[str, Any] | None]
    #: Each question's id, and the columns item_hash, prompt, target, choices, subject and source_key of the view items.
    #: `item` is its position in the item table, or in the grid where that has questions of several tables.
    items: list[dict[str, Any]]
    #: Each (items, models) float64: score, and those of usd, latency_s, prompt_tokens, completion_tokens, cached_tokens
    #: and reasoning_tokens that the format needs or takes.
    numbers: dict[str, Floats]
    #: (items, models): failure kind; None where scored.
    failures: Objects
    #: (items, models): whether the matrix has a row.
    asked: npt.NDArray[np.bool_]
    #: (items, models): the position of the item in the table of the model's cell; -1: it is not there.
    own_items: npt.NDArray[np.int64]
    #: (items, models): list of texts, one a repeat; None: not kept. Empty if the format asks for no texts.
    responses: Objects
    #: Names of sources whose texts are in RouterBench's encoding.
    encoded: frozenset[str] = frozenset()
    #: Those of `numbers` that the format needs; see `gaps`.
    needs: tuple[str, ...] = field(default=("score",))

    @property
    def scores(self) -> Floats:
        return self.numbers["score"]

    @property
    def usd(self) -> Floats:
        return self.numbers["usd"]

    @property
    def prompts(self) -> list[Any]:
        return [item["prompt"] for item in self.items]

    def gaps(self) -> npt.NDArray[np.bool_]:
        """(items, models): whether a number that the format needs is unknown."""
        gaps = np.zeros(self.scores.shape, np.bool_)
        for name in self.needs:
            gaps |= np.isnan(self.numbers[name])
        return gaps

    def taken(self, rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> Grid:
        """Only these items and models."""
        part = np.ix_(rows, columns)
        return replace(
            self,
            models=[model for model, keep in zip(self.models, columns, strict=True) if keep],
            cells=[cell for cell, keep in zip(self.cells, columns, strict=True) if keep],
            items=[item for item, keep in zip(self.items, rows, strict=True) if keep],
            numbers={name: values[part] for name, values in self.numbers.items()},
            failures=self.failures[part],
            asked=self.asked[part],
            own_items=self.own_items[part],
            responses=self.responses[part] if self.responses.size else self.responses,
        )


class Grids(Sequence[Grid]):
    """The grids of some tasks with the same models. Each is read when it is asked for, and not kept."""

    def __init__(
        self, models: list[str], cells: Mapping[str, list[dict[str, Any] | None]], read: Callable[[str], Grid]
    ) -> None:
        """`cells` is the task's Grid.cells, which are known before it is read."""
        self.models, self.cells, self._read = models, cells, read

    @classmethod
    def of(cls, grids: Sequence[Grid]) -> Grids:
        """`grids`, of which some may be in memory."""
        if isinstance(grids, Grids):
            return grids
        by_task = {grid.task: grid for grid in grids}
        return cls(grids[0].models, {grid.task: grid.cells for grid in grids}, by_task.__getitem__)

    @property
    def tasks(self) -> list[str]:
        return list(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    @overload
    def __getitem__(self, place: int) -> Grid: ...
    @overload
    def __getitem__(self, place: slice) -> list[Grid]: ...
    def __getitem__(self, place: int | slice) -> Grid | list[Grid]:
        tasks = self.tasks[place]
        return self._read(tasks) if isinstance(tasks, str) else list(map(self._read, tasks))

    def changed(
        self,
        change: Callable[[Grid], Grid],
        models: list[str] | None = None,
        cells: Mapping[str, list[dict[str, Any] | None]] | None = None,
    ) -> Grids:
        """The same with a change to each; `models` and `cells` are those after it, where they are others."""
        read = self._read
        return Grids(
            self.models if models is None else models,
            self.cells if cells is None else cells,
            lambda task: change(read(task)),
        )


# ---- names


def source_names(grids: Sequence[Grid]) -> Grids:
    """The grids with each model called as in the source of its imported records; collected ones keep their names.

    Raises ConfigError where a model has several such names, or two models one.
    """
    grids = Grids.of(grids)
    names = [_source_names(grids, column) or {model} for column, model in enumerate(grids.models)]
    if several := [(model, of) for model, of in zip(grids.models, names, strict=True) if len(of) > 1]:
        model, of = several[0]
        raise ConfigError(f"--names source: {model} has {len(of)} names in its sources: {some(sorted(of))}")
    single = [of.pop() for of in names]
    if len(set(single)) < len(single):
        [(name, count)] = Counter(single).most_common(1)
        raise ConfigError(f"--names source: {count} models are called {name} in their sources: leave out by --pool")
    return grids.changed(lambda grid: replace(grid, models=single), single)


def renamed_models(grids: Sequence[Grid]) -> list[str]:
    """The models that an alias renamed when they were imported."""
    of = Grids.of(grids)
    return [model for column, model in enumerate(of.models) if _source_names(of, column) - {model}]


def _source_names(grids: Grids, column: int) -> set[str]:
    cells = [cell for of_task in grids.cells.values() if (cell := of_task[column])]
    return {cell["source"] for cell in cells if cell["imported_from"] is not None}


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names as a phrase, and how many more there are."""
    return ", ".join(names[:most]) + (f", … {len(names) - most:,} more" if len(names) > most else "")
