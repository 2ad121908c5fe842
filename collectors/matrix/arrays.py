"""The matrix as arrays, items × models, with its axes.

Owns the form in memory and as a .npz file. Knows nothing of the origin of the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Matrix:
    """Axis 0 is items, block after block; axis 1 is models. All four arrays are (items, models).

    In a matrix without tokens the two arrays of tokens have shape (0, 0).
    """

    #: float32, the primary metric's value; NaN where `valid` is false.
    scores: npt.NDArray[np.float32]
    #: True if the model answered and the answer has a score. False if it was not collected, unanswered or failed, which
    #: does not mean wrong.
    valid: npt.NDArray[np.bool_]
    #: int32 tokens; -1 if unknown. An answer without a score may have tokens although it is not valid.
    prompt_tokens: npt.NDArray[np.int32]
    completion_tokens: npt.NDArray[np.int32]
    #: One row for each item: BLOCK_KEY and `item`, its position in the task's table of items.
    items: pa.Table
    #: One row for each model: COLUMN_KEY.
    models: pa.Table

    def save(self, path: Path) -> None:
        """Writes a .npz file for `load`, with the axes as Arrow IPC. Replaces an existing file."""
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


def empty_matrix(items: pa.Table, models: pa.Table, *, tokens: bool = True, filled: bool = True) -> Matrix:
    """A matrix of unknown values; with `filled` False of undefined ones, for a caller that sets every element."""
    shape = (len(items), len(models))

    def full(size: tuple[int, int], value: float, dtype: type[Any]) -> npt.NDArray[Any]:
        return np.full(size, value, dtype) if filled else np.empty(size, dtype)

    return Matrix(
        scores=full(shape, np.nan, np.float32),
        valid=full(shape, 0, np.bool_),
        prompt_tokens=full(shape if tokens else (0, 0), -1, np.int32),
        completion_tokens=full(shape if tokens else (0, 0), -1, np.int32),
        items=items,
        models=models,
    )


def _to_bytes(table: pa.Table) -> npt.NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)
