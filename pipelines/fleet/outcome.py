"""The outcome of a run: open items, failed cells, and seconds by stage.

Owns the counts, the failures written to the lake, and the listeners' events. Knows nothing of Ray, workers or the order
of work.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from collectors.engines import ModelRef
from collectors.lake.failure_rows import failure_row, write_failure
from collectors.lake.store import Lake
from collectors.runs.listeners import Listener
from collectors.runs.log_lines import about
from collectors.runs.plan import Plan, PlannedCell
from collectors.runs.quarantine import LASTING, mark
from collectors.runs.work import Cell, ShardReport
from pipelines.fleet.workqueue import Job
from schemas.failures import RouterlakeError, one_line

logger = logging.getLogger(__name__)


class Outcome:
    """Counts down from the plan's open cells. `write` calls its argument until the store accepts the write."""

    def __init__(
        self, plan: Plan, lake: Lake, listeners: Sequence[Listener], write: Callable[[Callable[[], None]], None]
    ) -> None:
        self._plan, self._lake, self._listeners, self._write = plan, lake, listeners, write
        #: Cell id -> items to collect.
        self._left = {cell.cell.cell_id: cell.items_todo for cell in plan.cells if cell.todo}
        #: Cells that got more items after they were complete.
        self._reopened = set[str]()
        #: Cell id -> message of its failure.
        self.failed: dict[str, str] = {}
        #: Stage -> seconds over all shards (collectors.runs.stages.STAGES).
        self.stages: defaultdict[str, float] = defaultdict(float)
        #: Rows of schemas.records.AGGREGATE that workers computed.
        self.aggregates: list[dict[str, Any]] = []
        #: Items of the plan that other runs committed since.
        self.elsewhere = 0
        #: A sentence about the budget that was spent while work was left, else None.
        self.stopped: str | None = None

    @property
    def left(self) -> dict[str, int]:
        """Cell id -> open items, for cells that are neither whole nor failed."""
        return {cell: items for cell, items in self._left.items() if items and cell not in self.failed}

    def is_moot(self, job: Job) -> bool:
        """Whether the job's cell has failed since the job was handed out."""
        return job.planned.cell.cell_id in self.failed

    def done(self, job: Job, report: ShardReport) -> bool:
        """Counts a shard that is in the lake. Returns True if that completes its cell for the first time in the run."""
        cell, items = job.planned.cell, job.last - job.first + 1
        self.stages["prefill"] += report.stages.get("prefill", 0.0)
        for stage, start, end in report.spans:  # report.stages counts the writing of another shard
            self.stages[stage] += end - start
        self.aggregates += report.aggregates
        is_whole = self._completes(cell, items)
        for listener in self._listeners:
            listener.on_done(cell, report, items, last=is_whole)
        logger.debug("cell %s %s: shard %s %s", cell.cell_id, cell.spec.task, job.shard, report)
        return is_whole and cell.cell_id not in self._reopened

    def done_elsewhere(self, cell: Cell, items: int) -> None:
        """Counts open items of a cell that another run has committed."""
        self.elsewhere += items
        is_whole = self._completes(cell, items)
        for listener in self._listeners:
            listener.on_done_elsewhere(cell, items, last=is_whole)

    def _completes(self, cell: Cell, items: int) -> bool:
        """Counts items as done. Returns True if no open item of the cell is left."""
        self._left[cell.cell_id] -= items
        return not self._left[cell.cell_id]

    def reopen(self, planned: PlannedCell) -> None:
        """Adds the open items of a cell of which none was left."""
        cell_id, is_new = planned.cell.cell_id, planned.cell.cell_id not in self._left
        if not is_new:
            self._reopened.add(cell_id)
        self._left[cell_id] = planned.items_todo
        for listener in self._listeners:
            listener.on_more(planned.items_todo, is_new=is_new)

    def open_cells(self, model: ModelRef) -> list[PlannedCell]:
        """The cells of a model that are neither whole nor failed."""
        own = [cell for cell in self._plan.cells if cell.cell.model.key == model.key]
        return [c for c in own if self._left.get(c.cell.cell_id) and c.cell.cell_id not in self.failed]

    def give_up(self, planned: PlannedCell, job: Job | None, error: BaseException) -> None:
        """Counts a cell as failed and writes the failure into the lake. `job` is the failed shard if this cell has it.

        Raises UnreachableError if the store does not accept the write in time.
        """
        cell = planned.cell
        self.failed[cell.cell_id] = one_line(error)
        place = {"first_item": job.shard.first, "last_item": job.shard.last} if job else {}
        row = failure_row(
            self._plan.run_id, error, model=cell.model.name, task=cell.spec.task, cell_id=cell.cell_id, **place
        )
        for listener in self._listeners:
            listener.on_failed(cell, row["kind"], row["message"], self._left[cell.cell_id])
        name = None
        if job and row["kind"] in LASTING:
            name = mark(cell.model, job.shard, row)
        self._write(lambda: write_failure(self._lake, row, name))
        log = logger.error if isinstance(error, RouterlakeError) else logger.exception
        with about(cell):  # not always the caller's cell: all cells of a model may fail at once
            log("cell %s (%s, %s) failed: %s", cell.cell_id, cell.model.name, cell.spec.task, row["message"])
