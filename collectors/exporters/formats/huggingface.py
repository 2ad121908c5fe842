"""One Parquet file, a row for each item that a model was asked: what `datasets.load_dataset` and pandas read.

Owns its columns, which are those of the lake's own schemas. The only format that keeps answers without a score: their
score is null, and their failure gives the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

#: A row group has about so many rows, or bytes. It stores the texts of an item, which each model's row has, once.
_GROUP_ROWS, _GROUP_BYTES = 1 << 17, 1 << 26
#: Rows that are made at a time, and the largest dictionary of a column, bytes.
_BATCH_ROWS, _DICTIONARY = 1 << 14, 1 << 24

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
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", dictionary_pagesize_limit=_DICTIONARY) as file:
        group: list[pa.Table] = []
        for grid in grids:
            unasked += int((~grid.asked).sum())
            unscored += int((np.isnan(grid.scores) & grid.asked).sum())
            for rows in _rows(grid):
                group.append(rows)
                if sum(map(len, group)) >= _GROUP_ROWS or sum(one.nbytes for one in group) >= _GROUP_BYTES:
                    file.write_table(pa.concat_tables(group))
                    group = []
        if group:
            file.write_table(pa.concat_tables(group))
    notes = [f"{unscored:,} answers have no score: null, with their failure"] if unscored else []
    return notes + ([f"{unasked:,} items were not asked of a model that others were asked: no row"] if unasked else [])


def _rows(grid: Grid) -> Iterator[pa.Table]:
    """The rows of a grid, of some models at a time."""
    items = pa.table(
        {name: pa.array([item[name] for item in grid.items], SCHEMA.field(name).type) for name in _OF_ITEM}
    )
    cells = pa.table(
        {
            "model": pa.array(grid.models, SCHEMA.field("model").type),
            **{
                name: pa.array([cell[name] if cell else None for cell in grid.cells], SCHEMA.field(name).type)
                for name in _OF_CELL
            },
        }
    )
    of_grid = {"task": grid.task, "items_digest": grid.items_digest, "metric": grid.metric}
    together = max(1, _BATCH_ROWS // max(1, len(grid.items)))
    for first in range(0, len(grid.models), together):
        models, asked = np.nonzero(grid.asked[:, first : first + together].T)
        place = asked, models + first
        columns: dict[str, Any] = {
            **dict(zip(items.column_names, items.take(asked).columns, strict=True)),
            **dict(zip(cells.column_names, cells.take(place[1]).columns, strict=True)),
            **{name: pa.array(values[place], from_pandas=True) for name, values in grid.numbers.items()},
            **{
                name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), len(asked))
                for name, value in of_grid.items()
            },
            "failure": pa.array(grid.failures[place], pa.string()),
            "responses": pa.array(grid.responses[place], SCHEMA.field("responses").type),
        }
        yield pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)
