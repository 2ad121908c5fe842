"""Which items to ask: probe sets that teach most about all items, and what to ask next.

Owns the choice as arithmetic on arrays: models × items of scores between 0 and 1, NaN marks a missing answer. Knows
no lake, no cost in money and no plan.

An order is nested: the first 5 % of an order for 10 % are the order for 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.forecasts.factors import Answers, Factors, Floats, Places, complete_models, fit_factors

GREEDY, INFORMATION, CLUSTERS, RANDOM = METHODS = ("greedy", "information", "clusters", "random")
#: With fewer complete models a choice that learns from them is noise, and items are drawn at random instead.
FEWEST_MODELS = 20
#: The mean over tasks counts as much as this many tasks among the goals of a greedy choice.
WEIGHT_OF_MEAN = 5.0
#: Items that a greedy choice follows from step to step. Of 23,529 a choice of a tenth takes 1 CPU-second, of all 9.
CANDIDATES = 2_048

Labels = Sequence[Any] | npt.NDArray[Any]


def choose_items(
    answers: Answers,
    size: int,
    *,
    tasks: Labels | None = None,
    strata: Labels | None = None,
    costs: npt.NDArray[np.floating] | None = None,
    method: str = GREEDY,
    seed: int = 0,
) -> Places:
    """Positions of `size` items to ask of a new model, the most useful first.

    `answers` is models × items, NaN where there is none. `tasks` (items,) are labels: the mean of each task, and the
    mean of these means, are what the items shall foretell; None: one task. `strata` (items,) are labels within which a
    random choice spreads itself, such as subjects. `costs` (items,) makes greedy choose by use per cost. `method` is
    one of METHODS; with fewer than FEWEST_MODELS complete models it is "random", whatever was asked for. The same
    arguments give the same order. Raises ValueError for a size below 0 or above the items, or an unknown method.
    """
    items = answers.shape[1]
    if not 0 <= size <= items:
        raise ValueError(f"{size:,} of {items:,} items cannot be chosen")
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    labels = np.zeros(items, np.int64) if tasks is None else np.unique(np.asarray(tasks), return_inverse=True)[1]
    if method == RANDOM or complete_models(answers).sum() < FEWEST_MODELS:
        return stratified(labels, strata, size, seed)
    if method == CLUSTERS:
        return _by_clusters(answers, size, seed)
    if method == INFORMATION:
        return _by_information(answers, size)
    factors = fit_factors(answers, seed=seed)
    return greedy(factors, goals_of(labels), size, costs=costs)


def goals_of(tasks: Labels) -> Floats:
    """(goals, items): the mean of each of the `tasks` (items,), and the mean of these by WEIGHT_OF_MEAN."""
    names, labels, counts = np.unique(np.asarray(tasks), return_inverse=True, return_counts=True)
    means = (labels == np.arange(len(names))[:, None]) / counts[:, None]
    if len(counts) == 1:
        return np.asarray(means, np.float32)
    return np.asarray(np.vstack([means, np.sqrt(WEIGHT_OF_MEAN) * means.mean(axis=0)]), np.float32)


def greedy(
    factors: Factors,
    goals: Floats,
    size: int,
    *,
    costs: npt.NDArray[np.floating] | None = None,
    asked: Places | None = None,
) -> Places:
    """Each next item is the one whose answer lowers the summed variance of the goals most, after those of `asked`.

    A-optimal design by rank-one updates of the posterior. Of many items the CANDIDATES that gain most are followed from
    answer to answer; all are looked at again once none of them gains what the best of the others did. That is the same
    order as with all items at every step, as long as no gain grows by an answer.
    """
    loadings, own = factors.loadings, factors.noise
    price = np.ones(len(own), np.float32) if costs is None else np.maximum(np.asarray(costs, np.float32), 1e-9)
    given = np.zeros(0, np.int64) if asked is None else np.asarray(asked, np.int64)
    posterior, is_open = _posterior(factors, given), np.ones(len(own), np.bool_)
    is_open[given] = False
    left = goals.T * is_open[:, None]  # an asked item needs no forecast
    order: list[int] = []
    while len(order) < size:
        shared = loadings @ (posterior @ (loadings.T @ left))
        explained = np.einsum("ir,ir->i", loadings @ posterior, loadings)
        gains = np.where(is_open, _gains(shared, explained, own, left, price), -1)
        some, bound = _most(gains)
        loaded, noise, goal, shared, explained = loadings[some], own[some], left[some], shared[some], explained[some]
        taken = ~is_open[some]
        for step in range(min(size - len(order), len(some))):
            gains = np.where(taken, -1, _gains(shared, explained, noise, goal, price[some]))
            place = int(gains.argmax())
            if step and gains[place] < bound:
                break
            order.append(int(some[place]))
            taken[place] = True
            direction, total = posterior @ loaded[place], explained[place] + noise[place]
            reach = loaded @ direction
            shared -= np.outer(reach, (shared[place] + noise[place] * goal[place]) / total)
            explained = np.maximum(explained - np.square(reach) / total, 0)
            posterior -= np.outer(direction, direction) / total
            goal[place] = 0
        left[order], is_open[order] = 0, False
    return np.array(order, np.int64)


def _posterior(factors: Factors, asked: Places) -> Floats:
    """(rank, rank): the covariance of a model's vector after its answers to `asked`."""
    loadings = factors.loadings[asked].astype(np.float64)
    precision = np.eye(factors.loadings.shape[1]) + (loadings.T / factors.noise[asked]) @ loadings
    return np.asarray(np.linalg.inv(precision), np.float32)


def _gains(shared: Floats, explained: Floats, noise: Floats, goals: Floats, price: Floats) -> Floats:
    """(items,): what an answer takes off the summed variance of the goals, per cost."""
    covariance = noise[:, None] * goals
    covariance += shared
    return np.asarray(np.einsum("ig,ig->i", covariance, covariance) / ((explained + noise) * price), np.float32)


def _most(gains: Floats) -> tuple[Places, float]:
    """The CANDIDATES items that gain most, in ascending order, and the most that another one gains (-1: none)."""
    if len(gains) <= CANDIDATES:
        return np.arange(len(gains)), -1.0
    order = np.argpartition(-gains, CANDIDATES)
    return np.sort(order[:CANDIDATES]), float(gains[order[CANDIDATES]])


def stratified(labels: Places, strata: Labels | None, size: int, seed: int) -> Places:
    """A random order in which every task, and within it every stratum, has its share at every length."""
    random = np.random.default_rng(seed)
    inner = np.zeros(len(labels), np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    cells = np.unique(np.stack([labels, inner]), axis=1, return_inverse=True)[1].reshape(-1)
    drawn = random.permutation(len(labels))
    order = drawn[np.argsort(cells[drawn], kind="stable")]
    counts = np.bincount(cells)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    # An item's turn is its place as a share of its stratum; a draw per stratum decides between equal turns.
    turn = (rank + np.repeat(random.random(len(counts)), counts)) / np.repeat(counts, counts)
    return order[np.argsort(turn, kind="stable")][:size].astype(np.int64)


def _by_information(answers: Answers, size: int) -> Places:
    """Items by the Fisher information of a one-dimensional two-parameter model, averaged over the models' abilities.

    The discrimination is that of normal-ogive theory, r / √(1 − r²), of the item's correlation with the mean of all
    others (Lord, Applications of Item Response Theory, 1980, section 3.4).
    """
    whole = np.nan_to_num(np.asarray(answers[complete_models(answers)], np.float64), nan=0.5)
    totals = whole.sum(axis=1, keepdims=True)
    rest = (totals - whole) / max(whole.shape[1] - 1, 1)
    spread = whole.std(axis=0) * rest.std(axis=0)
    together = ((whole - whole.mean(axis=0)) * (rest - rest.mean(axis=0))).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.clip(np.where(spread > 0, together / spread, 0), 0, 0.99)
    means = whole.mean(axis=0)
    information = np.square(1.7 * r) / (1 - np.square(r)) * means * (1 - means)
    return np.argsort(-information, kind="stable")[:size].astype(np.int64)


def _by_clusters(answers: Answers, size: int, seed: int) -> Places:
    """The item nearest to each centre of k-means over the items' answers: tinyBenchmarks' anchor points.

    Source: Maia Polo et al., "tinyBenchmarks", 2024, section 3. Larger clusters come first.
    """
    whole = np.nan_to_num(np.asarray(answers[complete_models(answers)], np.float64), nan=0.5).T
    random = np.random.default_rng(seed)
    centres = whole[random.choice(len(whole), size, replace=False)]
    for _ in range(20):
        distance = np.square(whole).sum(axis=1)[:, None] - 2 * whole @ centres.T + np.square(centres).sum(axis=1)
        of = distance.argmin(axis=1)
        moved = np.stack([whole[of == k].mean(axis=0) if (of == k).any() else centres[k] for k in range(size)])
        if np.allclose(moved, centres):
            break
        centres = moved
    chosen: list[int] = []
    for k in np.argsort(-np.bincount(of, minlength=size), kind="stable"):
        nearest = distance[:, k].argsort(kind="stable")
        chosen.append(next(int(item) for item in nearest if item not in chosen))
    return np.array(chosen, np.int64)
