"""Waiting for a store or hub: until it is back, or until the patience is over."""

from __future__ import annotations

import pytest

from pipelines.fleet import waiting
from pipelines.fleet.waiting import Outage
from schemas.failures import StorageError, UnreachableError


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)


def failing(times: int, error: type[StorageError] = UnreachableError) -> tuple[list[int], object]:
    calls: list[int] = []

    def action() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error("away")
        return "done"

    return calls, action


def test_result_after_an_outage_is_that_of_the_first_call_that_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    calls, action = failing(3)
    assert Outage(60, "--patience").result(action) == "done"  # type: ignore[arg-type]
    assert len(calls) == 4
    assert "waiting up to 60 s (--patience)" in caplog.text


def test_result_when_the_patience_is_over_or_the_error_lasts_is_the_error() -> None:
    for patience, error in ((0.0, UnreachableError), (60.0, StorageError)):
        calls, action = failing(9, error)
        with pytest.raises(error, match="away"):
            Outage(patience).result(action)  # type: ignore[arg-type]
        assert len(calls) == 1
