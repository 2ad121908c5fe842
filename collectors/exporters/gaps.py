"""Gaps in an export: answers that lack a number that the format needs.

Owns the choice of the part to leave out, and the words of a refusal. A missing answer is never written as wrong, nor an
unknown cost as free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from collectors.exporters.grid import Grid, some
from schemas.failures import ConfigError

MISSING = ("error", "drop-items", "drop-models")

_SCORE, _COST, _TOKENS, _TIME = ("score",), ("usd",), ("prompt_tokens", "completion_tokens"), ("latency_s",)
_UNKNOWN = {_SCORE: "no score", _COST: "no known cost", _TOKENS: "no token counts", _TIME: "no latency"}
_WORDS = {_SCORE: "score", _COST: "cost", _TOKENS: "token count", _TIME: "latency"}


def complete(
    grids: Sequence[Grid], missing: str, *, prompt: bool = False, options: Sequence[str] = ()
) -> tuple[list[Grid], list[str]]:
    """Returns the grids without gaps in the numbers that they need, and a note for the user on the parts left out.

    `missing`: one of MISSING; `prompt`: items need their text, too; `options`: those of the format, so that a refusal
    names the ways out. Raises ConfigError for gaps if `missing` is "error", and where nothing would be left.
    """
    gaps = [grid.gaps() for grid in grids]
    no_prompt = [np.array([prompt and not item["prompt"] for item in grid.items], np.bool_) for grid in grids]
    rows = [~(gap.any(axis=1) | no) for gap, no in zip(gaps, no_prompt, strict=True)]
    columns = ~np.logical_or.reduce([gap.any(axis=0) for gap in gaps])
    total, kept = sum(map(len, rows)), int(sum(row.sum() for row in rows))
    if kept == total and columns.all():
        return list(grids), []
    everyone = np.ones_like(columns)
    if missing == "drop-items" and kept:
        pairs = zip(grids, rows, strict=True)
        whole = [grid.taken(row, everyone) for grid, row in pairs if row.any()]
        lost = [grid.task for grid, row in zip(grids, rows, strict=True) if not row.any()]
        note = f"left out: {total - kept:,} of {total:,} items{_because(grids)}"
        return whole, [note + (f"; nothing is left of {', '.join(lost)}" if lost else "")]
    if missing == "drop-models" and columns.any() and not any(no.any() for no in no_prompt):
        names = [model for model, keep in zip(grids[0].models, columns, strict=True) if not keep]
        whole = [grid.taken(np.ones(len(grid.items), np.bool_), columns) for grid in grids]
        return whole, [f"left out: {len(names):,} of {len(columns):,} models{_because(grids)}: {some(names)}"]
    refusal = _refusal(grids, missing, (kept, total), columns, sum(int(no.sum()) for no in no_prompt))
    raise ConfigError(refusal if missing != "error" else refusal + _other_ways(grids, options))


def _refusal(
    grids: Sequence[Grid], missing: str, items: tuple[int, int], columns: npt.NDArray[np.bool_], no_prompt: int
) -> str:
    parts = []
    for names, unknown in _UNKNOWN.items():
        if by_model := _count(grids, names):
            listed = some([f"{model} {count:,}" for model, count in by_model.most_common()])
            answers = sum(grid.scores.size for grid in grids)
            parts.append(f"{by_model.total():,} of {answers:,} answers have {unknown} ({listed})")
    if no_prompt:
        parts.append(f"{no_prompt:,} items have no text in the lake")
    kept, total = items
    if missing != "error":
        return f"--missing {missing} would leave nothing: {'; '.join(parts)}"
    ways = []
    if kept:
        ways.append(f"drop-items leaves out {total - kept:,} of {total:,} items")
    if columns.any() and not no_prompt:
        ways.append(f"drop-models {int((~columns).sum()):,} of {len(columns):,} models")
    way = f": --missing {', '.join(ways)}" if ways else ": choose other models by --pool, or other tasks by --task"
    return f"{'; '.join(parts)}{way}"


def _other_ways(grids: Sequence[Grid], options: Sequence[str]) -> str:
    priced, counted, timed = (not _count(grids, names) for names in (_COST, _TOKENS, _TIME))
    ways = [
        "" if priced else "; prices.py puts prices into the lake",
        "" if counted or "tokens" not in options else "; --tokens takes the counts of tokens.py",
        "" if (priced and counted) or "accuracy_only" not in options else "; --accuracy-only needs neither",
        "" if timed or "accuracy_only" not in options else "; --accuracy-only needs no time",
    ]
    return "".join(ways)


def _count(grids: Sequence[Grid], names: tuple[str, ...]) -> Counter[str]:
    """Model -> how many of its answers lack one of the numbers `names`, among those that the format needs."""
    unknown: Counter[str] = Counter()
    for grid in grids:
        needed = [np.isnan(grid.numbers[name]) for name in names if name in grid.needs]
        if needed:
            for model, count in zip(grid.models, np.logical_or.reduce(needed).sum(axis=0), strict=True):
                unknown[model] += int(count)
    return +unknown


def _because(grids: Sequence[Grid]) -> str:
    needs = grids[0].needs
    words = [word for names, word in _WORDS.items() if set(names) & set(needs)]
    return f" with an answer of unknown {', '.join(words[:-1])}{' or ' if words[1:] else ''}{words[-1]}"
