"""Routers in pools of growing size: RouterEval's "model-level scaling up", for trained routers beside the oracle.

Owns the sizes and the random pools. A router is trained anew in each pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from collectors.routers.boards import Progress, Runner, run_trials
from collectors.routers.questions import Questions
from collectors.routers.registry import RouterSpec
from collectors.routers.standings import stand
from collectors.routers.trial import Fold

SIZES = (3, 5, 10, 30, 100, 300, 1000)


def scale(
    questions: Questions,
    routers: Sequence[RouterSpec],
    fold_of: Callable[[Questions], Fold],
    folder: Path,
    runner: Runner,
    *,
    draws: int = 3,
    path: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[dict[str, dict[int, list[float]]], list[str]]:
    """Name of a router, or oracle -> pool size -> scores in random pools of that size; and lines on routers that
    failed.

    All pools have the same training and test questions; those of one draw are nested.
    """
    count = len(questions.pool.candidates)
    sizes = sorted({*(size for size in SIZES if size < count), min(count, SIZES[-1])})
    points: dict[str, dict[int, list[float]]] = {"oracle": {}}
    failed: dict[str, str] = {}
    fold = fold_of(questions)
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(count)
        for size in sizes:
            if size == count and draw:
                continue  # there is one such pool
            part = _part(questions, np.sort(order[:size]))
            place = folder / f"{size}-{draw}"
            trials = run_trials(part, routers, [fold], place, runner, path=path, progress=progress)
            board = stand(part.pool, part.tasks, part.groups, routers, [fold], trials)
            points["oracle"].setdefault(size, []).append(board.head["oracle_score"])
            for one in board.standings:
                if one.failed:
                    failed[one.router.name] = f"{one.router.name} in a pool of {size}: {one.failed}"
                else:
                    points.setdefault(one.router.name, {}).setdefault(size, []).append(one.figures["score"])
    return points, list(failed.values())


def _part(questions: Questions, columns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Questions:
    every = np.ones(len(questions.ids), np.bool_)
    part = replace(questions, pool=questions.pool.taken(every, columns))
    part.__dict__["groups"] = questions.groups  # the texts are the same
    part.__dict__["near"] = questions.near
    return part
