"""Reads a whole lake and names every object that is not as it was written. It changes nothing.

Owns the choice of check for each object. A sealed or recorded object is hashed; one without, as version 6 wrote it, is
decoded, and its rows are compared with its name. Missing objects are found by collectors.lake.missing. Knows nothing of
published versions, whose manifest names the SHA-256 of every file.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from collectors.lake import layout
from collectors.lake.damage import advice, examine_rows, record_damage
from collectors.lake.holdings import Manifest, Part, read_manifest
from collectors.lake.inventory import Batch, batches, each_object, read_inventory
from collectors.lake.missing import Fault, missing_objects
from collectors.lake.seals import read_seal, seal_fault
from collectors.lake.spread import Spread
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line


@dataclass(frozen=True)
class Verified:
    """The result of `verify`."""

    #: Objects that were read, and their bytes.
    objects: int
    bytes: int
    #: Those of them without a checksum: they were decoded, and a changed number in them would not be noticed.
    unsealed: int
    #: Name of an object with other bytes or rows than were written -> its fault; and of one that is missing.
    damaged: dict[str, Fault]
    missing: dict[str, Fault]

    @property
    def faults(self) -> dict[str, Fault]:
        """All of them, by name."""
        return dict(sorted({**self.missing, **self.damaged}.items()))


@dataclass(frozen=True)
class _Outcome:
    bytes: int
    is_sealed: bool
    fault: str | None


def _examine(batch: Batch) -> list[tuple[str, _Outcome | None]]:
    lake = Lake(batch.uri)
    return list(each_object(lake, batch.names, _Check(lake, batch.recorded).examine))


def verify(
    lake: Lake,
    progress: Callable[[int, int], None] = lambda done, objects: None,
    spread: Spread | None = None,
) -> Verified:
    """Reads every object of `lake`. `progress` gets the numbers of read and of all objects.

    `spread` lets other processes read them, a batch each.
    Raises StorageError if the lake cannot be read, ConfigError for an object of a newer schema version.
    """
    names = [name for name in lake.names("", layout.DEPTH) if _is_read(name)]
    compactions = _Compactions(lake, names)
    outcomes: Iterable[tuple[str, _Outcome | None]]
    if spread:
        works = batches(lake, names, compactions.recorded)
        outcomes = itertools.chain.from_iterable(spread(_examine, works))
    else:
        outcomes = each_object(lake, names, _Check(lake, compactions.recorded).examine)
    read = size = unsealed = 0
    faults = dict(compactions.faults)
    for name, outcome in outcomes:
        if outcome is None:  # deleted since it was listed
            continue
        read, size, unsealed = read + 1, size + outcome.bytes, unsealed + (not outcome.is_sealed)
        if outcome.fault:
            faults.setdefault(name, outcome.fault)
        progress(read, len(names))
    missing = missing_objects(lake, names, compactions.manifests, compactions.inventory, faults)
    damaged = {name: Fault(reason, _advice(name)) for name, reason in faults.items()}
    return Verified(read, size, unsealed, damaged, {name: missing[name] for name in missing if name not in damaged})


def record_faults(lake: Lake, damaged: Mapping[str, Fault]) -> None:
    """Records damaged Parquet objects in failures, so that readers pass them over and prune sets them aside."""
    for name, fault in damaged.items():
        if layout.may_be_damaged(name):
            record_damage(lake, name, fault.reason)


def _advice(name: str) -> str:
    """Returns what to do about a damaged object of any kind."""
    if layout.manifest_names([name]):
        return "put a whole copy in its place; if the shards that it names still exist, you may remove it instead"
    if layout.is_inventory(name):
        return "put a whole copy in its place, or remove it: the next compaction makes a new one"
    if layout.is_bits(name):
        return "put a whole copy in its place; until then the scores of the records beside it are read"
    if layout.is_compacted(name) and name.endswith(".json"):
        return "remove it: only the compaction that wrote it needs it"
    if layout.is_request(name):
        return "remove it: the next run makes it again"
    return advice(name).replace("compact.py --prune", "compact.py --verify --prune")


class _Compactions:
    """The manifests of a lake, with the SHA-256 that they hold, and the newest inventory."""

    def __init__(self, lake: Lake, names: list[str]) -> None:
        self.faults: dict[str, str] = {}
        self.manifests: list[Manifest] = []
        #: Object -> its SHA-256, of all compactions.
        self.recorded: dict[str, str] = {}
        for name in layout.manifest_names(names):
            try:
                self.manifests.append(read_manifest(lake, name))
            except StorageError as error:
                self.faults[name] = one_line(error.__cause__ or error)
        self.inventory = self._inventory(lake)
        self.recorded |= self.inventory
        for name in filter(layout.is_part_commit, names):
            self.recorded |= _committed_part(lake, name)
        for manifest in self.manifests:
            self.recorded |= manifest.recorded

    def _inventory(self, lake: Lake) -> dict[str, str]:
        newest = self.manifests[-1] if self.manifests else None
        try:
            return read_inventory(lake, newest)
        except (FileNotFoundError, StorageError):  # named with all other objects
            return {}


def _committed_part(lake: Lake, name: str) -> dict[str, str]:
    """The SHA-256 of the objects of a part whose compaction is not committed yet; empty where it is damaged."""
    try:
        return Part.from_value(json.loads(lake.read(name))["part"]).recorded
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


class _Check:
    def __init__(self, lake: Lake, recorded: dict[str, str]) -> None:
        self.lake, self.recorded = lake, recorded

    def examine(self, name: str) -> _Outcome | None:
        """Returns None for an object that was deleted."""
        try:
            data = self.lake.read(name)
        except FileNotFoundError:
            return None
        seal = read_seal(data)
        fault = seal_fault(seal, name, self.recorded.get(name))
        is_sealed = seal.stated is not None or name in self.recorded or layout.is_request(name)
        # A list with a right checksum may still have been made wrong by another program.
        is_list = layout.table_of(name) == layout.ITEM_SETS
        if not fault and (not is_sealed or is_list or layout.is_request(name)):
            fault = self._decode(name, data)
        return _Outcome(len(data), is_sealed, fault)

    def _decode(self, name: str, data: bytes) -> str | None:
        try:
            if name.endswith(".parquet"):
                return examine_rows(self.lake, name, data)
            if name.endswith(".json"):
                json.loads(data)
            elif layout.is_request(name) and (member := zipfile.ZipFile(io.BytesIO(data)).testzip()):
                return f"its member {member} is not as it was written"
        except (ValueError, zipfile.BadZipFile, NotImplementedError, OSError) as error:
            return f"it cannot be read: {one_line(error, 160)}"
        return None


def _is_read(name: str) -> bool:
    """Whether a listed object belongs to the lake. Claims, probes and objects that were set aside do not."""
    if name.startswith(f"{layout.DAMAGED}/"):
        return False
    return layout.is_object(name)
