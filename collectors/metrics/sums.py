"""Sums and means that depend on nothing but the numbers: equal in any order of rows, and to the views' last bit.

A number becomes a whole number of 1/scale, and whole numbers add up exactly. The macros _units and _remainder of
schemas/views do the same. Does not know the meaning of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

#: Units of a score or second, and of a USD.
UNITS, USD = 1e12, 1e18

Floats = npt.NDArray[np.floating[Any]]
Means = npt.NDArray[np.float64]
#: Numbers in these bounds, in units, count in units alone: a smaller one would lose digits, a larger one does not fit
#: an int64.
_LEAST, _MOST = 1e9, 9e18
_LOW = np.int64(0xFFFFFFFF)
#: Numbers in one step: they stay in a core's cache.
_AT_ONCE = 1 << 16


class ColumnSums:
    """The sums of the columns of blocks of rows, which may come in any order."""

    def __init__(self, columns: int, scale: float = UNITS) -> None:
        self.scale = scale
        self.rows = 0
        # Whole units are high · 2^32 + low: neither overflows below 2^31 rows.
        self._high, self._low = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
        self._ones = np.zeros(columns, np.int64)
        self._others: list[tuple[npt.NDArray[np.int64], Means]] = []

    def add(self, block: Floats) -> None:
        """Adds rows (rows, columns) of known numbers."""
        size = max(1, _AT_ONCE // max(1, block.shape[1]))
        for first in range(0, len(block), size):
            self._add(block[first : first + size])

    def _add(self, block: Floats) -> None:
        self.rows += len(block)
        if ((block == 0) | (block == 1)).all():
            self._ones += np.count_nonzero(block, axis=0)
            return
        values = block.astype(np.float64, copy=False)
        with np.errstate(over="ignore"):
            scaled = np.rint(values * self.scale)
        size = np.abs(scaled)
        most = float(size.max(initial=0))
        if most * len(block) < _MOST:  # the usual case in a third of the time
            units = scaled.astype(np.int64)
            self._take(units.sum(axis=0))
        else:
            units = np.where(size < 2.0**63, scaled, 0).astype(np.int64)
            self._take(units)
        if most > _MOST or ((size <= _LEAST) & (values != 0)).any():
            self._keep(values, units)

    def _take(self, units: npt.NDArray[np.int64]) -> None:
        units = np.atleast_2d(units)
        self._high += (units >> 32).sum(axis=0)
        self._low += (units & _LOW).sum(axis=0)

    def _keep(self, values: Means, units: npt.NDArray[np.int64]) -> None:
        """Keeps the remainder of numbers beyond the bounds, which the units lack."""
        size = np.abs(values)
        rest = (values != 0) & ~((size >= _LEAST / self.scale) & (size <= _MOST / self.scale))
        columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)[rest]
        self._others.append((columns, (values - units.astype(np.float64) / self.scale)[rest]))

    def totals(self) -> Means:
        """(columns,)"""
        return self._in_units() / self.scale + self._remainders()

    def means(self) -> Means:
        """(columns,). Without a row the result is NaN."""
        if not self.rows:
            return np.full(len(self._high), np.nan)
        return self._in_units() / (self.rows * self.scale) + self._remainders() / self.rows

    def _in_units(self) -> Means:
        columns = zip(self._high.tolist(), self._low.tolist(), self._ones.tolist(), strict=True)
        return np.array([float((high << 32) + low + ones * int(self.scale)) for high, low, ones in columns])

    def _remainders(self) -> Means:
        sums = np.zeros(len(self._high))
        if self._others:
            columns = np.concatenate([one for one, _ in self._others])
            values = np.concatenate([one for _, one in self._others])
            order = np.lexsort((values, columns))
            np.add.at(sums, columns[order], values[order])  # one addition after the other, as list_sum does
        return sums


def column_means(blocks: Iterable[Floats], columns: int, scale: float = UNITS) -> Means:
    """(columns,): the means over all rows of `blocks`."""
    sums = ColumnSums(columns, scale)
    for block in blocks:
        sums.add(block)
    return sums.means()


def mean(values: Floats, scale: float = UNITS) -> float:
    """The mean of `values` (n,). Without one, or with a NaN, it is NaN."""
    return float(_of(values, scale).means()[0]) if not np.isnan(values).any() else float("nan")


def total(values: Floats, scale: float = UNITS) -> float:
    """The sum of `values` (n,). With a NaN it is NaN."""
    return float(_of(values, scale).totals()[0]) if not np.isnan(values).any() else float("nan")


def _of(values: Floats, scale: float) -> ColumnSums:
    sums = ColumnSums(1, scale)
    sums.add(np.asarray(values).reshape(-1, 1))
    return sums
