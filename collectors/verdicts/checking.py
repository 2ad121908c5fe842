"""Derives the verdicts of a lake again from its answers, and names those that differ.

Owns the comparison. It writes nothing. Knows nothing of how a verdict is made (collectors.harness.stored).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.harness.stored import StoredItem, verdict_rows
from collectors.verdicts.answers import Batch, Source
from collectors.verdicts.judging import Choice, Tasks, judge_row
from schemas.failures import RouterlakeError, one_line
from schemas.verdicts import OF_OURS

#: Columns that are compared.
COMPARED = ("score", "correct", "metrics", "filtered", "outcome")
#: Differences that are named one by one.
_NAMED = 1000


@dataclass(frozen=True)
class Difference:
    """A stored verdict that is not the one that follows from its answer."""

    task: str
    cell_id: str
    item: int
    filter: str
    repeat: int
    #: Column -> stored and derived value.
    columns: Mapping[str, tuple[Any, Any]]

    def __str__(self) -> str:
        values = "; ".join(f"{name} {_short(a)}, derived {_short(b)}" for name, (a, b) in self.columns.items())
        repeat = f" repeat {self.repeat}" if self.repeat else ""
        return f"{self.task} cell {self.cell_id} item {self.item} filter {self.filter}{repeat}: {values}"


@dataclass
class Checked:
    """What a check came to."""

    items: int = 0
    rows: int = 0
    #: Items that had no verdict by our fault, then or now: they are not compared.
    unjudged: int = 0
    differing: int = 0
    named: list[Difference] = field(default_factory=list)
    #: Task -> why nothing of it could be derived.
    failed: dict[str, str] = field(default_factory=dict)
    by_task: Counter[str] = field(default_factory=Counter)

    @property
    def is_equal(self) -> bool:
        return not self.differing and not self.failed

    def add(self, difference: Difference) -> None:
        self.differing += 1
        self.by_task[difference.task] += 1
        if len(self.named) < _NAMED:
            self.named.append(difference)


def check(
    source: Source,
    batches: Sequence[Batch],
    tasks: Tasks,
    choice: Choice | None = None,
    progress: Callable[[int, int], None] = lambda done, records: None,
    *,
    in_sandbox: bool = False,
) -> Checked:
    """Checks the records of `batches`; with `choice` the verdicts of that judge, where today's task is still it.

    Records are judged by today's version of lm-eval with each cell's own metric and filter. `in_sandbox` lets tasks
    that run answers do so there. `progress` gets the numbers of records in the batches that are done, and in all.
    """
    checked = Checked()
    own = Choice("", in_sandbox=in_sandbox)
    done, total = 0, sum(batch.rows for batch in batches)
    for batch in batches:
        progress(done, total)
        for one in [batch] if choice else _by_metric(batch):
            try:
                _check(source, one, tasks, choice or own, checked)
            except RouterlakeError as error:
                checked.failed[one.task] = one_line(error)
        done += batch.rows
    return checked


def _by_metric(batch: Batch) -> Iterator[Batch]:
    """Cells of equal metric and filter: these decide the score."""
    keys = sorted({(row["metric"], row["filter"]) for row in batch.cells.values()})
    for key in keys:
        cells = {name: row for name, row in batch.cells.items() if (row["metric"], row["filter"]) == key}
        yield Batch(batch.task, batch.items_digest, batch.decoding, batch.in_sandbox, cells)


def _check(source: Source, batch: Batch, tasks: Tasks, choice: Choice, checked: Checked) -> None:
    if not choice.name:
        cell = next(iter(batch.cells.values()))
        choice = dataclasses.replace(choice, metric=_metric(cell["metric"]), filter=cell["filter"])
    task = tasks.task(source, batch, choice)
    judge_id = judge_row(task, choice.name)["judge_id"] if choice.name else None
    of_judge = source.verdicts(batch, judge_id) if judge_id else {}
    for asked in source.read(batch, verdicts=True):
        kept = of_judge.get(asked.shard)
        if judge_id and kept is None:
            continue
        for one, rows in zip(asked.items, verdict_rows(task, asked.items, tasks.judges.judge), strict=True):
            checked.items += 1
            _compare(task.name, asked.shard.cell_id, one, rows, kept, checked)


def _metric(name: str) -> str | None:
    """pass@1 is a value of the metric pass_at_k, which a task names."""
    return None if name.startswith("pass@") else name


def _compare(
    task: str,
    cell_id: str,
    one: StoredItem,
    rows: Sequence[dict[str, Any]],
    kept: Mapping[tuple[int, str, int], dict[str, Any]] | None,
    checked: Checked,
) -> None:
    for row in rows:
        key = row["filter"], row["repeat"]
        stored = one.rows.get(key) if kept is None else kept.get((one.item, *key))
        if stored is None:  # the task has a filter more than then
            continue
        checked.rows += 1
        if row["outcome"] in OF_OURS or stored["outcome"] in OF_OURS:
            checked.unjudged += 1
            continue
        names = (*COMPARED, "answer") if kept is not None else COMPARED
        differs = {name: (stored[name], row[name]) for name in names if not _equal(name, stored[name], row[name])}
        if differs:
            checked.add(Difference(task, cell_id, one.item, *key, differs))


def _equal(name: str, stored: Any, derived: Any) -> bool:
    if stored == derived:
        return True
    if name == "score" and isinstance(stored, float) and isinstance(derived, float):
        return math.isclose(stored, derived, rel_tol=1e-9)
    if name == "metrics" and stored is not None and derived is not None:  # equal is 1e-9, as in all of lm-eval's values
        return _alike(json.loads(stored), json.loads(derived))
    return False


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float | int) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-9)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
