"""One Parquet file, a row for each item that a model was asked: what `datasets.load_dataset` and pandas read.

Owns its columns, which are those of the lake's own schemas. The only format that keeps answers without a score: their
score is null, and their failure gives the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.exporters.grid import Grid, Options
from schemas.records import ITEM, RECORD, RUN_CELL

_OF_ITEM = ("item", "item_hash", "source_key", "prompt", "target", "choices", "subject")
_OF_CELL = ("cell_id", "imported_from", "revision", "dtype", "quantization", "num_fewshot", "chat_template")
_OF_ANSWER = ("score", "failure", "prompt_tokens", "completion_tokens", "cached_tokens", "latency_s")

#: Rows from which on a row group is written: a group costs as much time as a thousand rows.
_GROUP_ROWS = 4096

SCHEMA = pa.schema(
    [
        RECORD.field("task"),
        RUN_CELL.field("items_digest"),
        *[ITEM.field(name) for name in _OF_ITEM],
        RECORD.field("model"),
        *[RUN_CELL.field(name) for name in _OF_CELL],
        RUN_CELL.field("metric"),
        *[RECORD.field(name) for name in _OF_ANSWER],
        pa.field("usd", pa.float64(), metadata={"doc": "cost of the answer by the view costs, USD; null: unknown"}),
        RECORD.field("responses"),
    ]
)


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """Task by task, model by model, in the order of items; items that a model was never asked have no row."""
    unscored = unasked = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as file:
        group: list[pa.Table] = []
        for grid in grids:
            items = _items(grid)
            for column, cell in enumerate(grid.cells):
                unasked += int((~grid.asked[:, column]).sum())
                if cell is not None:
                    group.append(_rows(grid, items, column, cell))
                    unscored += int((np.isnan(grid.scores[:, column]) & grid.asked[:, column]).sum())
                if sum(map(len, group)) >= _GROUP_ROWS:
                    file.write_table(pa.concat_tables(group).combine_chunks())
                    group = []
        if group:
            file.write_table(pa.concat_tables(group).combine_chunks())
    notes = [f"{unscored:,} answers have no score: null, with their failure"] if unscored else []
    return notes + ([f"{unasked:,} items were not asked of a model that others were asked: no row"] if unasked else [])


def _items(grid: Grid) -> pa.Table:
    """The columns of each item of a grid, made once for all its models."""
    return pa.table({name: pa.array([item[name] for item in grid.items], SCHEMA.field(name).type) for name in _OF_ITEM})


def _rows(grid: Grid, items: pa.Table, column: int, cell: dict[str, Any]) -> pa.Table:
    asked = np.flatnonzero(grid.asked[:, column])
    texts = grid.responses[asked, column]
    columns: dict[str, Any] = {
        **dict(zip(_OF_ITEM, (items if len(asked) == len(items) else items.take(asked)).columns, strict=True)),
        **{name: pa.array(values[asked, column], from_pandas=True) for name, values in grid.numbers.items()},
        "failure": pa.array(grid.failures[asked, column], pa.string()),
        "responses": pa.array([None if one is None else list(one) for one in texts], SCHEMA.field("responses").type),
    }
    same = {"task": grid.task, "items_digest": grid.items_digest, "model": grid.models[column], "metric": grid.metric}
    same |= {name: cell[name] for name in _OF_CELL}
    columns |= {name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), len(asked)) for name, value in same.items()}
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
