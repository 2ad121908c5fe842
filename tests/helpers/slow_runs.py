"""Runs of collect.py that last long enough to be disturbed, and the checks of a lake.

The records of an undisturbed one are the fixture `undisturbed` of conftest.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from collectors.runs.config import FleetSpec
from schemas.identity import ShardName
from tests.helpers import runs
from tests.helpers.runs import ITEMS, config

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

MODELS = ["stub/alpha", "stub/beta", "stub/gamma"]
TOTAL = len(MODELS) * 2 * ITEMS
WORKERS = 2


def slow_config(folder: Path, cluster: Cluster | None, **changes: Any) -> Path:
    """Three models on two tasks: eight engine seconds in some fifty shards. Without `cluster` on a Ray of its own."""
    fleet: dict[str, Any] = {"workers": WORKERS, "first_shard_items": 4, "shard_seconds": 0.2, "stall_seconds": 600}
    fleet |= {key: changes.pop(key) for key in FleetSpec.model_fields if key in changes}
    fleet |= {"address": cluster.address} if cluster else {}
    engine = {"name": "stub", "options": {"latency_s": 0.01, **changes.pop("options", {})}}
    return config(folder, **{"models": MODELS, "fleet": fleet, "engine": engine, **changes})


def assert_undisturbed(lake: Path, expected: pa.Table) -> None:
    runs.assert_same(runs.stored_records(lake), expected)
    runs.assert_same(runs.viewed_records(lake), expected)
    assert runs.failures(lake) == []


def shards(lake: Path) -> list[ShardName]:
    return [name for file in lake.glob("shards/*/*.parquet") if (name := ShardName.parse(file.name))]


def committed(lake: Path) -> int:
    """Items that lie in shard files by now."""
    return sum(shard.last - shard.first + 1 for shard in shards(lake))
