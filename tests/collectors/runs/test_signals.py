"""Pause and resume of a run: the last signal holds, and a state is not sent twice."""

from __future__ import annotations

from collectors.lake.store import Lake
from collectors.runs.signals import PAUSE, RESUME, is_paused, send
from tests.helpers.opened_lakes import lake, uri

__all__ = ["lake", "uri"]  # fixtures

RUN, OTHER = "20260101T000000-00000001", "20260101T000000-00000002"


def test_signals_last_one_holds_for_its_run_alone(lake: Lake) -> None:
    assert not is_paused(lake, RUN)
    assert not send(lake, RUN, RESUME)
    assert send(lake, RUN, PAUSE)
    assert (is_paused(lake, RUN), is_paused(lake, OTHER)) == (True, False)
    assert not send(lake, RUN, PAUSE)
    assert send(lake, RUN, RESUME)
    assert not is_paused(lake, RUN)
    assert send(lake, RUN, PAUSE)
    assert is_paused(lake, RUN)
