"""Sums the tokens and seconds that a lake's shards measured, for estimates.

Owns the choice of shards and the sums. It reads a sample, because each shard is a file to open. Knows nothing of prices
or plans.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.identity import is_imported
from schemas.sql import quoted_path
from schemas.views import lake_place

#: Most shard files to open for an estimate, spread over all tasks. 2,000 take a second on a disk.
MOST_SHARDS = 2000


@dataclass(frozen=True)
class Measured:
    """Sums over the sampled shards of one model under one prompting, on one kind of GPU."""

    model: str
    prompting: str
    #: Name of the device; None on CPUs.
    gpu: str | None
    #: GPUs of each engine, or the part of one; None: not recorded.
    gpus: float | None
    items: int
    #: Tokens that the engine computed, without those from its prefix cache.
    tokens: int
    engine_seconds: float
    #: Number of those shards that loaded the model, and the seconds of these loads.
    loads: int
    load_seconds: float


_SHARDS = """
WITH shards AS (  -- a shard that is folded into a compaction may still lie beside it
    SELECT left(shard, 16) AS cell_id, any_value(metadata) AS metadata
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
        metadata ->> '$.engine' AS engine,
        metadata ->> '$.gpu' AS gpu,
        TRY_CAST(metadata ->> '$.gpus' AS DOUBLE) AS gpus,
        TRY_CAST(metadata ->> '$.items' AS BIGINT) AS items,
        TRY_CAST(metadata ->> '$.engine_tokens' AS BIGINT) AS engine_tokens,
        coalesce(TRY_CAST(metadata ->> '$.cached_tokens' AS BIGINT), 0) AS cached_tokens,
        TRY_CAST(metadata ->> '$.engine_seconds' AS DOUBLE) AS engine_seconds,
        coalesce(TRY_CAST(metadata ->> '$.load_seconds' AS DOUBLE), 0) AS load_seconds
    FROM shards
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
SELECT regexp_extract(file_name, '[^/]+$') AS shard, decode(value)::JSON AS metadata
FROM parquet_kv_metadata([{files}])
WHERE decode(key) = 'shard'
"""
_FOLDED = """
SELECT regexp_extract(file, '[^/]+$') AS shard, facts::JSON AS metadata
FROM read_parquet({file}, hive_partitioning = false)
"""
_NONE = "SELECT NULL::VARCHAR AS shard, NULL::JSON AS metadata WHERE false"


def measured(lake: Lake, engine: str, cells: Iterable[str] = ()) -> list[Measured]:
    """Sums the measurements of `engine`'s shards: all folded ones, and a sample of the others.

    The sample takes shards of `cells` first. Empty when no lake exists.
    """
    if not lake.exists():
        return []
    wanted = frozenset(cells)

    def question(con: Any, holdings: Holdings) -> list[Measured]:
        place = lake_place(lake.uri)
        files = ", ".join(quoted_path(f"{place}/{name}") for name in _sample(holdings.listed["shards"], wanted))
        manifest = holdings.manifest
        folded = manifest.folded if manifest and manifest.folded not in holdings.damaged else None
        sql = _SHARDS.format(
            open=_OPEN.format(files=files) if files else _NONE,
            folded=_FOLDED.format(file=quoted_path(f"{place}/{folded}")) if folded else _NONE,
        )
        return [Measured(*row) for row in con.execute(sql, {"engine": engine}).fetchall()]

    return ask(lake, question, only=["_run_cells"])


def _sample(names: Sequence[str], wanted: frozenset[str]) -> list[str]:
    """Chooses at most MOST_SHARDS shards: the same number from each task, spread evenly over its names.

    The names begin with a hash, so that an even spread is a random sample.
    """
    tasks: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        if not is_imported(name.rsplit("/", 1)[-1]):
            tasks[name.split("/")[1]].append(name)
    each = max(MOST_SHARDS // max(len(tasks), 1), 1)
    chosen = []
    for shards in tasks.values():
        own = [name for name in shards if name.rsplit("/", 1)[-1][:16] in wanted]
        chosen += _evenly(own, each)
        if len(own) < each:
            own_names = set(own)
            chosen += _evenly([name for name in shards if name not in own_names], each - len(own))
    return chosen


def _evenly(names: list[str], most: int) -> list[str]:
    if len(names) <= most:
        return names
    return [names[i * len(names) // most] for i in range(most)]
