"""RouterEval's and RouterBench's splits and pools, against their own words and published sizes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.metrics.splits import (
    GROUPS,
    routerbench_split,
    routereval_pool,
    routereval_pools,
    routereval_split,
    seeded,
)
from tests.helpers.importing import SHARED


def test_routereval_split_of_gsm8k_has_the_published_sizes() -> None:
    assert [len(part) for part in routereval_split([1319])] == [1055, 132, 132]  # of its quick_start notebook


def split_by_hand(parts: list[int]) -> list[list[int]]:
    """RouterEval's rule: numpy is seeded once, then part after part is shuffled and cut. The state goes on after it."""
    np.random.seed(42)
    split: list[list[int]] = [[], [], []]
    first = 0
    for items in parts:
        places = np.arange(first, first + items)
        np.random.shuffle(places)
        cuts = [0, int(0.8 * items), int(0.9 * items), items]
        for chosen, low, high in zip(split, cuts[:-1], cuts[1:], strict=True):
            chosen += places[low:high].tolist()
        first += items
    return split


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60))
def test_routereval_split_of_many_parts_goes_on_from_one_seed(parts: list[int]) -> None:
    assert [part.tolist() for part in routereval_split(parts)] == split_by_hand(parts)


def test_routereval_split_of_two_sub_scenarios_keeps_its_test_items_out_of_train() -> None:
    train, _, test = routereval_split([100, 100])
    theirs = split_by_hand([100, 100])[2]
    assert test.tolist() == theirs
    assert not np.isin(theirs, train).any()


def test_routerbench_split_takes_each_id_once_and_is_numpys_legacy_shuffle() -> None:
    ids = [f"arc.{n}" for n in range(427)]
    order = list(ids)
    np.random.seed(42)
    np.random.shuffle(order)
    train, test = routerbench_split([*ids, *ids[:14]])
    assert train + test == order
    assert (len(train), len(test)) == (298, 129)


@pytest.mark.skipif(not SHARED.exists(), reason="real records are not on this machine")
@pytest.mark.parametrize(
    ("task", "items", "accuracy", "cost"), [("mbpp", 129, 0.690, 0.043), ("winogrande", 381, 0.664, 0.134)]
)
def test_routerbench_split_of_its_records_has_its_test_figures(
    task: str, items: int, accuracy: float, cost: float
) -> None:
    columns = ["model", "task", "item_id", "score", "cost_usd"]
    records = pq.read_table(SHARED / "records/routerbench_sub/records.parquet", columns=columns).to_pandas()
    records = records[(records.task == task) & (records.model == "gpt-3.5-turbo-1106")]
    _, test = routerbench_split(sorted(records.item_id))  # as its own files are
    picked = records[records.item_id.isin(test)]
    assert len(picked) == items
    assert (picked.score.mean(), picked.cost_usd.sum()) == pytest.approx((accuracy, cost), abs=5e-4)


def matrix(items: int = 40, models: int = 20, seed: int = 0) -> npt.NDArray[Any]:
    """Models of all strengths; the columns are not in the order of their means."""
    random = np.random.default_rng(seed)
    chances = random.permutation(np.linspace(0.05, 0.97, models))
    return (random.random((items, models)) < chances).astype(np.float64)


def windows_by_hand(scores: npt.NDArray[Any], size: int, *, strong: bool) -> set[tuple[int, ...]]:
    """The windows with the best oracle, by the description."""
    means = [float(scores[:, m].mean()) for m in range(scores.shape[1])]
    order = np.argsort(means).tolist()
    first = next(n for n, m in enumerate(order) if means[m] > 0.1)
    last = next((n for n, m in enumerate(order) if means[m] > 0.9), len(order))
    sp = max(len(order) // 5, size)
    among = order[last - sp : last] if strong else order[first : first + sp]
    found: dict[tuple[int, ...], float] = {}
    for start in range(len(among) - size + 1):
        window = tuple(among[start : start + size])
        found[window] = sum(max(row[m] for m in window) for row in scores) / len(scores)
    return {window for window, value in found.items() if value == max(found.values())}


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_routereval_pools_of_windows_are_those_counted_here(size: int, seed: int) -> None:
    scores = matrix(models=40, seed=seed)
    for group, strong in (("all_weak", False), ("all_strong", True)):
        pool = tuple(routereval_pool(scores, group, size).tolist())
        assert pool in windows_by_hand(scores, size, strong=strong)


def test_routereval_pool_strong_to_weak_takes_one_model_of_each_bin_and_finds_the_best() -> None:
    scores = matrix(models=12, seed=3)
    means = scores.mean(axis=0)
    between = [m for m in np.argsort(means) if 0.1 < means[m] <= 0.9]
    pool = routereval_pool(scores, "strong_to_weak", 3)
    bins = np.array_split(between, 3)
    assert [m in one for m, one in zip(pool, bins, strict=True)] == [True] * 3
    # 1,000 draws of a few dozen combinations miss none.
    best = max(scores[:, list(choice)].max(axis=1).mean() for choice in itertools.product(*bins))
    assert scores[:, pool].max(axis=1).mean() == best
    assert (routereval_pool(scores, "strong_to_weak", 3) == pool).all()


@pytest.mark.parametrize("seed", range(3))
def test_routereval_pools_are_drawn_from_the_state_that_the_split_left(seed: int) -> None:
    parts = [13, 40, 7]
    scores = matrix(items=60, models=60, seed=seed)
    split_by_hand(parts)  # leaves numpy's own state behind
    means = scores.mean(axis=0)
    order = np.argsort(means)
    between = order[(means[order] > 0.1) & (means[order] <= 0.9)]
    random = seeded()
    routereval_split(parts, random)
    pools, lacking = routereval_pools(scores, random)
    for difficulty, size in (("easy", 3), ("easy", 5), ("hard", 10)):
        best, wanted = -1.0, []
        for _ in range(1000):
            drawn = [np.random.choice(one) for one in np.array_split(between, size)]
            if (value := scores[:, drawn].max(axis=1).mean()) > best:
                best, wanted = value, drawn
        assert pools[difficulty, size, "strong_to_weak"].tolist() == wanted
    assert {size for size, *_ in lacking} == {100, 1000}


def test_routereval_pool_of_equal_means_follows_numpys_default_sort() -> None:
    scores = np.repeat(matrix(models=8), 8, axis=1)  # each mean eight times
    order = np.argsort(scores.mean(axis=0))
    first = int((scores.mean(axis=0) <= 0.1).sum())
    assert routereval_pool(scores, "all_weak", 3)[0] in order[first : first + 10]
    window = routereval_pool(scores, "all_weak", 3).tolist()
    at = order.tolist().index(window[0])
    assert window == order[at : at + 3].tolist()


@pytest.mark.parametrize("group", GROUPS)
def test_routereval_pool_of_too_few_models_says_how_many_there_are(group: str) -> None:
    with pytest.raises(ValueError, match=r"of 4 models .* 5 are needed"):
        routereval_pool(matrix(models=4), group, 5)


def test_routereval_pool_where_nobody_is_good_enough_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"0 of 5 models have a mean above 0\.1, 3 are needed"):
        routereval_pool(np.zeros((10, 5)), "all_weak", 3)
    with pytest.raises(ValueError, match=r"0 of 5 models have a mean of at most 0\.9, 3 are needed"):
        routereval_pool(np.ones((10, 5)), "all_strong", 3)
    with pytest.raises(ValueError, match="known scores only"):
        routereval_pool(np.full((10, 5), np.nan), "all_weak", 3)
