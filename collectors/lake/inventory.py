"""The inventory of a compaction: the SHA-256 of every object that the lake had beside it.

Owns its form, and the check of bytes before they are folded. Objects of schema version 6 have no seal: the inventory
covers them from the first compaction on. It also shows which objects were deleted since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from collectors.lake.holdings import Manifest
from collectors.lake.layout import inventory_name
from collectors.lake.seals import broken_seal, read_seal, seal_fault, sealed_json
from collectors.lake.spread import Spread
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import digest

Result = TypeVar("Result")

#: Objects that another process reads at a time.
BATCH = 1000


@dataclass(frozen=True)
class Batch:
    """Objects that one process reads, and those of their SHA-256 that are recorded."""

    uri: str
    names: Sequence[str]
    recorded: dict[str, str]


def read_inventory(lake: Lake, manifest: Manifest | None) -> dict[str, str]:
    """Returns the SHA-256 of every object of the inventory; empty without one, as in version 6.

    Raises StorageError if it is damaged, FileNotFoundError if it is missing.
    """
    if manifest is None or manifest.inventory is None:
        return {}
    name = manifest.inventory
    data = lake.read(name)
    try:
        if reason := broken_seal(data, name):
            raise ValueError(reason)
        return dict(json.loads(data)["objects"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{name} in {lake.uri} is damaged ({one_line(error)}): put a whole copy in its place, or remove it, and "
            "compact.py makes a new one of the objects that are there"
        ) from error


def inventory(number: int, objects: Mapping[str, str]) -> tuple[str, bytes]:
    """Returns the name and the bytes of the inventory of a compaction."""
    name = inventory_name(number, digest(objects))
    return name, sealed_json({"objects": dict(sorted(objects.items()))}, name)


def checked(lake: Lake, names: Collection[str], recorded: Mapping[str, str]) -> dict[str, str]:
    """Reads objects that are to be folded or listed. Returns the SHA-256 of each.

    `recorded` maps objects without a seal to their SHA-256. Raises StorageError that names all objects whose bytes are
    not those that were written, FileNotFoundError for a deleted one.
    """

    def check(name: str) -> tuple[str, str | None]:
        seal = read_seal(lake.read(name))
        return seal.sha256, seal_fault(seal, name, recorded.get(name))

    outcomes = dict(each_object(lake, names, check))
    if faults := [f"{name}: {fault}" for name, (_, fault) in outcomes.items() if fault]:
        raise StorageError("; ".join(sorted(faults)))
    return {name: sha256 for name, (sha256, _) in outcomes.items()}


def check_objects(lake: Lake, names: Sequence[str], recorded: Mapping[str, str], spread: Spread | None = None) -> None:
    """Reads all objects as `checked` does. `spread` lets other processes read them, a batch each."""
    if spread is None:
        checked(lake, names, recorded)
        return
    for _ in spread(_check_batch, batches(lake, names, recorded)):
        pass


def batches(lake: Lake, names: Sequence[str], recorded: Mapping[str, str]) -> Iterator[Batch]:
    """Yields all names in their order, BATCH at a time."""
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        yield Batch(lake.uri, some, {name: recorded[name] for name in some if name in recorded})


def _check_batch(batch: Batch) -> None:
    checked(Lake(batch.uri), batch.names, batch.recorded)


def each_object(lake: Lake, names: Collection[str], work: Callable[[str], Result]) -> Iterator[tuple[str, Result]]:
    """Yields each name with the result of `work`, in order; several threads wait for the store, and hash."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1) if lake.local else 16) as pool:
        yield from zip(names, pool.map(work, names), strict=True)
