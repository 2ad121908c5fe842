"""Bands that hold their promise: split-conformal, calibrated on models that were held out.

Owns the scale of an error and its quantile. Knows no kernel and no lake. A band is value ± quantile × scale, where the
scale grows with the variance that the answers leave open, and the quantile is that of held-out models' errors over
their scales: whatever the scale is worth, the share of models within the bands is right for models like these (Lei et
al., Distribution-Free Predictive Inference for Regression, JASA 113 (2018) 1094, section 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collectors.forecasts.smoothing import Reals

#: The level of a band, and of the two bands by which two models are called different.
LEVEL = 0.9
#: Held-out models below which no quantile of LEVEL is worth a band.
FEWEST_HELD_OUT = 20


def fewest_held_out(level: float) -> int:
    """Models that bands of `level` need: each half of them must have a quantile (conformal_quantile)."""
    return max(FEWEST_HELD_OUT, 2 * math.ceil(round(level / (1 - level), 6)))


@dataclass(frozen=True)
class Bands:
    """How far a forecast of one quantity may be off."""

    #: Squared error ≈ coefficients · (1, variance left open, variance of the kernel).
    coefficients: Reals
    #: Of |error| / scale.
    quantile: float

    def half(self, open_variance: Reals, kernel_variance: Reals) -> Reals:
        """(models,): half the width of the bands."""
        return self.quantile * scale_of(self.coefficients, open_variance, kernel_variance)


def fit_bands(errors: Reals, open_variance: Reals, kernel_variance: Reals, level: float = LEVEL) -> Bands:
    """Bands from (held-out models,) errors. Raises ValueError with fewer than half of FEWEST_HELD_OUT."""
    if len(errors) < FEWEST_HELD_OUT // 2:  # half of the models make the bands of a check
        raise ValueError(f"{len(errors)} held-out models are too few for bands")
    features = np.stack([np.ones_like(errors), open_variance, kernel_variance], axis=1)
    coefficients = _nonnegative(features, np.square(errors))
    scales = scale_of(coefficients, open_variance, kernel_variance)
    return Bands(coefficients, conformal_quantile(np.abs(errors) / scales, level))


def conformal_quantile(scores: Reals, level: float) -> float:
    """The ⌈(n + 1) · level⌉-th least score, above it a new one has chance 1 - level; infinite if n is too small."""
    place = int(np.ceil((len(scores) + 1) * level))
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else float("inf")


def scale_of(coefficients: Reals, open_variance: Reals, kernel_variance: Reals) -> Reals:
    squared = coefficients[0] + coefficients[1] * open_variance + coefficients[2] * kernel_variance
    scale: Reals = np.sqrt(np.maximum(squared, 1e-12))
    return scale


def _nonnegative(features: Reals, target: Reals) -> Reals:
    """Least squares without negative coefficients, by leaving out the worst one until there is none."""
    kept = list(range(features.shape[1]))
    while kept:
        solved = np.linalg.lstsq(features[:, kept], target, rcond=None)[0]
        if (solved >= 0).all():
            coefficients = np.zeros(features.shape[1])
            coefficients[kept] = solved
            return coefficients
        kept.pop(int(solved.argmin()))
    return np.array([target.mean(), 0.0, 0.0])


@dataclass(frozen=True)
class Check:
    """How bands did on models that took no part in them."""

    models: int
    coverage: float
    error: float
    width: float
    #: Pairs of models whose bands do not overlap, and the share of them in the foretold order; None without a pair.
    pairs: int
    pairs_right: float | None


def check(values: Reals, halves: Reals, truths: Reals) -> Check:
    """Compares (models,) forecasts ± half widths with the truth."""
    low, high = values - halves, values + halves
    is_above = low[:, None] > high[None, :]
    pairs = int(is_above.sum())
    right = float((truths[:, None] > truths[None, :])[is_above].mean()) if pairs else None
    # Ends that touch are within: of an answered task error and width are both 0, give or take rounding.
    held = np.abs(values - truths) <= halves + 1e-9
    error, width = float(np.abs(values - truths).mean()), float(2 * halves.mean())
    return Check(len(values), float(held.mean()), error, width, pairs, right)


def wider(bands: Sequence[Bands], open_variance: Reals, kernel_variance: Reals) -> Reals:
    """(models,): half the width of the widest of several bands; 0 without any."""
    halves = [one.half(open_variance, kernel_variance) for one in bands]
    return np.asarray(np.max([np.zeros(len(kernel_variance)), *halves], axis=0), np.float64)
