"""The quarantine: models that broke engines in an earlier run are tried again only on request.

Owns the kinds of failure that last, and their record in the lake: the name of one failures object for each run and
model. So planning needs a listing and opens nothing. The name holds the shard that the engine had when it was lost;
once its items are in the lake, the model is free again. Knows nothing of engines or retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from collectors.engines import ModelRef
from collectors.lake.layout import parse_quarantine, quarantine_name
from schemas.failures import OUT_OF_MEMORY, OVER_CAP
from schemas.identity import MODEL_IDENTITY, ShardName, digest

#: Kinds of failure that last. Each cost a node two engines, twice fleet.stall_seconds or the model's cap, and would
#: again until the machine, the options or the model changes. All other kinds (a hub that is down, an unreadable file, a
#: class that vLLM lacks) show within seconds and may pass, so the next run tries them again.
LASTING = frozenset({"engine_died", "engine_stalled", OUT_OF_MEMORY, OVER_CAP})


def mark(model: ModelRef, shard: ShardName, row: Mapping[str, Any]) -> str:
    """Name of the failures object that puts `model` into quarantine; `row` is its content."""
    content = digest({key: str(value) for key, value in row.items()}, 8)
    return quarantine_name(model_digest(model), shard, content)


def model_digest(model: ModelRef) -> str:
    """Digest of the model's part of a cell's identity, so another revision, dtype or length is another model."""
    return digest({key: getattr(model, key) for key in MODEL_IDENTITY})


def quarantined(
    failures: Iterable[str], committed: Mapping[str, Sequence[ShardName]], holds: Callable[[ShardName, int], bool]
) -> set[str]:
    """Digests of the models in quarantine.

    `failures` are the names below failures/, `committed` maps cell ids to their committed shards. `holds` knows whether
    a shard holds an item.
    """
    digests = set()
    for name in failures:
        if parsed := parse_quarantine(name):
            model, shard = parsed
            held = committed.get(shard.cell_id, ())
            if not any(s.generation >= shard.generation and holds(s, shard.first) for s in held):
                digests.add(model)
    return digests
