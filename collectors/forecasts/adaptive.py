"""What to ask next of which model, given all that was answered so far.

Owns the rule: an answer is worth the expected error that it takes off its model's means, per cost. Knows no lake, no
plan and no budget; a caller asks in rounds until the errors or its money end.

A fixed probe set suits a model without any answer. With some answers, items whose outcome is all but
certain for this model are worth nothing any more, and models whose error is small enough need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.forecasts.choice import goals_of, greedy
from collectors.forecasts.expecting import MEAN_OF_NORMAL
from collectors.forecasts.factors import Answers, Factors, Floats, Places, latent, patterns
from collectors.forecasts.smoothing import Learned, Reals

#: Bounds of an item's deviation for a model, as a share of its deviation over all models.
LEAST_SCALE, MOST_SCALE = 0.3, 1.5
#: Models whose scales are there at once: 512 × 23,529 take 48 MB.
MODELS_AT_ONCE = 512


def next_items(
    learned: Learned,
    answers: Answers,
    count: int,
    *,
    costs: npt.NDArray[np.floating] | None = None,
    until: float | None = None,
    matters: Sequence[float] | npt.NDArray[np.floating] | None = None,
) -> list[tuple[int, int]]:
    """At most `count` pairs (row of `answers`, item) to ask next, the most useful first.

    `answers` is models × items of learn, NaN where not asked. `costs` (models, items) or (items,) are what an answer
    costs. A model whose expected_errors are at most `until` gets none. `matters` (models,) weighs models, such as those
    whose rank is open; 0 leaves one out.
    """
    errors = expected_errors(learned, answers) if until is not None else None
    weights = np.ones(len(answers)) if matters is None else np.asarray(matters, np.float64)
    goals = goals_of(learned.tasks)
    offers: list[tuple[float, int, int]] = []
    for model in np.flatnonzero(weights > 0).tolist():
        if errors is not None and until is not None and errors[model] <= until:
            continue
        asked = np.flatnonzero(~np.isnan(answers[model]))
        # No model gets more than twice its share of a round, because every answer changes the best next choice.
        most = min(answers.shape[1] - len(asked), max(1, -(-2 * count // max(int((weights > 0).sum()), 1))))
        price = None if costs is None else np.asarray(costs)[model] if np.ndim(costs) == 2 else np.asarray(costs)
        local = local_factors(learned.factors, answers[model], asked)
        order = greedy(local, goals, most, costs=price, asked=asked)
        gains = _gains(local, goals, asked, order)
        worth = weights[model] * gains / (1 if price is None else np.maximum(price[order], 1e-9))
        offers += zip((-worth).tolist(), [model] * len(order), order.tolist(), strict=True)
    # Of one model the order stays: the gain of a later item counts on the answers before it.
    return [(model, item) for _, model, item in sorted(offers, key=lambda offer: offer[0])[:count]]


def expected_errors(learned: Learned, answers: Answers) -> Reals:
    """(models,): the expected absolute error of the mean over tasks, from each model's answers so far."""
    errors = np.empty(len(answers))
    for rows, asked in patterns(answers):
        left = learned.shares.mean(axis=0, keepdims=True)
        errors[rows] = MEAN_OF_NORMAL * np.sqrt(
            open_variances(learned.factors, answers[rows][:, asked], asked, left)[:, 0]
        )
    return errors


def open_variances(factors: Factors, seen: Answers, asked: Places, goals: Reals) -> Reals:
    """(models, goals): the variance that is left in each goal for models with the answers `seen` to `asked`."""
    loadings, own = factors.loadings, factors.noise
    scaled = loadings[asked].T / own[asked]
    # An item's scale multiplies loadings and noise alike: an answer informs as much about a model at any scale.
    posterior = np.linalg.inv(np.eye(loadings.shape[1]) + scaled @ loadings[asked])
    left = np.array(goals, np.float32)
    left[:, asked] = 0
    variances = np.empty((len(seen), len(left)))
    for start in range(0, len(seen), MODELS_AT_ONCE):
        rows = slice(start, start + MODELS_AT_ONCE)
        scales = _scales(factors, np.asarray(seen[rows], np.float32), asked)
        for goal, weights in enumerate(left):
            items = np.flatnonzero(weights)
            weighted = scales[:, items] * weights[items]
            reach = (weighted @ loadings[items]).astype(np.float64)
            variances[rows, goal] = ((reach @ posterior) * reach).sum(axis=1) + np.square(weighted) @ own[items]
    return np.maximum(variances, 0)


def local_factors(factors: Factors, row: npt.NDArray[Any], asked: Places) -> Factors:
    """The factors for a model with these answers: an item that it surely solves, or surely fails, varies little."""
    scale = _scales(factors, row[asked][None].astype(np.float32), asked)[0]
    return Factors(factors.mean, factors.loadings * scale[:, None], factors.noise * np.square(scale))


def _scales(factors: Factors, seen: Floats, asked: Places) -> Floats:
    """(models, items): an item's deviation for a model, as a share of its deviation over all models."""
    expected = np.clip(factors.mean + latent(factors, seen, asked) @ factors.loadings.T, 0.02, 0.98)
    of_all = np.clip(factors.mean, 0.02, 0.98)
    scales = np.sqrt(expected * (1 - expected) / (of_all * (1 - of_all)))
    return np.asarray(np.clip(scales, LEAST_SCALE, MOST_SCALE), np.float32)


def _gains(factors: Factors, goals: Floats, asked: Places, order: Places) -> Reals:
    """How much each item of the order takes off the goals' summed variance, after those before it."""
    left = _variances(factors, goals, np.concatenate([asked, order]))
    return -np.diff(left[len(asked) :])


def _variances(factors: Factors, goals: Floats, asked: Places) -> Reals:
    """(asked + 1,): the summed variance that is left in the goals, after each answer in turn."""
    loadings, own = factors.loadings.astype(np.float64), factors.noise.astype(np.float64)
    posterior, left = np.eye(loadings.shape[1]), goals.astype(np.float64)
    reach, rest = left @ loadings, np.square(left) @ own
    variances = [np.einsum("gr,rs,gs->", reach, posterior, reach) + rest.sum()]
    for item in asked.tolist():
        direction = posterior @ loadings[item]
        posterior -= np.outer(direction, direction) / (loadings[item] @ direction + own[item])
        reach -= np.outer(left[:, item], loadings[item])
        rest -= np.square(left[:, item]) * own[item]
        left[:, item] = 0
        variances.append(np.einsum("gr,rs,gs->", reach, posterior, reach) + rest.sum())
    return np.asarray(np.maximum(variances, 0), np.float64)  # rounding goes below 0 where all is asked
