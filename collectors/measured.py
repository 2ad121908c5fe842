"""What a lake's shards say of tokens and pace: the measurements that estimates rest on.

Owns which shards are looked at (a sample: each is a file to open) and their sums. Knows nothing of prices or plans.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from collectors.holdings import Holdings
from collectors.lake import Lake
from collectors.reading import ask
from schemas.identity import ShardName, is_imported
from schemas.views import lake_place

#: Most shard files that are opened for an estimate, spread over all tasks: 2,000 take a second on a disk.
MOST_SHARDS = 2000


@dataclass(frozen=True)
class Measured:
    """Sums over the sampled shards of one model under one prompting, on one kind of GPU."""

    model: str
    prompting: str
    #: Device's name; None on CPUs.
    gpu: str | None
    #: How many of it each engine had, or the part of one; None: the run did not say.
    gpus: float | None
    items: int
    #: Tokens that the engine computed: those that its prefix cache held are left out.
    tokens: int
    engine_seconds: float
    #: Of those shards that loaded the model: how many, and how long that took them.
    loads: int
    load_seconds: float


_SHARDS = """
WITH told AS (  -- a compaction leaves the shards that it holds where they are
    SELECT left(shard, 16) AS cell_id, any_value(facts) AS facts
    FROM ({open} UNION ALL {folded})
    GROUP BY shard
),

asked AS (
    SELECT DISTINCT cell_id, model, prompting
    FROM _run_cells
    WHERE imported_from IS NULL
),

numbers AS (
    SELECT
        cell_id,
        facts ->> '$.engine' AS engine,
        facts ->> '$.gpu' AS gpu,
        TRY_CAST(facts ->> '$.gpus' AS DOUBLE) AS gpus,
        TRY_CAST(facts ->> '$.items' AS BIGINT) AS items,
        TRY_CAST(facts ->> '$.engine_tokens' AS BIGINT) AS engine_tokens,
        coalesce(TRY_CAST(facts ->> '$.cached_tokens' AS BIGINT), 0) AS cached_tokens,
        TRY_CAST(facts ->> '$.engine_seconds' AS DOUBLE) AS engine_seconds,
        coalesce(TRY_CAST(facts ->> '$.load_seconds' AS DOUBLE), 0) AS load_seconds
    FROM told
)

SELECT
    model,
    prompting,
    gpu,
    gpus,
    sum(items)::BIGINT,
    sum(engine_tokens - cached_tokens)::BIGINT,
    sum(engine_seconds),
    count(*) FILTER (load_seconds > 0),
    sum(load_seconds)
FROM numbers
INNER JOIN asked USING (cell_id)
WHERE engine = $engine AND items > 0 AND engine_tokens > 0 AND engine_seconds > 0
GROUP BY ALL
ORDER BY ALL
"""
_OPEN = """
SELECT regexp_extract(file_name, '[^/]+$') AS shard, decode(value)::JSON AS facts
FROM parquet_kv_metadata([{files}])
WHERE decode(key) = 'shard'
"""
_FOLDED = """
SELECT regexp_extract(file, '[^/]+$') AS shard, facts::JSON AS facts
FROM read_parquet({file}, hive_partitioning = false)
"""
_NONE = "SELECT NULL::VARCHAR AS shard, NULL::JSON AS facts WHERE false"


def measured(lake: Lake, engine: str, cells: Iterable[str] = ()) -> list[Measured]:
    """What shards of `engine` took; those of `cells` are looked at first. Compacted ones are all looked at."""
    if not lake.exists():
        return []
    wanted = frozenset(cells)

    def question(con: Any, holdings: Holdings) -> list[Measured]:
        place = lake_place(lake.uri)
        files = ", ".join(_quoted(f"{place}/{name}") for name in _sample(holdings.listed["shards"], wanted))
        manifest = holdings.manifest
        folded = manifest.folded if manifest and manifest.folded not in holdings.damaged else None
        sql = _SHARDS.format(
            open=_OPEN.format(files=files) if files else _NONE,
            folded=_FOLDED.format(file=_quoted(f"{place}/{folded}")) if folded else _NONE,
        )
        return [Measured(*row) for row in con.execute(sql, {"engine": engine}).fetchall()]

    return ask(lake, question, only=["_run_cells"])


def _sample(names: Sequence[str], wanted: frozenset[str]) -> list[str]:
    """At most MOST_SHARDS of these shards: of each task as many, evenly over its names, which begin with a hash."""
    tasks: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        shard = ShardName.parse(name)
        if shard is not None and not is_imported(shard.cell_id):
            tasks[name.split("/")[1]].append(name)
    each = max(MOST_SHARDS // max(len(tasks), 1), 1)
    chosen = []
    for found in tasks.values():
        own = [name for name in found if name.rsplit("/", 1)[-1][:16] in wanted]
        chosen += _evenly(own, each)
        if len(own) < each:
            own_names = set(own)
            chosen += _evenly([name for name in found if name not in own_names], each - len(own))
    return chosen


def _evenly(names: list[str], most: int) -> list[str]:
    if len(names) <= most:
        return names
    return [names[i * len(names) // most] for i in range(most)]


def _quoted(path: str) -> str:
    """A path that DuckDB takes for no pattern."""
    return "'" + re.sub(r"[*?\[]", lambda match: f"[{match[0]}]", path).replace("'", "''") + "'"
