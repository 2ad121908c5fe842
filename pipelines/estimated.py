"""What a dry run prints of tokens, hours and dollars: a row per class of models, and what the numbers rest on."""

from __future__ import annotations

from collectors.estimate import Row, estimate
from collectors.lake import Lake
from collectors.planning import Plan


def print_estimate(plan: Plan, lake: Lake) -> None:
    """What is left to do of `plan`. A row's ? is unknown; + ? in the sum: there are rows of which it is unknown."""
    if not plan.items_todo:
        return
    found = estimate(plan, lake)
    rows = [_cells(row) for row in [*found.rows, found.total]]
    for column, values in ((-2, [row.hours for row in found.rows]), (-1, [row.usd for row in found.rows])):
        if None in values and any(value is not None for value in values):
            rows[-1][column] += " + ?"
    hours = "GPU-hours" if plan.gpus else "hours"
    rows.insert(0, ["parameters", "on", "models", "cells", "measured", "tokens", hours, "USD"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("\nwhat is left takes, as far as is known:\n")
    for row in rows:
        left, right = zip(row[:2], widths, strict=False), zip(row[2:], widths[2:], strict=True)
        print("  " + "  ".join([*(t.ljust(w) for t, w in left), *(t.rjust(w) for t, w in right)]))
    print()
    for assumption in found.assumptions:
        print(f"  {assumption}")


def _cells(row: Row) -> list[str]:
    counts = (f"{number:,}" for number in (row.models, row.cells, row.measured))
    return [row.tier, row.place, *counts, short(row.tokens), _number(row.hours), _number(row.usd)]


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short(number: float) -> str:
    """12,345,678 as 12.3M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"
