"""oracle_heldout: an oracle is scored on other answers than it was chosen by, in worlds whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


HOT = {"do_sample": True, "temperature": 0.7}


def beside(
    lake: LakeBuilder, prompting: str, draws: np.ndarray, listed: Sequence[int], decoding: dict[str, Any], **other: Any
) -> None:
    """Cells of the models under a prompting of their own that asked the `listed` items several times."""
    for model, of in zip(MODELS, draws, strict=False):
        cell = BuiltCell(model=model, prompting=prompting, items=40)
        item_set = lake.item_set(listed)
        settings = {"decoding": json.dumps(decoding), "sampled_items": len(listed), "item_set": item_set, **other}
        lake.run(cell, **settings)
        rows = [cell.record(item, score=float(of[item].mean())) for item in listed]
        rows += [
            cell.record(item, score=float(score), repeat=repeat)
            for item in listed
            for repeat, score in enumerate(of[item], 1)
        ]
        lake.shard(cell, rows, listed=listed)


def once(lake: LakeBuilder, scores: np.ndarray, **changes: Any) -> None:
    """The models' cells with one answer to each item."""
    for model, of in zip(MODELS, scores, strict=False):
        cell = BuiltCell(model=model, items=40)
        lake.run(cell, decoding=json.dumps(HOT), **changes)
        lake.scores(cell, of.tolist())


def by_hand(draws: np.ndarray) -> dict[str, float]:
    """The figures of draws (models, questions, repeats) by plain Python."""
    halves = [draws[..., 0::2].mean(axis=2), draws[..., 1::2].mean(axis=2)]
    held = []
    for chosen_by, scored_by in (halves, halves[::-1]):
        singles = chosen_by.mean(axis=1)
        best = [min(range(len(draws)), key=lambda m: (-chosen_by[m, q], -singles[m], m)) for q in range(draws.shape[1])]
        held.append(np.mean([scored_by[m, q] for q, m in enumerate(best)]))
    return {
        "questions": draws.shape[1],
        "draws": draws.shape[2],
        "best_model_score": draws.mean(axis=(1, 2)).max(),
        "oracle_score": np.mean(held),
        "one_draw_score": draws.max(axis=0).mean(),
        "all_draws_score": draws.mean(axis=2).max(axis=0).mean(),
    }


def test_oracle_heldout_reads_the_part_that_other_cells_asked_several_times(tmp_path: Path) -> None:
    """As if the task had asked that part several times itself. The pool is the one of the whole cells alone."""
    random = np.random.default_rng(0)
    draws = (random.random((3, 40, 10)) < random.beta(0.8, 0.6, (3, 40, 1))).astype(float)
    listed, part = sorted(random.choice(40, 12, replace=False).tolist()), LakeBuilder(tmp_path / "part")
    once(part, random.random((3, 40)).round())
    before = part.rows("SELECT candidate, cell_id, cells, scored FROM candidates ORDER BY ALL")
    assert part.rows("FROM oracle_heldout") == []
    part = part.copied(tmp_path / "drawn")
    beside(part, "p1", draws, listed, {**HOT, "repeats": 10})
    # Other settings, which are no answers of these candidates.
    beside(part, "p2", 1 - draws, listed, {"temperature": 0.1, "repeats": 10})
    beside(part, "p3", 1 - draws, listed, {**HOT, "repeats": 9}, num_fewshot=5)
    found = part.row("FROM oracle_heldout")
    assert {name: found[name] for name in by_hand(draws)} == pytest.approx(by_hand(draws[:, listed]))
    assert part.rows("SELECT candidate, cell_id, cells, scored FROM candidates ORDER BY ALL") == before
    whole = LakeBuilder(tmp_path / "whole")
    written(whole, draws[:, listed])
    assert whole.row("FROM oracle_heldout") == found


def test_oracle_heldout_takes_of_two_cells_the_newer_ones_answer_of_a_number(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    older, newer = (random.integers(0, 2, (3, 40, count)).astype(float) for count in (6, 4))
    lake = LakeBuilder(tmp_path)
    once(lake, random.random((3, 40)).round())
    beside(lake, "p1", older, [1, 3, 5], {**HOT, "repeats": 6})
    beside(lake, "p2", newer, [1, 3, 5], {**HOT, "repeats": 4})
    merged = np.concatenate([newer, older[..., 4:]], axis=2)[:, [1, 3, 5]]
    found = lake.row("FROM oracle_heldout")
    assert {name: found[name] for name in by_hand(merged)} == pytest.approx(by_hand(merged))


def test_cell_that_was_asked_several_times_is_no_candidate_beside_one_that_was_asked_less(tmp_path: Path) -> None:
    """Both were sampled, and the cells with repeats have more scores: without the rule they would be the pool."""
    lake = LakeBuilder(tmp_path)
    scores = np.array([[1.0, *[0.0] * 39], [0.0, *[1.0] * 39]])
    listed = lake.item_set([0, 1])
    for model, of in zip(MODELS, scores, strict=False):
        cell = BuiltCell(model=model, items=40)
        lake.run(cell, decoding=json.dumps(HOT), sampled_items=2, item_set=listed)
        lake.shard(cell, [cell.record(item, score=float(of[item])) for item in (0, 1)], listed=[0, 1])
    beside(lake, "p1", np.repeat(scores[..., np.newaxis], 2, axis=2), range(9), {**HOT, "repeats": 2})
    assert lake.rows("SELECT DISTINCT scored, prompting, cells FROM candidates") == [(2, "p0", 1)]
    assert lake.row("SELECT questions, draws FROM oracle_heldout") == {"questions": 9, "draws": 2}
    covered = "SELECT DISTINCT planned, asked, left_out, missing FROM coverage ORDER BY ALL"
    assert lake.rows(covered) == [(40, 2, 38, 0), (40, 9, 31, 0)]


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
