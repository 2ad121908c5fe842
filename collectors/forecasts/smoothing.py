"""Forecasts of a model's other answers from the models that answered alike: kernel smoothing.

Owns the smoother and its leave-a-family-out residuals. Knows no lake and no bands. A forecast is a weighted sum of what
the learned models answered. Items and means have one set of weights, so that the items' forecasts add up to the mean's.

The kernel is Matérn's of order 3/2 over the distance of the asked answers (Rasmussen, Williams, Gaussian Processes for
Machine Learning, 2006, equation 4.17). On 1,001 models × 1,075 items at 10 % its errors are 15 % below those of ridge
regression: relatives answer alike, which a linear rule cannot use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.forecasts.factors import Answers, Factors, Floats, Places, complete, complete_models, fit_factors
from collectors.forecasts.families import families

Reals = npt.NDArray[np.float64]

#: The kernel's inverse length over √(asked items).
INVERSE_LENGTH = 3.0
#: Variance that the kernel cannot explain, as a share of its own: the least of RIDGES serves worlds of many models.
RIDGES = (0.02, 0.1, 0.5, 2.0)
RIDGE = RIDGES[0]
#: A model that lacks answers counts by its share of them to this power: the others were filled in by expectation.
LACKING = 3
#: Models that a smoother learns from at most: its cost grows with their cube, 8,500 of them take a minute on two cores.
MOST_MODELS = 8_500
#: Items that are summed or foretold at once: 2,048 of 8,500 models take 140 MB.
ITEMS_AT_ONCE = 2_048
#: Up to so many models it is worth to choose among RIDGES; of more the least has always been best.
FEW_MODELS = 600


@dataclass(frozen=True)
class Learned:
    """The models with enough answers to learn from."""

    #: (models, items): answers, and expected values where there is none.
    answers: Floats
    #: (models,): 1 for a complete model, less for one that lacks answers.
    weights: Floats
    #: (models,): whether the model lacks nothing. Only these are checked against.
    whole: npt.NDArray[np.bool_]
    #: (models,): a number for each model's family.
    families: Places
    #: (items,): a number for each item's task, and the labels of these numbers.
    tasks: Places
    task_names: tuple[Any, ...]
    factors: Factors

    @property
    def shares(self) -> Reals:
        """(tasks, items): each item's share of its task's mean."""
        member = self.tasks == np.arange(len(self.task_names))[:, None]
        shares: Reals = member / member.sum(axis=1, keepdims=True)
        return shares

    @property
    def goals(self) -> Reals:
        """(tasks + 1, items): the shares, and those of the mean over tasks."""
        return np.vstack([self.shares, self.shares.mean(axis=0)])

    def of_models(self, models: Places) -> Learned:
        """The same with these models alone."""
        return replace(
            self,
            answers=self.answers[models],
            weights=self.weights[models],
            whole=self.whole[models],
            families=self.families[models],
        )


def learn(
    answers: Answers,
    tasks: Sequence[Any] | npt.NDArray[Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    bases: Sequence[str | None] | None = None,
    related: Places | None = None,
    seed: int = 0,
) -> Learned:
    """Learns from models × items, NaN where an answer is missing; models with less than a third of them are left out.

    `tasks` (items,) are labels. `names` and `bases` of the models help to see families; `related` (models,) are the
    families of a caller who has them. Raises ValueError without a model to learn from.
    """
    given: Floats = np.asarray(answers, np.float32)
    labels = np.zeros(given.shape[1], np.int64) if tasks is None else np.asarray(tasks)
    task_names, of_task = np.unique(labels, return_inverse=True)
    share = (~np.isnan(given)).mean(axis=1)
    kept = np.flatnonzero(share >= 1 / 3)
    if not len(kept):
        raise ValueError("no model has a third of the answers")
    kept = np.sort(kept[np.argsort(-share[kept], kind="stable")[:MOST_MODELS]])
    if len(kept) < len(given):
        given = given[kept]
    factors = fit_factors(given, seed=seed)
    if related is None:
        bases_kept = None if bases is None else [bases[model] for model in kept]
        of_family = families(given, None if names is None else [names[model] for model in kept], bases_kept)
    else:
        of_family = related[kept]
    weights = (share[kept] ** LACKING).astype(np.float32)
    whole = complete_models(given)
    return Learned(complete(factors, given), weights, whole, of_family, of_task, tuple(task_names.tolist()), factors)


class Smoother:
    """Forecasts for models that were asked the same items."""

    def __init__(self, learned: Learned, asked: Places, ridge: float = RIDGE) -> None:
        self.learned, self.asked = learned, asked
        self._seen = learned.answers[:, asked].astype(np.float64)
        self._ridge = ridge / learned.weights.astype(np.float64)

    @property
    def _system(self) -> Reals:
        system = kernel(self._seen, self._seen)
        system[np.diag_indices_from(system)] += self._ridge
        return system

    @cached_property
    def _inverse(self) -> Reals:
        return np.asarray(np.linalg.inv(self._system), np.float64)

    def weights_of(self, seen: Answers) -> tuple[Reals, Reals]:
        """(new, learned): weights of the learned models' deviations; (new,) variances, as shares of the kernel's."""
        near = kernel(np.asarray(seen, np.float64), self._seen)
        # Solving for a few models takes a third of the time of an inverse, which the residuals need.
        has_inverse = "_inverse" in vars(self) or len(near) > len(self._seen) // 4
        weights = np.asarray(
            near @ self._inverse if has_inverse else np.linalg.solve(self._system, near.T).T, np.float64
        )
        return weights, np.maximum(1 - (weights * near).sum(axis=1), 0)

    def expect(self, seen: Answers, targets: Answers) -> tuple[Reals, Reals]:
        """(new, targets): expected values, from those of the learned models in `targets`; variances as weights_of."""
        weights, variances = self.weights_of(seen)
        centre = np.average(targets, axis=0, weights=self.learned.weights)
        return centre + weights @ (targets - centre), variances

    def left_out(self, targets: Answers, groups: Places, some: Places | None = None) -> tuple[Reals, Reals]:
        """(some, targets): true minus expected for learned models, had its group not been learned; (some,) variances.

        `some` are rows of whole groups; None: all. Exact, without fitting again: the residuals of a group are the
        inverse of its block of the inverse, times its rows of the inverse times the targets (Rasmussen, Williams,
        section 5.4.2, for more than one left out), each taken from the centre of the other groups.
        """
        rows = np.arange(len(groups)) if some is None else some
        inverse = self._inverse if some is None else self._inverse[some]
        centre = np.average(targets, axis=0, weights=self.learned.weights)
        pulled = inverse @ (targets - centre)
        pulled -= inverse.sum(axis=1)[:, None] * (self.centres_without(targets, groups, rows) - centre)
        own = inverse[np.arange(len(rows)), rows]
        residuals, variances = pulled / own[:, None], 1 / own
        _, of, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
        for group in np.flatnonzero(sizes > 1):
            places = np.flatnonzero(of == group)
            block = np.linalg.inv(inverse[np.ix_(places, rows[places])])
            residuals[places] = block @ pulled[places]
            variances[places] = np.diag(block)
        return residuals, np.maximum(variances - self._ridge[rows], 0)

    def centres_without(self, targets: Answers, groups: Places, rows: Places) -> Reals:
        """(rows, targets): the mean over the models of other groups; over all, where there is no other group."""
        weights = self.learned.weights.astype(np.float64)
        of = np.unique(groups, return_inverse=True)[1]
        if of.max() == 0:
            return np.tile(np.average(targets, axis=0, weights=weights), (len(rows), 1))
        order, sizes = np.argsort(of, kind="stable"), np.bincount(of)
        sums = np.add.reduceat((weights[:, None] * targets)[order], np.cumsum(sizes) - sizes)
        others = weights.sum() - np.bincount(of, weights)
        centres: Reals = ((sums.sum(axis=0) - sums) / others[:, None])[of[rows]]
        return centres


def means_of(answers: Floats, goals: Reals) -> Reals:
    """(models, goals): weighted sums of answers, some items at a time, so that no double copy of all is made."""
    sums = np.zeros((len(answers), len(goals)))
    for first in range(0, answers.shape[1], ITEMS_AT_ONCE):
        some = slice(first, first + ITEMS_AT_ONCE)
        sums += answers[:, some].astype(np.float64) @ goals[:, some].T
    return sums


def chosen_ridge(learned: Learned, asked: Places) -> float:
    """The one of RIDGES with the least squared error of means of tasks, had each model's family not been learned."""
    if len(learned.weights) > FEW_MODELS or not learned.whole.any():
        return RIDGE
    targets = means_of(learned.answers, learned.shares)
    missed = [Smoother(learned, asked, ridge).left_out(targets, learned.families)[0] for ridge in RIDGES]
    return RIDGES[int(np.argmin([np.square(one[learned.whole]).mean() for one in missed]))]


def kernel(a: Reals, b: Reals) -> Reals:
    """(models of a, models of b): the likeness of models by their answers to the same items, from 0 to 1."""
    scaled: Reals = a @ b.T  # of an array with itself half of the work; what follows is done in place
    scaled *= -2
    scaled += np.square(a).sum(axis=1)[:, None]
    scaled += np.square(b).sum(axis=1)
    np.sqrt(np.maximum(scaled, 0, out=scaled), out=scaled)
    scaled *= INVERSE_LENGTH / np.sqrt(max(a.shape[1], 1))
    likeness = np.exp(-scaled)
    likeness *= 1 + scaled
    return likeness
