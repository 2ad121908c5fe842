"""What a fleet tells of its work while it lasts, to whom it may concern: the live view, the metrics.

Owns the words between them. Knows nothing of Ray, terminals or Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # seconds to import, and all scripts that show a progress come by here
    from collectors.cell import Cell, ShardReport


@dataclass(frozen=True)
class AtWork:
    """A worker with a shard in hand, and for how many seconds its answer has been awaited."""

    model: str
    task: str
    seconds: float
    #: The kind of UnreachableError that it waits out; None: it works.
    waits_for: str | None = None
    #: How many GPUs it has, or which part of one.
    gpus: float = 0.0


@dataclass(frozen=True)
class Workers:
    """The workers of a fleet: those with a shard in hand, how many wait for a node or a process, and how many GPUs all
    have together where there is work for all.
    """

    working: list[AtWork]
    starting: int
    gpus: float


class Listener(Protocol):
    """Is called in the driver's only thread, so it must not take long."""

    def on_done(self, cell: Cell, report: ShardReport, items: int, *, last: bool) -> None:
        """`items` of a cell are in the lake; `last`: the cell is whole."""

    def on_failed(self, cell: Cell, kind: str, message: str, items: int) -> None:
        """A cell is given up, with `items` of it open."""

    def on_tick(self, workers: Callable[[], Workers]) -> None:
        """At least once a second, and after every shard; asking for the workers takes time for each of them."""
