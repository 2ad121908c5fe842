"""RouterEval's measures (MilkThink-Lab/RouterEval, arXiv 2503.10657): V_R, V_B, E_p and the routers r_o(p).

Knows nothing of RouterEval's files or splits. Its μ is gaps.mean_of_chosen.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import NO_CHOICE, Choices, Floats, Mean, complete_items, mean_known, row_blocks
from collectors.metrics.pool import model_means, oracle_mean

#: Data set, by its name in RouterEval's code -> accuracy of a strong reference model, the denominator of V_R. The
#: numbers are constants of RouterEval's baselines.
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
#: lm-eval's name of a task -> RouterEval's name of the data set.
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
    """RouterEval's reference accuracy of a task, by its own name or lm-eval's; None if it has none."""
    return REFERENCE_ACCURACY.get(_ALSO.get(task, task))


def v_r(mu: float, reference: float) -> float:
    """V_R = μ / a reference accuracy, such as in REFERENCE_ACCURACY. Raises ValueError unless that is above 0."""
    return _ratio(mu, reference, "the reference accuracy")


def v_b(mu: float, best_single: float) -> float:
    """V_B = μ / mean of the best single model on the same items. Raises ValueError unless that mean is above 0."""
    return _ratio(mu, best_single, "the best single model's mean")


def selection_entropy(probabilities: Floats) -> Mean:
    """E_p in bits: the mean over items of −Σ_j p_j log2 p_j, where p_j is the probability of choosing model j.

    `probabilities` (items, models) may be any weights, such as counts of selections: each row is divided by its sum.
    Rows with a NaN are left out. A router that is certain on every item has 0, a uniform choice has log2(models).
    Raises ValueError for a negative weight, a row without a positive one, or if no row is left.
    """
    entropies = np.full(len(probabilities), np.nan)
    complete = complete_items(probabilities)
    for rows in row_blocks(probabilities.shape):
        entropies[rows][complete[rows]] = _entropies(probabilities[rows][complete[rows]])
    return mean_known(entropies)


def choice_entropy(choices: Choices, models: int) -> float:
    """Entropy, in bits, of a router's choices over `models` models: 0 if one model gets all items.

    This is not RouterEval's E_p, which measures a router's certainty on single items and is 0 for every router without
    probabilities. Items without a choice do not count. Raises ValueError if no item has one.
    """
    made = choices[choices != NO_CHOICE]
    if not len(made):
        raise ValueError("no item has a choice")
    return float(_entropies(np.bincount(made, minlength=models)[np.newaxis].astype(np.float64))[0])


def oracle_probabilities(scores: Floats) -> npt.NDArray[np.float64]:
    """(items, models): the oracle's probabilities for RouterEval's E_p, which weighs models by their scores.

    Of verdicts 0 and 1 that is an equal choice among the right models. Rows where no model has a score above 0 are
    uniform, and rows with an unknown score NaN. Source: RouterEval, router/R_o/r_o_router.py.
    """
    probabilities = np.full(scores.shape, np.nan)
    complete = complete_items(scores)
    totals = scores[complete].sum(axis=1, keepdims=True, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        weighed = scores[complete] / totals
    probabilities[complete] = np.where(totals == 0, 1 / scores.shape[1], weighed)
    return probabilities


def r_o_probabilities(scores: Floats, p: float) -> npt.NDArray[np.float64]:
    """(items, models): probabilities of r_o(p) for E_p: oracle_probabilities with probability `p`, else uniform.

    Of graded scores they are not those of its choices, which take the best score (r_o). Rows with an unknown score are
    NaN. Raises ValueError unless `p` is a probability.
    """
    probabilities = oracle_probabilities(scores)
    probabilities *= _probability(p)
    probabilities += (1 - p) / scores.shape[1]
    return probabilities


def r_o(scores: Floats, p: float) -> Mean:
    """Expected score of r_o(p): p · mean(best score) + (1−p) · mean(all scores), over complete items.

    r_o(1) is the oracle and r_o(0) the random router. Raises ValueError without complete items, or unless `p` is a
    probability. Source: RouterEval's folder router/R_o, which draws at random.
    """
    best, uniform = oracle_mean(scores), model_means(scores).random
    return Mean(_probability(p) * best.value + (1 - p) * uniform.value, best.items, best.left_out)


def random_entropy(models: int) -> float:
    """E_p of the random router, in bits: log2(models)."""
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
