"""Signals to a run at work, pause and resume: objects of the lake, which any machine with its rights can send.

Owns the order of signals: each has a number, and the highest holds. Knows nothing of how a run obeys.
"""

from __future__ import annotations

from collectors.lake.layout import CLAIMS, parse_signal, signal_name
from collectors.lake.store import Lake
from schemas.failures import ConfigError

PAUSE, RESUME = "pause", "resume"
#: Signals that are sent at once get numbers of their own; more tries mean that somebody sends without end.
_TRIES = 10


def send(lake: Lake, run_id: str, signal: str) -> bool:
    """Sends PAUSE or RESUME to a run. Returns False if that is its state already."""
    for _ in range(_TRIES):
        number, last = _last(lake, run_id)
        if signal == (last or RESUME):
            return False
        if lake.create(signal_name(run_id, number + 1, signal), b""):
            return True
    raise ConfigError(f"others send signals to run {run_id} in this moment: try again")


def is_paused(lake: Lake, run_id: str) -> bool:
    """Whether the last signal to a run is PAUSE. One request to a store."""
    return _last(lake, run_id)[1] == PAUSE


def _last(lake: Lake, run_id: str) -> tuple[int, str | None]:
    parsed = [parse_signal(name) for name in lake.listing(CLAIMS, prefix=f"{run_id}-")]
    numbered = [(number, signal) for _, number, signal in filter(None, parsed)]
    return max(numbered, default=(0, None))
