"""Routers that reach for the board: its figures, its data and its processes stay its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from collectors.routers import process
from collectors.routers.boards import Job, Trial, in_processes, run_trials
from collectors.routers.contract import OBSERVED, RouterFailed
from collectors.routers.registry import RouterSpec, router_of
from collectors.routers.spreading import code_of, run_anywhere
from collectors.routers.standings import stand
from collectors.routers.trial import Data, Fold, run_trial, write_data
from tests.helpers.routed_worlds import world

ROOT = str(Path(__file__).resolve().parents[3])
FOLD = Fold(np.arange(120), np.arange(120, 240), 0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))


def odd(name: str, **settings: Any) -> RouterSpec:
    return RouterSpec(name, f"tests.helpers.odd_routers:{name}", **settings)


def trials_of(routers: list[RouterSpec], folder: Path) -> dict[str, Trial]:
    trials = run_trials(world(), routers, [FOLD], folder, in_processes(1), path=[ROOT])
    return {one.router: one for one in trials}


# ---- figures


@pytest.mark.parametrize("then", ["marks", "note", "given", "answers", "queries"])
def test_router_that_writes_into_its_answers_pays_the_same(tmp_path: Path, then: str) -> None:
    questions = world()
    pool = questions.pool
    data = Data(tmp_path, questions.ids, questions.tasks, questions.texts, pool.candidates, [], {})
    write_data(data, {"scores": pool.scores, **{name: pool.numbers[name] for name in OBSERVED}})
    vectors = np.zeros((240, 0))
    plain, other = (run_trial(data, odd("Asks", parameters={"then": one}), FOLD, vectors) for one in ("", then))
    assert np.array_equal(plain["more_usd"], pool.numbers["usd"][120:, 0])
    for name in plain.keys() - {"fit_s", "route_s"}:
        assert np.array_equal(plain[name], other[name]), name


@pytest.mark.slow
def test_board_shows_whoever_sees_the_answers_as_a_bound_whatever_its_name(tmp_path: Path) -> None:
    dearest = router_of("dearest")
    routers = [odd("Sees"), RouterSpec("oracle", dearest.factory, dearest.parameters), router_of("best-constant")]
    questions = world()
    trials = run_trials(questions, routers, [FOLD], tmp_path, in_processes(1), path=[ROOT])
    board = stand(questions.pool, questions.tasks, questions.groups, routers, [FOLD], trials)
    rows = {one.router.name: one.row() for one in board.standings}
    assert (rows["Sees"]["bound"], rows["Sees"]["rank"]) == (True, None)
    assert rows["Sees"]["score"] == board.head["oracle_score"]
    assert (rows["oracle"]["bound"], rows["oracle"]["rank"]) == (False, 1)
    assert rows["best-constant"]["rank"] == 1
    assert all("Sees" not in note for note in board.notes)


# ---- data and processes


@pytest.mark.slow
def test_router_that_writes_into_the_data_of_the_board_ends_it_and_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RouterFailed, match="Rewrites, or a router that ran beside it, wrote into the data"):
        trials_of([router_of("cheapest"), odd("Rewrites"), router_of("oracle")], tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.slow
def test_router_that_writes_into_the_data_on_another_machine_costs_what_runs_there_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def elsewhere(jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
        def bring(folder: Path) -> None:
            for path in place.glob("[!.]*"):
                (folder / path.name).write_bytes(path.read_bytes())

        for job in jobs:
            ended, made = run_anywhere(job.trial, tmp_path / "unseen" / place.name, bring, code_of(job.spec))
            if not ended:
                job.out.write_bytes(made)
            yield job, ended

    routers = [router_of("cheapest"), odd("Rewrites"), router_of("oracle")]
    trials = run_trials(world(), routers, [FOLD], tmp_path / "trials", elsewhere, path=[ROOT])
    assert [one.failed for one in trials] == [None, "lost", "lost"]
    assert "a router wrote into the data of the board on" in trials[2].message


@pytest.mark.slow
def test_router_that_writes_to_the_board_or_stops_its_process_costs_its_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE", 4.0)
    routers = [odd("Forges"), odd("KillsParent"), odd("StopsParent", seconds=0.5), router_of("cheapest")]
    began = time.monotonic()
    trials = trials_of(routers, tmp_path)
    failed = {name: one.failed for name, one in trials.items()}
    assert failed.pop("Forges") in (None, "time", "lost", "died"), "it is its own row"
    assert failed == {"KillsParent": "lost", "StopsParent": "time", "cheapest": None}
    assert set(trials["cheapest"].made["chosen"].tolist()) == {0}
    assert time.monotonic() - began < 300
    assert not [one for one in psutil.process_iter(["environ"]) if str(tmp_path) in str(one.info["environ"])]
