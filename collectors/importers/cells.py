"""Imported cells: one model on one task, as one run of one source judged it.

Owns the identity of imported cells. Knows nothing of formats or of how records are written.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.items import ItemTable
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import shard_name
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.identity import ShardName, imported_identity
from schemas.records import RUN_CELL
from schemas.texts import without_keys


@dataclass(frozen=True)
class ImportedCell:
    """One model on one task, as one source judged it."""

    cell_id: str
    prompting: str
    imported_from: str
    #: Which of the source's runs, as its rows have it; '' where it has only one, and where it is the source's own.
    run: str
    #: The run's name in the lake: by it the source's own run differs from an earlier import's.
    run_name: str
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
        run_name: str,
        model: str,
        task: str,
        description: CellDescription,
        table: ItemTable,
    ) -> ImportedCell:
        imported_from = source.name if number == 1 else f"{source.name}#{number}"
        name = without_keys(source.aliases.get(model, model))
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
        return cls(cell_id, prompting, imported_from, run, run_name, name, model, task, description, table)

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
    run_of: Callable[[ImportedCell, Collection[int]], str | None],
) -> list[ImportedCell]:
    """Makes the table `cell_numbers` of the trusted verdicts. Returns the cells by number.

    `tables`: (run, task) -> its items. `run_of` takes a cell and the numbers of its files, and returns the run of the
    records that a lake has of it, None without any. Each run of one model on one task is a cell of its own; they are
    numbered in their order.
    """
    rows = staging.con.execute(
        "SELECT run, model, task, list(DISTINCT file) FROM groups WHERE reason IS NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    cells: list[ImportedCell] = []
    numbers: dict[str, int] = {}
    taken: dict[str, str] = {}
    of_row = []
    for run, model, task, files in rows:
        table = tables.get((run, task))
        name = staging.run_names.get((run, model, task), run)
        if table is None:  # all its items were rejected
            continue
        description = staging.descriptions.get((run, model, task), staging.default)
        for number in itertools.count(1):
            cell = ImportedCell.of(source, number, run, name, model, task, description, table)
            if cell.cell_id not in taken:
                held = run_of(cell, files)
                taken[cell.cell_id] = name if held is None else held
            elif not taken[cell.cell_id] and run_of(cell, files) == name:  # of an earlier program, without a name
                taken[cell.cell_id] = name
            if taken[cell.cell_id] == name:
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

    def __init__(self, lake: Lake, shards: Mapping[str, list[ShardName]], files: Sequence[str | None]) -> None:
        """`shards`: those of the lake by cell. `files`: SHA-256 of each file of the import."""
        self.lake, self.shards, self.files = lake, shards, files

    def run_of(self, cell: ImportedCell, files: Collection[int]) -> str | None:
        """The run of the lake's records of a cell, which is read from `files`; None if it has none."""
        if cell.cell_id not in self.shards:
            return None
        name = shard_name(cell.task, self.shards[cell.cell_id][0])
        try:
            metadata = pq.read_schema(io.BytesIO(self.lake.read(name))).metadata[b"shard"]
        except FileNotFoundError:  # folded and pruned
            metadata = self._folded[name]
        run = str(json.loads(metadata).get("source_run", ""))
        if not run and cell.run_name and self._is_of(cell, {self.files[file] for file in files}):
            return cell.run_name
        return run

    def _is_of(self, cell: ImportedCell, files: Collection[str | None]) -> bool:
        """Whether the records of a cell come from `files`: imports by earlier programs gave many runs no name."""
        query = "SELECT DISTINCT source_file FROM records WHERE cell_id = ?"
        rows = ask(self.lake, lambda con, _: con.execute(query, [cell.cell_id]).fetchall(), only=["records"])
        return any(file in files for (file,) in rows)

    @functools.cached_property
    def _folded(self) -> dict[str, str]:
        """Name of a folded shard -> its metadata."""
        manifest = newest_manifest(self.lake)
        assert manifest
        rows = pq.read_table(
            io.BytesIO(self.lake.read(manifest.folded)), columns=["file", "facts"], page_checksum_verification=True
        )
        return dict(zip(rows["file"].to_pylist(), rows["facts"].to_pylist(), strict=True))
