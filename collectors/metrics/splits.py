"""The train and test items of RouterEval and RouterBench, RouterEval's model pools, and splits of our own.

Knows no files: arrays in, positions out. A split of our own is a function of content and seed alone. Both benchmarks
draw with numpy's legacy generator, whose numbers never change. RouterEval seeds it once for a data set: the split of
its parts and then the draws of its pools go on from one random state, so both need that state. A split or pool that
cannot be drawn as published raises a ValueError with the reason; the originals divide by zero or return fewer models
than requested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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


def seeded() -> np.random.RandomState:
    """The random state that RouterEval has when it begins with a data set."""
    return np.random.RandomState(SEED)


def routereval_split(
    parts: Sequence[int], random: np.random.RandomState | None = None
) -> tuple[Places, Places, Places]:
    """Positions of the train, val and test items of a data set whose sub-scenarios have so many items, in their order.

    Each sub-scenario is shuffled and cut at int(0.8 n) and int(0.9 n). `random` goes on from one to the next and is
    left where the draws of the pools begin; None: a state of its own. Source: RouterEval, get_router_dataset.py.
    """
    random = random or seeded()
    split: tuple[list[Places], ...] = ([], [], [])
    first = 0
    for items in parts:
        order = np.arange(first, first + items, dtype=np.int64)
        random.shuffle(order)
        for chosen, places in zip(split, np.split(order, [int(0.8 * items), int(0.9 * items)]), strict=True):
            chosen.append(places)
        first += items
    train, val, test = (np.concatenate([*chosen, np.zeros(0, np.int64)]) for chosen in split)
    return train, val, test


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
    seeded().shuffle(order)
    return order


# ---- pools


def routereval_pools(
    scores: Floats, random: np.random.RandomState
) -> tuple[dict[tuple[str, int, str], Places], list[tuple[int, str, str]]]:
    """(difficulty, size, group) -> columns of RouterEval's pool; and size, group and reason of those that cannot be.

    All pools of a data set, in the order in which RouterEval draws them. `random` is the state after routereval_split.
    """
    pools: dict[tuple[str, int, str], Places] = {}
    lacking = []
    for difficulty, sizes in POOL_SIZES.items():
        for size in sizes:
            for group in GROUPS:
                try:
                    pools[difficulty, size, group] = routereval_pool(scores, group, size, random)
                except ValueError as error:
                    lacking.append((size, group, str(error)))
    return pools, lacking


def routereval_pool(scores: Floats, group: str, size: int, random: np.random.RandomState | None = None) -> Places:
    """Columns of RouterEval's pool of `size` models, the weakest first; `group` is one of GROUPS.

    `scores` is (items, models) without gaps. Models are sorted by ascending mean over all items; those of equal means
    stand as numpy's default sort leaves them, which is not stable and may differ between processors.

    all_weak: take the first max(models // 5, size) models with a mean above WEAKEST, and of all windows of `size`
    neighbours among them the first with the best oracle.
    all_strong: the same with the last max(models // 5, size) models with a mean of at most STRONGEST.
    strong_to_weak: cut the models between the two means into `size` equal bins, draw one model per bin DRAWS times, and
    keep the first draw with the best oracle. `random` goes on with these draws; None: a state of its own.

    Raises ValueError if there are too few models, or a score is unknown. Source: RouterEval, get_router_dataset.py.
    """
    if np.isnan(scores).any():
        raise ValueError("a pool is chosen on known scores only")
    means = scores.mean(axis=0, dtype=np.float64)
    order = np.argsort(means)
    ascending = means[order]
    bounds = _Bounds(_first_above(ascending, WEAKEST), _first_above(ascending, STRONGEST))
    if group == "strong_to_weak":
        return _strong_to_weak(scores, order, bounds, size, random or seeded())
    return _WINDOWS[group](scores, order, bounds, size)


class _Bounds(NamedTuple):
    """Places in the ascending order of the first model with a mean above WEAKEST, and above STRONGEST."""

    first: int
    last: int


def _first_above(ascending: npt.NDArray[Any], mean: float) -> int:
    return int(np.searchsorted(ascending, mean, side="right"))


def _all_weak(scores: Floats, order: Places, bounds: _Bounds, size: int) -> Places:
    above = order[bounds.first :]
    if len(above) < size:
        raise ValueError(f"{len(above)} of {len(order)} models have a mean above {WEAKEST}, {size} are needed")
    return _best_window(scores, above[: _span(order, size)], size)


def _all_strong(scores: Floats, order: Places, bounds: _Bounds, size: int) -> Places:
    span, last = _span(order, size), bounds.last
    if last < span:
        raise ValueError(f"{last} of {len(order)} models have a mean of at most {STRONGEST}, {span} are needed")
    return _best_window(scores, order[last - span : last], size)


def _strong_to_weak(scores: Floats, order: Places, bounds: _Bounds, size: int, random: np.random.RandomState) -> Places:
    between = order[bounds.first : bounds.last]
    if len(between) < size:
        raise ValueError(
            f"{len(between)} of {len(order)} models have a mean between {WEAKEST} and {STRONGEST}, {size} are needed"
        )
    bins = np.array_split(between, size)
    draws = (np.array([random.choice(one) for one in bins], np.int64) for _ in range(DRAWS))
    return max(draws, key=lambda columns: _oracle(scores, columns))


_WINDOWS: dict[str, Callable[[Floats, Places, _Bounds, int], Places]] = {
    "all_strong": _all_strong,
    "all_weak": _all_weak,
}


def _span(order: Places, size: int) -> int:
    return max(len(order) // 5, size)


def _best_window(scores: Floats, candidates: Places, size: int) -> Places:
    """The window of `size` neighbours with the best oracle, the first of equals."""
    windows = [candidates[start : start + size] for start in range(len(candidates) - size + 1)]
    return max(windows, key=lambda columns: _oracle(scores, columns))


def _oracle(scores: Floats, columns: Places) -> float:
    return float(scores[:, columns].max(axis=1).mean(dtype=np.float64))


# ---- our own: of content and seed alone

#: Rules of our own splits.
CONTENT, TASK, TIME, MODEL = OWN_RULES = ("content", "task", "time", "model")
TRAIN, TEST, LEFT_OUT = PARTS = ("train", "test", "left_out")


@dataclass(frozen=True)
class OwnSplit:
    """Questions for training and for testing, and candidates that a router sees only by probes."""

    rule: str
    seed: int
    #: The share that was meant for training.
    fraction: float
    #: (questions,): TRAIN, TEST, or LEFT_OUT for questions that would leak or have no time.
    parts: npt.NDArray[np.str_]
    #: (questions,): a name that near-duplicates share, the least of their keys.
    near: list[str]
    #: (candidates,) of rule MODEL: whether a router has only probes of the candidate.
    unseen: npt.NDArray[np.bool_] | None = None
    #: (questions,) of rule MODEL: the training questions that unseen candidates have answered.
    probes: npt.NDArray[np.bool_] | None = None

    @property
    def train(self) -> npt.NDArray[np.bool_]:
        is_train: npt.NDArray[np.bool_] = self.parts == TRAIN
        return is_train

    @property
    def test(self) -> npt.NDArray[np.bool_]:
        is_test: npt.NDArray[np.bool_] = self.parts == TEST
        return is_test


def names_of_groups(keys: Sequence[str], groups: npt.NDArray[np.int64]) -> list[str]:
    """(questions,): the least key of each question's group, as a name that depends on no order."""
    least: dict[int, str] = {}
    for key, group in zip(keys, groups.tolist(), strict=True):
        least[group] = min(key, least.get(group, key))
    return [least[group] for group in groups.tolist()]


def content_split(near: Sequence[str], fraction: float = 0.7, seed: int = 0) -> OwnSplit:
    """Each group of near-duplicates by a draw from its name and the seed: adding questions moves no other."""
    drawn = {name: _drawn(name, seed) for name in set(near)}
    parts = np.array([TRAIN if drawn[name] < fraction else TEST for name in near], object).astype(np.str_)
    return _checked(OwnSplit(CONTENT, seed, fraction, parts, list(near)))


def task_split(near: Sequence[str], tasks: Sequence[str], fraction: float = 0.7, seed: int = 0) -> OwnSplit:
    """Whole tasks for testing, out of domain. A training question whose near-duplicate is in a tested task is left out.

    Raises ValueError if there are not two tasks.
    """
    names = sorted(set(tasks), key=lambda task: (_drawn(task, seed), task))
    if len(names) < 2:
        raise ValueError("a split by task needs two tasks")
    tested = set(names[: min(len(names) - 1, max(1, round(len(names) * (1 - fraction))))])
    is_test = np.array([task in tested for task in tasks], np.bool_)
    leaking = {name for name, one in zip(near, is_test.tolist(), strict=True) if one}
    parts = [TEST if one else LEFT_OUT if name in leaking else TRAIN for name, one in zip(near, is_test, strict=True)]
    return _checked(OwnSplit(TASK, seed, fraction, np.array(parts), list(near)))


def time_split(near: Sequence[str], times: npt.NDArray[np.float64], fraction: float = 0.7, seed: int = 0) -> OwnSplit:
    """The earliest share for training, the later one for testing; `times` (questions,) are NaN where unknown.

    A later question whose near-duplicate came earlier is left out, and so is one without a time. The seed changes
    nothing. Raises ValueError if all questions have one time.
    """
    ordered = np.sort(times[~np.isnan(times)])
    if not len(ordered) or ordered[0] == ordered[-1]:
        raise ValueError("a split by time needs questions of two times")
    last = ordered[min(len(ordered) - 1, max(0, int(fraction * len(ordered)) - 1))]
    last = ordered[ordered < ordered[-1]].max() if last == ordered[-1] else last
    early = {name for name, time in zip(near, times.tolist(), strict=True) if time <= last}
    parts = [
        LEFT_OUT if np.isnan(time) else TRAIN if time <= last else LEFT_OUT if name in early else TEST
        for name, time in zip(near, times.tolist(), strict=True)
    ]
    return _checked(OwnSplit(TIME, seed, fraction, np.array(parts), list(near)))


def model_split(
    near: Sequence[str], candidates: Sequence[str], fraction: float = 0.7, seed: int = 0, probes: int = 100
) -> OwnSplit:
    """Questions as by content; and candidates that were not there in training but for `probes` of its questions.

    Raises ValueError if fewer than two candidates are left for training.
    """
    split = content_split(near, fraction, seed)
    order = sorted(candidates, key=lambda name: (_drawn(name, seed), name))
    new = set(order[: max(1, round(len(order) * (1 - fraction)))])
    if len(order) - len(new) < 2:
        raise ValueError("a split by model needs two candidates for training and one more")
    train = np.flatnonzero(split.train)
    draws = np.array([_drawn(f"probe {near[row]} {row}", seed) for row in train])
    probed = np.zeros(len(near), np.bool_)
    probed[train[np.argsort(draws, kind="stable")[:probes]]] = True
    unseen = np.array([name in new for name in candidates], np.bool_)
    return replace(split, rule=MODEL, unseen=unseen, probes=probed)


def leaks(split: OwnSplit, keys: Sequence[str], groups: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of a training and a test question with one key, or that nearly repeat each other.

    `groups` are those of near_duplicates.near_groups. Independent of how the split came about.
    """
    found = set()
    for names in (list(keys), groups.tolist()):
        first = {name: row for row, name in enumerate(names) if split.parts[row] == TRAIN}
        found |= {(first[name], row) for row, name in enumerate(names) if split.parts[row] == TEST and name in first}
    return sorted(found)


def _drawn(name: str, seed: int) -> float:
    """A number in [0, 1) from a name and a seed."""
    drawn = hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(drawn, "big") / 2**64


def _checked(split: OwnSplit) -> OwnSplit:
    if not split.train.any() or not split.test.any():
        raise ValueError(
            f"the split by {split.rule} leaves no question to {'test' if split.train.any() else 'train'} on: its "
            f"{len(split.near):,} questions are {len(set(split.near)):,} groups of near-duplicates, and all of a group "
            "stay on one side; collect more questions, or choose another --split or --fraction"
        )
    return split
