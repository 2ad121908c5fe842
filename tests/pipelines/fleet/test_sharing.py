"""Runs on one lake share its work: whatever the order of their steps, only shards in hand are asked twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collectors.lake import layout
from collectors.lake.claims import CLAIM_SECONDS
from collectors.lake.store import Lake
from collectors.runs.config import FleetSpec
from collectors.runs.plan import PlannedCell
from pipelines.fleet.sharing import FRESH_SECONDS, QUIET_SECONDS, Sharing
from pipelines.fleet.workqueue import Job, WorkQueue
from schemas.failures import UnreachableError
from schemas.identity import ShardName, digest
from tests.helpers.planned_work import planned
from tests.helpers.thorough import often

SPEC = FleetSpec(first_shard_items=8)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Worked:
    """A run without engines: its shards in hand are committed when `finish` is called."""

    lake: Lake
    run_id: str
    cells: list[PlannedCell]
    clock: Clock
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    elsewhere: int = 0
    hands: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lake.create(layout.run_name(self.run_id), b"a plan")
        self.queue = WorkQueue(self.cells, SPEC)
        self.sharing = Sharing(self.lake, self.run_id, None, self.queue, self.count, self.clock)

    def count(self, _: object, items: int) -> None:
        self.elsewhere += items

    def begin(self) -> bool:
        job = self.sharing.next(lambda: self.queue.take(None, self.sharing.busy))
        if job is None:
            return False
        self.asked.update((job.planned.cell.cell_id, item) for item in range(job.first, job.last + 1))
        self.hands.append(job)
        return True

    def finish(self) -> None:
        job = self.hands.pop(0)
        cell = job.planned.cell
        shard = ShardName(cell.cell_id, 0, job.first, job.last)
        self.lake.create(layout.shard_name(cell.spec.task, shard), b"records")
        self.sharing.over(job)

    @property
    def is_over(self) -> bool:
        return not (self.queue or self.queue.held or self.hands)


def cells(models: int, items: int) -> list[PlannedCell]:
    made = [planned(f"m{model}", "t", (0, items - 1)) for model in range(models)]
    for one in made:
        object.__setattr__(one.cell, "cell_id", digest(one.cell.cell_id))
    return made


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake")).open_for_writing()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process counts as alive, as one on another machine does."""
    monkeypatch.setattr(os, "kill", lambda *_: None)


def run_id(number: int) -> str:
    return f"20260101T000000-{number:08x}"


def test_run_that_waited_asks_nothing_that_was_committed_meanwhile(lake: Lake) -> None:
    clock = Clock()
    first, second = (Worked(lake, run_id(n), cells(3, 40), clock) for n in (1, 2))
    for _ in range(11):
        assert first.begin()
        first.finish()
    while second.begin():
        second.finish()
    assert second.is_over
    assert second.elsewhere == 11 * 8
    assert sum(second.asked.values()) == 120 - 11 * 8
    assert not first.asked.keys() & second.asked.keys()


def test_run_that_still_waits_counts_what_the_other_commits(lake: Lake) -> None:
    clock = Clock()
    first, second = (Worked(lake, run_id(n), cells(2, 16), clock) for n in (1, 2))
    while first.begin():
        first.finish()
    second.sharing.hear()
    assert second.elsewhere == 0  # the plan has just listed the lake
    clock.now += FRESH_SECONDS
    second.sharing.hear()
    assert (second.elsewhere, second.is_over) == (32, True)


@pytest.mark.parametrize("seed", range(often(60, 4)))
def test_runs_at_once_ask_at_most_the_shards_in_hand_twice(lake: Lake, seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    everything = cells(4, 60)
    runs = [Worked(lake, run_id(n), everything, clock) for n in range(3)]
    most = 2
    while not all(run.is_over for run in runs):
        run = rng.choice(runs)
        if len(run.hands) >= most or not run.begin():
            if run.hands:
                run.finish()
            else:
                clock.now += FRESH_SECONDS
                run.sharing.hear()
        clock.now += rng.choice([0.0, 0.1, 3.0])
        run.sharing.tick()
    asked = sum((run.asked for run in runs), Counter())
    assert len(asked) == 4 * 60
    assert sum(asked.values()) - len(asked) <= most * 8 * (len(runs) - 1)
    for run in runs:
        assert sum(run.asked.values()) + run.elsewhere >= 4 * 60
        run.sharing.close()
    assert lake.names(layout.CLAIMS) == []


def test_shards_of_a_run_that_is_lost_are_asked_once_their_claims_expire(lake: Lake) -> None:
    clock = Clock()
    lost, other = (Worked(lake, run_id(n), cells(1, 16), clock) for n in (1, 2))
    assert lost.begin()
    while other.begin():
        other.finish()
    assert not other.is_over
    assert [cell.cell.cell_id for cell in other.queue.held] == [lost.cells[0].cell.cell_id]
    clock.now += CLAIM_SECONDS + 1
    other.sharing.hear()
    assert other.begin()
    other.finish()
    assert other.is_over
    assert sum(other.asked.values()) == 16


def test_lake_that_does_not_answer_holds_up_no_work(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    run = Worked(lake, run_id(1), cells(1, 40), clock)
    calls = []

    def away(*_: object, **__: object) -> None:
        calls.append(1)
        raise UnreachableError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "listing", away)
        patch.setattr(Lake, "create", away)
        assert [run.begin() for _ in range(3)] == [True] * 3
    assert len(calls) == 1  # one question, then quiet
    clock.now += QUIET_SECONDS + 1
    while run.begin():
        run.finish()
    assert len(run.asked) == 40
