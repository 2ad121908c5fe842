"""States what of an oracle's gap is luck: of candidates that sample answers and were asked once, the luckiest counts.

Owns the sentence, for everything that shows an oracle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import duckdb

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.views import PoolChoice

#: What luck_lines reads.
VIEWS = ("_members", "_repeats", "_samples", "oracle_heldout")
#: Most tasks that have a line of their own.
_MOST = 5
_SAMPLED = """
SELECT pool, count(DISTINCT candidate)
FROM _members
WHERE NOT is_all AND _samples(decoding, generation_config) AND cell_id NOT IN (SELECT cell_id FROM _repeats)
GROUP BY pool
ORDER BY pool
"""


def luck_line(task: str, sampled_once: int | None, heldout: Mapping[str, Any] | None) -> str:
    """A sentence on a pool with `sampled_once` such candidates, or some; `heldout` is its row of oracle_heldout."""
    one = "1 candidate that samples its answers was asked once"
    several = "candidates that sample their answers were asked once"
    sampled = one if sampled_once == 1 else several if sampled_once is None else f"{sampled_once:,} {several}"
    begins = f"{task}: part of the gap is luck: {sampled}"
    if heldout is None:
        return f"{begins} (repeats in a run's config measure how much)"
    one_draw = heldout["one_draw_score"]
    lucky = "" if one_draw is None else f"{one_draw:.4f} by one answer each, and "
    return (
        f"{begins}; on {heldout['questions']:,} questions with {heldout['draws']:,} answers of each the oracle has "
        f"{lucky}{heldout['oracle_score']:.4f} where it is scored on other answers than it is chosen by, against "
        f"{heldout['best_model_score']:.4f} of the best single candidate (view oracle_heldout)"
    )


def luck_lines(con: duckdb.DuckDBPyConnection, tasks: Collection[str] | None = None) -> list[str]:
    """A line on each task, of `tasks` or all, whose gap is partly luck; one on those of which no more is known."""
    sampled = {task: count for task, count in con.execute(_SAMPLED).fetchall() if tasks is None or task in tasks}
    if not sampled:
        return []
    found = con.execute("FROM oracle_heldout WHERE NOT is_all ORDER BY task")
    names = [column[0] for column in found.description or []]
    heldout = {row["task"]: row for row in (dict(zip(names, values, strict=True)) for values in found.fetchall())}
    return lines_of(sampled, heldout)


def lines_of(sampled: Mapping[str, int], heldout: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines of tasks with such candidates -> their number."""
    shown = [task for task in sampled if task in heldout][:_MOST]
    others = [task for task in sampled if task not in shown]
    lines = [luck_line(task, sampled[task], heldout[task]) for task in shown]
    if len(others) == 1:
        lines.append(luck_line(others[0], sampled[others[0]], None))
    elif others:
        named = ", ".join(others[:_MOST]) + (f" and {len(others) - _MOST:,} more" * (len(others) > _MOST))
        lines.append(luck_line(named, None, None))
    return [" ".join(line.split()) for line in lines]  # a name may hold a line feed


def shown_luck(lake: Lake, choice: PoolChoice, include: str, tasks: Collection[str] | None = None) -> list[str]:
    """The lines of luck_lines for a pool of `lake`."""
    # The members of a pool of 102,000 cells take seconds, and most lakes hold greedy answers alone.
    sampled = "SELECT 1 FROM _run_cells WHERE _samples(decoding, generation_config) LIMIT 1"

    def samples(con: duckdb.DuckDBPyConnection, _: object) -> bool:
        return bool(con.execute(sampled).fetchall())

    if not ask(lake, samples, only=("_run_cells", "_samples"), include=include, shards=False):
        return []
    return ask(lake, lambda con, _: luck_lines(con, tasks), only=VIEWS, include=include, choice=choice)
