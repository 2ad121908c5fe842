"""The seam at which long work goes to other processes, such as the tasks of a cluster.

Owns its type. What is spread is a function of this project's packages and values that can be pickled; pipelines.fleet
knows Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


class Spread(Protocol):
    """Like `map`: the results of a function of each of `works`, in their order. An error of one ends it."""

    def __call__(self, function: Callable[[Work], Result], works: Iterable[Work]) -> Iterator[Result]: ...
