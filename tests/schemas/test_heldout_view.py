"""oracle_heldout: an oracle is scored on other answers than it was chosen by, in worlds whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only, often

MODELS = [f"m{place}" for place in range(7)]


def written(lake: LakeBuilder, draws: np.ndarray) -> None:
    """`draws` (candidates, questions, repeats): scores of answers; repeat 0 is their mean."""
    for model, of in zip(MODELS, draws, strict=False):
        cell = BuiltCell(model=model, items=draws.shape[1])
        lake.run(cell)
        rows = [cell.record(item, score=float(one.mean())) for item, one in enumerate(of)]
        rows += [
            cell.record(item, score=float(score), repeat=repeat + 1)
            for item, one in enumerate(of)
            for repeat, score in enumerate(one)
        ]
        lake.shard(cell, rows)


def test_oracle_heldout_by_hand(tmp_path: Path) -> None:
    """Question 0: a is right at odd repeats, b at even ones. Question 1: a always, b never."""
    lake = LakeBuilder(tmp_path / "lake")
    written(lake, np.array([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]))
    found = lake.row("SELECT * FROM oracle_heldout")
    # Chosen by repeat 1: a, whose repeat 2 is wrong; by repeat 2: b, whose repeat 1 is wrong.
    assert (found["questions"], found["draws"], found["best_model"]) == (2, 2, "m0")
    assert (found["best_model_score"], found["oracle_score"], found["one_draw_score"]) == (0.75, 0.5, 1.0)
    assert (found["all_draws_score"], found["luck"], found["gap"]) == (0.75, 0.5, -0.25)


def test_oracle_heldout_without_repeats_has_no_row_and_sampled_once_counts_candidates(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    for model, decoding in (("m0", None), ("m1", '{"temperature": 0.7}'), ("m2", '{"temperature": 0.0}')):
        cell = BuiltCell(model=model)
        lake.run(cell, decoding=decoding)
        lake.scores(cell, [1.0, 0.0])
    assert lake.rows("SELECT * FROM oracle_heldout") == []
    assert lake.row("SELECT sampled_once FROM oracle")["sampled_once"] == 1


@pytest.mark.parametrize("count", [4, *(pytest.param(count, marks=long_only) for count in (2, 10))])
def test_oracle_heldout_has_no_bias_against_worlds_whose_truth_is_known(tmp_path: Path, count: int) -> None:
    """The truth: the expected score of the candidate that half of the answers choose. One draw flatters by far more."""
    random = np.random.default_rng(count)
    found, truth, lucky = [], [], []
    for world in range(often(10, 1)):
        chances = random.beta(0.8, 0.6, (len(MODELS), 600))
        draws = (random.random((*chances.shape, count)) < chances[..., np.newaxis]).astype(float)
        lake = LakeBuilder(tmp_path / f"lake-{world}")
        written(lake, draws)
        row = lake.row("SELECT * FROM oracle_heldout")
        found.append(row["oracle_score"])
        lucky.append(row["one_draw_score"])
        halves = [draws[..., 0::2].mean(axis=2), draws[..., 1::2].mean(axis=2)]
        of_halves = []
        for half in halves:
            merit = half + 1e-6 * half.mean(axis=1, keepdims=True)
            of_halves.append(chances[merit.argmax(axis=0), np.arange(chances.shape[1])].mean())
        truth.append(np.mean(of_halves))
        assert row["oracle_score"] <= row["all_draws_score"]
    noise = 3 * 0.4 / np.sqrt(600 * len(found))
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=max(0.005, noise))
    assert np.mean(lucky) > np.mean(truth) + 0.03
