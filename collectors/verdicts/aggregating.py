"""Values of metrics over whole cells by a judge's verdicts: rows of aggregates/ with its judge_id.

As for the records' own verdicts, lm-eval's own aggregation makes them, over the cells that are whole. Knows nothing of
groups of tasks, and nothing of judges that are models: their scores have a mean alone.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from collectors.harness.tasks import BoundTask
from collectors.judging.judges import Judges
from collectors.lake import layout
from collectors.lake.holdings import ever_committed
from collectors.lake.retractions import read_retracted
from collectors.lake.store import Lake
from collectors.runs.aggregates import BOOTSTRAPS, covers_of
from collectors.verdicts.answers import Batch, Source
from schemas.failures import EngineError, TaskError, one_line
from schemas.identity import digest
from schemas.records import AGGREGATE

logger = logging.getLogger(__name__)


def write_aggregates(lake: Lake, include: str, judged: Sequence[tuple[Batch, BoundTask, str]], judges: Judges) -> None:
    """Writes the values of the whole cells of batches that a judge has judged, unless the lake has them.

    `judged` has each batch with its task and judge_id, `include` is as for Source.
    """
    if not judged:
        return
    source = Source(lake, include)  # with the verdicts that were written since
    retracted, ever, there = read_retracted(lake), ever_committed(lake), set(lake.names(layout.AGGREGATES))

    def covers_by_cell(batch: Batch) -> dict[str, str]:
        """Whole cell -> the digest of its shards, as the view aggregates computes it."""
        return {
            cell_id: covers_of(one for one in ever[cell_id] if not retracted.touches(one))
            for cell_id, cell in batch.cells.items()
            if cell_id in ever and not source.item_sets.missing(retracted.without(ever[cell_id]), cell["planned_items"])
        }

    for batch, task, judge_id in judged:
        covers = covers_by_cell(batch)
        name = layout.aggregates_name(f"{judge_id}-{digest(sorted(covers.items()))}")
        if covers and name not in there:
            rows = _rows(source, batch, task, judges, judge_id, covers)
            if rows:
                lake.create_table(name, pa.Table.from_pylist(rows, schema=AGGREGATE))


def _rows(
    source: Source, batch: Batch, task: BoundTask, judges: Judges, judge_id: str, covers: Mapping[str, str]
) -> list[dict[str, Any]]:
    values = _values(source, batch, judge_id)
    rows: list[dict[str, Any]] = []
    for cell_id in sorted(covers.keys() & values.keys()):
        cell = batch.cells[cell_id]
        shared = {
            "task": batch.task,
            "is_group": False,
            "model": cell["model"],
            "cell_id": cell_id,
            "prompting": cell["prompting"],
            "covers": covers[cell_id],
            "computed_at": dt.datetime.now(dt.UTC),
            "judge_id": judge_id,
        }
        try:
            rows += [{**shared, **one._asdict()} for one in judges.aggregate(task, values[cell_id], BOOTSTRAPS)]
        except (TaskError, EngineError) as error:
            logger.warning("cell %s: no aggregates of judge %s: %s", cell_id, judge_id, one_line(error))
    return rows


def _values(source: Source, batch: Batch, judge_id: str) -> Mapping[str, Mapping[str, list[str]]]:
    """Cell -> filter -> JSON of each item's metrics, by item."""
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    rows = [row for of in source.verdicts(batch, judge_id).values() for row in of.values()]
    for row in sorted(rows, key=lambda row: row["item"]):
        if row["repeat"] == 0 and row["metrics"] is not None:
            values[row["cell_id"]][row["filter"]].append(row["metrics"])
    return values
