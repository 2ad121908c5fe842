"""All figures of one router on one set of items, with the bounds of its model pool on the same items.

Knows no routers, only their choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import NO_CHOICE, Choices, Floats, picked
from collectors.metrics.pool import best_scores, model_means
from collectors.metrics.routereval import choice_entropy, selection_entropy, v_b, v_r
from collectors.metrics.sums import USD, mean, total


@dataclass(frozen=True)
class Judgement:
    """The figures of one router. All of them are means over the same `items` and pool."""

    #: Items with a choice and a score from every model. All figures below use these items.
    items: int
    #: The other items.
    left_out: int
    #: μ, the mean score of the chosen models.
    accuracy: float
    #: Mean of the best score of each item.
    oracle: float
    #: Oracle minus best single model: exactly 0 if the best model is best on every item.
    gap: float
    #: Mean score of the best single model.
    best_single: float
    #: Column of the best single model, the first of equals.
    best_model: int
    #: Expected score of a uniform random choice.
    random: float
    #: μ / reference; None without a reference.
    v_r: float | None
    #: μ / best_single; None if the best single model has mean 0.
    v_b: float | None
    #: RouterEval's E_p in bits; None unless each of the items has probabilities.
    selection_entropy: float | None
    #: Entropy of the choices over the models, in bits (routereval.choice_entropy).
    choice_entropy: float
    #: Sum over the chosen models, in USD or seconds as the input; None if the cost of a choice is unknown.
    total_cost: float | None
    #: Items with an unknown cost of the choice.
    uncosted: int

    @property
    def mean_cost(self) -> float | None:
        """`total_cost` per item."""
        return None if self.total_cost is None else self.total_cost / self.items

    @property
    def gain(self) -> float:
        """The router's score minus the best single model's; negative if the router is worse."""
        return self.accuracy - self.best_single

    @property
    def gap_closed(self) -> float | None:
        """Gain / gap: 0 at the best single model, 1 at the oracle; None if the two are equal."""
        return self.gain / self.gap if self.gap > 0 else None


def judge(
    choices: Choices,
    scores: Floats,
    cost: Floats | None = None,
    *,
    reference: float | None = None,
    probabilities: Floats | None = None,
) -> Judgement:
    """The figures of a router with `choices` (items,) on the items with a score from every model.

    `scores` and `cost` are (items, models) with NaN for unknown values; `cost` is in USD or seconds. `reference` is an
    accuracy such as those in routereval.REFERENCE_ACCURACY. `probabilities` (items, models) are the router's
    probabilities for each model, NaN for an item without any. Items without a choice (NO_CHOICE) are left out. Raises
    ValueError if no item is left, if a choice is not a column of `scores`, or if the shapes differ.
    """
    values = picked(choices, scores)
    best = best_scores(scores)
    used = ~np.isnan(best) & (choices != NO_CHOICE)
    means = model_means(scores, used)
    accuracy, at_best = mean(values[used]), mean(best[used])
    single = means.best_single.value
    costs = np.full(means.items, np.nan) if cost is None else picked(choices, cost)[used]
    uncosted = int(np.isnan(costs).sum())
    return Judgement(
        items=means.items,
        left_out=means.left_out,
        accuracy=accuracy,
        oracle=at_best,
        gap=at_best - single,
        best_single=single,
        best_model=means.best,
        random=means.random.value,
        v_r=None if reference is None else v_r(accuracy, reference),
        v_b=v_b(accuracy, single) if single > 0 else None,
        selection_entropy=_certainty(probabilities, used),
        choice_entropy=choice_entropy(choices[used], scores.shape[1]),
        total_cost=None if uncosted else total(costs, USD),
        uncosted=uncosted,
    )


def _certainty(probabilities: Floats | None, used: npt.NDArray[np.bool_]) -> float | None:
    if probabilities is None or np.isnan(probabilities[used]).any():
        return None
    return selection_entropy(probabilities[used]).value
