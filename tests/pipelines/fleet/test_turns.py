"""Whose turn it is: paused runs and those of a lower priority hold back; downloads at once are limited."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collectors.lake.store import Lake
from collectors.runs.signals import PAUSE, RESUME, send
from pipelines.fleet.downloads import PASS_SECONDS, Gate
from pipelines.fleet.neighbours import NOTE_SECONDS, OLD_SECONDS, Neighbours
from pipelines.fleet.turns import SIGNAL_SECONDS, Turns

RUN = "20260101T000000-00000001"


@dataclass
class Notes:
    """A store of notes in this process."""

    notes: dict[str, bytes] = field(default_factory=dict)
    away: bool = False

    def put(self, key: str, value: bytes) -> None:
        if self.away:
            raise RuntimeError("the head does not answer")
        self.notes[key] = value

    def remove(self, key: str) -> None:
        self.notes.pop(key, None)

    def all(self) -> list[bytes]:
        return list(self.notes.values())


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_run_of_lower_priority_holds_back_while_another_waits() -> None:
    store, clock = Notes(), Clock()
    low, high = (Neighbours(name, priority, store, clock) for name, priority in (("low", 0), ("high", 5)))
    low.tick(waits=True)
    high.tick(waits=True)
    assert (low.before, high.before) == (None, None)  # low has not looked since
    clock.now += NOTE_SECONDS
    low.tick(waits=True)
    high.tick(waits=False)
    assert (low.before, high.before) == ("high", None)
    clock.now += NOTE_SECONDS
    low.tick(waits=False)
    assert low.before is None  # high has its slots


def test_run_of_equal_priority_or_one_that_is_lost_goes_not_first() -> None:
    store, clock = Notes(), Clock()
    first, same, lost = (Neighbours(name, n, store, clock) for name, n in (("first", 1), ("same", 1), ("lost", 9)))
    same.tick(waits=True)
    lost.tick(waits=True)
    store.put("damaged", b"{")
    store.put("foreign", b'{"run": "x", "priority": "high", "at": 1, "waits": true}')
    first.tick(waits=True)
    assert first.before == "lost"
    clock.now += OLD_SECONDS + 1
    first.tick(waits=True)
    assert first.before is None
    first.close()
    assert "first" not in store.notes


def test_head_that_does_not_answer_leaves_the_turn_as_it_is() -> None:
    store, clock = Notes(away=True), Clock()
    run = Neighbours("run", 0, store, clock)
    run.tick(waits=True)
    assert run.before is None


def test_turns_obey_the_last_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    clock = Clock()
    monkeypatch.setattr("pipelines.fleet.turns.time.monotonic", clock)
    turns = Turns(lake, RUN, Neighbours(RUN, 0, Notes(), clock))
    for signal, paused in ((PAUSE, True), (RESUME, False)):
        send(lake, RUN, signal)
        turns.tick(waits=False)
        assert turns.holds_back is not paused  # it has not looked yet
        clock.now += SIGNAL_SECONDS
        turns.tick(waits=False)
        assert turns.holds_back is paused
    turns.close()


def test_gate_lets_so_many_in_and_forgets_who_never_leaves() -> None:
    clock = Clock()
    gate = Gate(2, clock)
    assert [gate.enter(who) for who in ("a", "b", "c", "a")] == [True, True, False, True]
    gate.leave("b")
    gate.leave("nobody")
    assert gate.enter("c")
    assert not gate.enter("b")
    clock.now += PASS_SECONDS
    assert gate.enter("b")
