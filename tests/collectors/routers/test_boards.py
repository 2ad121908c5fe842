"""Boards: a router that misbehaves costs its own row, equal inputs give equal boards, and a killed board goes on."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import threadpoolctl

from collectors.routers import encoders
from collectors.routers.boards import Job, Trial, in_processes, run_trials
from collectors.routers.questions import Questions, split_by
from collectors.routers.registry import RouterSpec, default_routers, router_of
from collectors.routers.spreading import code_of, run_anywhere
from collectors.routers.standings import Board, stand
from collectors.routers.trial import Fold
from tests.helpers.routed_worlds import without_usd, world
from tests.helpers.thorough import long_only

pytestmark = pytest.mark.slow  # each starts a process that imports scikit-learn
ROOT = str(Path(__file__).resolve().parents[3])
ODD = "tests.helpers.odd_routers"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))


def folds_of(questions: Questions, seeds: int = 2, rule: str = "content") -> list[Fold]:
    splits = [split_by(questions, rule, 0.7, seed, 20) for seed in range(seeds)]
    return [
        Fold(
            np.flatnonzero(split.train),
            np.flatnonzero(split.test),
            split.seed,
            split.unseen,
            None if split.probes is None else np.flatnonzero(split.probes),
        )
        for split in splits
    ]


def board_of(
    questions: Questions, routers: list[RouterSpec], folder: Path, seeds: int = 2, rule: str = "content"
) -> tuple[Board, list[Trial]]:
    folds = folds_of(questions, seeds, rule)
    trials = run_trials(questions, routers, folds, folder, in_processes(1), path=[ROOT])
    return stand(questions.pool, questions.tasks, questions.groups, routers, folds, trials), trials


def odd(name: str, **settings: Any) -> RouterSpec:
    return RouterSpec(name, f"{ODD}:{name}", **settings)


def test_board_routers_that_misbehave_cost_their_own_row_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["Raises", "Exits", "Unknown", "LeftOut", "NotANumber", "FewChoices", "Beyond", "Dies", "Peeks"]
    names += ["Lingers", "BadError"]
    routers = [odd(name) for name in names]
    routers += [odd("Sleeps", seconds=0.3), odd("WritesCosts"), odd("Abstains"), router_of("best-constant")]
    routers += [RouterSpec("missing", "no_such_module:Router"), RouterSpec("none", f"{ODD}:Nothing")]
    board, _ = board_of(world(), routers, tmp_path, seeds=1)
    failed = {one.router.name: one.failed for one in board.standings if one.failed}
    for name, why in {
        "Raises": "raised: RuntimeError: no idea",
        "Exits": "raised: SystemExit",
        "BadError": "raised: Silent",
        "Unknown": "choice: query 0: it chose 'nobody', which is no candidate",
        "LeftOut": "choice: query 0: it chose 'left-out', which is left out of the pool",
        "NotANumber": "choice: query 0: it chose nan",
        "FewChoices": "choice: it returned 1 choices for",
        "Beyond": "choice: query 0: it chose column 3 of 3",
        "Dies": "died: its process ended with signal 9",
        "Sleeps": "time: it took longer than 0.3 s",
        "WritesCosts": "choice: it reads 'usd' of answers that it did not ask for",
        "missing": "raised: ModuleNotFoundError",
        "none": "raised: AttributeError",
    }.items():
        assert (failed.pop(name) or "").startswith(why), name
    assert failed == {}
    rows = {one.router.name: one for one in board.standings}
    assert rows["best-constant"].rank == 1
    # The truth is hidden from whoever does not declare to peek.
    assert rows["Peeks"].figures["score"] == pytest.approx(rows["Peeks"].figures["score_answered"])
    # What a router prints is cut, and the process that it left in another session ended with its trial.
    assert rows["Lingers"].rank
    shown = capfd.readouterr().err
    assert "it prints more" in shown
    assert "\\x1b]0;title" in shown
    assert "\x1b" not in shown
    assert len(shown) < 20_000
    assert not [one for one in psutil.process_iter(["environ"]) if str(tmp_path) in str(one.info["environ"])]


def test_board_router_that_writes_into_its_arrays_changes_no_figure(tmp_path: Path) -> None:
    routers = [odd("FillsGaps"), replace(odd("FillsGaps", parameters={"value": 7.0}), name="writes")]
    board, _ = board_of(world(), routers, tmp_path, seeds=1)
    first, second = ({**one.row(), "router": None, "parameters": None} for one in board.standings)
    assert first["brier_of_means"] is not None
    assert first["curve"]
    assert first == second


def test_board_question_that_a_router_abstains_on_goes_to_the_best_constant(tmp_path: Path) -> None:
    questions = world()
    board, [trial] = board_of(questions, [odd("Abstains")], tmp_path, seeds=1)
    [fold] = folds_of(questions, 1)
    scores = questions.pool.scores
    best = int(scores[fold.train].mean(axis=0).argmax())
    columns = np.where(np.arange(len(fold.test)) % 2, best, 0)
    [one] = board.standings
    assert one.figures["score"] == pytest.approx(scores[fold.test, columns].mean())
    assert one.figures["score_answered"] == pytest.approx(scores[fold.test[::2], 0].mean())
    assert one.figures["abstained"] == len(fold.test) // 2
    assert (trial.made["chosen"] == -1).sum() == len(fold.test) // 2


def test_board_of_a_world_with_two_kinds_of_questions_finds_the_kinds(tmp_path: Path) -> None:
    """A router that reads the text can reach .9; the best constant has about .55, and a blind router no more."""
    routers = [router_of(name) for name in ("best-constant", "random", "knn", "ridge", "irt", "oracle", "cascade")]
    board, _ = board_of(world(600), routers, tmp_path, seeds=2)
    rows = {one.router.name: one for one in board.standings}
    for name in ("knn", "ridge", "irt"):
        assert rows[name].figures["score"] > 0.8, name
        assert rows[name].constant is not None
        assert rows[name].constant.verdict == "better", name
        assert rows[name].mixture is not None
        assert rows[name].mixture.verdict == "better", name
        assert rows[name].figures["brier"] < rows[name].figures["brier_of_means"], name
    assert rows["random"].constant is not None
    assert rows["random"].constant.verdict != "better"
    assert rows["oracle"].rank is None
    assert rows["oracle"].figures["score"] == board.head["oracle_score"]
    # Answers that the cascade threw away are paid for, in USD and in time.
    assert rows["cascade"].figures["latency_s"] > 0.5
    assert rows["best-constant"].figures["latency_s"] == 0.5


def test_board_is_the_same_to_the_last_digit_and_goes_on_where_it_was(tmp_path: Path) -> None:
    routers = [router_of(name) for name in ("knn", "logistic", "avengers", "random")]
    first, trials = board_of(world(), routers, tmp_path / "one")
    again, kept = board_of(world(), routers, tmp_path / "one")
    other, _ = board_of(world(), routers, tmp_path / "two")
    assert [one.is_kept for one in trials] == [False] * len(trials)
    assert [one.is_kept for one in kept] == [True] * len(kept)
    texts = [json.dumps([one.row() for one in board.standings]) for board in (first, again, other)]
    assert texts[0] == texts[1] == texts[2]
    changed = [*routers[:-1], RouterSpec("random", routers[-1].factory, {"seed": 9})]
    _, more = board_of(world(), changed, tmp_path / "one")
    assert [one.is_kept for one in more] == [True] * 6 + [False] * 2


def test_board_of_trials_on_a_machine_that_does_not_see_the_boards_folder_has_the_same_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    questions, routers = world(), [router_of("knn"), odd("Raises"), router_of("random")]
    folds, brought = folds_of(questions), []

    def elsewhere(jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
        unseen = tmp_path / "elsewhere" / place.name

        def bring(folder: Path) -> None:
            brought.append(folder)
            shutil.copytree(place, folder, ignore=lambda *_: [".in-use"], dirs_exist_ok=True)

        for job in jobs:
            code = "another" if job.spec.name == "random" else code_of(job.spec)
            ended, made = run_anywhere(job.trial, unseen, bring, code)
            if not ended:
                job.out.write_bytes(made)
            yield job, ended

    there = run_trials(questions, routers, folds, tmp_path / "there", elsewhere, path=[ROOT])
    here = run_trials(questions, routers[:2], folds, tmp_path / "here", in_processes(1), path=[ROOT])
    for one, two in zip(there, here, strict=False):
        assert (one.failed, one.message) == (two.failed, two.message)
        for name in {*one.made, *two.made} - {"fit_s", "route_s"}:
            assert np.array_equal(one.made[name], two.made[name], equal_nan=True), name
    assert len(brought) == 1
    assert [(one.failed, "has other code" in one.message) for one in there[4:]] == [("lost", True)] * 2
    # A trial that the machine lost is tried again, and a router's own error is not.
    again = run_trials(questions, routers, folds, tmp_path / "there", in_processes(1), path=[ROOT])
    assert [(one.failed, one.is_kept) for one in again] == [(None, True)] * 2 + [("raised", True)] * 2 + [
        (None, False)
    ] * 2


def test_board_without_costs_has_scores_and_says_that_costs_are_unknown(tmp_path: Path) -> None:
    routers = [router_of(name) for name in ("best-constant", "knn", "cheapest")]
    board, _ = board_of(without_usd(world()), routers, tmp_path, seeds=1)
    rows = {one.router.name: one for one in board.standings}
    assert rows["knn"].figures["usd"] is None
    assert rows["knn"].figures["unpriced"] > 0
    assert rows["knn"].mixture is None
    assert rows["knn"].figures["score"] > 0.5
    assert rows["cheapest"].failed == "choice: no candidate has a known cost in training"


def test_board_missing_scores_are_never_wrong_and_choices_of_them_are_counted(tmp_path: Path) -> None:
    questions = world()
    questions.pool.scores[:, 1] = np.where(np.arange(240) % 2, np.nan, questions.pool.scores[:, 1])
    board, _ = board_of(questions, [router_of(name) for name in ("knn", "ridge", "oracle", "irt")], tmp_path, seeds=1)
    rows = {one.router.name: one for one in board.standings}
    assert rows["knn"].figures["unscored"] > 0
    assert rows["knn"].figures["score"] > 0.8
    # A bound chooses among the scores that are there: a missing one costs it no question.
    assert rows["oracle"].figures["score"] == board.head["oracle_score"]
    assert (rows["oracle"].figures["abstained"], rows["oracle"].figures["unscored"]) == (0, 0)


@pytest.mark.few(1)
@pytest.mark.parametrize("rule", ["content", *(pytest.param(rule, marks=long_only) for rule in ("model", "time"))])
def test_board_of_every_shipped_router_has_a_row_for_each_and_keeps_them(tmp_path: Path, rule: str) -> None:
    board, _ = board_of(world(), default_routers(), tmp_path, seeds=1, rule=rule)
    _, again = board_of(world(), default_routers(), tmp_path, seeds=1, rule=rule)
    assert [one.router for one in again if not one.is_kept] == []
    failed = {one.router.name: one.failed for one in board.standings if one.failed}
    if rule == "model":
        # They were not made for candidates without answers.
        failed = {name: why for name, why in failed.items() if not name.startswith(("routereval-", "cascade-ideal"))}
    assert failed == {}


def test_vectors_of_any_number_of_threads_are_the_same_to_the_last_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = world(600).texts
    made = []
    for threads in (1, 2):
        monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / f"{threads}"))
        with threadpoolctl.threadpool_limits(threads):
            made.append(encoders.vectors_of("tfidf", texts))
    assert made[0].tobytes() == made[1].tobytes()
