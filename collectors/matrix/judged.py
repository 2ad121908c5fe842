"""Names the judge whose verdicts are shown, for everything that shows or writes them."""

from __future__ import annotations

import duckdb

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.views import PoolChoice

#: What judge_lines reads.
VIEWS = ("judges", "_shown_judges")


def shown_judges(lake: Lake, choice: PoolChoice, include: str) -> list[str]:
    """The lines of judge_lines for a pool of `lake`."""
    return ask(lake, lambda con, _: judge_lines(con), only=VIEWS, include=include, choice=choice)


def judge_lines(con: duckdb.DuckDBPyConnection) -> list[str]:
    """A line for each version of the shown judge; without a chosen one, a line that names the judges that there are."""
    shown = con.execute(
        """
        SELECT judge, judge_id, coalesce(version, '-'), kind, metric, string_agg(task, ', ' ORDER BY task),
            strftime(min(made_at AT TIME ZONE 'UTC'), '%Y-%m-%d')
        FROM _shown_judges GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    if shown:
        lines = [
            f"verdicts by judge {judge} ({judge_id}, {kind}, version {version}, {made}), metric {metric}: {tasks}"
            for judge, judge_id, version, kind, metric, tasks, made in shown
        ]
        return [*lines, *_others(con)]
    names = [name for (name,) in con.execute("SELECT DISTINCT judge FROM judges ORDER BY judge").fetchall()]
    return [f"verdicts as collected; judged again by {', '.join(names)}: --judge shows theirs"] if names else []


def _others(con: duckdb.DuckDBPyConnection) -> list[str]:
    """A line for the other versions of the shown judges."""
    others = con.execute(
        """
        SELECT judges.judge, string_agg(DISTINCT judges.judge_id, ', ' ORDER BY judges.judge_id)
        FROM judges SEMI JOIN _shown_judges USING (judge) ANTI JOIN _shown_judges USING (judge_id)
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    return [f"judge {judge} has other versions here, which are not shown: {ids}" for judge, ids in others]
