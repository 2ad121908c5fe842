"""Values of metrics over whole cells and groups of tasks, by lm-eval's own aggregation: the rows of aggregates/.

A worker computes them for a cell that it collected in one shard, and the driver for all others, once they are whole. A
run writes them as one object. Owns these rows, and the digest of the shards that they cover.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.holdings import ever_committed
from collectors.lake.item_sets import ItemSets
from collectors.lake.reading import ask
from collectors.lake.retractions import read_retracted
from collectors.lake.store import Lake
from collectors.runs.plan import Plan, PlannedCell
from schemas.failures import JUDGE_DIED, JUDGE_TIMEOUT, EngineError, StorageError, TaskError, one_line
from schemas.identity import ShardName, digest
from schemas.records import AGGREGATE
from schemas.versions import with_columns

if TYPE_CHECKING:
    from collectors.harness.tasks import BoundTask
    from collectors.judging.judges import Judges
    from collectors.runs.work import Cell

logger = logging.getLogger(__name__)

#: Resamples behind a standard error that no formula gives. lm-eval's 100,000 take minutes for each cell, and change the
#: second digit of the error.
BOOTSTRAPS = 1000

#: Problems of a machine, not of a task: such a value is computed again.
PASSING = (JUDGE_TIMEOUT, JUDGE_DIED)
#: Cells between two lines of the log.
PROGRESS_CELLS = 500

_READ = ["item", "filter", "repeat", "metrics"]


def covers_of(shards: Iterable[ShardName]) -> str:
    """The digest of the shards behind a value, as the view aggregates computes it."""
    return _md5(",".join(sorted(map(str, shards))))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def cell_rows(
    names: Mapping[str, str], task: BoundTask, judges: Judges, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns a row of AGGREGATE for each metric and filter of a whole cell.

    `names` are its columns model, cell_id, prompting and covers, and judge_id of a judge's verdicts. `rows` are its
    records or verdicts, by item. Raises TaskError or EngineError if the task's own aggregation cannot be run.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["repeat"] == 0 and row["metrics"] is not None:
            values[row["filter"]].append(row["metrics"])
    shared = {**names, "task": task.name, "is_group": False, "computed_at": dt.datetime.now(dt.UTC)}
    return [{**shared, **one._asdict()} for one in judges.aggregate(task, values, BOOTSTRAPS)]


def rows_of_records(
    cell: Cell, task: BoundTask, judges: Judges, records: pa.Table, covers: str
) -> list[dict[str, Any]]:
    """The same of a collected cell's records, by item."""
    names = {"model": cell.model.name, "cell_id": cell.cell_id, "prompting": cell.prompting, "covers": covers}
    return cell_rows(names, task, judges, records.select(_READ).to_pylist())


def read_aggregates(lake: Lake, name: str) -> pa.Table:
    """Reads an object of aggregates/, with null for the columns that an older one lacks.

    A damaged one is named in the log and has no rows: its values are computed again.
    """
    try:
        table = pq.read_table(io.BytesIO(lake.read(name)), page_checksum_verification=True)
        return with_columns(table, AGGREGATE).cast(AGGREGATE)
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s cannot be read: %s", name, one_line(error))
        return AGGREGATE.empty_table()


class Aggregator:
    """Completes aggregates/ after a run: for the whole cells of its plan, and for groups of whole cells."""

    def __init__(self, plan: Plan, lake: Lake, judges: Judges) -> None:
        self.plan, self.lake, self.judges = plan, lake, judges
        self.item_sets = ItemSets(lake)
        #: (cell id, covers) -> its rows, of this run and of earlier ones.
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        #: The whole cells in which no item has a verdict.
        self.unanswered: list[PlannedCell] = []
        #: Values of groups that are in the lake: see _group_key.
        self._groups: set[tuple[str, ...]] = set()

    def complete(self, reported: Sequence[dict[str, Any]]) -> int:
        """Writes the rows that the lake lacks, `reported` by workers or computed here. Returns their number.

        A cell that cannot be aggregated is named in the log. Raises StorageError if the lake cannot be read or written.
        """
        self._read()
        retracted = read_retracted(self.lake)
        ever = ever_committed(self.lake)
        # No value covers items that were forgotten: the view leaves out these shards, too.
        shards = {cell_id: [one for one in names if not retracted.touches(one)] for cell_id, names in ever.items()}
        whole = {
            planned.cell.cell_id: planned
            for planned in self.plan.cells
            if not self.item_sets.missing(retracted.without(ever.get(planned.cell.cell_id, [])), planned.cell.items)
        }
        covers = {cell_id: covers_of(shards[cell_id]) for cell_id in whole}
        new = []
        for row in reported:
            if covers.get(row["cell_id"]) == row["covers"] and (row["cell_id"], row["covers"]) not in self._rows:
                new.append(row)
        for row in new:
            self._rows[row["cell_id"], row["covers"]].append(row)
        todo = [cell_id for cell_id in whole if (cell_id, covers[cell_id]) not in self._rows]
        for number, cell_id in enumerate(todo):
            if len(todo) >= PROGRESS_CELLS and number % PROGRESS_CELLS == 0:
                logger.info("metrics over all items: cell %d of %d", number + 1, len(todo))
            rows = self._computed(whole[cell_id], shards[cell_id], covers[cell_id])
            self._rows[cell_id, covers[cell_id]] += rows
            new += rows
        new += self._of_groups(covers)
        if new:
            table = pa.Table.from_pylist(new, schema=AGGREGATE)
            self.lake.create_table(layout.aggregates_name(self.plan.run_id), table)
        return len(new)

    def _read(self) -> None:
        import pyarrow.compute as pc  # 75 ms

        planned = pa.array([planned.cell.cell_id for planned in self.plan.cells], pa.string())
        for name in self.lake.names(layout.AGGREGATES):
            if not layout.is_of_table(layout.AGGREGATES, name):
                continue
            table = read_aggregates(self.lake, name)
            table = table.filter(pc.is_null(table["judge_id"]))  # others are of verdicts of judge.py
            of_plan = pc.is_in(table["cell_id"], value_set=planned)
            for row in table.filter(pc.or_(of_plan, table["is_group"])).to_pylist():
                if row["is_group"]:
                    self._groups.add(_group_key(row))
                elif row["problem"] not in PASSING:
                    self._rows[row["cell_id"], row["covers"]].append(row)

    # ---- cells

    def _computed(self, planned: PlannedCell, shards: Sequence[ShardName], covers: str) -> list[dict[str, Any]]:
        cell = planned.cell
        task = self.plan.tasks[cell.prompting]
        records = self._records(cell, shards)
        if records["metrics"].null_count == len(records):
            self.unanswered.append(planned)
            return []
        try:
            self.judges.plan(task, cell.group, start=False)
            return rows_of_records(cell, task, self.judges, records, covers)
        except (TaskError, EngineError) as error:
            logger.warning("cell %s (%s, %s): no aggregates: %s", cell.cell_id, cell.model.name, task.name, error)
            return []

    def _records(self, cell: Cell, shards: Sequence[ShardName]) -> pa.Table:
        """The rows of a cell by item, each from the shard that owns it; or by the views, where items were forgotten."""
        try:
            if self.item_sets.missing(shards, cell.items):
                raise FileNotFoundError
            tables, taken = [], set[int]()
            for shard in sorted(shards, key=lambda one: (-one.generation, str(one))):
                name = layout.shard_name(cell.spec.task, shard)
                table = pq.read_table(io.BytesIO(self.lake.read(name)), columns=_READ)
                items = table["item"].to_pylist()
                tables.append(table.filter(pa.array([item not in taken for item in items], pa.bool_())))
                taken.update(items)
            return pa.concat_tables(tables).sort_by("item")
        except FileNotFoundError:  # a compaction holds it, and it was pruned
            query = f"SELECT {', '.join(_READ)} FROM records WHERE cell_id = ? ORDER BY item"
            return ask(self.lake, lambda con, _: con.execute(query, [cell.cell_id]).to_arrow_table(), only=["records"])
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StorageError(f"cell {cell.cell_id}: a shard cannot be read: {one_line(error)}") from error

    # ---- groups

    def _of_groups(self, covers: Mapping[str, str]) -> list[dict[str, Any]]:
        new = []
        for named, groups in self.plan.groups.items():
            by_model: dict[tuple[str, str], dict[str, PlannedCell]] = defaultdict(dict)
            for planned in self.plan.cells:
                if planned.cell.group == named and not planned.cell.spec.repeats:
                    model = planned.cell.model  # one folder may have two names, and then one key
                    by_model[model.name, model.key][planned.cell.spec.task] = planned
            for cells in by_model.values():
                for group in groups:
                    tasks = sorted({task.task_name for task in group.get_all_tasks()})
                    members = [cells[task] for task in tasks if task in cells and cells[task].cell.cell_id in covers]
                    if tasks and len(members) == len(tasks):
                        new += self._of_group(group, members, covers)
        return new

    def _of_group(self, group: Any, members: list[PlannedCell], covers: Mapping[str, str]) -> list[dict[str, Any]]:
        """Returns the rows of one group for one model, by lm-eval's own Group.aggregate."""
        cells = sorted(planned.cell.cell_id for planned in members)
        digest_of_all = _md5(",".join(f"{cell_id}:{covers[cell_id]}" for cell_id in cells))
        rows = {planned.cell.spec.task: self._rows[c, covers[c]] for planned in members if (c := planned.cell.cell_id)}
        if not all(rows.values()):
            return []
        try:
            found = group.aggregate({task: as_lm_eval(task, of_task) for task, of_task in rows.items()})
        except (ArithmeticError, TypeError, ValueError) as error:  # a group of tasks of one item has no error to pool
            logger.warning("group %s: no aggregates: %s", group.name, one_line(error))
            return []
        counts = found.get("sample_count", {})
        directions = {(row["metric"], row["filter"]): row["higher_is_better"] for of in rows.values() for row in of}
        weighted = {one.metric: one.weight_by_size for one in group.aggregate_metric_list or ()}
        shared = {
            "task": group.name,
            "is_group": True,
            "model": members[0].cell.model.name,
            "members": cells,
            "prompting": digest(sorted(planned.cell.prompting for planned in members)),
            "covers": digest_of_all,
            "computed_at": dt.datetime.now(dt.UTC),
        }
        named = sorted(weighted, key=len, reverse=True)
        new = [
            {
                **shared,
                "metric": metric,
                "filter": name,
                "aggregation": "mean of items" if weighted.get(metric, True) else "mean of tasks",
                "higher_is_better": directions.get((metric, name), True),
                "value": float(found[key]),
                "stderr": _number(found.get(f"{metric}_stderr,{name}")),
                "items": items,
            }
            for key, items in counts.items()
            for metric in [next(metric for metric in named if key.startswith(f"{metric},"))]
            for name in [key[len(metric) + 1 :]]
        ]
        return new if any(_group_key(row) not in self._groups for row in new) else []


def _group_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a value of a group: its shards, and how the group makes it, because a group's file may change."""
    return tuple(str(row[name]) for name in ("task", "covers", "metric", "filter", "aggregation"))


def as_lm_eval(task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of a cell as lm-eval's results of a task. Metrics without a value are left out."""
    results: dict[str, Any] = {"name": task, "alias": task, "sample_len": max(row["items"] for row in rows)}
    for row in rows:
        if row["value"] is not None:
            results[f"{row['metric']},{row['filter']}"] = row["value"]
            error = row["stderr"]
            results[f"{row['metric']}_stderr,{row['filter']}"] = "N/A" if error is None else error
    return results


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, float | int) else None
