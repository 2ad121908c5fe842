"""What a run makes of its plan: items that are left, cells that are given up, where the time went.

Owns the counts, the failures that go into the lake, and who hears of both. Knows nothing of Ray, workers or the order
of work.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from collectors.cell import ShardReport
from collectors.engines import ModelRef
from collectors.lake import Lake
from collectors.log_lines import about
from collectors.planning import Plan, PlannedCell, failure_row, write_failure
from collectors.quarantine import LASTING, mark
from pipelines.listeners import Listener
from pipelines.workqueue import Job
from schemas.failures import RouterlakeError, one_line
from schemas.identity import ShardName

logger = logging.getLogger(__name__)


class Outcome:
    """Counts from the plan's open cells down. `write` does what it is given once the store takes it."""

    def __init__(
        self, plan: Plan, lake: Lake, listeners: Sequence[Listener], write: Callable[[Callable[[], None]], None]
    ) -> None:
        self._plan, self._lake, self._listeners, self._write = plan, lake, listeners, write
        #: Items to collect, by cell.
        self._left = {cell.cell.cell_id: cell.items_todo for cell in plan.cells if cell.todo}
        #: Cell -> why it was given up.
        self.failed: dict[str, str] = {}
        #: Stage -> seconds over all shards (collectors.stages.STAGES).
        self.stages: defaultdict[str, float] = defaultdict(float)
        #: Which budget was spent while work was left.
        self.stopped: str | None = None

    @property
    def left(self) -> dict[str, int]:
        """Items by cell, of cells that are neither whole nor given up."""
        return {cell: items for cell, items in self._left.items() if items and cell not in self.failed}

    def is_moot(self, job: Job) -> bool:
        """Whether the cell was given up meanwhile."""
        return job.planned.cell.cell_id in self.failed

    def done(self, job: Job, report: ShardReport) -> bool:
        """Counts a shard that is in the lake; whether its cell is whole."""
        cell, items = job.planned.cell, job.last - job.first + 1
        self.stages["prefill"] += report.stages.get("prefill", 0.0)
        for stage, start, end in report.spans:  # of `stages`, the writing is that of another shard
            self.stages[stage] += end - start
        self._left[cell.cell_id] -= items
        is_whole = not self._left[cell.cell_id]
        for listener in self._listeners:
            listener.on_done(cell, report, items, last=is_whole)
        logger.debug("cell %s %s: items %d-%d %s", cell.cell_id, cell.spec.task, job.first, job.last, report)
        return is_whole

    def open_cells(self, model: ModelRef) -> list[PlannedCell]:
        """The cells of a model that are neither whole nor given up."""
        own = [cell for cell in self._plan.cells if cell.cell.model.key == model.key]
        return [c for c in own if self._left.get(c.cell.cell_id) and c.cell.cell_id not in self.failed]

    def give_up(self, planned: PlannedCell, job: Job | None, error: BaseException) -> None:
        """Counts a cell as failed and writes that into the lake; `job`: the shard in hand, if it was one of this cell.

        Raises UnreachableError where the store does not take it in time.
        """
        cell = planned.cell
        self.failed[cell.cell_id] = one_line(error)
        place = {"first_item": job.first, "last_item": job.last} if job else {}
        row = failure_row(
            self._plan.run_id, error, model=cell.model.name, task=cell.spec.task, cell_id=cell.cell_id, **place
        )
        for listener in self._listeners:
            listener.on_failed(cell, row["kind"], row["message"], self._left[cell.cell_id])
        name = None
        if job and row["kind"] in LASTING:
            name = mark(cell.model, ShardName(cell.cell_id, cell.generation, job.first, job.last), row)
        self._write(lambda: write_failure(self._lake, row, name))
        log = logger.error if isinstance(error, RouterlakeError) else logger.exception
        with about(cell):  # it may be another one of a model that failed
            log("cell %s (%s, %s) failed: %s", cell.cell_id, cell.model.name, cell.spec.task, row["message"])
