"""The interface between a fleet and its listeners, which are the live view and the metrics.

Owns the events and their values. Knows nothing of Ray, terminals or Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from collectors.runs.work import Cell, ShardReport


@dataclass(frozen=True)
class AtWork:
    """A worker that has a shard."""

    model: str
    task: str
    #: Seconds since the fleet began to wait for its answer.
    seconds: float
    #: The kind of UnreachableError that it waits out; None while it works.
    waits_for: str | None = None
    #: How many GPUs it has; a fraction if workers share one.
    gpus: float = 0.0


@dataclass(frozen=True)
class Workers:
    """The workers of a fleet at one moment."""

    working: list[AtWork]
    #: Requested workers that wait for a node or for their process.
    starting: int
    #: GPUs of all workers when the fleet last grew.
    gpus: float
    #: Dollars spent by this "run", by all runs of its "budget", and the "limit" if there is one.
    usd: Mapping[str, float] = field(default_factory=dict)


class Listener(Protocol):
    """Receives the events of a fleet. The driver's only thread makes the calls, so they must be quick."""

    def on_done(self, cell: Cell, report: ShardReport, items: int, *, last: bool) -> None:
        """A shard with `items` items of `cell` is in the lake; `last` if that completes the cell."""

    def on_done_elsewhere(self, cell: Cell, items: int, *, last: bool) -> None:
        """Another run committed `items` open items of `cell`; `last` if that completes the cell."""

    def on_more(self, items: int, *, is_new: bool) -> None:
        """A further round opened `items` items of a cell that was complete; `is_new` if it was so before the run."""

    def on_failed(self, cell: Cell, kind: str, message: str, items: int) -> None:
        """`cell` failed with `items` items open."""

    def on_tick(self, workers: Callable[[], Workers]) -> None:
        """Called at least once a second and after every shard. A call of `workers` takes time for each worker."""
