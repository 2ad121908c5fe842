"""RouterEval's measures (MilkThink-Lab/RouterEval, arXiv 2503.10657): V_R, V_B, E_p and the routers r_o(p).

Knows nothing of its files or its splits. Its μ is known.mean_of_chosen.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from collectors.metrics.known import NO_CHOICE, Choices, Floats, Mean, complete_items, mean_known, row_blocks
from collectors.metrics.pool import model_means, oracle_mean

#: Accuracy of a strong reference model on each data set, the denominator of V_R: constants of RouterEval's baselines,
#: under the names that its code gives the data sets.
REFERENCE_ACCURACY = {
    "arc": 0.852,
    "hellaswag": 0.953,
    "mmlu": 0.864,
    "harness_truthfulqa_mc_0": 0.669,
    "winogrande": 0.875,
    "gsm8k": 0.92,
    "ifeval": 0.7689,
    "bbh": 0.8303,
    "gpqa": 0.397,
    "math": 0.4,
    "musr": 0.699,
    "mmlu_pro": 0.637,
}
#: Other names of these data sets: lm-eval's tasks.
_ALSO = {
    "arc_challenge": "arc",
    "truthfulqa": "harness_truthfulqa_mc_0",
    "truthfulqa_mc2": "harness_truthfulqa_mc_0",
    "leaderboard_bbh": "bbh",
    "leaderboard_gpqa": "gpqa",
    "leaderboard_ifeval": "ifeval",
    "leaderboard_math_hard": "math",
    "leaderboard_mmlu_pro": "mmlu_pro",
    "leaderboard_musr": "musr",
}


def reference_accuracy(task: str) -> float | None:
    """RouterEval's reference of a data set, under its own name or lm-eval's; None where it has none."""
    return REFERENCE_ACCURACY.get(_ALSO.get(task, task))


def v_r(mu: float, reference: float) -> float:
    """V_R = μ / a reference accuracy, such as REFERENCE_ACCURACY has. ValueError unless that is above 0."""
    return _ratio(mu, reference, "the reference accuracy")


def v_b(mu: float, best_single: float) -> float:
    """V_B = μ / the mean of the best single model on the same items. ValueError unless that is above 0."""
    return _ratio(mu, best_single, "the best single model's mean")


def selection_entropy(probabilities: Floats) -> Mean:
    """E_p in bits: the mean over items of −Σ_j p_j log2 p_j, p_j the probability with which model j is chosen.

    `probabilities` (items, models) may be any weights, such as counts of selections: each row is divided by its sum. A
    row with a NaN is left out. A router that is certain on every item has 0, uniform choice has log2 of the models.
    Raises ValueError for a negative weight and a row without a positive one.
    """
    entropies = np.full(len(probabilities), np.nan)
    known = complete_items(probabilities)
    for rows in row_blocks(probabilities.shape):
        entropies[rows][known[rows]] = _entropies(probabilities[rows][known[rows]])
    return mean_known(entropies)


def choice_entropy(choices: Choices, models: int) -> float:
    """Entropy, in bits, of how a router's choices spread over `models`: 0 when one model gets all items.

    Not RouterEval's E_p, which asks how sure a router is on one item and is 0 for every router that only says which
    model it takes. Items without a choice are passed over; ValueError when no item has one.
    """
    made = choices[choices != NO_CHOICE]
    if not len(made):
        raise ValueError("no item has a choice")
    return float(_entropies(np.bincount(made, minlength=models)[np.newaxis].astype(np.float64))[0])


def oracle_probabilities(scores: Floats) -> npt.NDArray[np.float64]:
    """(items, models): the oracle as RouterEval counts its E_p, the models with the best score at even odds.

    NaN rows where some score is unknown.
    """
    found = np.full(scores.shape, np.nan)
    known = complete_items(scores)
    best = scores[known] == scores[known].max(axis=1, keepdims=True)
    found[known] = best / best.sum(axis=1, keepdims=True)
    return found


def r_o_probabilities(scores: Floats, p: float) -> npt.NDArray[np.float64]:
    """(items, models): r_o(p), with probability `p` the oracle, else uniform. NaN rows as `oracle_probabilities`."""
    found = oracle_probabilities(scores)
    found *= _probability(p)
    found += (1 - p) / scores.shape[1]
    return found


def r_o(scores: Floats, p: float) -> Mean:
    """What r_o(p) is expected to reach: p · mean(best score) + (1−p) · mean(all scores), over complete items.

    r_o(1) is the oracle and r_o(0) the random router. Source: RouterEval's folder router/R_o, which draws at random.
    """
    best, uniform = oracle_mean(scores), model_means(scores).random
    return Mean(_probability(p) * best.value + (1 - p) * uniform.value, best.items, best.left_out)


def random_entropy(models: int) -> float:
    """E_p of the random router over `models`: log2 of them, in bits."""
    return math.log2(models)


def _entropies(weights: Floats) -> npt.NDArray[np.float64]:
    totals = weights.sum(axis=1, keepdims=True, dtype=np.float64)
    if (weights < 0).any() or (totals <= 0).any():
        raise ValueError("probabilities and counts of selections must not be negative, nor all 0 on an item")
    p = weights / totals
    bits: npt.NDArray[np.float64] = (p * -np.log2(np.where(p > 0, p, 1))).sum(axis=1)
    return bits


def _ratio(value: float, base: float, name: str) -> float:
    if not base > 0:
        raise ValueError(f"{name} is {base}, so nothing can be measured against it")
    return value / base


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability, not {p}")
    return p
