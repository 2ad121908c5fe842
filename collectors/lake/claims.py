"""Shards of a cell that other runs have committed or have in hand.

Owns claims: objects that a run creates exclusively before a shard goes to an engine. They expire by the store's own
time and only spare work: no commit depends on one. Knows nothing of the order of work.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from collectors.lake import layout
from collectors.lake.holdings import folded_shards, newest_manifest
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName

logger = logging.getLogger(__name__)

#: Seconds after which a claim is void. A run renews the claims of the shards in hand at half of it.
CLAIM_SECONDS = 300.0
#: Seconds between two looks for a new compaction.
_COMPACTED_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """The shards of one cell at one moment."""

    committed: list[ShardName]
    #: Claims of other runs that hold.
    claimed: list[ShardName]


@dataclass
class _Own:
    """A claim of this run, with the names of its renewals."""

    names: list[str]
    #: Monotonic clock.
    since: float


@dataclass
class Claims:
    """The claims of one run, and its view of those of others. The run's plan has to be in the lake.

    Each method but `tidy` raises StorageError if the store does not answer.
    """

    lake: Lake
    run_id: str
    clock: Callable[[], float] = time.monotonic
    _own: dict[ShardName, _Own] = field(default_factory=dict)
    #: Shard -> the number of its next claim.
    _numbers: defaultdict[ShardName, int] = field(default_factory=lambda: defaultdict(int))
    #: The store's time minus our clock; None if the store has no times, and then no claim holds.
    _offset: float | None = None
    _claimants: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _waste: list[str] = field(default_factory=list)
    _may_remove: bool = True
    _manifest: str = ""
    _folded: dict[str, list[ShardName]] = field(default_factory=dict)
    _retracted: Retracted = field(default_factory=Retracted)
    _looked_for_compaction: float = 0.0

    def __post_init__(self) -> None:
        times = self.lake.listing(layout.RUNS, prefix=self.run_id).values()
        if known := [made for made in times if made is not None]:
            self._offset = max(known) - self.clock()
        self._retracted = read_retracted(self.lake)
        manifest = newest_manifest(self.lake)
        self._manifest, self._looked_for_compaction = manifest.name if manifest else "", self.clock()

    def look(self, cell_id: str, task: str) -> Seen:
        """Lists a cell's claims, then its shards: whoever commits removes the claim afterwards."""
        listed = self.lake.listing(layout.CLAIMS, prefix=f"{cell_id}-")
        claimed = [shard for name, made in listed.items() if (shard := self._held_by_another(name, made))]
        folder = layout.shards_folder(task)
        names = self.lake.listing(folder, prefix=f"{cell_id}-")
        committed = [shard for name in names if (shard := ShardName.parse(name))]
        self._look_for_compaction()
        return Seen(self._retracted.without(committed + self._folded.get(cell_id, [])), claimed)

    def take(self, shard: ShardName) -> bool:
        """Claims a shard. Returns False if another run claimed it since the last look."""
        if shard in self._own:
            return True
        name, since = layout.claim_name(shard, self._numbers[shard]), self.clock()
        self._numbers[shard] += 1
        if not self.lake.create(name, self._content()):
            return False
        self._own[shard] = _Own([name], since)
        return True

    def renew(self) -> None:
        """Claims the shards in hand anew whose claims are half expired."""
        for shard, own in self._own.items():
            if self.clock() - own.since < CLAIM_SECONDS / 2:
                continue
            name, since = layout.claim_name(shard, self._numbers[shard]), self.clock()
            self._numbers[shard] += 1
            if self.lake.create(name, self._content()):
                own.names.append(name)
                own.since = since

    def drop(self, shard: ShardName) -> None:
        """Gives up the claim on a shard that is committed or will not be collected; `tidy` removes its objects."""
        if own := self._own.pop(shard, None):
            self._waste += own.names

    def tidy(self, *, everything: bool = False) -> None:
        """Removes the objects of dropped claims, or of all. Does nothing where this run may not remove objects."""
        if everything:
            for shard in list(self._own):
                self.drop(shard)
        if self._waste and self._may_remove:
            try:
                self.lake.remove(self._waste)
            except StorageError as error:
                self._may_remove = False
                logger.debug("claims stay until they are cleaned up: %s", one_line(error))
        self._waste.clear()

    def _content(self) -> bytes:
        return json.dumps({"run": self.run_id, "host": socket.gethostname(), "process": os.getpid()}).encode()

    def _held_by_another(self, name: str, made: float | None) -> ShardName | None:
        """The shard of a claim of another run that holds."""
        parsed = layout.parse_claim(name)
        if parsed is None or made is None or self._offset is None:
            return None
        shard, number = parsed
        self._numbers[shard] = max(self._numbers[shard], number + 1)
        own = self._own.get(shard)
        if own and name in own.names:
            if name == own.names[-1]:
                self._offset = max(self._offset, made - own.since)
            return None
        is_old = self.clock() + self._offset - made > CLAIM_SECONDS
        return None if is_old or name in self._waste or self._is_void(name) else shard

    def _is_void(self, name: str) -> bool:
        """Whether the run behind a claim is this one, has ended, or was a process of this machine that is gone."""
        if name not in self._claimants:
            try:
                value = json.loads(self.lake.read(name))
            except (FileNotFoundError, ValueError, RecursionError):
                return True
            self._claimants[name] = value if isinstance(value, dict) else {}
        claimant = self._claimants[name]
        run_id = str(claimant.get("run"))
        if run_id == self.run_id or run_id in self._ended:
            return True
        is_here = claimant.get("host") == socket.gethostname()
        if (is_here and is_gone(claimant.get("process"))) or self.lake.has(layout.end_name(run_id)):
            self._ended.add(run_id)
            return True
        return False

    def _look_for_compaction(self) -> None:
        """Reads the list of a compaction that is newer than this run: the shards in it may be gone."""
        if self.clock() - self._looked_for_compaction < _COMPACTED_SECONDS:
            return
        self._looked_for_compaction = self.clock()
        manifest = newest_manifest(self.lake)
        if manifest is None or manifest.name == self._manifest:
            return
        self._folded = defaultdict(list)
        for name in folded_shards(self.lake, manifest):
            if shard := ShardName.parse(name):
                self._folded[shard.cell_id].append(shard)
        self._manifest = manifest.name


def is_gone(process: Any) -> bool:
    """Whether no process of this machine has this number."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError, OverflowError):
        return True
    except PermissionError:  # another user's
        return False
    return False
