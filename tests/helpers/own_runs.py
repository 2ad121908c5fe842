"""Runs of the stub engine on one lake, in the test's own process: plans, and shards that a Collector commits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.lake import layout
from collectors.lake.item_sets import ItemSets
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.runs.adapting import Wanted
from collectors.runs.collector import Collector
from collectors.runs.plan import Plan, PlannedCell
from collectors.runs.planning import make_plan
from collectors.runs.work import ShardReport
from schemas.identity import ShardName
from tests.helpers.planned_cells import configured
from tests.helpers.runs import SAME

ITEMS = 40
MODELS = ["stub/a", "stub/b"]
#: As many models as a forecast needs and two more, whose names are of no family.
NAMES = [
    *("ash", "birch", "cedar", "date", "elm", "fir", "gorse", "hazel", "iris", "juniper", "kapok"),
    *("larch", "maple", "nutmeg", "oak", "pine", "quince", "rowan", "spruce", "teak", "ulmo", "vine"),
]


class Runs:
    """Runs of the stub on one lake, in this process."""

    def __init__(self, folder: Path, tasks: Path) -> None:
        self.lake, self.tasks = Lake(str(folder)).open_for_writing(), tasks

    def plan(self, wanted: Wanted | None = None, **changes: Any) -> Plan:
        config = configured(
            self.tasks, "", **{"models": MODELS, "tasks": ["mini_choice"], "engine": {"name": "stub"}, **changes}
        )
        return make_plan(config, self.lake, wanted=wanted)

    def collect(self, plan: Plan, shards: int | None = None, size: int = 5) -> int:
        """Collects the plan, or so many of its shards of `size` items. Returns how many items were asked."""
        plan.write(self.lake)
        return sum(report.items for report in self.reports(plan, plan.cells, shards, size))

    def reports(
        self, plan: Plan, cells: list[PlannedCell], shards: int | None = None, size: int = 5
    ) -> list[ShardReport]:
        """Collects cells of a plan that is in the lake, or so many of their shards."""
        worker = Collector(plan.run_id, self.lake.uri, "stub", {}, list(plan.config.include_tasks))
        cuts = [
            (planned.cell, first, min(last, first + size - 1))
            for planned in cells
            for begin, last in planned.todo
            for first in range(begin, last + 1, size)
        ]
        made = [worker.collect(*cut) for cut in cuts[:shards]]
        worker._judges.close()
        return made

    def records(self) -> pa.Table:
        with connect(self.lake, only=["records", "responses"]) as con:
            rows = con.execute(
                "SELECT records.*, answers.responses, answers.loglikelihoods FROM records "
                "LEFT JOIN responses AS answers USING (cell_id, item, filter, repeat)"
            ).to_arrow_table()
        order = [(name, "ascending") for name in ("cell_id", "item", "filter", "repeat")]
        return rows.select([name for name in SAME if name in rows.column_names]).sort_by(order)

    def stored_items(self) -> Counter[tuple[str, int]]:
        """How often each item of a cell lies in shard files."""
        sets = ItemSets(self.lake)
        names = [shard for name in self.lake.names(layout.SHARDS) if (shard := ShardName.parse(name))]
        return Counter((shard.cell_id, item) for shard in names for item in sets.items_of(shard))
