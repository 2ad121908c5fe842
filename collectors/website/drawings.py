"""The pictures of a site: score by pool size, and cost against quality, for each task and for all.

Owns which ones there are and their names. collectors/pictures/ draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from collectors.lake.store import Lake
from collectors.matrix.pool_arrays import COSTS, Pool
from collectors.matrix.pools import load_pools
from collectors.metrics.gaps import complete_items
from collectors.metrics.routereval import reference_accuracy
from collectors.pictures.draw import Drawing, draw_cost, draw_scaling
from collectors.pictures.headline import headline
from collectors.website.tables import shown
from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.texts import without_keys

#: Elements of a pool over all tasks beyond which only single tasks are drawn: its arrays take 21 bytes an element.
MOST_ELEMENTS = 20_000_000
ALL = "all tasks"


def draw_all(
    lake: Lake, include: str, tasks: Sequence[str], elements: int, write: Callable[[str, bytes], None]
) -> list[dict[str, str]]:
    """Draws what can be drawn: address, a text in place of each picture, and the task, where it is of one.

    `elements` are of all pools. Raises ModuleNotFoundError without matplotlib.
    """
    made: list[dict[str, str]] = []
    try:
        every = load_pools(lake, include=include, numbers=COSTS) if elements <= MOST_ELEMENTS else None
    except ConfigError:  # no cell has a score
        return []
    if every and len(tasks) > 1 and (pool := every.over_all()):
        made += _drawn(replace(pool, task=ALL), write, is_all=True)
    for task in every.tasks if every else tasks:
        try:
            pools = every or load_pools(lake, [task], include=include, numbers=COSTS)
        except ConfigError:
            continue
        made += _drawn(pools.of_task(task), write)
    return made


def _drawn(pool: Pool, write: Callable[[str, bytes], None], *, is_all: bool = False) -> list[dict[str, str]]:
    if len(pool.candidates) < 2 or not pool.higher_is_better or not complete_items(pool.scores).any():
        return []
    task = without_keys(pool.task)  # as in the site's tables
    one = headline(
        task,
        pool.metric,
        [shown(without_keys(name)) for name in pool.candidates],
        pool.scores,
        {kind: pool.numbers.get(kind) for kind in COSTS},
        reference=reference_accuracy(task),
    )
    scaling = one.scaling
    by_size = (
        f"Score by pool size, {len(one.models):,} models, {scaling.items:,} questions: best single model "
        f"{shown(float(scaling.best_single[-1]), 'score')}, oracle {shown(float(scaling.oracle[-1]), 'score')}, random "
        f"{shown(float(scaling.random), 'score')}."
    )
    drawings: list[tuple[str, Drawing, str]] = []
    if one.cost:
        by_cost = f"Cost and score of {len(one.cost.models):,} models with the frontier that no other model beats."
        drawings.append(("cost", draw_cost(one), by_cost))
    drawings.append(("pool", draw_scaling(one), by_size))
    made = []
    for kind, drawing, alt in drawings:
        address = f"pictures/{digest([task, is_all])}-{kind}.svg"  # a task may have the name of all
        write(address, drawing.svg.encode())
        made.append({**({} if is_all else {"task": task}), "address": address, "alt": f"{shown(task)}. {alt}"})
    return made
