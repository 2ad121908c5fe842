"""Imported cells: one model on one task, as one run of one source judged it.

Owns the identity of imported cells. Knows nothing of formats or of how records are written.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.items import ItemTable
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from schemas.identity import ShardName, imported_identity
from schemas.records import RUN_CELL


@dataclass(frozen=True)
class ImportedCell:
    """One model on one task, as one source judged it."""

    cell_id: str
    prompting: str
    imported_from: str
    #: Which of the source's runs; '' where it has only one.
    run: str
    model: str
    source_model: str
    task: str
    description: CellDescription
    table: ItemTable

    @classmethod
    def of(
        cls,
        source: ImportSource,
        number: int,
        run: str,
        model: str,
        task: str,
        description: CellDescription,
        table: ItemTable,
    ) -> ImportedCell:
        imported_from = source.name if number == 1 else f"{source.name}#{number}"
        name = source.aliases.get(model, model)
        prompted = {
            "source": source.name,
            "task": task,
            "items": table.digest,
            **{
                key: getattr(description, key)
                for key in (
                    "metric",
                    "filter",
                    "threshold",
                    "higher_is_better",
                    "task_version",
                    "task_digest",
                    "output_type",
                    "num_fewshot",
                    "fewshot_seed",
                    "chat_template",
                    "fewshot_as_multiturn",
                    "system_prompt",
                    "decoding",
                )
            },
        }
        prompting = imported_identity(prompted)
        who = {
            key: getattr(description, key) for key in ("revision", "dtype", "quantization", "max_length", "overrides")
        }
        cell_id = imported_identity({"model": name, **who, "from": imported_from, "prompting": prompting})
        return cls(cell_id, prompting, imported_from, run, name, model, task, description, table)

    def run_row(self) -> dict[str, Any]:
        """Its row of schemas.records.RUN_CELL, but for the run's id, time and config."""
        described = {name: value for name, value in vars(self.description).items() if name in RUN_CELL.names}
        return {
            **described,
            "cell_id": self.cell_id,
            "imported_from": self.imported_from,
            "model": self.model,
            "source": self.source_model,
            "task": self.task,
            "items_digest": self.table.digest,
            "prompting": self.prompting,
            "correct_threshold": self.description.threshold,
            "items": max(self.description.items or 0, self.table.items),
            "planned_items": self.table.items,
            "generation": 0,
            "engine": None,
            "versions": json.dumps(dict(self.description.versions), sort_keys=True),
        }


def number_cells(
    staging: Staging,
    source: ImportSource,
    tables: Mapping[tuple[str, str], ItemTable],
    run_of: Callable[[ImportedCell], str | None],
) -> list[ImportedCell]:
    """Makes the table `cell_numbers` of the trusted verdicts. Returns the cells by number.

    `tables`: (run, task) -> its items. `run_of` returns the run of the records that a lake has of a cell, None without
    any. Each run of one model on one task is a cell of its own; they are numbered in their order.
    """
    rows = staging.con.execute(
        "SELECT DISTINCT run, model, task FROM groups WHERE reason IS NULL ORDER BY ALL"
    ).fetchall()
    cells: list[ImportedCell] = []
    numbers: dict[str, int] = {}
    taken: dict[str, str] = {}
    of_row = []
    for run, model, task in rows:
        table = tables.get((run, task))
        if table is None:  # all its items were rejected
            continue
        description = staging.descriptions.get((run, model, task), staging.default)
        for number in itertools.count(1):
            cell = ImportedCell.of(source, number, run, model, task, description, table)
            if cell.cell_id not in taken:
                held = run_of(cell)
                taken[cell.cell_id] = run if held is None else held
            if taken[cell.cell_id] == run:
                break
        if cell.cell_id not in numbers:  # two names in the source of one model are one
            numbers[cell.cell_id] = len(cells)
            cells.append(cell)
        rule = (description.threshold, description.filter, description.high is not None)
        of_row.append((run, model, task, numbers[cell.cell_id], *rule))
    names = ("run", "model", "task", "cell", "threshold", "filter", "is_ranged")
    types = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.float64(), pa.string(), pa.bool_())
    columns = list(zip(*of_row, strict=True)) or [()] * len(names)
    table_of_cells = {n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)}
    staging.con.register("given", pa.table(table_of_cells))
    staging.con.execute("CREATE TABLE cell_numbers AS FROM given")
    staging.con.unregister("given")
    return cells


class LakeRuns:
    """The runs of a source behind the records that a lake had before an import."""

    def __init__(self, lake: Lake, shards: Mapping[str, list[ShardName]]) -> None:
        """`shards`: those of the lake by cell."""
        self.lake, self.shards = lake, shards

    def run_of(self, cell: ImportedCell) -> str | None:
        """The run of the lake's records of a cell; None if it has none."""
        if cell.cell_id not in self.shards:
            return None
        name = shard_name(cell.task, self.shards[cell.cell_id][0])
        try:
            metadata = pq.read_schema(io.BytesIO(self.lake.read(name))).metadata[b"shard"]
        except FileNotFoundError:  # folded and pruned
            metadata = self._folded[name]
        return str(json.loads(metadata).get("source_run", ""))

    @functools.cached_property
    def _folded(self) -> dict[str, str]:
        """Name of a folded shard -> its metadata."""
        manifest = newest_manifest(self.lake)
        assert manifest
        rows = pq.read_table(
            io.BytesIO(self.lake.read(manifest.folded)), columns=["file", "facts"], page_checksum_verification=True
        )
        return dict(zip(rows["file"].to_pylist(), rows["facts"].to_pylist(), strict=True))
