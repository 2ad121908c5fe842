"""Where a run stands, from its lake alone: nothing asks the driver, which may be dead or on another machine.

Owns what counts as done, failed and open, and the rate and the end that follow from when shards were made. The listing
says all of that: names tell cells and items, the store tells times. Knows nothing of terminals or pages; what the
shards say of themselves is read in shard_statistics.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from collectors.lake.damage import find_damaged
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import end_name, run_name
from collectors.lake.reading import open_store
from collectors.lake.store import Lake
from collectors.runs.record import RunEnd, chosen_run, read_end, read_run
from collectors.runs.shard_statistics import ShardFacts, Work
from schemas.failures import ConfigError, StorageError, UnreachableError, one_line
from schemas.views import object_path

#: The rate is over so many seconds, or over the run's own time where that is shorter.
RATE_SECONDS = 600.0
#: Seconds without a new shard, while cells are open, after which it is asked whether the run is alive.
QUIET_SECONDS = 600.0
#: Bars of a run's history, at most.
BARS = 60
#: A store's clock and a driver's may differ by so many seconds.
CLOCKS = 60.0

#: One row per committed range of the run's cells, and how many items of it no range before it holds.
_OWNED = """
CREATE OR REPLACE TEMP TABLE owned AS
WITH named AS (
    SELECT
        file,
        modified,
        regexp_extract(
            file,
            '/([0-9a-f]{16})-g([0-9]{1,6})-([0-9]{7})-([0-9]{7})\\.parquet$',
            ['cell_id', 'generation', 'first_item', 'last_item']
        ) AS name
    FROM listed
),
ranges AS (
    SELECT
        named.file,
        named.modified,
        planned.cell_id,
        planned.planned_items,
        TRY_CAST(name.first_item AS INTEGER) AS first_item,
        TRY_CAST(name.last_item AS INTEGER) AS last_item
    FROM named
    INNER JOIN planned ON planned.cell_id = name.cell_id
    WHERE $generation IS NULL OR TRY_CAST(name.generation AS INTEGER) = $generation
),
ordered AS (
    SELECT
        *,
        max(last_item) OVER (
            PARTITION BY cell_id ORDER BY first_item, last_item, modified
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS owned_before
    FROM ranges
)
SELECT
    file,
    modified,
    cell_id,
    greatest(
        0, least(last_item, planned_items - 1) - greatest(first_item, coalesce(owned_before + 1, 0)) + 1
    )::BIGINT AS items
FROM ordered
"""

#: One row per planned cell.
_CELLS = """
CREATE OR REPLACE TEMP TABLE cells AS
SELECT
    planned.cell_id,
    planned.planned_items,
    coalesce(sum(owned.items), 0)::BIGINT AS done,
    planned.cell_id IN (SELECT cell_id FROM failures WHERE cell_id IS NOT NULL) AS has_failed
FROM planned
LEFT JOIN owned USING (cell_id)
GROUP BY planned.cell_id, planned.planned_items
"""

_COUNTS = """
SELECT
    count(*) AS cells,
    count(*) FILTER (done >= planned_items) AS cells_done,
    count(*) FILTER (done < planned_items AND has_failed) AS cells_failed,
    coalesce(sum(planned_items), 0)::BIGINT AS items,
    coalesce(sum(done), 0)::BIGINT AS items_done,
    coalesce(sum(planned_items - done) FILTER (has_failed), 0)::BIGINT AS items_failed
FROM cells
"""

#: Failures of cells that are done by now, because another run collected them, are left out.
_FAILURES = """
SELECT
    kind,
    count(*) AS times,
    count(DISTINCT cell_id) AS cells,
    max_by(model, failed_at) AS model,
    max_by(task, failed_at) AS task,
    max_by(message, failed_at) AS message
FROM failures
WHERE cell_id IS NULL OR cell_id NOT IN (SELECT cell_id FROM cells WHERE done >= planned_items)
GROUP BY kind
ORDER BY times DESC, kind
"""


@dataclass(frozen=True)
class FailureKind:
    """Failures of one kind; model, task and message are the last one's."""

    kind: str
    times: int
    #: Cells that failed so; 0 where a model or task could not be planned.
    cells: int
    model: str | None
    task: str | None
    message: str


@dataclass(frozen=True)
class Bar:
    """Items that were committed within some seconds, the first of them at `start` (since the epoch)."""

    start: float
    seconds: float
    items: int


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment. Times are seconds since the epoch; None: not known."""

    lake: str
    run_id: str
    engine: str | None
    models: int
    tasks: int
    started: float
    looked: float
    #: Planned cells: whole, failed in this run and not whole, and the others.
    cells: int
    cells_done: int
    cells_failed: int
    cells_open: int
    #: Cells that the run left out, because their models broke engines before.
    cells_quarantined: int
    #: How it ended; None: it did not, or was killed.
    end: RunEnd | None
    #: Planned items; those committed by any run; those of failed cells that are not; those that were there before.
    items: int
    items_done: int
    items_failed: int
    items_before: int | None
    #: Of those committed, what others made since it ended; None: it did not, or the store does not say.
    items_after: int | None
    #: When the newest shard of its cells was made, up to its end; None: there is none, or the store does not say.
    last_commit: float | None
    #: Items per second over the last `rate_seconds` until now, or until the end of a run that is complete.
    rate: float | None
    rate_seconds: float
    failures: list[FailureKind]
    history: list[Bar]
    work: Work
    #: Objects that cannot be read and were passed over, with the reason.
    damaged: dict[str, str]

    @property
    def items_open(self) -> int:
        return self.items - self.items_done - self.items_failed

    @property
    def complete(self) -> bool:
        """Whether every cell is collected or has failed."""
        return self.cells_open == 0

    @property
    def over(self) -> bool:
        """Whether nothing more will come: it is complete, or has ended."""
        return self.complete or self.end is not None

    @property
    def quiet(self) -> float:
        """Seconds since anything was committed, or since the run began."""
        return max(0.0, self.looked - max(self.last_commit or 0.0, self.started))

    @property
    def stuck(self) -> bool:
        """Whether nothing was committed for long though it did not end: it was killed, or it hangs."""
        return not self.over and self.quiet > QUIET_SECONDS

    @property
    def eta(self) -> float | None:
        """Seconds to the end at this rate; None where none is to be seen."""
        return self.items_open / self.rate if self.rate and not self.over else None


class RunWatch:
    """One run of a lake, looked at again and again: what does not change is read once.

    `run_id` None: the newest run. Prices are those that the lake has now. Raises ConfigError for a run that there is
    not, StorageError where the lake cannot be read.
    """

    def __init__(self, lake: Lake, run_id: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self.lake = lake
        self._clock = clock
        self.run_id = chosen_run(lake, run_id)
        planned, facts = read_run(lake, self.run_id)
        if not len(planned) or pc.any(pc.is_valid(planned["imported_from"])).as_py():
            raise ConfigError(f"{self.run_id} in {lake.uri} is no run of collect.py")
        self._generation: int | None = facts.get("generation")
        self._quarantined: int = facts.get("quarantined") or 0
        self._end: RunEnd | None = None
        self._started = planned["started_at"][0].as_py().timestamp()
        self._engine = planned["engine"][0].as_py()
        self._models: int = pc.count_distinct(planned["model"]).as_py()
        self._tasks: int = pc.count_distinct(planned["task"]).as_py()
        self._con = duckdb.connect(config={"python_enable_replacements": "false"})
        open_store(self._con, lake)
        self._con.register("run", planned)
        self._con.execute("CREATE TABLE planned AS SELECT cell_id, planned_items FROM run")
        self._con.execute(
            "CREATE TABLE failures "
            "(kind TEXT, model TEXT, task TEXT, cell_id TEXT, failed_at TIMESTAMPTZ, message TEXT)"
        )
        self._seen: set[str] = set()
        self._damaged: dict[str, str] = {}
        self._facts = ShardFacts(lake, self.run_id, planned.select(["cell_id", "model", "task"]))

    def close(self) -> None:
        self._con.close()
        self._facts.close()

    def look(self, most_footers: int) -> RunStatus:
        """Where the run stands now. Of shards whose footers are not read yet, `most_footers` are, the newest first."""
        if not self.lake.has(run_name(self.run_id)):  # a folder that is not mounted lists as empty
            raise StorageError(f"{run_name(self.run_id)} is gone from {self.lake.uri}")
        self._read_end()  # before the listing: what is listed then is all that the run made
        listed, folded = self._list()
        looked = self._clock()
        self._read_failures()
        self._con.register("found", pa.table({"file": list(listed), "modified": list(listed.values())}, _LISTED))
        self._con.execute("CREATE OR REPLACE TEMP TABLE listed AS FROM found")
        self._con.execute(_OWNED, {"generation": self._generation})
        self._con.execute(_CELLS)
        [counts] = self._rows(_COUNTS)
        open_cells = counts["cells"] - counts["cells_done"] - counts["cells_failed"]
        until = self._end and self._end.ended
        last = self._value("SELECT max(modified) FROM owned WHERE modified <= coalesce(?, modified)", [until])
        timed = self._value("SELECT count(*) = count(modified) FROM owned")
        before = "SELECT coalesce(sum(items), 0)::BIGINT FROM owned WHERE modified < ?"
        after = "SELECT coalesce(sum(items), 0)::BIGINT FROM owned WHERE modified > ?"
        # Of a run that is over: up to its last shard.
        is_over = self._end or not open_cells
        end = last if is_over and last and last > self._started else looked
        window = max(1.0, min(RATE_SECONDS, end - self._started))
        recent = "SELECT coalesce(sum(items), 0)::BIGINT FROM owned WHERE modified BETWEEN ? AND ?"
        return RunStatus(
            lake=self.lake.uri,
            run_id=self.run_id,
            engine=self._engine,
            models=self._models,
            tasks=self._tasks,
            started=self._started,
            looked=looked,
            **counts,
            cells_open=open_cells,
            cells_quarantined=self._quarantined,
            end=self._end,
            items_before=self._value(before, [self._started]) if timed else None,
            items_after=self._value(after, [until]) if timed and until else None,
            last_commit=last,
            rate=self._value(recent, [end - window, end]) / window if timed else None,
            rate_seconds=window,
            failures=[FailureKind(**row) for row in self._rows(_FAILURES)],
            history=self._history(last),
            work=self._facts.read(self._candidates(folded), most_footers),
            damaged={**self._damaged, **self._facts.damaged},
        )

    def _read_end(self) -> None:
        if self._end is None:
            try:
                self._end = read_end(self.lake, self.run_id)
            except UnreachableError:
                raise
            except StorageError as error:
                self._damaged[end_name(self.run_id)] = one_line(error)
                self._end = RunEnd(None, "unknown", "what is said of its end is damaged")

    def _list(self) -> tuple[dict[str, float | None], set[str]]:
        """Shards with their times, and which of them a compaction holds: these may have no object any more."""
        listed = self.lake.listing("shards")  # before the manifest: what is pruned meanwhile is in that
        manifest = newest_manifest(self.lake)
        folded = self._facts.read_folded(manifest) if manifest else set()
        return {**dict.fromkeys(folded), **listed}, folded

    def _candidates(self, folded: set[str]) -> list[str]:
        """Shards that this run may have made, the newest first."""
        query = "SELECT file FROM owned WHERE modified IS NULL OR modified >= ? ORDER BY modified DESC NULLS LAST, file"
        since = [self._started - CLOCKS]
        return [file for (file,) in self._con.execute(query, since).fetchall() if file not in folded]

    def _read_failures(self) -> None:
        """Adds the failures of this run that were not there at the last look; those that are another's by name are not
        opened.
        """
        mine = f"failures/{self.run_id}-"
        names = [name for name in self.lake.names("failures") if name.startswith(mine) or not _OF_A_RUN.match(name)]
        while new := [name for name in names if name not in self._seen and name not in self._damaged]:
            paths = [object_path(self.lake.uri, name) for name in new]
            try:
                self._con.execute(
                    "INSERT INTO failures SELECT kind, model, task, cell_id, failed_at, message "
                    "FROM read_parquet($files, hive_partitioning = false) WHERE run_id = $run",
                    {"files": paths, "run": self.run_id},
                )
            except duckdb.Error as error:
                found = find_damaged(self.lake, str(error), new)
                if not found:
                    raise StorageError(f"cannot read the lake at {self.lake.uri}: {one_line(error)}") from error
                self._damaged |= found
            else:
                self._seen.update(new)

    def _history(self, last: float | None) -> list[Bar]:
        """Items over time, from the run's start to its last shard."""
        if last is None or last <= self._started:
            return []
        seconds = max(1.0, (last - self._started) / BARS)
        rows = self._con.execute(
            "SELECT least($bars - 1, floor((modified - $start) / $seconds))::INTEGER, sum(items)::BIGINT FROM owned "
            "WHERE modified BETWEEN $start AND $last GROUP BY ALL",
            {"bars": BARS, "start": self._started, "seconds": seconds, "last": last},
        ).fetchall()
        items = dict(rows)
        count = min(BARS, int((last - self._started) / seconds) + 1)
        return [Bar(self._started + i * seconds, seconds, items.get(i, 0)) for i in range(count)]

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        cursor = self._con.execute(sql)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        [(value,)] = self._con.execute(sql, list(parameters)).fetchall()
        return value


_OF_A_RUN = re.compile(r"failures/[0-9]{8}T[0-9]{6}-[0-9a-f]{8}-")
_LISTED = pa.schema([("file", pa.string()), ("modified", pa.float64())])
