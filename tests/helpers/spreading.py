"""A spread without a cluster: work and results go through pickle, as between processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


def pickled(function: Callable[[Work], Result], works: Iterable[Work]) -> Iterator[Result]:
    for work in works:
        yield pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(work)))))
