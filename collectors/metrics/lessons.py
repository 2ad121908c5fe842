"""Accuracy and latency as defined in "Harnessing the Power of Multiple Minds: Lessons Learned from LLM Routing".

Source: arXiv 2405.00467, kvadityasrivatsa/llm-routing, routing_policies/evaluate_routing_policies.ipynb. A model has
one latency for all items, and a router's latency counts only correct answers. Knows no costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import NO_CHOICE, Choices, Floats, complete_items, picked, row_blocks
from collectors.metrics.sums import mean


@dataclass(frozen=True)
class Latency:
    """Accuracy and latency of a router."""

    #: Share of items with a correct answer.
    accuracy: float
    #: Mean over the items with a correct answer; None if there are none. Wrong answers of a slow model do not count.
    seconds: float | None
    items: int
    left_out: int


def first_correct(scores: Floats, threshold: float = 1.0) -> npt.NDArray[np.int64]:
    """(items,): the paper's oracle, the first correct model in the order of columns, however slow it is.

    `scores` is (items, models); a score of at least `threshold` is correct. The first model is chosen if no model is
    correct, NO_CHOICE if a score is unknown.
    """
    choices = np.full(len(scores), NO_CHOICE, np.int64)
    complete = complete_items(scores)
    for rows in row_blocks(scores.shape):
        choices[rows] = np.where(complete[rows], (scores[rows] >= threshold).argmax(axis=1), NO_CHOICE)
    return choices


def accuracy_and_latency(choices: Choices, scores: Floats, seconds: Floats, threshold: float = 1.0) -> Latency:
    """A router's share of correct answers, and the mean latency of these.

    `choices` is (items,), `scores` (items, models), `seconds` (models,) per prompt. Items without a choice or with an
    unknown score of the choice are left out. Raises ValueError if none is left or a latency is unknown.
    """
    _check_latencies(seconds)
    values = picked(choices, scores)
    used = ~np.isnan(values)
    right = values >= threshold
    if not used.any():
        raise ValueError(f"no item of {len(values)} has a choice with a known score")
    return Latency(
        accuracy=float(right[used].mean()),
        seconds=mean(seconds[choices[right]]) if right.any() else None,
        items=int(used.sum()),
        left_out=int((~used).sum()),
    )


def random_accuracy_and_latency(scores: Floats, seconds: Floats, threshold: float = 1.0) -> Latency:
    """Accuracy and latency of a uniform random choice, in closed form, from the expected correct answers.

    The paper draws 1,000 times and takes the mean of ratios; this is the ratio of means. They differ by less than the
    draws scatter. Shapes and errors are those of `accuracy_and_latency`; items need a score from every model.
    """
    _check_latencies(seconds)
    used = complete_items(scores)
    if not used.any():
        raise ValueError(f"no item of {len(used)} has the scores of all models")
    right = (scores[used] >= threshold).sum(axis=0)
    return Latency(
        accuracy=float(right.mean() / used.sum()),
        seconds=float((right * seconds).sum() / right.sum()) if right.any() else None,
        items=int(used.sum()),
        left_out=int((~used).sum()),
    )


def _check_latencies(seconds: Floats) -> None:
    if np.isnan(seconds).any():
        raise ValueError(f"the latency of model {int(np.isnan(seconds).argmax())} is unknown")
