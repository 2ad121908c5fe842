"""Follows a run by its lake alone: the driver may be dead or on another machine.

Owns the rules for done, failed and open, and the rate and expected end from the times of shards. A listing is enough
for all of these: names hold cells and items, and the store knows the times. shard_statistics.py reads the statistics
inside the shards. Knows nothing of terminals or pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from collectors.lake.holdings import newest_manifest
from collectors.lake.item_sets import ItemSets
from collectors.lake.layout import FAILURES, SHARDS, end_name, item_set_name, may_be_failure_of, run_name
from collectors.lake.reading import open_store, read_sound
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.spend import last_heard
from collectors.lake.store import Lake
from collectors.runs.record import RunEnd, chosen_run, distinct, read_end, read_run, started_at
from collectors.runs.shard_statistics import ShardStatistics
from collectors.runs.signals import is_paused
from collectors.runs.status import Bar, FailureKind, RunStatus
from schemas.failures import NOTHING_ANSWERED, ConfigError, StorageError, UnreachableError, one_line
from schemas.identity import SHARD_PATTERN, ShardName
from schemas.views import object_path

#: The rate covers so many seconds, or the run's whole time if that is shorter.
RATE_SECONDS = 600.0
#: Most bars in a run's history.
BARS = 60
#: Largest difference between a store's clock and a driver's, in seconds.
CLOCKS = 60.0

#: One row for each committed shard of the run's cells, with the number of its items that the run means to ask and no
#: shard before it holds. Where shards or the run have lists of items, each item is counted.
_OWNED = f"""
CREATE OR REPLACE TEMP TABLE owned AS
WITH named AS (
    SELECT
        file,
        modified,
        regexp_extract(
            file,
            '/{SHARD_PATTERN}$',
            ['cell_id', 'generation', 'first_item', 'last_item', 'item_set']
        ) AS name
    FROM listed
),
ranges AS (
    SELECT
        named.file,
        named.modified,
        planned.cell_id,
        planned.planned_items,
        planned.sample,
        TRY_CAST(name.first_item AS INTEGER) AS first_item,
        TRY_CAST(name.last_item AS INTEGER) AS last_item,
        name.item_set AS item_set
    FROM named
    INNER JOIN planned ON planned.cell_id = name.cell_id
    -- A run without --generation goes on with the newest generation that a cell had, and knows none of a later one.
    WHERE
        TRY_CAST(name.generation AS INTEGER) = $generation
        OR ($generation IS NULL AND TRY_CAST(name.generation AS INTEGER) <= planned.generation)
),
with_lists AS (
    SELECT DISTINCT cell_id
    FROM ranges
    WHERE item_set <> '' OR sample IS NOT NULL
),
ordered AS (
    SELECT
        *,
        max(last_item) OVER (
            PARTITION BY cell_id ORDER BY first_item, last_item, modified
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS owned_before
    FROM ranges
    ANTI JOIN with_lists USING (cell_id)
),
held AS (
    SELECT *, unnest(range(first_item, last_item + 1))::INTEGER AS item
    FROM ranges
    SEMI JOIN with_lists USING (cell_id)
    WHERE item_set = ''
    UNION ALL
    SELECT ranges.*, lists.item
    FROM ranges
    INNER JOIN lists
        ON ranges.item_set = lists.item_set
        AND lists.item BETWEEN ranges.first_item AND ranges.last_item
),
wanted AS (
    FROM held
    WHERE sample IS NULL AND item < planned_items
    UNION ALL
    SELECT held.*
    FROM held
    INNER JOIN lists ON held.sample = lists.item_set AND held.item = lists.item
),
each AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY cell_id, item ORDER BY first_item, last_item, modified, file) AS place
    FROM wanted
)
SELECT
    file,
    modified,
    cell_id,
    greatest(
        0, least(last_item, planned_items - 1) - greatest(first_item, coalesce(owned_before + 1, 0)) + 1
    )::BIGINT AS items
FROM ordered
UNION ALL
SELECT file, modified, cell_id, count(*) FILTER (place = 1) AS items
FROM each
GROUP BY ALL
"""

#: One row for each planned cell.
_CELLS = """
CREATE OR REPLACE TEMP TABLE cells AS
SELECT
    planned.cell_id,
    planned.planned_items,
    coalesce(sum(owned.items), 0)::BIGINT AS done,
    planned.cell_id IN (SELECT cell_id FROM failures WHERE cell_id IS NOT NULL) AS has_failed,
    -- Collected as a whole, but no answer could be judged.
    planned.cell_id IN (SELECT cell_id FROM failures WHERE kind = $unanswered) AS is_unanswered
FROM planned
LEFT JOIN owned USING (cell_id)
GROUP BY planned.cell_id, planned.planned_items
"""

_COUNTS = """
SELECT
    count(*) AS cells,
    count(*) FILTER (done >= planned_items AND NOT is_unanswered) AS cells_done,
    count(*) FILTER (is_unanswered OR (done < planned_items AND has_failed)) AS cells_failed,
    coalesce(sum(planned_items), 0)::BIGINT AS items,
    coalesce(sum(done), 0)::BIGINT AS items_done,
    coalesce(sum(planned_items - done) FILTER (has_failed), 0)::BIGINT AS items_failed
FROM cells
"""

#: One row for each kind of failure, without failures of cells that another run has completed since.
_FAILURES = """
SELECT
    kind,
    count(*) AS times,
    count(DISTINCT cell_id) AS cells,
    max_by(model, failed_at) AS model,
    max_by(task, failed_at) AS task,
    max_by(message, failed_at) AS message
FROM failures
WHERE cell_id IS NULL OR cell_id NOT IN (SELECT cell_id FROM cells WHERE done >= planned_items AND NOT is_unanswered)
GROUP BY kind
ORDER BY times DESC, kind
"""


class RunWatch:
    """Follows one run of a lake. Repeated looks read unchanged objects only once.

    `run_id` None means the newest run. Prices are those in the lake when the watch begins. Raises ConfigError if there
    is no such run, StorageError if the lake cannot be read.
    """

    def __init__(self, lake: Lake, run_id: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self.lake = lake
        self._clock = clock
        self.run_id = chosen_run(lake, run_id)
        planned, metadata = read_run(lake, self.run_id)
        if not len(planned) and lake.has(run_name(self.run_id)) and read_retracted(lake).ranges:
            raise ConfigError(f"all cells of run {self.run_id} were forgotten: see the view retractions")
        if not len(planned) or planned["imported_from"].null_count < len(planned):
            raise ConfigError(f"{self.run_id} in {lake.uri} is not a run of collect.py")
        self._generation: int | None = metadata.get("generation")
        self._quarantined: int = metadata.get("quarantined") or 0
        self._end: RunEnd | None = None
        self._started = started_at(planned).timestamp()
        self._engine = planned["engine"][0].as_py()
        self._models: int = distinct(planned["model"])
        self._tasks: int = distinct(planned["task"])
        self._con = duckdb.connect(config={"python_enable_replacements": "false"})
        open_store(self._con, lake)
        self._con.register("run", planned)
        self._con.execute(
            "CREATE TABLE planned AS SELECT cell_id, coalesce(sampled_items, planned_items) AS planned_items, "
            "generation, item_set AS sample FROM run"
        )
        self._con.execute("CREATE TABLE lists (item_set TEXT, item INTEGER)")
        self._item_sets, self._lists = ItemSets(lake), set[str]()
        self._con.execute(
            "CREATE TABLE failures "
            "(kind TEXT, model TEXT, task TEXT, cell_id TEXT, failed_at TIMESTAMPTZ, message TEXT)"
        )
        self._seen: set[str] = set()
        self._damaged: dict[str, str] = {}
        self._statistics = ShardStatistics(lake, self.run_id, planned.select(["cell_id", "model", "task"]))

    def close(self) -> None:
        self._con.close()
        self._statistics.close()

    def look(self, most_footers: int) -> RunStatus:
        """The state of the run now. Reads at most `most_footers` new footers of shards, the newest first.

        Raises StorageError if the lake cannot be read.
        """
        if not self.lake.has(run_name(self.run_id)):  # a folder that is not mounted lists as empty
            raise StorageError(f"{run_name(self.run_id)} is gone from {self.lake.uri}")
        self._read_end()  # before the listing, which then has every shard of a run that has ended
        listed, folded = self._list()
        looked = self._clock()
        self._read_failures()
        self._con.register("names", pa.table({"file": list(listed), "modified": list(listed.values())}, _LISTED))
        self._con.execute("CREATE OR REPLACE TEMP TABLE listed AS FROM names")
        self._read_lists(listed)
        self._con.execute(_OWNED, {"generation": self._generation})
        self._con.execute(_CELLS, {"unanswered": NOTHING_ANSWERED})
        [counts] = self._rows(_COUNTS)
        open_cells = counts["cells"] - counts["cells_done"] - counts["cells_failed"]
        until = self._end and self._end.ended
        last = self._value("SELECT max(modified) FROM owned WHERE modified <= coalesce(?, modified)", [until])
        timed = self._value("SELECT count(*) = count(modified) FROM owned")
        before = "SELECT coalesce(sum(items), 0)::BIGINT FROM owned WHERE modified < ?"
        after = "SELECT coalesce(sum(items), 0)::BIGINT FROM owned WHERE modified > ?"
        # The rate of a run that is over ends with its last shard.
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
            shards_folded=len(folded),
            shards_open=len(listed.keys() - folded),
            last_heard=last_heard(self.lake, self.run_id),
            paused=not is_over and is_paused(self.lake, self.run_id),
            rate=self._value(recent, [end - window, end]) / window if timed else None,
            rate_seconds=window,
            failures=[FailureKind(**row) for row in self._rows(_FAILURES)],
            history=self._history(last),
            work=self._statistics.read(self._candidates(folded), most_footers),
            damaged={**self._damaged, **self._statistics.damaged},
        )

    def _read_end(self) -> None:
        if self._end is None:
            try:
                self._end = read_end(self.lake, self.run_id)
            except UnreachableError:
                raise
            except StorageError as error:
                self._damaged[end_name(self.run_id)] = one_line(error)
                self._end = RunEnd(None, "unknown", "the record of its end is damaged")

    def _list(self) -> tuple[dict[str, float | None], set[str]]:
        """Shards with their times, and the names of those in a compaction, whose objects may be gone."""
        listed = self.lake.listing(SHARDS)  # before the manifest, which then has every shard that is pruned meanwhile
        manifest = newest_manifest(self.lake)
        folded = self._statistics.read_folded(manifest) if manifest else set()
        return _counting({**dict.fromkeys(folded), **listed}, read_retracted(self.lake)), folded

    def _read_lists(self, listed: Iterable[str]) -> None:
        """Reads the lists of sparse shards and of the run's cells that are new."""
        named = {shard.item_set for name in listed if (shard := ShardName.parse(name))} - {""}
        if not self._lists:
            named |= {name for (name,) in self._con.execute("SELECT DISTINCT sample FROM planned").fetchall() if name}
        for item_set in sorted(named - self._lists):
            try:
                items = pa.array(self._item_sets.of(item_set), pa.int32())
            except UnreachableError:
                raise
            except StorageError as error:  # its shards count for nothing
                self._damaged[item_set_name(item_set)] = one_line(error)
                self._lists.add(item_set)
                continue
            self._con.register("more", pa.table({"item": items}))
            self._con.execute("INSERT INTO lists SELECT ?, item FROM more", [item_set])
            self._lists.add(item_set)

    def _candidates(self, folded: set[str]) -> list[str]:
        """Shards that this run may have made, the newest first."""
        query = "SELECT file FROM owned WHERE modified IS NULL OR modified >= ? ORDER BY modified DESC NULLS LAST, file"
        since = [self._started - CLOCKS]
        return [file for (file,) in self._con.execute(query, since).fetchall() if file not in folded]

    def _read_failures(self) -> None:
        """Adds the failures of this run since the last look. It does not open objects with another run's name."""
        names = [name for name in self.lake.names(FAILURES) if may_be_failure_of(self.run_id, name)]

        def read(sound: list[str]) -> None:
            self._con.execute(
                "INSERT INTO failures SELECT kind, model, task, cell_id, failed_at, message "
                "FROM read_parquet($files, hive_partitioning = false) WHERE run_id = $run",
                {"files": [object_path(self.lake.uri, name) for name in sound], "run": self.run_id},
            )
            self._seen.update(sound)

        new = [name for name in names if name not in self._seen and name not in self._damaged]
        self._damaged |= read_sound(self.lake, new, read)[1]

    def _history(self, last: float | None) -> list[Bar]:
        """Committed items over time, from the run's start to its last shard."""
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


def _counting(listed: dict[str, float | None], retracted: Retracted) -> dict[str, float | None]:
    """Leaves out forgotten shards. One with some forgotten items is cut into pieces, which no object has as a name."""
    counting: dict[str, float | None] = {}
    for name, modified in listed.items():
        shard = ShardName.parse(name)
        if shard is None or not retracted.touches(shard):
            counting[name] = modified
            continue
        folder = name.rpartition("/")[0]
        counting |= {f"{folder}/{piece}": modified for piece in retracted.without([shard])}
    return counting


_LISTED = pa.schema([("file", pa.string()), ("modified", pa.float64())])
