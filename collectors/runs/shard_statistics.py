"""Adds up the statistics in a run's shards: tokens, seconds by stage, and costs.

Owns the choice of footers to open. It opens each footer once, and none of a folded shard, because a compaction keeps
the statistics of all its shards together. The views collection_costs and profile define the sums; here they run over
the new shards only. Knows nothing of planned and open cells.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from collectors.lake import layout
from collectors.lake.holdings import Holdings, Manifest
from collectors.lake.reading import connect, open_store, read_sound
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName
from schemas.records import GLOBS, SCHEMA_FILES
from schemas.views import ViewFiles, create_views, lake_place

#: Footers that are opened at once: DuckDB takes a list of any length, and an answer in time is worth more.
_AT_ONCE = 5000
_ASKED = frozenset({"gpu_prices", "price_names", "_gpu_rates", "collection_costs", "profile"})
#: The view shards, with one more value from its metadata.
_SHARD = "SELECT *, TRY_CAST(json_extract_string(facts, '$.cached_tokens') AS BIGINT) AS cached_tokens FROM shards"

#: The items of a shard, as the view throughput counts them: a sparse shard states them, its bounds do not.
_ITEMS = (
    "CASE WHEN item_set IS NULL THEN last_item - first_item + 1 "
    "ELSE coalesce(TRY_CAST(json_extract_string(facts, '$.items') AS BIGINT), 0) END"
)


@dataclass
class ModelPace:
    """The work of one model's engines."""

    model: str
    items: int = 0
    engine_seconds: float = 0.0
    load_seconds: float = 0.0
    #: None if a shard does not report them.
    engine_tokens: int | None = 0
    #: Task -> its part of items and engine_seconds.
    by_task: dict[str, tuple[int, float]] = field(default_factory=dict, repr=False)

    @property
    def tokens_per_second(self) -> float | None:
        return self.engine_tokens / self.engine_seconds if self.engine_tokens and self.engine_seconds else None


@dataclass
class EndpointPace:
    """What the endpoint of a model did in a run's shards."""

    #: sent, answered, and faults by their kinds, such as too_many for a 429.
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    #: By the prices at the run's start.
    usd: float = 0.0
    suspicions: set[str] = field(default_factory=set)


@dataclass
class ShardTotals:
    """Sums over the shards of a run whose footers were read."""

    #: Number of these shards.
    shards: int = 0
    #: Number of the other shards.
    unread: int = 0
    engine_seconds: float = 0.0
    #: None if a shard does not report them.
    engine_tokens: int | None = 0
    cached_tokens: int | None = 0
    #: Shards with a price, and their cost in USD; None without any.
    priced: int = 0
    usd: float | None = None
    #: Accelerator, "" for CPUs -> number of shards without a price.
    unpriced: Counter[str] = field(default_factory=Counter)
    #: Stage (collectors.runs.stages.STAGES) -> seconds.
    stages: dict[str, float] = field(default_factory=dict)
    models: dict[str, ModelPace] = field(default_factory=dict)
    #: Model -> what its endpoint did.
    endpoints: dict[str, EndpointPace] = field(default_factory=dict)

    def slowness(self) -> dict[str, float]:
        """Model -> its engine seconds ÷ the mean engine seconds of all models for as many items of the same tasks."""
        items: Counter[str] = Counter()
        seconds: defaultdict[str, float] = defaultdict(float)
        for model in self.models.values():
            for task, (count, took) in model.by_task.items():
                items[task] += count
                seconds[task] += took
        mean = {task: seconds[task] / items[task] for task in items}
        expected = {
            name: sum(count * mean[task] for task, (count, _) in model.by_task.items())
            for name, model in self.models.items()
        }
        return {name: model.engine_seconds / expected[name] for name, model in self.models.items() if expected[name]}

    def slowest(self, most: int) -> list[tuple[ModelPace, float]]:
        """The `most` models with the highest slowness, and their slowness."""
        order = sorted(self.slowness().items(), key=lambda one: (-one[1], one[0]))
        return [(self.models[name], slowness) for name, slowness in order[:most]]


class ShardStatistics:
    """Reads the statistics of one run's shards and adds them up. `cells` is a table of cell_id, model and task."""

    def __init__(self, lake: Lake, run_id: str, cells: pa.Table) -> None:
        self.lake, self.run_id, self.cells = lake, run_id, cells
        self.work = ShardTotals()
        self._place = lake_place(lake.uri) + "/"
        #: Name of an object that cannot be read -> reason.
        self.damaged: dict[str, str] = {}
        self._read: set[str] = set()
        self._folded: set[str] = set()
        self._manifest = ""
        self._asked: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        if self._asked:
            self._asked.close()

    def read(self, names: Sequence[str], most: int) -> ShardTotals:
        """Opens the first `most` footers of `names` that were not opened yet, and returns the sums so far.

        Raises StorageError if the lake cannot be read.
        """
        new = [name for name in names if name not in self._read and name not in self.damaged]
        for start in range(0, min(len(new), most), _AT_ONCE):
            self._open(new[start : min(start + _AT_ONCE, most)])
        self.work.unread = sum(1 for name in new if name not in self._read and name not in self.damaged)
        return copy.deepcopy(self.work)

    def read_folded(self, manifest: Manifest) -> set[str]:
        """Adds the statistics of all shards in a compaction, from its one object. Returns the names of these shards.

        Raises StorageError if the object cannot be read.
        """
        if manifest.name != self._manifest:
            try:
                with contextlib.closing(self._connect([], manifest)) as con:
                    files = con.execute("SELECT file FROM shards").fetchall()
                    rows = con.execute(f"{_SHARD} WHERE run_id = ?", [self.run_id]).to_arrow_table()
            except duckdb.Error as error:
                raise StorageError(f"cannot read the lake at {self.lake.uri}: {one_line(error)}") from error
            self._add(rows, self._read)
            self._folded = {file[len(self._place) :] for (file,) in files}
            self._read |= self._folded
            self._manifest = manifest.name
        return self._folded

    def _open(self, names: Sequence[str]) -> None:
        def read(sound: list[str]) -> tuple[list[str], pa.Table]:
            with contextlib.closing(self._connect(sound, None)) as con:
                return sound, con.execute(f"{_SHARD} WHERE run_id = ?", [self.run_id]).to_arrow_table()

        opened, damaged = read_sound(self.lake, names, read)
        self.damaged |= damaged
        if opened:
            sound, rows = opened
            self._add(rows, set())
            self._read.update(sound)

    def _connect(self, names: list[str], manifest: Manifest | None) -> duckdb.DuckDBPyConnection:
        lists = {
            layout.item_set_name(shard.item_set) for n in names if (shard := ShardName.parse(n)) and shard.item_set
        }
        listed = {**{table: [] for table in GLOBS}, "shards": names, layout.ITEM_SETS: sorted(lists)}
        # The shards are chosen already: retractions are not read again. An older lake has no lists.
        absent = frozenset({layout.RETRACTIONS} if lists else {layout.RETRACTIONS, layout.ITEM_SETS})
        holdings = Holdings(listed, manifest, include="collected", absent=absent, filled=self.lake.is_older())
        return connect(self.lake, holdings, only=["shards"])

    def _add(self, rows: pa.Table, counted: set[str]) -> None:
        """Adds rows of the view shards, except those of the shards `counted` before."""
        con = self._ask()
        con.register("rows_of_shards", rows)
        con.register("counted_shards", pa.table({"file": [f"{self._place}{name}" for name in counted]}, _FILE))
        con.execute("CREATE OR REPLACE TABLE shards AS FROM rows_of_shards WHERE file NOT IN (FROM counted_shards)")
        self._add_sums(con)
        self._add_costs(con)
        self._add_endpoints(con)
        for stage, seconds in _all(con, "SELECT stage, sum(seconds) FROM profile GROUP BY stage"):
            self.work.stages[stage] = self.work.stages.get(stage, 0.0) + seconds

    def _ask(self) -> duckdb.DuckDBPyConnection:
        """A database with the views of _ASKED over one table of shards and the lake's prices."""
        if self._asked is None:
            con = self._asked = duckdb.connect(config={"python_enable_replacements": "false"})
            open_store(con, self.lake)
            con.register("run_cells", self.cells)
            con.execute("CREATE TABLE cells AS FROM run_cells")
            with contextlib.closing(self._connect([], None)) as empty:
                con.register("no_shards", empty.execute(_SHARD).to_arrow_table())
            con.execute("CREATE TABLE shards AS FROM no_shards")
            listed: dict[str, list[str]] = defaultdict(list)
            for table in ("gpu_prices", "price_names"):
                listed[table] = [name for name in self.lake.names(table) if name != SCHEMA_FILES[table]]
            files = {table: listed[table] for table in GLOBS}
            create_views(con, self.lake.uri, ViewFiles(files), only=_ASKED, comments=False)
        return self._asked

    def _add_sums(self, con: duckdb.DuckDBPyConnection) -> None:
        work = self.work
        for row in _all(
            con,
            f"SELECT model, task, count(*), sum({_ITEMS})::BIGINT, coalesce(sum(engine_seconds), 0), "
            "coalesce(sum(load_seconds), 0), CASE WHEN count(engine_tokens) = count(*) THEN sum(engine_tokens)::BIGINT "
            "END, CASE WHEN count(cached_tokens) = count(*) THEN sum(cached_tokens)::BIGINT END "
            "FROM shards INNER JOIN cells USING (cell_id) GROUP BY model, task",
        ):
            name, task, shards, items, engine, load, tokens, cached = row
            model = work.models.setdefault(name, ModelPace(name))
            model.items += items
            model.engine_seconds += engine
            before = model.by_task.get(task, (0, 0.0))
            model.by_task[task] = (before[0] + items, before[1] + engine)
            model.load_seconds += load
            model.engine_tokens = _plus(model.engine_tokens, tokens)
            work.shards += shards
            work.engine_seconds += engine
            work.engine_tokens = _plus(work.engine_tokens, tokens)
            work.cached_tokens = _plus(work.cached_tokens, cached)

    def _add_endpoints(self, con: duckdb.DuckDBPyConnection) -> None:
        """Reads what runs wrote about endpoints; other values in its place count as nothing."""
        sql = (
            "SELECT model, coalesce(engine_seconds, 0), facts->>'$.served' FROM shards "
            "INNER JOIN cells USING (cell_id) WHERE json_type(facts, '$.served') = 'OBJECT'"
        )
        for model, seconds, text in _all(con, sql):
            served = json.loads(text)
            pace = self.work.endpoints.setdefault(model, EndpointPace())
            counts = served.get("counts")
            for kind, count in counts.items() if isinstance(counts, dict) else ():
                pace.counts[kind] += count if isinstance(count, int) else 0
            pace.seconds += seconds
            pace.usd += served["usd"] if isinstance(served.get("usd"), int | float) else 0.0
            suspicions = served.get("suspicions")
            kinds = (
                [one.get("kind") for one in suspicions if isinstance(one, dict)] if isinstance(suspicions, list) else []
            )
            pace.suspicions.update(map(str, kinds))

    def _add_costs(self, con: duckdb.DuckDBPyConnection) -> None:
        for gpu, priced, unpriced, usd in _all(
            con,
            "SELECT coalesce(gpu, gpu_class, '') AS name, count(usd), count(*) - count(usd), sum(usd) "
            "FROM collection_costs GROUP BY name",
        ):
            self.work.priced += priced
            if usd is not None:
                self.work.usd = (self.work.usd or 0.0) + usd
            if unpriced:
                self.work.unpriced[gpu] += unpriced


_FILE = pa.schema([("file", pa.string())])


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _all(con: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    try:
        return con.execute(sql).fetchall()
    except duckdb.Error as error:  # a damaged price table
        raise StorageError(f"cannot read the lake: {one_line(error)}") from error
