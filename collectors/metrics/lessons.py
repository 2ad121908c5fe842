"""Accuracy and latency as "Harnessing the Power of Multiple Minds: Lessons Learned from LLM Routing" counts them.

Source of all: arXiv 2405.00467, kvadityasrivatsa/llm-routing, routing_policies/evaluate_routing_policies.ipynb. A model
has one latency, whatever the item, and only items that were answered right count towards a router's. Knows no costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collectors.metrics.known import NO_CHOICE, Choices, Floats, complete_items, picked, row_blocks


@dataclass(frozen=True)
class Latency:
    accuracy: float
    #: Per item that was answered right; None when none was. The dearer failures of a slow model do not show in it.
    seconds: float | None
    items: int
    left_out: int


def first_correct(scores: Floats, threshold: float = 1.0) -> npt.NDArray[np.int64]:
    """(items,): the paper's oracle, the first model in the order of columns that is right, however slow it is.

    `scores` (items, models); right is a score of at least `threshold`. Where no model is right it names the first one.
    NO_CHOICE where some score is unknown.
    """
    choices = np.full(len(scores), NO_CHOICE, np.int64)
    known = complete_items(scores)
    for rows in row_blocks(scores.shape):
        choices[rows] = np.where(known[rows], (scores[rows] >= threshold).argmax(axis=1), NO_CHOICE)
    return choices


def accuracy_and_latency(choices: Choices, scores: Floats, seconds: Floats, threshold: float = 1.0) -> Latency:
    """Of a router: the share of items answered right, and the sum of the latencies of those, divided by their number.

    `choices` (items,), `scores` (items, models), `seconds` (models,) per prompt. An item without a choice, or of which
    the chosen score is unknown, is left out. Raises ValueError when none is left and when a latency is unknown.
    """
    _all_known(seconds)
    values = picked(choices, scores)
    known = ~np.isnan(values)
    right = values >= threshold
    if not known.any():
        raise ValueError(f"no item of {len(values)} has a choice with a known score")
    return Latency(
        accuracy=float(right[known].mean()),
        seconds=float(seconds[choices[right]].mean(dtype=np.float64)) if right.any() else None,
        items=int(known.sum()),
        left_out=int((~known).sum()),
    )


def random_accuracy_and_latency(scores: Floats, seconds: Floats, threshold: float = 1.0) -> Latency:
    """Of uniform choice, in closed form: the expected right answers and their latencies, where the paper draws 1,000
    times. Its latency is a mean of ratios, this one a ratio of means: they differ by less than the draws scatter.

    Shapes and errors as `accuracy_and_latency`; over the items of which all scores are known.
    """
    _all_known(seconds)
    known = complete_items(scores)
    if not known.any():
        raise ValueError(f"no item of {len(known)} has the scores of all models")
    right = (scores[known] >= threshold).sum(axis=0)
    return Latency(
        accuracy=float(right.mean() / known.sum()),
        seconds=float((right * seconds).sum() / right.sum()) if right.any() else None,
        items=int(known.sum()),
        left_out=int((~known).sum()),
    )


def _all_known(seconds: Floats) -> None:
    if np.isnan(seconds).any():
        raise ValueError(f"the latency of model {int(np.isnan(seconds).argmax())} is unknown")
