"""Forecasts with bands for models that have some answers, and how such forecasts did on models held out.

Owns the way from answers to values, bands and their checks. Knows no lake and no table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from collectors.forecasts.adaptive import open_variances
from collectors.forecasts.bands import (
    FEWEST_HELD_OUT,
    LEVEL,
    Bands,
    Check,
    check,
    conformal_quantile,
    fewest_held_out,
    fit_bands,
    scale_of,
    wider,
)
from collectors.forecasts.choice import goals_of, greedy
from collectors.forecasts.factors import MANY, Answers, Floats, Places, fit_factors, patterns
from collectors.forecasts.families import folds
from collectors.forecasts.smoothing import ITEMS_AT_ONCE, Learned, Reals, Smoother, chosen_ridge, kernel, means_of

RANDOM, FAMILY = SPLITS = ("random", "family")
KEPT, WIDENED, REFUSED = ("kept", "widened", "refused")
AS_ASKED, CHOSEN_ANEW = KINDS = ("as asked", "chosen anew")

#: Sets of asked items that bands are calibrated on, and from more than MOST_MODELS models: each costs the cube of the
#: models, and of 8,500 has an inverse of 580 MB.
MOST_PATTERNS, PATTERNS_OF_MANY = 6, 2
#: Models are held out in so many folds where items are chosen anew for each; of more models, so many are drawn, and
#: whole families of about so many for the check of items.
FOLDS, MOST_MODELS = 5, 3_000
#: A set of asked items that fewer models share is foretold from the LOCAL learned models that answered most alike.
SHARED, LOCAL = 8, 1_000
#: Items of the check of their probabilities, drawn from those that were not asked, and the fewest of a task.
CHECKED_ITEMS, FEWEST_CHECKED = 4_000, 10
#: Coverage of held-out families by which bands may fall short, beside twice its standard error; and at most at all.
SLACK, MOST_SLACK = 0.02, 0.15


@dataclass(frozen=True)
class Residuals:
    """What held-out models missed by, when they were asked one set of items: (models,) and (models, goals)."""

    models: Places
    values: Reals
    truths: Reals
    open_variance: Reals
    kernel_variance: Reals
    #: (goals,): whether anything of a goal was left to foretell.
    is_open: npt.NDArray[np.bool_]

    def of(self, rows: npt.NDArray[np.bool_], goal: int) -> tuple[Reals, Reals, Reals]:
        """Errors, variances left open and kernel variances of some of the models."""
        errors = self.values[rows, goal] - self.truths[rows, goal]
        return errors, self.open_variance[rows, goal], self.kernel_variance[rows]


@dataclass(frozen=True)
class Goal:
    """The bands of one task's mean, or of the mean over tasks, and how they did."""

    verdict: str
    #: Why it is widened or refused; None: kept.
    reason: str | None
    #: Of each kind of error; empty: refused, or nothing is left to foretell.
    bands: tuple[Bands, ...]
    #: Split -> the check; empty if too few models could be held out.
    checks: dict[str, Check]


@dataclass(frozen=True)
class ItemCheck:
    """Squared errors of the probabilities of items that held-out families were not asked, 0 at best.

    Those of one half of the families are of the trust that suits the other half.
    """

    brier: float
    #: Had each item's mean over the learned models been the forecast.
    brier_of_mean: float
    #: Multiple, from 0 to 1, of the distance from an item's mean, by all families.
    trust: float


class Forecaster:
    """Foretells from `learned`, with bands calibrated for models that were asked sets of items like `asked`.

    Errors of held-out models come in two kinds, and a band is the wider of both. AS_ASKED: the items of `asked`, which
    may have been chosen by these very models and then suit them better than others: in worlds of 160 models bands of
    90 % held 79 % of new ones. CHOSEN_ANEW: as many items, chosen without the models that are held out.
    """

    def __init__(self, learned: Learned, asked: Sequence[Places], level: float = LEVEL, seed: int = 0) -> None:
        self.learned, self.level, self.seed = learned, level, seed
        sets = _spread(asked, MOST_PATTERNS if len(learned.weights) <= MOST_MODELS else PATTERNS_OF_MANY)
        self._ridge = chosen_ridge(learned, sets[0])
        self._calibrated = [Smoother(learned, one, self._ridge) for one in sets]

    # ---- bands

    @property
    def calibrated_asked(self) -> Places:
        """The first set of items that the bands are calibrated on."""
        return self._calibrated[0].asked

    @cached_property
    def residuals(self) -> dict[tuple[str, str], list[Residuals]]:
        """(kind, split) -> residuals: one model held out at a time or a fold of models, or whole families."""
        groups = {RANDOM: np.arange(len(self.learned.weights)), FAMILY: self.learned.families}
        size = int(np.median([len(one.asked) for one in self._calibrated]))
        as_asked = [_residuals(one, groups) for one in self._calibrated]
        made = {(AS_ASKED, split): [of_set[split] for of_set in as_asked] for split in SPLITS}
        for split in SPLITS:
            made[CHOSEN_ANEW, split] = [_chosen_anew(self.learned, groups[split], size, self._ridge, self.seed)]
        return made

    @cached_property
    def goals(self) -> list[Goal]:
        """A Goal for each task, and for the mean over tasks."""
        if reason := self.lack():
            return [Goal(REFUSED, reason, (), {})] * (len(self.learned.task_names) + 1)
        return [self._goal(number) for number in range(len(self.learned.task_names) + 1)]

    def lack(self) -> str | None:
        """Why nothing can be foretold with a band."""
        whole, fewest = int(self.learned.whole.sum()), fewest_held_out(self.level)
        if whole < fewest:
            bands = "bands" if fewest == FEWEST_HELD_OUT else f"bands of {percent(self.level)}"
            return f"{whole:,} complete model{'s' * (whole != 1)} can be held out, and {bands} need {fewest:,}"
        if len(np.unique(self.learned.families[self.learned.whole])) < 2:
            return f"all {whole:,} complete models are of one family, and bands need models of another family"
        return None

    def _goal(self, goal: int) -> Goal:
        checks = {split: self._check(goal, split, SPLITS) for split in SPLITS}
        if not all(np.isfinite(one.width) for one in checks.values()):
            reason = f"one family has most models, and the others are too few for bands of {percent(self.level)}"
            return Goal(REFUSED, reason, (), {})
        if not self._falls_short(checks[FAMILY]):
            return Goal(KEPT, None, self._fit(goal, None, SPLITS), checks)
        held = f"bands of {percent(self.level)} held {checks[FAMILY].coverage:.0%} of models of other families"
        checks = {split: self._check(goal, split, (FAMILY,)) for split in SPLITS}
        if checks[FAMILY].coverage < self.level - MOST_SLACK:
            return Goal(REFUSED, held, (), checks)
        if not all(np.isfinite(one.width) for one in checks.values()):
            return Goal(REFUSED, held, (), {})
        reason = f"{held}, so that they are calibrated on other families alone"
        return Goal(WIDENED, reason, self._fit(goal, None, (FAMILY,)), checks)

    def _falls_short(self, of_families: Check) -> bool:
        deviation = np.sqrt(self.level * (1 - self.level) / of_families.models)
        return bool(of_families.coverage < self.level - SLACK - 2 * deviation)

    def _fit(self, goal: int, part: int | None, splits: Sequence[str]) -> tuple[Bands, ...]:
        """Bands of each kind, of one half of the families or of all; endless ones of too few models."""
        bands = []
        for kind in KINDS:
            every = [one for split in splits for one in self.residuals[kind, split] if one.is_open[goal]]
            rows = [np.full(len(one.models), True) if part is None else self._half(one) == part for one in every]
            if not every:
                continue
            if min(own.sum() for own in rows) < FEWEST_HELD_OUT // 2:
                bands.append(Bands(np.zeros(3), math.inf))
                continue
            of = [one.of(own, goal) for one, own in zip(every, rows, strict=True)]
            errors, open_variance, kernel_variance = (np.concatenate(column) for column in zip(*of, strict=True))
            made = fit_bands(errors, open_variance, kernel_variance, self.level)
            # Each model is there once for each set of items and split: a quantile counts it once.
            quantiles = [
                conformal_quantile(np.abs(one[0]) / scale_of(made.coefficients, *one[1:]), self.level) for one in of
            ]
            bands.append(replace(made, quantile=float(np.mean(quantiles))))
        return tuple(bands)

    @cached_property
    def _halves(self) -> Places:
        """(learned,): the half of the families that a complete model is in, whichever of them are drawn; else -1."""
        whole, half = np.flatnonzero(self.learned.whole), np.full(len(self.learned.weights), -1)
        half[whole] = folds(self.learned.families[whole], 2, self.seed)
        return half

    def _half(self, residuals: Residuals) -> Places:
        return self._halves[residuals.models]

    def _check(self, goal: int, split: str, splits: Sequence[str]) -> Check:
        """Bands of one half of the families, tried on the other half, both ways."""
        [one] = self.residuals[CHOSEN_ANEW, split]
        halves, half = np.zeros(len(one.models)), self._half(one)
        for part in (0, 1):
            _, open_variance, kernel_variance = one.of(half == part, goal)
            halves[half == part] = wider(self._fit(goal, 1 - part, splits), open_variance, kernel_variance)
        return check(one.values[:, goal], halves, one.truths[:, goal])

    @cached_property
    def item_checks(self) -> list[ItemCheck | None]:
        """For each task: how its items' probabilities did on held-out families; None: nothing was to check."""
        smoother, learned = self._calibrated[0], self.learned
        names = range(len(learned.task_names))
        if len(np.unique(learned.families[learned.whole])) < 2:
            return [None for _ in names]
        is_open, random = np.ones(len(learned.tasks), np.bool_), np.random.default_rng(self.seed)
        is_open[smoother.asked] = False
        most = max(FEWEST_CHECKED, CHECKED_ITEMS // len(names))
        items = [random.permutation(np.flatnonzero(is_open & (learned.tasks == task)))[:most] for task in names]
        models = _whole_families(learned, self.seed)
        true = learned.answers[:, np.concatenate(items)].astype(np.float64)
        missed, _ = smoother.left_out(true, learned.families, models)
        mean = smoother.centres_without(true, learned.families, models)
        is_whole = learned.whole[models]
        true, mean, half = true[models][is_whole], mean[is_whole], self._halves[models][is_whole]
        deviation = true - missed[is_whole] - mean
        ends = np.cumsum([len(one) for one in items])[:-1]
        deviations, missing, means = (np.split(one, ends, axis=1) for one in (deviation, true - mean, mean))
        return [
            _item_check(deviations[task], missing[task], means[task], half) if len(items[task]) else None
            for task in names
        ]

    # ---- forecasts

    def means(self, answers: Answers) -> tuple[Reals, Reals]:
        """(models, goals) of expected means, and half the width of their bands, NaN where a goal is refused."""
        values, variances = self.values(answers)
        halves = np.empty_like(values)
        goals = self.learned.goals
        for rows, asked in patterns(answers):
            seen = answers[np.ix_(rows, asked)].astype(np.float64)
            spread = open_variances(self.learned.factors, seen, asked, goals)
            left = goals.copy()
            left[:, asked] = 0
            for number, goal in enumerate(self.goals):
                refused = np.full(len(rows), np.nan)
                half = refused if goal.verdict == REFUSED else wider(goal.bands, spread[:, number], variances[rows])
                halves[rows, number] = half if left[number].any() else 0
        return values, halves

    def values(self, answers: Answers) -> tuple[Reals, Reals]:
        """(models, goals) of expected means, and (models,) variances of the kernel."""
        goals = self.learned.goals
        values, variances = np.empty((len(answers), len(goals))), np.empty(len(answers))
        for rows, asked in patterns(answers):
            seen = answers[np.ix_(rows, asked)].astype(np.float64)
            left = goals.copy()
            left[:, asked] = 0
            weights, variances[rows], learned = self._weights(seen, asked, len(rows))
            expected = _expected(weights, learned, means_of(learned.answers, left))
            values[rows] = seen @ goals[:, asked].T + np.clip(expected, 0, left.sum(axis=1))
        return values, variances

    def items(self, answers: Answers) -> Floats:
        """(models, items): answers as they are, and the probability of each that is missing."""
        expected = np.array(answers, np.float32)
        trust = np.array([1.0 if one is None else one.trust for one in self.item_checks])[self.learned.tasks]
        for rows, asked in patterns(answers):
            seen = answers[np.ix_(rows, asked)].astype(np.float64)
            weights, _, learned = self._weights(seen, asked, len(rows))
            for first in range(0, expected.shape[1], ITEMS_AT_ONCE):
                some = slice(first, first + ITEMS_AT_ONCE)
                own = learned.answers[:, some]
                mean = np.average(own, axis=0, weights=learned.weights)
                expected[rows, some] = np.clip(mean + trust[some] * (weights @ (own - mean)), 0, 1)
            expected[np.ix_(rows, asked)] = seen
        return expected

    def _weights(self, seen: Reals, asked: Places, sharing: int) -> tuple[Reals, Reals, Learned]:
        for one in self._calibrated:
            if np.array_equal(one.asked, asked):
                return (*one.weights_of(seen), self.learned)
        learned = self.learned
        if sharing < SHARED and len(learned.weights) > LOCAL:
            likeness = kernel(seen, learned.answers[:, asked].astype(np.float64)).max(axis=0)
            learned = learned.of_models(np.sort(np.argsort(-likeness, kind="stable")[:LOCAL]))
        return (*Smoother(learned, asked, self._ridge).weights_of(seen), learned)


def percent(share: float) -> str:
    """Such as 90% or 99.9%."""
    return f"{100 * share:g}%"


def _trust(deviation: Reals, missing: Reals) -> float:
    """The best multiple of the smoother's forecast of an item: a single item is noisier than a mean."""
    return float(np.clip((deviation * missing).sum() / max(np.square(deviation).sum(), 1e-12), 0, 1))


def _item_check(deviation: Reals, missing: Reals, mean: Reals, half: Places) -> ItemCheck:
    """From (models, items): foretold and true answers, as deviations from the items' means, and these means."""
    foretold = np.empty_like(mean)
    for part in (0, 1):
        own = half == part
        trust = _trust(deviation[~own], missing[~own])
        foretold[own] = np.clip(mean[own] + trust * deviation[own], 0, 1)
    brier = float(np.square(foretold - mean - missing).mean())
    return ItemCheck(brier, float(np.square(missing).mean()), _trust(deviation, missing))


def _whole_families(learned: Learned, seed: int) -> Places:
    """Learned models: all, or whole families that are drawn until they have MOST_MODELS."""
    if len(learned.weights) <= MOST_MODELS:
        return np.arange(len(learned.weights))
    _, of, sizes = np.unique(learned.families, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    drawn = order[: int(np.searchsorted(np.cumsum(sizes[order]), MOST_MODELS)) + 1]
    return np.flatnonzero(np.isin(of, drawn))


def _expected(weights: Reals, learned: Learned, targets: Answers) -> Reals:
    centre = np.average(targets, axis=0, weights=learned.weights)
    return np.asarray(centre + weights @ (targets - centre), np.float64)


def _residuals(smoother: Smoother, groups: dict[str, Places]) -> dict[str, Residuals]:
    """Of each way to group the models."""
    learned, asked = smoother.learned, smoother.asked
    goals = learned.goals
    left = goals.copy()
    left[:, asked] = 0
    seen = learned.answers[:, asked].astype(np.float64)
    measured = seen @ goals[:, asked].T
    truths = means_of(learned.answers, left)
    whole = np.flatnonzero(learned.whole)
    spread = open_variances(learned.factors, seen[whole], asked, goals)
    is_open = np.asarray(left.any(axis=1), np.bool_)
    made = {}
    for split, of in groups.items():
        missed, variances = smoother.left_out(truths, of)
        values = measured + np.clip(truths - missed, 0, left.sum(axis=1))
        made[split] = Residuals(whole, values[whole], (measured + truths)[whole], spread, variances[whole], is_open)
    return made


def _chosen_anew(learned: Learned, groups: Places, size: int, ridge: float, seed: int) -> Residuals:
    """Errors of models of a fold, asked `size` items that the other folds chose and foretold by these alone."""
    if len(learned.weights) > MOST_MODELS:
        order = np.random.default_rng(seed).permutation(len(learned.weights))
        some = np.sort(order[np.argsort(~learned.whole[order], kind="stable")][:MOST_MODELS])
    else:
        some = np.arange(len(learned.weights))
    # Factors of 23,529 items take seconds.
    count = FOLDS if len(learned.tasks) <= MANY else 2
    part, goals = folds(groups[some], count, seed), learned.goals
    models, columns = [], []
    for held in range(count):
        tested = some[(part == held) & learned.whole[some]]
        rest = learned.of_models(some[part != held])
        if not len(tested) or not len(rest.weights):
            continue
        rest = replace(rest, factors=fit_factors(rest.answers, seed=seed))
        asked = np.sort(greedy(rest.factors, goals_of(rest.tasks), size))
        left = goals.copy()
        left[:, asked] = 0
        seen = learned.answers[np.ix_(tested, asked)].astype(np.float64)
        measured = seen @ goals[:, asked].T
        expected, variances = Smoother(rest, asked, ridge).expect(seen, means_of(rest.answers, left))
        models.append(tested)
        columns.append(
            (
                measured + np.clip(expected, 0, left.sum(axis=1)),
                means_of(learned.answers[tested], goals),
                open_variances(rest.factors, seen, asked, goals),
                variances,
            )
        )
    is_open = np.full(len(goals), size < len(learned.tasks))
    values, truths, open_variance, kernel_variance = (np.concatenate(one) for one in zip(*columns, strict=True))
    return Residuals(np.concatenate(models), values, truths, open_variance, kernel_variance, is_open)


def _spread(asked: Sequence[Places], most: int) -> list[Places]:
    """At most so many distinct sets of items, evenly from first to last."""
    distinct = list({one.tobytes(): one for one in asked}.values())
    if len(distinct) <= most:
        return distinct
    places = np.unique(np.linspace(0, len(distinct) - 1, most).round().astype(int))
    return [distinct[place] for place in places]
