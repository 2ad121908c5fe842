"""What an imported cell is: one model on one task, as one run of one source saw it.

Owns the identity of imported cells. Knows nothing of formats or of how records are written.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.items import ItemTable
from collectors.importers.sources import Facts, Source
from collectors.importers.staging import Staging
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from schemas.identity import ShardName, imported_identity
from schemas.records import RUN_CELL


@dataclass(frozen=True)
class ImportedCell:
    """One model on one task, as one source saw it."""

    cell_id: str
    prompting: str
    imported_from: str
    #: Which of the source's runs; '' where it knows one only.
    run: str
    model: str
    source_model: str
    task: str
    facts: Facts
    table: ItemTable

    @classmethod
    def of(
        cls, source: Source, number: int, run: str, model: str, task: str, facts: Facts, table: ItemTable
    ) -> ImportedCell:
        imported_from = source.name if number == 1 else f"{source.name}#{number}"
        name = source.aliases.get(model, model)
        prompted = {
            "source": source.name,
            "task": task,
            "items": table.digest,
            **{
                key: getattr(facts, key)
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
        who = {key: getattr(facts, key) for key in ("revision", "dtype", "quantization", "max_length", "overrides")}
        cell_id = imported_identity({"model": name, **who, "from": imported_from, "prompting": prompting})
        return cls(cell_id, prompting, imported_from, run, name, model, task, facts, table)

    def run_row(self) -> dict[str, Any]:
        """Its row of schemas.records.RUN_CELL, but for the run's id, time and config."""
        facts = self.facts
        known = {name: getattr(facts, name) for name in RUN_CELL.names if hasattr(facts, name)}
        return {
            **known,
            "cell_id": self.cell_id,
            "imported_from": self.imported_from,
            "model": self.model,
            "source": self.source_model,
            "task": self.task,
            "items_digest": self.table.digest,
            "prompting": self.prompting,
            "correct_threshold": facts.threshold,
            "items": max(facts.items or 0, self.table.items),
            "planned_items": self.table.items,
            "generation": 0,
            "engine": None,
            "versions": json.dumps(dict(facts.versions), sort_keys=True),
        }


def number_cells(
    staging: Staging,
    source: Source,
    tables: Mapping[tuple[str, str], ItemTable],
    run_of: Callable[[ImportedCell], str | None],
) -> list[ImportedCell]:
    """Makes the table `cell_numbers` of the trusted verdicts. Returns the cells by number.

    `tables`: (run, task) -> its items. `run_of`: which run the lake's records of a cell are of, None without any. Of
    the runs of one model on one task each is a cell of its own, numbered in their order.
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
        facts = staging.facts.get((run, model, task), staging.default)
        for number in itertools.count(1):
            cell = ImportedCell.of(source, number, run, model, task, facts, table)
            if cell.cell_id not in taken:
                held = run_of(cell)
                taken[cell.cell_id] = run if held is None else held
            if taken[cell.cell_id] == run:
                break
        if cell.cell_id not in numbers:  # two names in the source of one model are one
            numbers[cell.cell_id] = len(cells)
            cells.append(cell)
        of_row.append((run, model, task, numbers[cell.cell_id], facts.threshold, facts.filter, facts.high is not None))
    names = ("run", "model", "task", "cell", "threshold", "filter", "is_ranged")
    types = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.float64(), pa.string(), pa.bool_())
    columns = list(zip(*of_row, strict=True)) or [()] * len(names)
    table_of_cells = {n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)}
    staging.con.register("given", pa.table(table_of_cells))
    staging.con.execute("CREATE TABLE cell_numbers AS FROM given")
    staging.con.unregister("given")
    return cells


def run_in_lake(lake: Lake, there: Mapping[str, list[ShardName]], cell: ImportedCell) -> str | None:
    """Which run of its source the lake's records of a cell are of; None without any. `there`: shards by cell."""
    if cell.cell_id not in there:
        return None
    name = shard_name(cell.task, there[cell.cell_id][0])
    try:
        facts = pq.read_schema(io.BytesIO(lake.read(name))).metadata[b"shard"]
    except FileNotFoundError:  # folded and pruned
        import pyarrow.compute as pc  # 75 ms

        manifest = newest_manifest(lake)
        assert manifest, name
        rows = pq.read_table(io.BytesIO(lake.read(manifest.folded)), columns=["file", "facts"])
        [facts] = rows.filter(pc.equal(rows["file"], name))["facts"].to_pylist()
    return str(json.loads(facts).get("source_run", ""))
