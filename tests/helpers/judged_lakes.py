"""A lake that the stub collected from two real tasks, in this process, for tests of judging again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.harness.loading import use_datasets
from collectors.lake.store import Lake, parquet_bytes
from collectors.runs.collector import Collector
from collectors.runs.config import RunConfig
from collectors.runs.planning import make_plan
from tests.helpers.runs import CHOICE, DATA, TEXT

#: Items of each task.
ITEMS = 8


def collected_lake(folder: Path, **changes: Any) -> Lake:
    """Two models × a task with choices and one with texts and two filters, of ITEMS items, in two shards a cell."""
    use_datasets(str(DATA))
    lake = Lake(str(folder)).open_for_writing()
    keys = {"models": ["stub/a", "stub/b"], "tasks": [CHOICE, TEXT], "engine": {"name": "stub"}, "limit": ITEMS}
    config = RunConfig.model_validate({**keys, "datasets": str(DATA), **changes})
    plan = make_plan(config, lake)
    plan.write(lake)
    worker = Collector(plan.run_id, lake.uri, "stub", {}, list(config.include_tasks))
    for planned in plan.cells:
        for first, last in planned.todo:
            for cut in ((first, last // 2), (last // 2 + 1, last)):
                worker.collect(planned.cell, *cut)
    worker._judges.close()
    return lake


def shards_of(lake: Lake, task: str) -> list[str]:
    return [name for name in lake.names("shards") if f"task={task}/" in name and "schema" not in name]


def rewrite(lake: Lake, name: str, **columns: Any) -> None:
    """Changes columns of an object's first row, as somebody does who seals it anew."""
    path = Path(lake.root, name)
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0] |= columns
    path.write_bytes(parquet_bytes(pa.Table.from_pylist(rows, schema=table.schema), name=name))
