"""A copy of a model's answers is told from a model that is alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collectors.metrics.likeness import copied, likeness


def test_likeness_counts_differences_and_those_that_chance_makes() -> None:
    own = np.array([1, 0, 1, np.nan, 0.5])
    scores = np.array([[1, 0], [0, 1], [1, np.nan], [0, 0], [0.5, 0.25]])
    found = likeness(own, scores, np.array(["t", "t", "t", "t", "u"]))
    assert found.common.tolist() == [4, 3]
    assert found.different.tolist() == [0, 3]
    # In t a 1 meets a 1 by chance in 2/3 of the cases, a 0 a 0 in 1/3; in u the only score of its own meets itself.
    assert found.expected.tolist() == pytest.approx([(1 - 2 / 3) + (1 - 1 / 3) + (1 - 2 / 3), 2 / 3 + 1 / 3 + 1])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_models_that_are_alike_because_questions_are_hard_are_no_copies(share: float) -> None:
    draw = np.random.default_rng(0)
    hard, tasks = draw.random(400), np.array(["t"] * 400)

    def model(rate: float) -> Any:
        difficulty = hard + draw.random(400)
        return (difficulty <= np.quantile(difficulty, rate)).astype(float)

    for _ in range(20):
        scores = np.stack([model(share), model(0.5), model(0.6)], axis=1)
        assert copied(model(share), scores, tasks, np.zeros(3, np.bool_)) is None


def test_copies_are_found_among_models_that_are_alike_and_not_where_no_score_differs_by_chance() -> None:
    draw = np.random.default_rng(1)
    base = (draw.random(300) < 0.9).astype(float)
    others = np.stack([np.where(draw.random(300) < 0.1, 1 - base, base) for _ in range(4)], axis=1)
    tasks, nobody = np.array(["t", "u"] * 150), np.zeros(4, np.bool_)
    found = copied(others[:, 2].copy(), others, tasks, nobody)
    assert found
    assert (found.column, found.different, found.common) == (2, 0, 300)
    assert copied(np.where(draw.random(300) < 0.1, 1 - base, base), others, tasks, nobody) is None
    assert copied(others[:, 2].copy(), others, tasks, np.array([False, False, True, False])) is None
    ones = np.ones((300, 4))
    assert copied(ones[:, 0].copy(), ones, tasks, nobody) is None
    assert copied(others[:19, 2].copy(), others[:19], tasks[:19], nobody) is None
