"""Rows of one schema that wait to be stored, kept by column.

Owns how they become a table of Arrow. Knows nothing of files or formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

#: Arrow raises one of these where a value does not fit its column.
OF_ARROW = (pa.ArrowException, ValueError, OverflowError, TypeError)


class Batch:
    """Rows of a schema, kept by column: Python's garbage collector would visit one object a row again and again."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self.many = 0
        #: The columns that the last row had: most rows of a format have the same.
        self._shape: tuple[str, ...] = ()
        self._appends: list[Callable[[Any], None]] = []

    def __len__(self) -> int:
        return self.many

    def append(self, row: Mapping[str, Any]) -> None:
        if (shape := tuple(row)) != self._shape:
            self._fill()
            self._shape, self._appends = shape, [self.columns[name].append for name in shape]
        for append, value in zip(self._appends, row.values(), strict=True):
            append(value)
        self.many += 1

    def _fill(self) -> None:
        """Makes all columns as long as there are rows."""
        for values in self.columns.values():
            if lacking := self.many - len(values):
                values.extend([None] * lacking)

    def table(self) -> pa.Table:
        """Raises one of OF_ARROW."""
        self._fill()
        return pa.table([pa.array(self.columns[f.name], f.type) for f in self.schema], schema=self.schema)

    def rows(self) -> Iterator[dict[str, Any]]:
        self._fill()
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def clear(self) -> None:
        for values in self.columns.values():
            values.clear()
        self.many = 0
