"""The state of a run at one moment, and the rules for over, quiet, silent, lost and stuck.

Knows nothing of how it comes to be known (watching.py), nor of terminals or pages.
"""

from __future__ import annotations

from dataclasses import dataclass

from collectors.runs.record import RunEnd
from collectors.runs.shard_statistics import ShardTotals

#: A run with open cells and no new shard for so many seconds counts as stuck.
QUIET_SECONDS = 600.0
#: A run writes its account every minute, so nothing is heard of one whose account is so many seconds old.
SILENT_SECONDS = 300.0


@dataclass(frozen=True)
class FailureKind:
    """The failures of one kind. `model`, `task` and `message` are those of the last failure."""

    kind: str
    times: int
    #: Number of failed cells; 0 for models and tasks that could not be planned.
    cells: int
    model: str | None
    task: str | None
    message: str


@dataclass(frozen=True)
class Bar:
    """The items committed in the `seconds` from `start` (seconds since the epoch)."""

    start: float
    seconds: float
    items: int


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment. Times are seconds since the epoch; None means unknown."""

    lake: str
    run_id: str
    engine: str | None
    models: int
    tasks: int
    started: float
    looked: float
    #: Planned cells. Each is either done (whole), failed in this run (or whole without one verdict), or open.
    cells: int
    cells_done: int
    cells_failed: int
    cells_open: int
    #: Cells that the run left out because their models broke engines before. They are not in `cells`.
    cells_quarantined: int
    #: None while the run is at work, or if it was killed.
    end: RunEnd | None
    #: Planned items.
    items: int
    #: Items committed by any run.
    items_done: int
    #: Items of failed cells that are not committed.
    items_failed: int
    #: The part of items_done that was committed before the run started; None if the store has no times.
    items_before: int | None
    #: The part of items_done that was committed after the run's end; None without an end, or if the store has no times.
    items_after: int | None
    #: Time of the newest shard of the run's cells, up to the run's end; None if there is none or the store has no
    #: times.
    last_commit: float | None
    #: Shards of all runs on this lake: in the newest compaction, and not yet.
    shards_folded: int
    shards_open: int
    #: When the run last wrote its account of spending, which it does every minute; None if it never did.
    last_heard: float | None
    #: Whether it was paused by a signal.
    paused: bool
    #: Items per second over `rate_seconds` until now, or until the last shard of a run that is over.
    rate: float | None
    rate_seconds: float
    failures: list[FailureKind]
    history: list[Bar]
    work: ShardTotals
    #: Name -> reason, for objects that were skipped because they cannot be read.
    damaged: dict[str, str]

    @property
    def items_open(self) -> int:
        return self.items - self.items_done - self.items_failed

    @property
    def complete(self) -> bool:
        """Whether every cell is collected or has failed."""
        return self.cells_open == 0

    @property
    def over(self) -> bool:
        """Whether the run is complete or has ended, so that nothing more will come."""
        return self.complete or self.end is not None

    @property
    def quiet(self) -> float:
        """Seconds since the last commit, or since the start of the run if that is later."""
        return max(0.0, self.looked - max(self.last_commit or 0.0, self.started))

    @property
    def silent(self) -> float:
        """Seconds since the run was heard of, by a commit or by its account."""
        return min(self.quiet, max(0.0, self.looked - (self.last_heard or 0.0)))

    @property
    def lost(self) -> bool:
        """Whether nothing was heard of a run without an end for SILENT_SECONDS: its driver or its cluster is gone."""
        return not self.over and self.silent > SILENT_SECONDS and self.last_heard is not None

    @property
    def stuck(self) -> bool:
        """Whether the run was probably killed or hangs: it has no end, and no commit for QUIET_SECONDS."""
        return not self.over and self.quiet > QUIET_SECONDS

    @property
    def eta(self) -> float | None:
        """Seconds until the open items are done at this rate; None if the rate is 0 or unknown, or the run is over."""
        return self.items_open / self.rate if self.rate and not self.over else None
