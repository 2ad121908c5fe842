"""Prints a dry run's estimate: tokens, hours and dollars for each class of models, and its assumptions."""

from __future__ import annotations

import os

from collectors.forecasts.choice import FEWEST_MODELS
from collectors.forecasts.expecting import SAMPLING, SHARES
from collectors.lake.store import Lake
from collectors.models.placement import ModelSize
from collectors.models.sizes import sizes_of
from collectors.runs.adapting import tables_of
from collectors.runs.estimate import Estimator, Row
from collectors.runs.learned import answered
from collectors.runs.plan import Plan


def print_estimate(plan: Plan, lake: Lake) -> None:
    """Prints the estimate of the plan's open items. A ? is an unknown value, "+ ?" a sum without its unknown rows."""
    if not plan.items_todo:
        return
    estimator = Estimator(plan, lake)
    estimated = estimator.run()
    rows = [_cells(row) for row in [*estimated.rows, estimated.total]]
    for column, values in ((-2, [row.hours for row in estimated.rows]), (-1, [row.usd for row in estimated.rows])):
        if None in values and any(value is not None for value in values):
            rows[-1][column] += " + ?"
    hours = "GPU-hours" if plan.gpus else "hours"
    rows.insert(0, ["parameters", "on", "models", "cells", "measured", "tokens", hours, "USD"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("\nestimate for the open items (? is unknown):\n")
    for row in rows:
        left, right = zip(row[:2], widths, strict=False), zip(row[2:], widths[2:], strict=True)
        print("  " + "  ".join([*(t.ljust(w) for t, w in left), *(t.rjust(w) for t, w in right)]))
    print()
    for assumption in estimated.assumptions:
        print(f"  {assumption}")
    for line in too_large(plan, lake):
        print(f"  {line}")
    if repeats := estimator.of_repeats():
        costs = f"{short(repeats.tokens)} tokens, {_number(repeats.hours)} {hours}, {_number(repeats.usd)} USD"
        print(f"  repeats add {repeats.items:,} items in {repeats.cells:,} cells: {costs}")
    for line in shares_shown(plan, lake, estimator):
        print(line)


def shares_shown(plan: Plan, lake: Lake, estimator: Estimator) -> list[str]:
    """A table of the cost of a part of the items, with the error to expect of the models' means. Nothing where repeats
    alone are open."""
    if not any(cell.todo for cell in plan.cells if not cell.cell.spec.repeats):
        return []
    read = answered(lake, tables_of(plan))
    rows = [["of the items", "items", "GPU-hours" if plan.gpus else "hours", "USD", "error to expect", "90 % within"]]
    errors = read.expected(SHARES)
    for row, error in zip(estimator.of_shares(SHARES), errors, strict=True):
        points = [f"{100 * value:.1f} points" for value in (error.of_mean, error.band)]
        rows.append([f"{error.share:.0%}", f"{row.items:,}", _number(row.hours), _number(row.usd), *points])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    how = f"forecasts by {read.complete} complete models, held out by families"
    if errors[0].method == SAMPLING:
        how = f"no forecast: it needs {FEWEST_MODELS} complete models of several families; the error is that of a "
        how += "random sample"
    apart = ", without repeats" if any(cell.cell.spec.repeats for cell in plan.cells) else ""
    return [
        "",
        f"a part of the items (sample: {{share: …}}{apart}); errors are of each model's mean over the tasks:",
        "",
        *lines,
        f"  {how}",
    ]


def too_large(plan: Plan, lake: Lake, memory: int | None = None) -> list[str]:
    """A line for each model whose weights do not fit into this machine's memory, where the plan uses no GPU."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if memory is None else memory
    if plan.gpus or plan.config.fleet.address:
        return []
    models = dict.fromkeys(cell.cell.model for cell in plan.cells if cell.todo)
    sizes = ((model, size) for model, size in sizes_of(lake, models, far=False) if isinstance(size, ModelSize))
    return [
        f"{model.name}: its weights take {size.weight_bytes / 2**30:,.0f} GiB, and this machine has "
        f"{memory / 2**30:,.0f} GiB of memory: it does not fit here"
        for model, size in sizes
        if size.weight_bytes and size.weight_bytes > memory
    ]


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
