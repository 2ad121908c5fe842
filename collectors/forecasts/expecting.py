"""What error to expect of a forecast from a share of the items, before any of them is asked.

Owns the cross-validation over families of complete models. Knows no lake and no prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.forecasts.choice import FEWEST_MODELS, Labels, choose_items, goals_of, greedy
from collectors.forecasts.factors import Answers, Places, complete_models
from collectors.forecasts.families import families, folds
from collectors.forecasts.smoothing import Learned, Reals, Smoother, learn

SHARES = (0.05, 0.1, 0.25, 1.0)
#: Whole families are held out in so many parts, each once.
PARTS = 4
#: Models that take part: of more, so many are drawn. The error is then that of a smaller lake, a little too large.
MOST_MODELS = 1_500
#: E|x| of a standard normal, and its quantile of 90 % on both sides.
MEAN_OF_NORMAL, NINETY_OF_NORMAL = 0.7979, 1.6449

CROSS_VALIDATED, SAMPLING = "held-out families", "sampling"


@dataclass(frozen=True)
class Expected:
    """Errors of forecasts of complete means, on the scale of the scores (0 to 1)."""

    share: float
    #: Items asked of a model, over all tasks.
    items: int
    #: Mean absolute error of each task's mean, by the task's label.
    of_tasks: dict[Any, float]
    #: Mean absolute error of the mean of these means.
    of_mean: float
    #: 90 % of models are within this of the mean of means.
    band: float
    #: CROSS_VALIDATED; or SAMPLING, without complete models: the worst case of a random sample.
    method: str


def expected_error(
    answers: Answers,
    shares: Sequence[float] = SHARES,
    *,
    tasks: Labels | None = None,
    strata: Labels | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Expected]:
    """The error to expect when `shares` of the items are asked of new models that are of no family in `answers`.

    `answers` is models × items, between 0 and 1, NaN where there is none. Items are chosen by choose_items of the
    models that are not held out. With fewer than FEWEST_MODELS complete models, or models of one family alone, the
    errors are those of sampling.
    """
    items = answers.shape[1]
    labels = np.zeros(items, np.int64) if tasks is None else np.asarray(tasks)
    sizes = [min(items, max(1, round(share * items))) for share in shares]
    if complete_models(answers).sum() < FEWEST_MODELS:
        asked = choose_items(answers, max(sizes), tasks=labels, strata=strata, seed=seed)
        return [_by_sampling(share, asked[:size], labels) for share, size in zip(shares, sizes, strict=True)]
    some = answers[_drawn(answers, seed)]
    related = families(some, None if names is None else [names[model] for model in _drawn(answers, seed)])
    part = folds(related, PARTS, seed)
    whole, learnable = complete_models(some), (~np.isnan(some)).mean(axis=1) >= 1 / 3
    tried = [held for held in range(PARTS) if (whole & (part == held)).any() and (learnable & (part != held)).any()]
    if not tried:  # one family alone
        asked = choose_items(answers, max(sizes), tasks=labels, strata=strata, seed=seed)
        return [_by_sampling(share, asked[:size], labels) for share, size in zip(shares, sizes, strict=True)]
    errors = [_errors(some, labels, part == held, sizes, seed) for held in tried]
    return [
        _expected(share, size, np.unique(labels).tolist(), np.concatenate([one[number] for one in errors]))
        for number, (share, size) in enumerate(zip(shares, sizes, strict=True))
    ]


def _errors(
    answers: Answers, labels: npt.NDArray[Any], held: npt.NDArray[np.bool_], sizes: Sequence[int], seed: int
) -> list[Reals]:
    """For each size (held-out complete models, tasks): forecast minus true mean."""
    learned = learn(answers[~held], labels, related=np.arange(int((~held).sum())), seed=seed)
    order = greedy(learned.factors, goals_of(learned.tasks), max(sizes))
    # An item that nobody answered is foretold as ½, without an error.
    tested = np.nan_to_num(answers[held & complete_models(answers)].astype(np.float64), nan=0.5)
    return [
        foretold_means(learned, order[:size], tested[:, order[:size]]) - tested @ learned.shares.T for size in sizes
    ]


def foretold_means(learned: Learned, asked: Places, seen: Answers) -> Reals:
    """(models, tasks): the mean of each task for models that gave the answers `seen` to the items `asked`.

    What was asked counts as it is; the smoother foretells the share of the others.
    """
    left = learned.shares
    measured = np.asarray(seen, np.float64) @ left[:, asked].T
    left[:, asked] = 0
    if len(asked) == len(learned.tasks):
        return measured
    expected, _ = Smoother(learned, asked).expect(seen, learned.answers @ left.T)
    return measured + np.clip(expected, 0, left.sum(axis=1))


def _drawn(answers: Answers, seed: int) -> Places:
    """Models that take part, complete ones first, in their order."""
    whole = complete_models(answers)
    order = np.random.default_rng(seed).permutation(len(answers))
    return np.sort(order[np.argsort(~whole[order], kind="stable")][:MOST_MODELS])


def _expected(share: float, size: int, names: Sequence[Any], errors: Reals) -> Expected:
    of_mean = np.abs(errors.mean(axis=1))
    of_tasks = dict(zip(names, np.abs(errors).mean(axis=0).tolist(), strict=True))
    return Expected(
        share, size, of_tasks, float(of_mean.mean()), float(np.quantile(of_mean, 0.9, method="higher")), CROSS_VALIDATED
    )


def _by_sampling(share: float, asked: Places, labels: npt.NDArray[Any]) -> Expected:
    """Sampling without replacement of items that half of the models get right, the worst case."""
    deviations = {}
    for label in np.unique(labels):
        items, drawn = (labels == label).sum(), (labels[asked] == label).sum()
        left = (items - drawn) / max(items - 1, 1)
        deviations[label.item()] = 0.5 * np.sqrt(left / drawn) if drawn else 0.5
    together = float(np.sqrt(np.square(list(deviations.values())).sum()) / len(deviations))
    of_tasks = {label: float(MEAN_OF_NORMAL * one) for label, one in deviations.items()}
    return Expected(share, len(asked), of_tasks, MEAN_OF_NORMAL * together, NINETY_OF_NORMAL * together, SAMPLING)
