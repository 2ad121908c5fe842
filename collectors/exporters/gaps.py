"""Gaps in an export: answers that lack a number that the format needs.

Owns the choice of the part to leave out, and the words of a refusal. A missing answer is never written as wrong, nor an
unknown cost as free.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.exporters.grid import Grid, Grids, some
from schemas.failures import ConfigError

MISSING = ("error", "drop-items", "drop-models")

_SCORE, _COST, _TOKENS, _TIME = ("score",), ("usd",), ("prompt_tokens", "completion_tokens"), ("latency_s",)
_UNKNOWN = {_SCORE: "no score", _COST: "no known cost", _TOKENS: "no token counts", _TIME: "no latency"}
_WORDS = {_SCORE: "score", _COST: "cost", _TOKENS: "token count", _TIME: "latency"}


def complete(
    grids: Sequence[Grid], missing: str, *, prompt: bool = False, options: Sequence[str] = ()
) -> tuple[Grids, list[str]]:
    """Returns the grids without gaps in the numbers that they need, and a note for the user on the parts left out.

    `missing`: one of MISSING; `prompt`: items need their text, too; `options`: those of the format, so that a refusal
    names the ways out. Raises ConfigError for gaps if `missing` is "error", and where nothing would be left.
    """
    grids = Grids.of(grids)
    gaps = _Gaps(grids.models)
    for grid in grids:
        gaps.add(grid, prompt)
    columns, total, kept = gaps.whole, gaps.total, gaps.kept
    if kept == total and columns.all():
        return grids, []
    everyone = np.ones_like(columns)
    if missing == "drop-items" and kept:
        left = {task: cells for task, cells in grids.cells.items() if gaps.rows[task].any()}
        whole = grids.changed(lambda grid: grid.taken(gaps.rows[grid.task], everyone), cells=left)
        lost = [task for task in grids.tasks if task not in left]
        note = f"left out: {total - kept:,} of {total:,} items{_because(gaps.needs)}"
        return whole, [note + (f"; nothing is left of {', '.join(lost)}" if lost else "")]
    if missing == "drop-models" and columns.any() and not gaps.no_prompt:
        names = [model for model, keep in zip(grids.models, columns, strict=True) if not keep]
        whole = grids.changed(
            lambda grid: grid.taken(np.ones(len(grid.items), np.bool_), columns),
            _taken(grids.models, columns),
            {task: _taken(cells, columns) for task, cells in grids.cells.items()},
        )
        return whole, [f"left out: {len(names):,} of {len(columns):,} models{_because(gaps.needs)}: {some(names)}"]
    refusal = _refusal(gaps, missing)
    raise ConfigError(refusal if missing != "error" else refusal + _other_ways(gaps, options))


class _Gaps:
    """The gaps of grids, which are added one after the other."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models
        self.needs: tuple[str, ...] = ("score",)
        #: Task -> (items,): whether the item has no gap.
        self.rows: dict[str, npt.NDArray[np.bool_]] = {}
        #: (models,): whether the model has no gap.
        self.whole = np.ones(len(models), np.bool_)
        #: Items without a text, and answers in all.
        self.no_prompt = self.answers = 0
        self._unknown = {names: np.zeros(len(models), np.int64) for names in _UNKNOWN}

    def add(self, grid: Grid, prompt: bool) -> None:
        gaps, no_prompt = grid.gaps(), np.array([prompt and not item["prompt"] for item in grid.items], np.bool_)
        self.needs = grid.needs
        self.rows[grid.task] = ~(gaps.any(axis=1) | no_prompt)
        self.whole &= ~gaps.any(axis=0)
        self.no_prompt += int(no_prompt.sum())
        self.answers += grid.scores.size
        for names, unknown in self._unknown.items():
            if needed := [np.isnan(grid.numbers[name]) for name in names if name in grid.needs]:
                unknown += np.logical_or.reduce(needed).sum(axis=0)

    @property
    def total(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def kept(self) -> int:
        return int(sum(rows.sum() for rows in self.rows.values()))

    def count(self, names: tuple[str, ...]) -> Counter[str]:
        """Model -> how many of its answers lack one of the numbers `names`, among those that the format needs."""
        return +Counter(dict(zip(self.models, self._unknown[names].tolist(), strict=True)))


def _taken(values: list[Any], kept: npt.NDArray[np.bool_]) -> list[Any]:
    return list(itertools.compress(values, kept))


def _refusal(gaps: _Gaps, missing: str) -> str:
    parts = []
    for names, unknown in _UNKNOWN.items():
        if by_model := gaps.count(names):
            listed = some([f"{model} {count:,}" for model, count in by_model.most_common()])
            parts.append(f"{by_model.total():,} of {gaps.answers:,} answers have {unknown} ({listed})")
    columns, no_prompt, kept, total = gaps.whole, gaps.no_prompt, gaps.kept, gaps.total
    if no_prompt:
        parts.append(f"{no_prompt:,} items have no text in the lake")
    if missing != "error":
        return f"--missing {missing} would leave nothing: {'; '.join(parts)}"
    ways = []
    if kept:
        ways.append(f"drop-items leaves out {total - kept:,} of {total:,} items")
    if columns.any() and not no_prompt:
        ways.append(f"drop-models {int((~columns).sum()):,} of {len(columns):,} models")
    way = f": --missing {', '.join(ways)}" if ways else ": choose other models by --pool, or other tasks by --task"
    return f"{'; '.join(parts)}{way}"


def _other_ways(gaps: _Gaps, options: Sequence[str]) -> str:
    priced, counted, timed = (not gaps.count(names) for names in (_COST, _TOKENS, _TIME))
    ways = [
        "" if priced else "; prices.py puts prices into the lake",
        "" if counted or "tokens" not in options else "; --tokens takes the counts of tokens.py",
        "" if (priced and counted) or "accuracy_only" not in options else "; --accuracy-only needs neither",
        "" if timed or "accuracy_only" not in options else "; --accuracy-only needs no time",
    ]
    return "".join(ways)


def _because(needs: Sequence[str]) -> str:
    words = [word for names, word in _WORDS.items() if set(names) & set(needs)]
    return f" with an answer of unknown {', '.join(words[:-1])}{' or ' if words[1:] else ''}{words[-1]}"
