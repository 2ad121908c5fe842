"""Deleting what no reader of a lake needs any more.

Owns what may be deleted, and when. Knows nothing of how a compaction is made (collectors.lake.compaction).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.damage import known_damage
from collectors.lake.holdings import Part, folded_shards, read_manifest
from collectors.lake.store import Lake
from schemas.failures import StorageError


@dataclass(frozen=True)
class Pruned:
    shards: int
    #: Objects of older compactions, and of attempts that were never committed.
    others: int
    #: Damaged objects that were set aside.
    damaged: int
    #: When more can be deleted: nothing goes that a reader may still be reading. None: nothing is left to delete.
    later: str | None


def prune(lake: Lake, keep: dt.timedelta) -> Pruned:
    """Deletes folded shards and older compactions that no reader needs who began less than `keep` ago.

    A reader keeps the newest manifest that there was when it began: so a manifest's objects, and the shards that it
    does not name, stay until the next one is older than `keep`. Only shards that a compaction read and holds, and what
    compactions wrote, are deleted; a damaged object is set aside (`set_aside`). Raises StorageError when something
    cannot be deleted, ConfigError when a newer schema version wrote to the lake.
    """
    names = lake.names(layout.COMPACTIONS)
    manifests = [read_manifest(lake, name) for name in layout.manifest_names(names)]
    limit = dt.datetime.now(dt.UTC) - keep
    settled = [m for m in manifests if dt.datetime.fromisoformat(m.created_at) <= limit]
    # A damaged part is kept: its shards may be gone.
    damaged = sorted(n for n in known_damage(lake, lake.names(layout.FAILURES)) if not layout.is_compacted(n))
    if not settled:
        set_aside(lake, damaged)
        return Pruned(0, 0, len(damaged), manifests[0].created_at if manifests else None)
    oldest = settled[-1]
    named = {name for manifest in manifests if manifest.number >= oldest.number for name in manifest.objects}
    # Those of a number that is not committed yet belong to a compactor at work.
    stale = [n for n in names if layout.compaction_of(n) <= oldest.number and n not in named]
    _check_parts(lake, {part for manifest in (oldest, manifests[-1]) for part in manifest.parts})
    there = set(lake.names(layout.SHARDS))
    folded = [name for name in folded_shards(lake, oldest) if name in there]
    set_aside(lake, damaged)
    lake.remove([*folded, *stale])
    return Pruned(len(folded), len(stale), len(damaged), None if oldest is manifests[-1] else manifests[-1].created_at)


def set_aside(lake: Lake, names: Sequence[str]) -> None:
    """Moves objects to the folder damaged/, where no reader looks: their places are free to be collected again.

    Their bytes stay, because what looks damaged here may mean something to another program.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            data = lake.read(name)
            lake.create(layout.set_aside_name(name, hashlib.sha256(data).hexdigest()[:16]), data)
    lake.remove(names)


def _check_parts(lake: Lake, parts: set[Part]) -> None:
    """Raises StorageError where a part is not what its manifest says: its shards may be the last copy."""
    for part in parts:
        for name in part.objects:
            if name == part.bits:  # nothing that the records do not say
                continue
            try:
                rows = pq.read_metadata(lake.open_object(name)).num_rows
                whole = name != part.records or rows == part.rows
            except (OSError, ValueError):
                whole = False
            if not whole:
                raise StorageError(f"{name} is damaged: nothing was deleted; compact.py writes it anew from its shards")
