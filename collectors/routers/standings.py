"""The figures of a board: each router's scores and costs, and which differences are more than chance.

Owns the rows and their figures. A question that a router abstains on goes to the best constant of
the fold, as a user would have it; so abstaining on hard questions gains nothing. Formulas are those of
collectors.metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.matrix.pool_arrays import Pool
from collectors.metrics.plane import aiq_code, aiq_paper, convex_hull, zero_router
from collectors.metrics.resampling import LEVEL
from collectors.metrics.routereval import choice_entropy
from collectors.routers.boards import Trial
from collectors.routers.comparing import Comparison, compare
from collectors.routers.contract import ABSTAIN
from collectors.routers.outcomes import (
    DIGITS,
    Outcomes,
    Values,
    best_constant,
    constant_scores,
    mean_of_folds,
    of_folds,
    oracle_scores,
    rounded,
    singles_of,
)
from collectors.routers.registry import RouterSpec
from collectors.routers.trial import Fold

#: Names of a row's figures, in order.
FIGURES = (
    *("score", "score_answered", "spread_of_folds", "gap_closed", "v_b", "selection_entropy", "choice_entropy"),
    *("usd", "unpriced", "latency_s", "untimed", "abstained", "unscored", "hull_score", "aiq_paper", "aiq_code"),
    *("brier", "brier_of_means"),
)


@dataclass
class Standing:
    """One row of a board. Means are over folds of a fold's mean over its test questions."""

    router: RouterSpec
    #: Why it has no figures; None if it has.
    failed: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    per_task: dict[str, dict[str, Any]] = field(default_factory=dict)
    of_folds: list[float] = field(default_factory=list)
    #: (alphas, 2): mean USD and score along the shares of score against cost.
    curve: Values | None = None
    constant: Comparison | None = None
    mixture: Comparison | None = None
    #: Whether it sees the answers, whatever its name.
    is_bound: bool = False
    #: Of routers; None for a bound and for one that failed.
    rank: int | None = None
    #: Seconds to fit a fold and to route a query: measured, so they differ from run to run.
    measured: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        return {
            "router": self.router.name,
            "rank": self.rank,
            "bound": self.is_bound,
            "failed": self.failed,
            **{name: self.figures.get(name) for name in FIGURES},
            "of_folds": self.of_folds,
            "vs_best_constant": None if self.constant is None else self.constant.row(),
            "vs_mixture": None if self.mixture is None else self.mixture.row(),
            "per_task": self.per_task,
            "curve": None if self.curve is None else np.round(self.curve, DIGITS).tolist(),
            "factory": self.router.factory,
            "parameters": self.router.parameters,
            "encoder": self.router.encoder,
            "usd_per_query": self.router.usd_per_query,
        }


@dataclass(frozen=True)
class Board:
    """The rows by rank, then score; the bounds and those that failed come last."""

    standings: list[Standing]
    #: The bases of all rows, on the same questions.
    head: dict[str, Any]
    notes: list[str]


def stand(
    pool: Pool,
    tasks: Sequence[str],
    groups: npt.NDArray[np.int64],
    routers: Sequence[RouterSpec],
    folds: Sequence[Fold],
    trials: Sequence[Trial],
    *,
    seed: int = 0,
) -> Board:
    """The board of these trials, which are by router and fold. `groups` (questions,) are of near-duplicates."""
    constants = [best_constant(pool, fold) for fold in folds]
    by_router = {
        spec.name: list(trials[place * len(folds) : (place + 1) * len(folds)]) for place, spec in enumerate(routers)
    }
    standings = [Standing(spec) for spec in routers]
    base = constant_scores(pool, folds, constants)
    best, singles = oracle_scores(pool, folds), singles_of(pool, folds)
    outcomes: dict[str, Outcomes] = {}
    for one in standings:
        of = by_router[one.router.name]
        one.is_bound = one.router.is_bound or any(trial.made.get("peeks") for trial in of)
        if bad := [trial for trial in of if trial.failed]:
            one.failed = f"{bad[0].failed}: {bad[0].message}" + (
                f" ({len(bad)} of {len(of)} folds)" if len(of) > 1 else ""
            )
            continue
        outcomes[one.router.name] = Outcomes(pool, folds, of, constants)
        _describe(one, outcomes[one.router.name], pool, tasks, folds, of, (base, best, singles))
    _aiqs(standings, singles)
    bounds = [one.router.name for one in standings if one.is_bound]
    if outcomes:
        for name, place in compare(outcomes, bounds, base, pool, folds, groups, seed).items():
            [one] = [one for one in standings if one.router.name == name]
            one.constant, one.mixture, one.rank = place.constant, place.mixture, place.rank
    head = {
        "best_constant_score": rounded(mean_of_folds(base)),
        "best_constants": sorted({pool.candidates[column] for column in constants}),
        "oracle_score": rounded(mean_of_folds(best)),
        "test_questions": [len(fold.test) for fold in folds],
        "train_questions": [len(fold.train) for fold in folds],
        "unseen_candidates": [0 if fold.unseen is None else int(fold.unseen.sum()) for fold in folds],
        "single_models_aiq": _single_aiq(standings, singles),
    }
    standings.sort(key=_order)
    return Board(standings, head, _notes(standings))


def _order(one: Standing) -> tuple[Any, ...]:
    score = one.figures.get("score")
    return (
        one.failed is not None,
        one.is_bound,
        one.rank or 0,
        -(score if score is not None else -1e300),
        one.router.name,
    )


def _notes(standings: Sequence[Standing]) -> list[str]:
    ties = [one.router.name for one in standings if one.constant and one.constant.verdict == "tie" and not one.is_bound]
    better = [
        one.router.name for one in standings if one.constant and one.constant.verdict == "better" and not one.is_bound
    ]
    notes = [
        f"better than the best constant beyond chance (Holm over routers, {LEVEL:g}): {', '.join(better) or 'none'}",
        f"tied with it: {', '.join(ties) or 'none'}",
    ]
    if failed := [f"{one.router.name} ({one.failed})" for one in standings if one.failed]:
        notes.append(f"without figures: {'; '.join(failed)}")
    return notes


# ---- a row


def _describe(
    one: Standing,
    of: Outcomes,
    pool: Pool,
    tasks: Sequence[str],
    folds: Sequence[Fold],
    trials: Sequence[Trial],
    against: tuple[Values, Values, list[tuple[Values, Values]]],
) -> None:
    base, best, singles = against
    is_there = ~np.isnan(of.score)
    score, at_base, at_best = (
        mean_of_folds(of.score),
        mean_of_folds(np.where(is_there, base, np.nan)),
        mean_of_folds(np.where(is_there, best, np.nan)),
    )
    usd = mean_of_folds(of.usd) if not of.unpriced else None
    top = [float(np.nanmax(means)) for means, _ in singles]
    scores = of_folds(of.score)
    one.of_folds = [rounded(value) for value in scores]
    chosen = np.concatenate([trial.made["chosen"] for trial in trials])
    one.figures = {
        "score": rounded(score),
        "score_answered": rounded(mean_of_folds(of.answered)),
        "spread_of_folds": rounded(float(np.std(scores, ddof=1))) if len(scores) > 1 else None,
        "gap_closed": rounded((score - at_base) / (at_best - at_base)) if at_best > at_base else None,
        "v_b": rounded(float(np.mean([mine / one_top for mine, one_top in zip(scores, top, strict=True)])))
        if min(top) > 0
        else None,
        "selection_entropy": _bits(trials),
        "choice_entropy": rounded(choice_entropy(chosen, len(pool.candidates))) if (chosen != ABSTAIN).any() else None,
        "usd": None if usd is None else rounded(usd, 15),
        "unpriced": of.unpriced,
        "latency_s": rounded(mean_of_folds(of.seconds)) if not of.untimed else None,
        "untimed": of.untimed,
        "abstained": of.abstained,
        "unscored": of.unscored,
        "hull_score": _hull_score(of, singles) if usd is not None else None,
        **_errors(trials),
    }
    one.per_task = _per_task(of, tasks)
    one.curve = _curve(pool, folds, trials)
    queries = sum(len(fold.test) for fold in folds)
    one.measured = {
        "fit_s": sum(float(trial.made["fit_s"]) for trial in trials) / len(trials),
        "route_s_per_query": sum(float(trial.made["route_s"]) for trial in trials) / max(1, queries),
    }


def _bits(trials: Sequence[Trial]) -> float | None:
    if not all("bits" in trial.made for trial in trials):
        return None
    return rounded(float(np.mean([trial.made["bits"].mean() for trial in trials])))


def _errors(trials: Sequence[Trial]) -> dict[str, float | None]:
    """Brier scores of the estimates, and of the candidates' means in training."""
    names = {"squared_error": "brier", "squared_error_of_means": "brier_of_means"}
    if not all("squared_error" in trial.made for trial in trials):
        return dict.fromkeys(names.values())
    return {
        shown: rounded(float(np.mean([np.nanmean(trial.made[name]) for trial in trials])))
        for name, shown in names.items()
    }


def _hull_score(of: Outcomes, singles: Sequence[tuple[Values, Values]]) -> float | None:
    """The Zero router's score at the router's cost, by the single candidates on the same test questions."""
    found = []
    for number, (scores, usd) in enumerate(singles):
        if np.isnan(usd).any() or np.isnan(scores).any():
            return None
        cost = float(np.nanmean(of.usd[number]))
        lowest = float(usd.min())
        if cost < lowest * (1 - 1e-9):
            return None
        found.append(zero_router(np.stack([usd, scores], axis=1), max(cost, lowest)))
    return rounded(float(np.mean(found)))


def _per_task(of: Outcomes, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    names = np.array(tasks, object)
    found = {}
    for task in sorted(set(tasks)):
        mine = of.score[:, names == task]
        if np.isnan(mine).all():
            continue
        usd = of.usd[:, names == task][~np.isnan(mine)]
        found[task] = {
            "score": rounded(mean_of_folds(mine)),
            "usd": None if np.isnan(usd).any() else rounded(mean_of_folds(of.usd[:, names == task]), 15),
            "questions": int((~np.isnan(mine)).any(axis=0).sum()),
        }
    return found


def _curve(pool: Pool, folds: Sequence[Fold], trials: Sequence[Trial]) -> Values | None:
    usd = pool.numbers.get("usd")
    if usd is None or not all("curve" in trial.made for trial in trials):
        return None
    points = []
    for fold, trial in zip(folds, trials, strict=True):
        chosen = trial.made["curve"]
        paid = usd[fold.test, chosen] + trial.made["more_usd"]
        points.append(
            np.stack([paid.mean(axis=1), pool.scores[fold.test, chosen].mean(axis=1, dtype=np.float64)], axis=1)
        )
    curve: Values = np.mean(points, axis=0)
    return None if np.isnan(curve).any() else curve


def _mean_points(singles: Sequence[tuple[Values, Values]]) -> Values | None:
    points: Values = np.mean([np.stack([usd, scores], axis=1) for scores, usd in singles], axis=0)
    return None if np.isnan(points).any() else points


def _range(standings: Sequence[Standing], singles: Sequence[tuple[Values, Values]]) -> tuple[float, float] | None:
    """One range of costs for all AIQs: where every curve has begun, up to the dearest candidate."""
    points = _mean_points(singles)
    if points is None:
        return None
    starts = [float(convex_hull(one.curve)[0, 0]) for one in standings if one.curve is not None]
    low = max([*starts, float(convex_hull(points)[0, 0])])
    high = float(points[:, 0].max())
    return (low, high) if low < high else None


def _aiqs(standings: Sequence[Standing], singles: Sequence[tuple[Values, Values]]) -> None:
    costs = _range(standings, singles)
    for one in standings:
        if one.failed:
            continue
        one.figures |= {"aiq_paper": None, "aiq_code": None}
        if costs is None or one.curve is None:
            continue
        one.figures["aiq_paper"] = rounded(aiq_paper(one.curve, *costs))
        end = max(costs[1], float(convex_hull(one.curve)[-1, 0]))
        one.figures["aiq_code"] = rounded(aiq_code(one.curve, end)) if end > 0 else None


def _single_aiq(standings: Sequence[Standing], singles: Sequence[tuple[Values, Values]]) -> float | None:
    costs, points = _range(standings, singles), _mean_points(singles)
    return None if costs is None or points is None else rounded(aiq_paper(points, *costs))
