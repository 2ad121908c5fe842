"""Values of groups of tasks by a judge's verdicts, for the groups that a run aggregated by the records' own.

lm-eval's own functions make them of the judge's values of the members. A row has the judge_id of its first member.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa

from collectors.harness.aggregations import of_group
from collectors.lake import layout
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.identity import digest
from schemas.records import AGGREGATE
from schemas.views import PoolChoice

_ROWS = "FROM aggregates WHERE problem IS NULL AND stale IS NULL"
_VALUE = ("task", "model", "members", "metric", "filter", "covers", "value", "items")


def write_groups(lake: Lake, judge: str) -> int:
    """Writes the values that the lake lacks, and returns their number. A group has none until all members have some."""
    own = [row for row in _rows(lake, None) if row["is_group"]]
    if not own:
        return 0
    judged = _rows(lake, judge)
    known = {_key(row) for row in judged if row["is_group"]}
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in judged:
        if not row["is_group"]:
            cells.setdefault(row["cell_id"], []).append(row)
    new = [made for group in own if (made := _of_group(group, cells)) and _key(made) not in known]
    if new:
        name = layout.judged_aggregates_name(new[0]["judge_id"], digest(sorted(map(_key, new))))
        lake.create_table(name, pa.Table.from_pylist(new, schema=AGGREGATE))
    return len(new)


def _rows(lake: Lake, judge: str | None) -> list[dict[str, Any]]:
    choice = PoolChoice(judge=judge)
    return ask(lake, lambda con, _: con.execute(_ROWS).to_arrow_table().to_pylist(), only=["aggregates"], choice=choice)


def _key(row: dict[str, Any]) -> str:
    return digest([repr(row[name]) for name in _VALUE])


def _of_group(group: dict[str, Any], cells: dict[str, list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The row of a group by the judge's rows of its members; None where one has none, or no member this metric."""
    members = [cells.get(cell_id, []) for cell_id in group["members"]]
    if not all(members):
        return None
    which = group["metric"], group["filter"]
    rows = [row for of in members for row in of if (row["metric"], row["filter"]) == which and row["value"] is not None]
    if not rows:
        return None
    sizes = [max(other["items"] for other in cells[row["cell_id"]]) for row in rows]
    pairs = [(row["value"], row["stderr"]) for row in rows]
    value, stderr = of_group(pairs, sizes, is_weighted=group["aggregation"] == "mean of items")
    return {
        **{name: group.get(name) for name in AGGREGATE.names},
        "judge_id": members[0][0]["judge_id"],
        "value": value,
        "stderr": stderr,
        "items": sum(sizes),
        "computed_at": dt.datetime.now(dt.UTC),
    }
