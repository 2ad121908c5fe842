"""Lines about a pool for its reader: which settings differ, which cells one was chosen from, and which were left out.

Owns the words. Knows no metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from collectors.matrix.pool_arrays import OTHER, SAMPLED, UNSCORED, Pool, Pools
from collectors.metrics.gaps import row_blocks
from schemas.failures import ConfigError

#: Settings in the order of their interest. Of prompting, which the others determine, the count is enough.
_SHOWN = ("imported_from", "num_fewshot", "chat_template", "dtype", "engine", "max_length")
_MOST = 5
#: Questions that are looked at in one step, to bound the memory beside the arrays.
_ROWS = 512


def check_more_is_better(pool: Pool) -> None:
    """Raises ConfigError for a pool of a metric where less is better."""
    if not pool.higher_is_better:
        raise ConfigError(_less_is_better(pool))


def with_more_is_better(pools: Pools, tasks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `tasks` whose metric is better where it is more, and a line on each of the others."""
    less = {task: _less_is_better(pools.of_task(task)) for task in tasks if not pools.is_more_better(task)}
    return [task for task in tasks if task not in less], [f"left out: {line}" for line in less.values()]


def _less_is_better(pool: Pool) -> str:
    return f"{pool.task}: less is better for {pool.metric}, and routers need a metric where more is"


def best_first(pool: Pool, most: int) -> list[tuple[str, float | None, int]]:
    """The first few candidates by their mean score: the name, the mean (None without a score), the number of scores."""
    known, sums = np.zeros(len(pool.candidates), np.int64), np.zeros(len(pool.candidates))
    for rows in row_blocks(pool.scores.shape):
        has = ~np.isnan(pool.scores[rows])
        known += has.sum(axis=0)
        sums += np.where(has, pool.scores[rows], 0).sum(axis=0, dtype=np.float64)
    means = np.divide(sums, known, out=np.full(len(known), np.nan), where=known > 0)
    order = np.argsort(-means if pool.higher_is_better else means, kind="stable")[:most].tolist()
    return [(pool.candidates[at], float(means[at]) if known[at] else None, int(known[at])) for at in order]


def head(pools: Pools) -> list[str]:
    """Lines for the head of a table, picture or export of the pools."""
    cells = pools.every.cells.to_pylist()
    candidates, questions = len(pools.every.candidates), int(pools.counted.sum())
    some = f"{len(pools.tasks):,} tasks" if len(pools.tasks) > 1 else pools.tasks[0]
    lines = [f"pool: {candidates:,} candidates × {questions:,} questions of {some}{_settings(cells)}"]
    if pools.choice.same:
        lines.append(_same(pools.choice.same, cells))
    tasks_of = Counter(cell["candidate"] for cell in cells)
    everywhere = sum(count == len(pools.tasks) for count in tasks_of.values())
    if everywhere < candidates:
        lines.append(f"over all tasks: {everywhere:,} of {candidates:,} candidates, those that every task has")
    several = sum(cell["cells"] > 1 for cell in cells)
    if several:
        lines.append(
            f"{several:,} of {len(cells):,} candidates were chosen among several cells: the prompting that most share, "
            "then the most complete, then the newest (view candidates; --pool chooses)"
        )
    if sampled := [cell for cell in cells if cell["is_sparse"]]:
        counts = [sum(cell[name] for cell in sampled) for name in ("sampled_items", "planned_items")]
        lines.append(
            f"{len(sampled):,} of {len(cells):,} cells were sampled: runs meant to ask {counts[0]:,} of their "
            f"{counts[1]:,} items"
        )
    if lost := _lost(pools):
        lines.append(lost)
    lines += _scarce(pools)
    differing = [why for _, _, why in pools.dropped if why not in (UNSCORED, SAMPLED, OTHER)]
    for why in dict.fromkeys([UNSCORED, SAMPLED, *differing, OTHER]):
        if names := [f"{model} in {task}" for task, model, reason in pools.dropped if reason == why]:
            more = f", … {len(names) - _MOST:,} more" if len(names) > _MOST else ""
            lines.append(f"left out: {', '.join(names[:_MOST])}{more} ({why})")
    return [" ".join(line.split()) for line in lines]  # a name may hold a line feed


def _settings(cells: Sequence[dict[str, object]]) -> str:
    """A phrase on the settings that differ, with the number of candidates of each value."""
    parts = []
    for name in _SHOWN:
        counts = Counter("unknown" if cell[name] is None else str(cell[name]) for cell in cells)
        if name == "imported_from":
            counts = Counter("collected" if cell[name] is None else "imported" for cell in cells)
        within = {(cell["task"], cell[name]) for cell in cells}
        if len(counts) > 1 and len(within) > len({cell["task"] for cell in cells}):  # not from task to task alone
            label = "" if name == "imported_from" else f"{name} "
            parts.append(label + ", ".join(f"{value} ({count:,})" for value, count in counts.most_common(_MOST)))
    promptings = len({(cell["task"], cell["prompting"]) for cell in cells}) - len({cell["task"] for cell in cells})
    if promptings and not any(part.startswith(("num_fewshot", "chat_template")) for part in parts):
        parts.append("promptings differ")
    return f"; {'; '.join(parts)}" if parts else ""


def _same(same: Sequence[str], cells: Sequence[dict[str, object]]) -> str:
    """A line on the settings that had to be the same, with the value of each task where it is one of _SHOWN."""
    parts = []
    for name in same:
        tasks: dict[str, list[str]] = {}
        unknown = "collected" if name == "imported_from" else "unknown"
        found = {(str(cell["task"]), unknown if cell[name] is None else str(cell[name])) for cell in cells}
        for task, value in sorted(found):
            tasks.setdefault(value, []).append(task)
        if name not in _SHOWN or len(tasks) > _MOST:
            parts.append(name)
        elif len(tasks) == 1:
            parts.append(f"{name} {next(iter(tasks))}")
        else:
            places = [some[0] if len(some) == 1 else f"{len(some):,} tasks" for some in tasks.values()]
            values = (f"{value} in {place}" for value, place in zip(tasks, places, strict=True))
            parts.append(f"{name} {', '.join(values)}")
    where = "" if len({cell["task"] for cell in cells}) == 1 else " within each task"
    return f"the same{where}: {'; '.join(parts)}"


def _scarce(pools: Pools) -> list[str]:
    """A line on those that were left out together, or alone, because they lack scores."""
    rounds: dict[tuple[str, int], list[dict[str, object]]] = {}
    for row in pools.left_out.to_pylist():
        rounds.setdefault((row["task"], row["round"]), []).append(row)
    lines = []
    for (task, _), rows in list(rounds.items())[:_MOST]:
        names = [str(row["candidate"]) for row in rows]
        keeps = "keeps it" if len(names) == 1 else "keeps them"
        lines.append(f"{scarce(task, names, len(names), rows[0]['gained'])} (--questions any {keeps})")
    if others := sum(map(len, list(rounds.values())[_MOST:])):
        lines.append(f"left out: {others:,} more candidates: see the view candidates")
    return lines


def scarce(task: str, names: Sequence[str], number: int, gained: object) -> str:
    """A phrase on `number` candidates that were left out together. `names` are some of theirs."""
    shown = ", ".join(names[:_MOST])
    more = f", … {number - _MOST:,} more" if number > _MOST else ""
    lack, them = ("which lacks", "it") if number == 1 else ("which lack", "them")
    return f"left out: {shown}{more} in {task}, {lack} scores: without {them} {gained:,} more questions count"


def _lost(pools: Pools) -> str:
    """A line on the questions that do not count, with the candidates that lack their scores."""
    lost, asked = 0, len(pools.every.scores)
    by_candidate: Counter[str] = Counter()
    for rows, columns in pools.places.values():
        open_rows = np.flatnonzero(~pools.counted[rows]) + rows.start
        lost += len(open_rows)
        missing = np.zeros(len(columns), np.int64)
        for first in range(0, len(open_rows), _ROWS):
            missing += np.isnan(pools.every.scores[open_rows[first : first + _ROWS]][:, columns]).sum(axis=0)
        for column, count in zip(columns.tolist(), missing.tolist(), strict=True):
            by_candidate[pools.every.candidates[column]] += count
    if not lost:
        return ""
    worst = ", ".join(f"{name} {count:,}" for name, count in (+by_candidate).most_common(_MOST))
    why = "no candidate has a score for them" if pools.choice.questions == "any" else f"no score of {worst}"
    return f"left out: {lost:,} of {asked:,} questions ({why})"
