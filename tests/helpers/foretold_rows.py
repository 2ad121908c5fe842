"""Rows of forecasts for tests that need some and no fitting."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def foretold_row(schema: pa.Schema, **values: Any) -> pa.Table:
    """A table of one row of FORECAST or FORECAST_FIT."""
    given = {field.name: [] if pa.types.is_list(field.type) else None for field in schema}
    counts = {"number": 1, "asked": 4, "items": 8, "models": 2}
    texts = {"method": "answers", "version": "1", "verdict": "kept", "split": "random"}
    return pa.Table.from_pylist([given | {k: v for k, v in (counts | texts | values).items() if k in given}], schema)
