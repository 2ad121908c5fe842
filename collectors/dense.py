"""The router matrix as arrays: items × models, for training and judging routers.

Owns the axes and how records are laid into them. Knows nothing of how records are stored: it reads the views.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake import Lake
from collectors.reading import connect
from schemas.failures import ConfigError

#: Records laid into the arrays at a time: bounds what is in memory beside them.
BATCH_ROWS = 1_000_000

#: What tells columns apart: one column per model as a router could call it.
COLUMN_KEY = ("model", "revision", "dtype", "quantization", "max_length", "overrides")
#: What tells blocks of rows apart: one block per task under one prompting.
BLOCK_KEY = ("task", "items_digest", "prompting", "metric", "higher_is_better")


@dataclass(frozen=True)
class Matrix:
    """Axis 0: items, blocks of one task after another. Axis 1: models. All four arrays have the same shape."""

    #: float32, the primary metric's value; NaN where `valid` is false.
    scores: npt.NDArray[np.float32]
    #: Whether the model was asked and its answer judged. False: not collected, unanswered or failed; never "wrong".
    valid: npt.NDArray[np.bool_]
    #: int32 tokens; -1 where unknown. An item that was asked and has no verdict has tokens though it is not valid.
    prompt_tokens: npt.NDArray[np.int32]
    completion_tokens: npt.NDArray[np.int32]
    #: One row per item: BLOCK_KEY and `item`, its position in the task's item table.
    items: pa.Table
    #: One row per model: COLUMN_KEY.
    models: pa.Table

    def save(self, path: Path) -> None:
        """Writes a .npz file that `load` reads; the axes stand in it as Arrow IPC. An existing file is replaced."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays: dict[str, Any] = {k: _to_bytes(v) if isinstance(v, pa.Table) else v for k, v in values.items()}
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Matrix:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        for axis in ("items", "models"):
            arrays[axis] = pa.ipc.open_file(pa.py_buffer(arrays[axis].tobytes())).read_all()
        return cls(**arrays)


def load_matrix(lake: str | Lake, tasks: list[str] | None = None, models: list[str] | None = None) -> Matrix:
    """The matrix of a lake, or of some of its tasks and models by name.

    A block has as many rows as the most that any run asked of its task. Memory: 13 bytes per element, and a batch of
    records. Raises ConfigError when nothing was ever planned for such names.
    """
    lake = lake if isinstance(lake, Lake) else Lake(lake)
    with contextlib.closing(connect(lake.open_for_reading())) as con:
        con.execute(
            "CREATE TEMP TABLE chosen AS SELECT * FROM cells WHERE (? IS NULL OR list_contains(?, task)) "
            "AND (? IS NULL OR list_contains(?, model))",
            [tasks, tasks, models, models],
        )
        columns, blocks = ", ".join(COLUMN_KEY), ", ".join(BLOCK_KEY)
        con.execute(
            f"""
            CREATE TEMP TABLE blocks AS
            SELECT *, (sum(length) OVER (ORDER BY {blocks}) - length)::BIGINT AS first_row
            FROM (SELECT {blocks}, max(planned_items)::BIGINT AS length FROM chosen GROUP BY ALL);
            CREATE TEMP TABLE places AS
            SELECT chosen.cell_id, blocks.first_row, dense_rank() OVER (ORDER BY {columns}) - 1 AS place
            FROM chosen JOIN blocks USING ({blocks});
            """
        )
        model_axis = con.sql(f"SELECT DISTINCT {columns} FROM chosen ORDER BY {columns}").to_arrow_table()
        item_axis = con.sql(
            f"SELECT {blocks}, unnest(range(length))::INTEGER AS item FROM blocks ORDER BY first_row, item"
        ).to_arrow_table()
        if not len(model_axis):
            raise ConfigError(f"the lake at {lake.uri} has no cell of these tasks and models")
        matrix = _empty(item_axis, model_axis)
        records = con.execute(
            f"""
            SELECT
                (places.first_row + item) * {len(model_axis)} + places.place AS at,
                -- float32 ends at 3.4e38
                CASE WHEN abs(score) < 3.4e38 THEN score ELSE sign(score) * 3.4e38 END::FLOAT AS score,
                prompt_tokens,
                completion_tokens
            FROM matrix JOIN places USING (cell_id)
            """
        )
        for batch in records.to_arrow_reader(BATCH_ROWS):
            _lay(matrix, batch)
    return matrix


def _empty(items: pa.Table, models: pa.Table) -> Matrix:
    shape = (len(items), len(models))
    return Matrix(
        scores=np.full(shape, np.nan, np.float32),
        valid=np.zeros(shape, np.bool_),
        prompt_tokens=np.full(shape, -1, np.int32),
        completion_tokens=np.full(shape, -1, np.int32),
        items=items,
        models=models,
    )


def _lay(matrix: Matrix, batch: pa.RecordBatch) -> None:
    at = batch.column("at").to_numpy(zero_copy_only=False)
    scores = batch.column("score").to_numpy(zero_copy_only=False)
    matrix.scores.ravel()[at] = scores  # ravel() of an array in C order is a view
    matrix.valid.ravel()[at] = ~np.isnan(scores)
    for name in ("prompt_tokens", "completion_tokens"):
        getattr(matrix, name).ravel()[at] = batch.column(name).fill_null(-1).to_numpy(zero_copy_only=False)


def _to_bytes(table: pa.Table) -> npt.NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)
