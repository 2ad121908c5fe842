"""Models that broke the engines of an earlier run, and are not tried again unasked.

Owns which kinds of failure last and how the lake remembers them: by the name of one failures object per run and model,
so that planning needs a listing and opens nothing. It names the shard under which the engine was lost last; once those
items are in the lake the model is free again. Knows nothing of engines or of how a run retries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collectors.engines import ModelRef
from schemas.identity import MODEL_IDENTITY, ShardName, digest

#: Kinds that last: each cost a node two engines or `fleet.stall_seconds` twice, and nothing but another machine, other
#: options or a person changes that. All others (a hub that is down, a file that cannot be read, a class that vLLM
#: lacks) are told within seconds and may mend by themselves: the next run tries them again.
LASTING = frozenset({"engine_died", "engine_stalled", "out_of_memory"})

_MARK = re.compile(r"failures/quarantine-(?P<model>[0-9a-f]{16})-(?P<shard>.+)-[0-9a-f]{8}\.parquet")


def mark(model: ModelRef, shard: ShardName, row: Mapping[str, Any]) -> str:
    """Name of the failures object that keeps `model` from being planned; `row` is what it holds."""
    content = digest({key: str(value) for key, value in row.items()}, 8)
    return f"failures/quarantine-{model_digest(model)}-{str(shard).removesuffix('.parquet')}-{content}.parquet"


def model_digest(model: ModelRef) -> str:
    """Of what a cell's identity knows of its model: another revision, dtype or length is another model here too."""
    return digest({key: getattr(model, key) for key in MODEL_IDENTITY})


def quarantined(failures: Iterable[str], committed: Mapping[str, Sequence[ShardName]]) -> set[str]:
    """Digests of the models in quarantine, from the names below failures/ and the committed shards by cell."""
    found = set()
    for name in failures:
        if (match := _MARK.fullmatch(name)) and (shard := ShardName.parse(f"{match['shard']}.parquet")):
            held = committed.get(shard.cell_id, ())
            if not any(s.generation >= shard.generation and s.first <= shard.first <= s.last for s in held):
                found.add(match["model"])
    return found
