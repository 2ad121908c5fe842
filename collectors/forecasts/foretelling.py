"""Forecasts with bands, for models of which some answers are there, and how such forecasts did on models held out.

Owns the way from answers to values, bands and their checks. Knows no lake and no table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from collectors.forecasts.adaptive import open_variances
from collectors.forecasts.bands import LEVEL, Bands, Check, check, conformal_quantile, fit_bands, mean_of, scale_of
from collectors.forecasts.factors import Answers, Floats, Places, patterns
from collectors.forecasts.families import folds
from collectors.forecasts.smoothing import Learned, Reals, Smoother, chosen_ridge, kernel

RANDOM, FAMILY = SPLITS = ("random", "family")
KEPT, WIDENED, REFUSED = ("kept", "widened", "refused")

#: Sets of asked items that bands are calibrated on: each costs the cube of the learned models.
MOST_PATTERNS = 6
#: A set of asked items that fewer models share is foretold from the LOCAL learned models that answered most alike.
SHARED, LOCAL = 8, 1_500
#: Items of the check of their probabilities, drawn from those that were not asked.
CHECKED_ITEMS = 2_000
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
    #: None: refused.
    bands: Bands | None
    #: Split -> the check; empty if too few models could be held out.
    checks: dict[str, Check]


@dataclass(frozen=True)
class ItemCheck:
    """Squared errors of the probabilities of items that held-out families were not asked, 0 at best."""

    brier: float
    #: Had each item's mean over the learned models been the forecast.
    brier_of_mean: float
    #: Multiple, from 0 to 1, of the distance from an item's mean.
    trust: float


class Forecaster:
    """Foretells from `learned`, with bands calibrated for models that were asked sets of items like `asked`."""

    def __init__(self, learned: Learned, asked: Sequence[Places], level: float = LEVEL, seed: int = 0) -> None:
        self.learned, self.level, self.seed = learned, level, seed
        sets = _spread(asked)
        self._ridge = chosen_ridge(learned, sets[0])
        self._calibrated = [Smoother(learned, one, self._ridge) for one in sets]

    # ---- bands

    @property
    def calibrated_asked(self) -> Places:
        """The first set of items that the bands are calibrated on."""
        return self._calibrated[0].asked

    @cached_property
    def residuals(self) -> dict[str, list[Residuals]]:
        """Split -> residuals of each calibrated set of items: one model held out at a time, or its whole family."""
        alone = np.arange(len(self.learned.weights))
        groups = {RANDOM: alone, FAMILY: self.learned.families}
        return {split: [_residuals(one, groups[split]) for one in self._calibrated] for split in SPLITS}

    @cached_property
    def goals(self) -> list[Goal]:
        """A Goal for each task, and for the mean over tasks."""
        return [self._goal(number) for number in range(len(self.learned.task_names) + 1)]

    def _goal(self, goal: int) -> Goal:
        whole = np.flatnonzero(self.learned.whole)
        half = folds(self.learned.families[whole], 2, self.seed)
        try:
            every = self._fit(goal, np.ones(len(whole), np.bool_), SPLITS)
            checks = {split: self._check(goal, half, split, SPLITS) for split in SPLITS}
            if not self._falls_short(checks[FAMILY]):
                return Goal(KEPT, None, every, checks)
            wider = self._fit(goal, np.ones(len(whole), np.bool_), (FAMILY,))
            checks = {split: self._check(goal, half, split, (FAMILY,)) for split in SPLITS}
        except ValueError as error:
            return Goal(REFUSED, str(error), None, {})
        held = f"bands of {self.level:.0%} held {checks[FAMILY].coverage:.0%} of models of other families"
        if checks[FAMILY].coverage < self.level - MOST_SLACK:
            return Goal(REFUSED, held, None, checks)
        if wider.quantile < every.quantile:
            wider = replace(every)
        return Goal(WIDENED, f"{held}, so that they are calibrated on other families alone", wider, checks)

    def _falls_short(self, of_families: Check) -> bool:
        deviation = np.sqrt(self.level * (1 - self.level) / of_families.models)
        return bool(of_families.coverage < self.level - SLACK - 2 * deviation)

    def _fit(self, goal: int, rows: npt.NDArray[np.bool_], splits: Sequence[str]) -> Bands:
        parts = [one.of(rows, goal) for split in splits for one in self.residuals[split] if one.is_open[goal]]
        if not parts:
            return Bands(np.array([1.0, 0, 0]), 0.0)  # nothing is left to foretell
        if rows.sum() < 20:
            raise ValueError(f"{int(rows.sum())} complete models can be held out, and bands need 20")
        errors, open_variance, kernel_variance = (np.concatenate(one) for one in zip(*parts, strict=True))
        bands = fit_bands(errors, open_variance, kernel_variance, self.level)
        # Each model is there several times, once for each set of items: the quantile counts it once.
        scores = np.abs(errors) / scale_of(bands.coefficients, open_variance, kernel_variance)
        copies = scores.reshape(len(parts), -1)
        return replace(bands, quantile=float(np.mean([conformal_quantile(one, self.level) for one in copies])))

    def _check(self, goal: int, half: Places, split: str, splits: Sequence[str]) -> Check:
        """Bands of one half of the families, tried on the other half, both ways."""
        checks = []
        for one in self.residuals[split]:
            halves = np.zeros(len(half))
            for part in (0, 1):
                bands = self._fit(goal, half != part, splits)
                _, open_variance, kernel_variance = one.of(half == part, goal)
                halves[half == part] = bands.half(open_variance, kernel_variance) if one.is_open[goal] else 0
            checks.append(check(one.values[:, goal], halves, one.truths[:, goal]))
        return mean_of(checks)

    @cached_property
    def item_checks(self) -> list[ItemCheck | None]:
        """For each task: how its items' probabilities did on held-out families; None: nothing was to check."""
        return [self._items_of(task) for task in range(len(self.learned.task_names))]

    def _items_of(self, task: int) -> ItemCheck | None:
        smoother, learned = self._calibrated[0], self.learned
        items = np.setdiff1d(np.flatnonzero(learned.tasks == task), smoother.asked)
        if not len(items) or not learned.whole.any():
            return None
        drawn = np.random.default_rng(self.seed).permutation(len(items))[:CHECKED_ITEMS]
        true = learned.answers[:, items[np.sort(drawn)]].astype(np.float64)
        missed, _ = smoother.left_out(true, learned.families)
        mean = np.average(true, axis=0, weights=learned.weights)
        deviation, missing = (true - missed - mean)[learned.whole], (true - mean)[learned.whole]
        # The best multiple of what the smoother makes of an item: a single item is noisier than a mean.
        trust = float(np.clip((deviation * missing).sum() / max(np.square(deviation).sum(), 1e-12), 0, 1))
        foretold, true = np.clip(mean + trust * deviation, 0, 1), true[learned.whole]
        return ItemCheck(float(np.square(foretold - true).mean()), float(np.square(mean - true).mean()), trust)

    # ---- forecasts

    def means(self, answers: Answers) -> tuple[Reals, Reals]:
        """(models, goals) of expected means, and half the width of their bands, NaN where a goal is refused."""
        goals = self.learned.goals
        values, halves = np.empty((len(answers), len(goals))), np.empty((len(answers), len(goals)))
        for rows, asked in patterns(answers):
            seen = answers[np.ix_(rows, asked)].astype(np.float64)
            left = goals.copy()
            left[:, asked] = 0
            weights, variances, learned = self._weights(seen, asked, len(rows))
            expected = _expected(weights, learned, learned.answers @ left.T)
            values[rows] = seen @ goals[:, asked].T + np.clip(expected, 0, left.sum(axis=1))
            spread = open_variances(self.learned.factors, seen, asked, goals)
            for number, goal in enumerate(self.goals):
                half = np.nan if goal.bands is None else goal.bands.half(spread[:, number], variances)
                halves[rows, number] = np.where(left[number].any(), half, 0)
        return values, halves

    def items(self, answers: Answers) -> Floats:
        """(models, items): answers as they are, and the probability of each that is missing."""
        expected = np.array(answers, np.float32)
        trust = np.array([1.0 if one is None else one.trust for one in self.item_checks])[self.learned.tasks]
        for rows, asked in patterns(answers):
            seen = answers[np.ix_(rows, asked)].astype(np.float64)
            weights, _, learned = self._weights(seen, asked, len(rows))
            mean = np.average(learned.answers, axis=0, weights=learned.weights)
            probable = np.clip(mean + trust * (weights @ (learned.answers - mean)), 0, 1).astype(np.float32)
            probable[:, asked] = seen
            expected[rows] = probable
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


def _expected(weights: Reals, learned: Learned, targets: Answers) -> Reals:
    centre = np.average(targets, axis=0, weights=learned.weights)
    return np.asarray(centre + weights @ (targets - centre), np.float64)


def _residuals(smoother: Smoother, groups: Places) -> Residuals:
    learned, asked = smoother.learned, smoother.asked
    goals = learned.goals
    left = goals.copy()
    left[:, asked] = 0
    seen = learned.answers[:, asked].astype(np.float64)
    measured = seen @ goals[:, asked].T
    truths = learned.answers @ left.T
    missed, variances = smoother.left_out(truths, groups)
    values = measured + np.clip(truths - missed, 0, left.sum(axis=1))
    whole = np.flatnonzero(learned.whole)
    spread = open_variances(learned.factors, seen[whole], asked, goals)
    is_open = np.asarray(left.any(axis=1), np.bool_)
    return Residuals(whole, values[whole], (measured + truths)[whole], spread, variances[whole], is_open)


def _spread(asked: Sequence[Places]) -> list[Places]:
    """At most MOST_PATTERNS distinct sets of items, evenly from first to last."""
    distinct = list({one.tobytes(): one for one in asked}.values())
    if len(distinct) <= MOST_PATTERNS:
        return distinct
    places = np.unique(np.linspace(0, len(distinct) - 1, MOST_PATTERNS).round().astype(int))
    return [distinct[place] for place in places]
