"""Deletes objects of a lake that no reader needs any more.

Owns the rules of deletion. Knows nothing of the making of a compaction (collectors.lake.compaction).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.damage import examine, record_damage, recorded_damage
from collectors.lake.holdings import Manifest, Part, committed, folded_shards, read_manifest
from collectors.lake.inventory import read_inventory
from collectors.lake.retractions import read_retracted
from collectors.lake.store import Lake
from schemas.failures import StorageError
from schemas.identity import ShardName


@dataclass(frozen=True)
class Pruned:
    """The result of `prune`."""

    #: Number of deleted shards, folded and forgotten ones.
    shards: int
    #: Number of deleted objects of older compactions, of attempts without a commit, and of temporary files.
    others: int
    #: Number of damaged objects that were set aside.
    damaged: int
    #: Creation time of the newest compaction if it is too recent to delete more, because of readers; else None.
    later: str | None


def prune(lake: Lake, keep: dt.timedelta) -> Pruned:
    """Deletes folded shards and older compactions, unless a reader that began less than `keep` ago may need them.

    A reader uses the newest manifest at its start. So the objects of a manifest, and the shards that it does not name,
    stay until the next manifest is older than `keep`. Only shards that a compaction holds, shards that a retraction
    of that age names, objects of compactions and old temporary files are deleted; a damaged object is set aside
    (`set_aside`). Raises StorageError if an object cannot be deleted, ConfigError if a newer schema version wrote to
    the lake.
    """
    leftovers = lake.remove_leftovers()
    # By the store's own times: a compaction of a machine whose clock is a day behind is new to readers all the same.
    made = lake.listing(layout.COMPACTIONS)
    names = list(made)
    manifests = [read_manifest(lake, name) for name in layout.manifest_names(names)]
    limit = lake.now() - keep.total_seconds()
    settled = [m for m in manifests if _time_of(m, made) <= limit]
    # A damaged part stays, because its shards may be deleted.
    recorded = recorded_damage(lake, lake.names(layout.FAILURES), _recorded(lake, manifests))
    # So does a list that a shard names: without it readers stop.
    lists = {layout.item_set_name(s.item_set) for of_cell in committed(lake).values() for s in of_cell if s.item_set}
    damaged = sorted(name for name in recorded if not layout.is_compacted(name) and name not in lists)
    forgotten = _forgotten_shards(lake, limit)
    if not settled:
        set_aside(lake, damaged)
        lake.remove(forgotten)
        later = _iso(manifests[0], made) if manifests else None
        return Pruned(len(forgotten), leftovers, len(damaged), later)
    oldest = settled[-1]
    named = {name for manifest in manifests if manifest.number >= oldest.number for name in manifest.objects}
    # Objects of a number without a manifest belong to a compactor at work.
    stale = [n for n in names if layout.compaction_of(n) <= oldest.number and n not in named]
    there = set(lake.names(layout.SHARDS))
    folded = [name for name in folded_shards(lake, oldest) if name in there]
    folders = {layout.folder_of_task(name) for name in folded}
    for part in {part for manifest in (oldest, manifests[-1]) for part in manifest.parts}:
        _check_part(lake, part, whole=layout.folder_of_task(part.records) in folders)
    set_aside(lake, damaged)
    shards = sorted({*folded, *forgotten})
    lake.remove([*shards, *stale])
    later = None if oldest is manifests[-1] else _iso(manifests[-1], made)
    return Pruned(len(shards), len(stale) + leftovers, len(damaged), later)


def _forgotten_shards(lake: Lake, limit: float) -> list[str]:
    """Shards with no item that counts, and verdicts on them, by retractions from before `limit`."""
    made = lake.listing(layout.RETRACTIONS)
    retracted = read_retracted(lake)
    old = {
        str(row["retraction_id"])
        for row in retracted.rows
        if (made.get(layout.retraction_name(row["retraction_id"])) or row["retracted_at"].timestamp()) <= limit
    }
    if not old:
        return []
    retracted = retracted.only(old)
    shards = [name for name in lake.names(layout.SHARDS) if (s := ShardName.parse(name)) and retracted.covers(s)]
    verdicts = [n for n in lake.names(layout.VERDICTS) if (v := layout.parse_verdicts(n)) and retracted.covers(v[1])]
    return [*shards, *verdicts]


def _time_of(manifest: Manifest, made: Mapping[str, float | None]) -> float:
    """The time by the store when it got the manifest; where it has no times, by its compaction's clock."""
    stored = made.get(manifest.name)
    return dt.datetime.fromisoformat(manifest.created_at).timestamp() if stored is None else stored


def _iso(manifest: Manifest, made: Mapping[str, float | None]) -> str:
    return dt.datetime.fromtimestamp(_time_of(manifest, made), dt.UTC).isoformat()


def _recorded(lake: Lake, manifests: list[Manifest]) -> dict[str, str]:
    """Object -> SHA-256 by the newest compaction, of the objects beside it, too."""
    if not manifests:
        return {}
    with contextlib.suppress(FileNotFoundError, StorageError):  # compact.py --verify names it
        return manifests[-1].recorded | read_inventory(lake, manifests[-1])
    return manifests[-1].recorded


def set_aside(lake: Lake, names: Sequence[str]) -> None:
    """Moves objects to the folder damaged/, where no reader looks, so that they can be collected again.

    Their bytes stay, because another program may be able to read them.
    """
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            data = lake.read(name)
            lake.create(layout.set_aside_name(name, hashlib.sha256(data).hexdigest()[:16]), data)
    lake.remove(names)


def _check_part(lake: Lake, part: Part, *, whole: bool) -> None:
    """Raises StorageError if a part does not match its manifest, because its shards may be the last copy.

    `whole`: read every byte, and not only footers, because shards that the part holds are to be deleted.
    """
    for name in part.parquet_objects:  # the bits can be made from the records
        try:
            rows = pq.read_metadata(lake.open_object(name)).num_rows
            sound = rows == part.rows if name == part.records else rows > 0
        except (OSError, ValueError):
            sound = False
        if reason := examine(lake, name, part.recorded.get(name)) if whole or not sound else None:
            record_damage(lake, name, reason)
            raise StorageError(f"{name} is damaged: nothing was deleted; compact.py writes it again from its shards")
        if not sound:
            raise StorageError(f"{name} lacks rows of its manifest: nothing was deleted; put a whole copy in its place")
