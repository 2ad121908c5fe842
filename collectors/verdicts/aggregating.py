"""Values of metrics over whole cells by a judge's verdicts: rows of aggregates/ with its judge_id.

As for the records' own verdicts, lm-eval's own aggregation makes them, over the cells that are whole. Knows nothing of
groups of tasks (groups.py), and nothing of judges that are models: their scores have a mean alone.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from collectors.harness.tasks import BoundTask
from collectors.judging.judges import Judges
from collectors.lake import layout
from collectors.lake.store import Lake
from collectors.runs.aggregates import PASSING, cell_rows, covers_of, read_aggregates
from collectors.verdicts.answers import Batch, Source
from schemas.failures import NOT_JUDGED, EngineError, TaskError, one_line
from schemas.identity import digest
from schemas.records import AGGREGATE

logger = logging.getLogger(__name__)


def write_aggregates(
    lake: Lake, source: Source, judged: Iterable[tuple[Batch, BoundTask, str]], judges: Judges
) -> None:
    """Writes the values of the whole cells of batches that a judge has judged, of each cell that lacks them.

    `judged` has each batch with its task and judge_id. `source` lists the lake with all of its verdicts.
    """
    for batch, task, judge_id in judged:
        covers = _covers_by_cell(source, batch)
        stored = _stored(source, judge_id)
        todo = {cell_id: covered for cell_id, covered in covers.items() if (cell_id, covered) not in stored}
        rows = _rows(source, batch, task, judges, judge_id, todo) if todo else []
        if rows:
            written = sorted({(row["cell_id"], row["covers"]) for row in rows})
            name = layout.judged_aggregates_name(judge_id, digest(written))
            lake.create_table(name, pa.Table.from_pylist(rows, schema=AGGREGATE))


def _covers_by_cell(source: Source, batch: Batch) -> dict[str, str]:
    """Whole cell -> the digest of its shards, as the view aggregates computes it."""
    return {
        cell_id: covers_of(one for one in source.ever[cell_id] if not source.retracted.touches(one))
        for cell_id, cell in batch.cells.items()
        if cell_id in source.shards and not source.item_sets.missing(source.shards[cell_id], cell["planned_items"])
    }


def _stored(source: Source, judge_id: str) -> set[tuple[str, str]]:
    """Cell and covers of the judge's values in the lake."""
    names = [n for n in source.holdings.listed[layout.AGGREGATES] if layout.is_of_judge(n, judge_id)]
    return {key for name in names for key in _keys_of(source.lake.uri, name)}


@functools.lru_cache(maxsize=10_000)
def _keys_of(uri: str, name: str) -> frozenset[tuple[str, str]]:
    """Read once in a process, because each part of its work asks for all objects of a judge, and none ever changes."""
    rows = read_aggregates(Lake(uri, is_open=True), name)
    return frozenset((row["cell_id"], row["covers"]) for row in rows.to_pylist() if row["problem"] not in PASSING)


def _rows(
    source: Source, batch: Batch, task: BoundTask, judges: Judges, judge_id: str, covers: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The rows of the cells in `covers`.

    A cell whose verdicts are not whole, or whose values fail in passing, is named in the log and has none: a later call
    computes them.
    """
    cells = {cell_id: batch.cells[cell_id] for cell_id in sorted(covers)}
    verdicts = _verdicts_by_cell(source, dataclasses.replace(batch, cells=cells), judge_id)
    rows: list[dict[str, Any]] = []
    for cell_id, cell in cells.items():
        names = {"model": cell["model"], "cell_id": cell_id, "prompting": cell["prompting"]}
        names |= {"covers": covers[cell_id], "judge_id": judge_id}
        try:
            judged = len({row["item"] for row in verdicts[cell_id]})
            if judged != cell["planned_items"]:
                raise EngineError(f"{judged:,} of {cell['planned_items']:,} items have a verdict", NOT_JUDGED)
            new = cell_rows(names, task, judges, verdicts[cell_id])
            if problem := next((row["problem"] for row in new if row["problem"] in PASSING), None):
                raise EngineError("its values fail in passing", problem)
            rows += new
        except (TaskError, EngineError) as error:
            logger.warning("cell %s: no aggregates of judge %s: %s", cell_id, judge_id, one_line(error))
    return rows


def _verdicts_by_cell(source: Source, batch: Batch, judge_id: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Cell -> the rows of its verdicts, by item."""
    rows = [row for of in source.verdicts(batch, judge_id).values() for row in of.values()]
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["item"]):
        found[row["cell_id"]].append(row)
    return found
