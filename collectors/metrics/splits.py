"""The train and test items of RouterEval and RouterBench, and RouterEval's model pools.

Knows no files: arrays in, positions out. Both benchmarks draw with numpy's legacy generator, whose numbers never
change. A split or pool that cannot be drawn as published raises a ValueError with the reason; the originals divide by
zero or return fewer models than requested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import Floats

#: RouterEval's pools: difficulty -> numbers of models.
POOL_SIZES = {"easy": (3, 5), "hard": (10, 100, 1000)}
GROUPS = ("all_strong", "all_weak", "strong_to_weak")
SEED = 42
#: RouterEval pools only models with a mean above WEAKEST and at most STRONGEST.
WEAKEST, STRONGEST = 0.1, 0.9
#: strong_to_weak keeps the best of so many draws of one model per bin.
DRAWS = 1000

Places = npt.NDArray[np.int64]


# ---- splits


def routereval_split(items: int) -> tuple[Places, Places, Places]:
    """Positions of the train, val and test items of one sub-scenario: shuffled, cut at int(0.8 n) and int(0.9 n).

    Source: RouterEval, which sets the seed again for every sub-scenario.
    """
    order = _shuffled(items)
    first, second = int(0.8 * items), int(0.9 * items)
    return order[:first], order[first:second], order[second:]


def routerbench_split(sample_ids: Sequence[str], fraction: float = 0.7) -> tuple[list[str], list[str]]:
    """Train and test sample ids of one eval_name: unique ids in the rows' order, shuffled, cut at int(fraction n).

    Source: RouterBench (withmartian/routerbench), utils.build_train_eval_dataset, for files without a column source.
    """
    ids = list(dict.fromkeys(sample_ids))
    shuffled = [ids[place] for place in _shuffled(len(ids))]
    cut = int(len(ids) * fraction)
    return shuffled[:cut], shuffled[cut:]


def _shuffled(items: int) -> Places:
    order = np.arange(items, dtype=np.int64)
    np.random.RandomState(SEED).shuffle(order)
    return order


# ---- pools


def routereval_pool(scores: Floats, group: str, size: int) -> Places:
    """Columns of RouterEval's pool of `size` models, the weakest first; `group` is one of GROUPS.

    `scores` is (items, models) without gaps. Models are sorted by ascending mean over all items.

    all_weak: take the first max(models // 5, size) models with a mean above WEAKEST, and of all windows of `size`
    neighbours among them the one with the best oracle.
    all_strong: the same with the last max(models // 5, size) models with a mean of at most STRONGEST.
    strong_to_weak: cut the models between the two means into `size` equal bins, draw one model per bin DRAWS times, and
    keep the draw with the best oracle.

    Raises ValueError if there are too few models, or a score is unknown.
    """
    if np.isnan(scores).any():
        raise ValueError("a pool is chosen on known scores only")
    means = scores.mean(axis=0, dtype=np.float64)
    order = np.argsort(means, kind="stable")
    ascending = means[order]
    first = _first_above(ascending, WEAKEST)
    last = _first_above(ascending, STRONGEST)
    return _CHOOSERS[group](scores, order, first, last, size)


def _first_above(ascending: npt.NDArray[Any], mean: float) -> int:
    return int(np.searchsorted(ascending, mean, side="right"))


def _all_weak(scores: Floats, order: Places, first: int, last: int, size: int) -> Places:
    above = order[first:]
    if len(above) < size:
        raise ValueError(f"{len(above)} of {len(order)} models have a mean above {WEAKEST}, {size} are needed")
    return _best_window(scores, above[: _span(order, size)], size)


def _all_strong(scores: Floats, order: Places, first: int, last: int, size: int) -> Places:
    span = _span(order, size)
    if last < span:
        raise ValueError(f"{last} of {len(order)} models have a mean of at most {STRONGEST}, {span} are needed")
    return _best_window(scores, order[last - span : last], size)


def _strong_to_weak(scores: Floats, order: Places, first: int, last: int, size: int) -> Places:
    between = order[first:last]
    if len(between) < size:
        raise ValueError(
            f"{len(between)} of {len(order)} models have a mean between {WEAKEST} and {STRONGEST}, {size} are needed"
        )
    bins = np.array_split(between, size)
    random = np.random.RandomState(SEED)
    draws = (np.array([random.choice(one) for one in bins], np.int64) for _ in range(DRAWS))
    return max(draws, key=lambda columns: _oracle(scores, columns))


_CHOOSERS: dict[str, Callable[[Floats, Places, int, int, int], Places]] = {
    "all_strong": _all_strong,
    "all_weak": _all_weak,
    "strong_to_weak": _strong_to_weak,
}


def _span(order: Places, size: int) -> int:
    return max(len(order) // 5, size)


def _best_window(scores: Floats, candidates: Places, size: int) -> Places:
    """The window of `size` neighbours with the best oracle, the first of equals."""
    windows = [candidates[start : start + size] for start in range(len(candidates) - size + 1)]
    return max(windows, key=lambda columns: _oracle(scores, columns))


def _oracle(scores: Floats, columns: Places) -> float:
    return float(scores[:, columns].max(axis=1).mean(dtype=np.float64))
