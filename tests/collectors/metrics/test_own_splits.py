"""Splits of our own: a function of content and seed, with near-duplicates on one side."""

from __future__ import annotations

import numpy as np
import pytest

from collectors.metrics.near_duplicates import near_groups
from collectors.metrics.splits import (
    OwnSplit,
    content_split,
    leaks,
    model_split,
    names_of_groups,
    task_split,
    time_split,
)

LONG = "A farmer sells twelve eggs each morning for two dollars and keeps the rest of them for a cake on Sunday"


def texts(count: int) -> list[str]:
    words = np.random.default_rng(0).integers(0, 5000, (count, 12))
    return [" ".join(f"word{word}" for word in row) for row in words]


def test_near_groups_equal_but_for_case_and_one_word_and_their_chain_are_one_group() -> None:
    same, other = LONG.upper() + "!", LONG.replace("Sunday", "Monday")
    third = other.replace("farmer", "grocer")
    assert near_groups([LONG, "Something else entirely", same, other, third]).tolist() == [0, 1, 0, 0, 0]


def test_near_groups_context_before_every_question_joins_none() -> None:
    """Five-shot prompts share nine tenths of their words."""
    context = " ".join(texts(40))
    asked = [f"{context} {text}" for text in texts(200)]
    assert len(set(near_groups(asked).tolist())) == 200


@pytest.mark.parametrize("some", [[], [""], ["", ""], ["a"], ["a b", "a b c"]])
def test_near_groups_few_words_are_compared_whole(some: list[str]) -> None:
    assert near_groups(some).tolist() == list(np.unique(some, return_inverse=True)[1]) if some else True


def test_content_split_depends_on_no_order_and_on_no_other_question() -> None:
    keys = [f"key-{place}" for place in range(400)]
    whole = dict(zip(keys, content_split(keys, 0.7, 3).parts.tolist(), strict=True))
    some = keys[350:] + keys[:200]
    assert dict(zip(some, content_split(some, 0.7, 3).parts.tolist(), strict=True)) == {key: whole[key] for key in some}
    assert 0.6 < np.mean([part == "train" for part in whole.values()]) < 0.8
    assert whole != dict(zip(keys, content_split(keys, 0.7, 4).parts.tolist(), strict=True))


def test_content_split_keeps_near_duplicates_together_and_leaks_names_those_that_are_not() -> None:
    asked = [text for one in texts(60) for text in (one, one + " please")]
    keys = [f"{place:03d}" for place in range(120)]
    groups = near_groups(asked)
    split = content_split(names_of_groups(keys, groups), 0.5, 0)
    assert leaks(split, keys, groups) == []
    assert (split.parts[0::2] == split.parts[1::2]).all()
    broken = np.where(np.arange(120) % 2, "train", "test")
    assert len(leaks(OwnSplit("content", 0, 0.5, broken, keys), keys, groups)) == 60


def test_task_split_tests_whole_tasks_and_leaves_out_what_would_leak() -> None:
    tasks = ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    near = ["x", "1", "2", "x", "3", "4", "5", "6", "7"]
    split = task_split(near, tasks, 0.7, 0)
    tested = {task for task, part in zip(tasks, split.parts, strict=True) if part == "test"}
    assert len(tested) == 1
    shared = {task for task, name in zip(tasks, near, strict=True) if name == "x"}
    assert (split.parts == "left_out").sum() == (1 if tested & shared else 0)
    with pytest.raises(ValueError, match="two tasks"):
        task_split(["1", "2"], ["a", "a"])


def test_time_split_later_questions_are_tested_unless_they_came_before() -> None:
    near = ["1", "2", "3", "1", "4", "5"]
    times = np.array([1.0, 1.0, 2.0, 3.0, 3.0, np.nan])
    assert time_split(near, times, 0.6).parts.tolist() == ["train", "train", "train", "left_out", "test", "left_out"]
    with pytest.raises(ValueError, match="two times"):
        time_split(["1", "2"], np.array([1.0, 1.0]))


def test_model_split_gives_unseen_candidates_probes_of_training_questions_alone() -> None:
    near = [f"{place}" for place in range(200)]
    split = model_split(near, list("abcdefghij"), 0.7, 1, probes=20)
    assert split.unseen is not None
    assert split.probes is not None
    assert (split.unseen.sum(), split.probes.sum()) == (3, 20)
    assert not (split.probes & ~split.train).any()
