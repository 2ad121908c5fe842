"""Cells as a plan gives them to a queue of work."""

from __future__ import annotations

from collectors.engines import ModelRef
from collectors.runs.plan import PlannedCell
from collectors.runs.work import Cell
from collectors.specs import TaskSpec


def held(model: str, group: str | None = None) -> ModelRef:
    return ModelRef(name=model, source=model, revision=model, path=None, group=group)


def planned(model: str, task: str, *todo: tuple[int, int], group: str | None = None) -> PlannedCell:
    ref = held(model, group)
    items = max((last + 1 for _, last in todo), default=1)
    cell = Cell(f"{model}-{task}", ref, TaskSpec(task=task), task, f"prompt-{task}", 0, items)
    return PlannedCell(cell, {}, list(todo), 1.0)
