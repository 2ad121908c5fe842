"""Choices that know the answers are told from those that read the questions well."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from collectors.metrics.leakage import LEAST, LIMIT, SUSPICIOUS, leakage
from collectors.routers.questions import Questions
from tests.helpers.routed_worlds import world


def kinds(questions: Questions) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Vectors that show the kind of each question, and the choices of the best rule that reads it."""
    is_sum = np.array([text.startswith("sum") for text in questions.texts])
    noise = np.random.default_rng(1).normal(0, 0.1, (len(is_sum), 4))
    return np.concatenate([np.where(is_sum[:, np.newaxis], [[1, 0]], [[0, 1]]), noise], axis=1), np.where(is_sum, 1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_leakage_of_the_best_rule_without_answers_is_none(seed: int) -> None:
    questions = world(1000, seed=seed)
    vectors, best = kinds(questions)
    found = leakage(questions.pool.scores, np.array(questions.tasks), best, vectors)
    assert not found.knows_answers
    assert found.odds_ratio is not None
    assert found.odds_ratio < 1.5


@pytest.mark.parametrize(("share", "knows"), [(1.0, True), (0.5, True), (0.0, False)])
def test_leakage_grows_with_the_share_of_answers_that_are_used(share: float, knows: bool) -> None:
    questions = world(1000)
    vectors, best = kinds(questions)
    is_told = np.random.default_rng(0).random(len(best)) < share
    chosen = np.where(is_told, questions.pool.scores.argmax(axis=1), best)
    assert leakage(questions.pool.scores, np.array(questions.tasks), chosen, vectors).knows_answers == knows


def test_leakage_of_random_choices_is_what_was_expected() -> None:
    questions = world(1000)
    chosen = np.random.default_rng(2).integers(0, 3, 1000)
    found = leakage(questions.pool.scores, np.array(questions.tasks), chosen, np.zeros((1000, 0)))
    assert found.odds_ratio == 1
    assert found.expected == pytest.approx(found.right, rel=0.1)


def test_leakage_of_few_questions_or_equal_answers_is_unknown() -> None:
    scores = np.array([[1.0, 0.0]] * (LEAST - 1) + [[1.0, 1.0]] * 50)
    chosen = np.zeros(len(scores), np.int64)
    found = leakage(scores, np.array(["t"] * len(scores)), chosen, np.zeros((len(scores), 0)))
    assert (found.questions, found.odds_ratio, found.knows_answers) == (LEAST - 1, None, False)


def test_leakage_counts_no_unknown_answer_and_no_missing_choice() -> None:
    scores = np.tile([[1.0, 0.0, np.nan]], (60, 1))
    chosen = np.array([0] * 30 + [-1] * 20 + [2] * 10)
    assert leakage(scores, np.array(["t"] * 60), chosen, np.zeros((60, 0))).questions == 30


def test_leakage_finds_the_odds_that_were_put_in() -> None:
    random = np.random.default_rng(3)
    scores = np.zeros((4000, 2))
    scores[:, 0] = random.random(4000) < 0.5
    scores[:, 1] = 1 - scores[:, 0]
    chosen = np.where(random.random(4000) < 0.8, scores.argmax(axis=1), scores.argmin(axis=1))
    found = leakage(scores, np.array(["t"] * 4000), chosen, np.zeros((4000, 0)))
    assert found.odds_ratio is not None
    assert LIMIT < 3 < found.odds_ratio < 4, "80 % of right choices among chances of 50 % are odds of 4"


def constant_but(share_of_task: float, seed: int) -> tuple[Questions, npt.NDArray[np.int64]]:
    """Choices of one constant, but of the answers in a share of the first task's questions."""
    questions = world(1000, seed=seed, tasks=("a", "b", "c", "d", "e"))
    chosen = np.full(1000, 1)
    known = (np.array(questions.tasks) == "a") & (np.random.default_rng(seed).random(1000) < share_of_task)
    return questions, np.where(known, questions.pool.scores.argmax(axis=1), chosen)


@pytest.mark.parametrize("seed", range(3))
def test_leakage_of_one_whole_task_of_five_is_seen(seed: int) -> None:
    questions, chosen = constant_but(1.0, seed)
    vectors, _ = kinds(questions)
    found = leakage(questions.pool.scores, np.array(questions.tasks), chosen, vectors)
    assert found.knows_answers
    assert found.refused_tasks == ("a",)
    assert found.odds_ratio is not None
    assert found.odds_ratio < LIMIT, "among all questions it is lost"


@pytest.mark.slow
def test_leakage_of_fair_rules_on_many_tasks_is_seen_in_none() -> None:
    for seed in range(5):
        questions = world(1000, seed=seed, tasks=tuple("abcdefghij"))
        vectors, best = kinds(questions)
        for chosen in (best, np.full(1000, 1), np.random.default_rng(seed).integers(0, 3, 1000)):
            found = leakage(questions.pool.scores, np.array(questions.tasks), chosen, vectors)
            assert (found.knows_answers, found.is_suspicious) == (False, False)


def test_leakage_between_the_limits_is_suspicious_and_not_refused() -> None:
    random = np.random.default_rng(3)
    scores = np.zeros((300, 2))
    scores[:, 0] = random.random(300) < 0.5
    scores[:, 1] = 1 - scores[:, 0]
    chosen = np.where(random.random(300) < 0.7, scores.argmax(axis=1), scores.argmin(axis=1))
    found = leakage(scores, np.array(["t"] * 300), chosen, np.zeros((300, 0)))
    assert found.odds_ratio is not None
    assert SUSPICIOUS < found.odds_ratio < LIMIT
    assert (found.knows_answers, found.is_suspicious) == (False, True)


RANGES = {
    "a narrow one": lambda share: 0.4 + 0.05 * share,
    "log-likelihoods": lambda share: np.log(share) * 50,
    "points": lambda share: np.round(share * 10),
    "both kinds": lambda share: np.where(np.arange(len(share))[:, np.newaxis] % 2, share * 0.3, share > 0.5),
}


@pytest.mark.parametrize("kind", RANGES)
def test_leakage_of_graded_scores_is_seen_whatever_their_range(kind: str) -> None:
    random = np.random.default_rng(7)
    features, skills = random.normal(size=(300, 4)), random.normal(size=(4, 5)) * 0.6
    scores = RANGES[kind](1 / (1 + np.exp(-features @ skills - random.normal(size=(300, 5))))).astype(np.float32)
    tasks = np.where(np.arange(300) % 2, "graded", "other")
    near = np.argsort(-(features[150:] @ features[:150].T), axis=1)[:, :20]
    best = scores[150:].argmax(axis=1)
    rules = {
        "oracle": best,
        "near": scores[near].mean(axis=1).argmax(axis=1),
        "constant": np.full(150, scores[150:].mean(axis=0).argmax()),
        "random": random.integers(0, 5, 150),
    }
    found = {
        name: leakage(scores, tasks, np.concatenate([np.full(150, -1), chosen]), features)
        for name, chosen in rules.items()
    }
    assert {name for name, one in found.items() if one.knows_answers} == {"oracle"}
    assert found["oracle"].right == found["oracle"].questions


def test_leakage_is_that_of_right_and_wrong_whatever_stands_for_them() -> None:
    questions = world(300)
    vectors, best = kinds(questions)
    scores, tasks = questions.pool.scores, np.array(questions.tasks)
    assert leakage(scores * 0.25 - 8, tasks, best, vectors) == leakage(scores, tasks, best, vectors)
