"""All figures of one router at once, on one set of items, beside what its pool of models can reach there.

Knows no routers, only what they chose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collectors.metrics.known import NO_CHOICE, Choices, Floats, picked
from collectors.metrics.pool import best_scores, model_means
from collectors.metrics.routereval import choice_entropy, selection_entropy, v_b, v_r


@dataclass(frozen=True)
class Judgement:
    """Means of scores over the same `items`, all from the same pool of models."""

    #: Items with a choice and a known score of every model. Everything below rests on these.
    items: int
    left_out: int
    #: μ, the mean score of the chosen models.
    accuracy: float
    oracle: float
    #: Of the oracle over the best single model: exactly 0 where no item has a better answer than that model's, which
    #: two means of the same numbers, added up in another order, would not give.
    gap: float
    best_single: float
    #: Column of the best single model, the first of equals.
    best_model: int
    #: What uniform choice is expected to reach.
    random: float
    #: μ / reference; None without a reference.
    v_r: float | None
    #: μ / best_single; None when the best single model has 0.
    v_b: float | None
    #: RouterEval's E_p in bits; None without probabilities.
    selection_entropy: float | None
    #: How the choices spread over the models, in bits.
    choice_entropy: float
    #: Of the chosen models, in the unit of `cost`: USD or seconds; None when that of some choice is unknown.
    total_cost: float | None
    #: Items whose choice has no known cost.
    uncosted: int

    @property
    def mean_cost(self) -> float | None:
        """Per item."""
        return None if self.total_cost is None else self.total_cost / self.items

    @property
    def gain(self) -> float:
        """Over the best single model; negative for a router that is not worth its trouble."""
        return self.accuracy - self.best_single

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from the best single model to the oracle; None when there is no way to go."""
        return self.gain / self.gap if self.gap > 0 else None


def judge(
    choices: Choices,
    scores: Floats,
    cost: Floats | None = None,
    *,
    reference: float | None = None,
    probabilities: Floats | None = None,
) -> Judgement:
    """What a router that made `choices` (items,) reaches where all models' `scores` (items, models) are known.

    `cost` (items, models), USD or seconds: NaN where unknown. `reference`: an accuracy, such as those of
    routereval.REFERENCE_ACCURACY. `probabilities` (items, models): with which the router chose. An item without a
    choice (NO_CHOICE) is left out.
    Raises ValueError when no item is left, for choices that are no columns of `scores`, and for other shapes.
    """
    values = picked(choices, scores)
    best = best_scores(scores)
    used = ~np.isnan(best) & (choices != NO_CHOICE)
    means = model_means(scores, used)
    accuracy = float(values[used].mean())
    single = means.best_single.value
    costs = np.full(means.items, np.nan) if cost is None else picked(choices, cost)[used]
    uncosted = int(np.isnan(costs).sum())
    return Judgement(
        items=means.items,
        left_out=means.left_out,
        accuracy=accuracy,
        oracle=float(best[used].mean()),
        gap=float((best[used] - scores[used, means.best]).mean()),
        best_single=single,
        best_model=means.best,
        random=means.random.value,
        v_r=None if reference is None else v_r(accuracy, reference),
        v_b=v_b(accuracy, single) if single > 0 else None,
        selection_entropy=None if probabilities is None else selection_entropy(probabilities[used]).value,
        choice_entropy=choice_entropy(choices[used], scores.shape[1]),
        total_cost=None if uncosted else float(costs.sum()),
        uncosted=uncosted,
    )
