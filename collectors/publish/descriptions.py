"""All descriptions of a version, for people and machines, and whether a copy's are those that its manifest gives.

Owns the list of them. card.py, datasheet.py, croissant.py and citation.py write one or two each.
"""

from __future__ import annotations

from typing import Any

from collectors.lake import layout
from collectors.lake.store import Lake
from collectors.matrix.described import head
from collectors.matrix.pool_files import PoolFile, parse_pool
from collectors.matrix.pools import load_pools
from collectors.publish.card import Contents, Description, KeptPool, Predecessor, readme
from collectors.publish.citation import CITATION, ZENODO, citation, zenodo
from collectors.publish.croissant import croissant
from collectors.publish.datasheet import DATASHEET, datasheet
from schemas.failures import ConfigError, one_line

_WRITERS = {
    "croissant.json": croissant,
    "README.md": readme,
    DATASHEET: datasheet,
    CITATION: citation,
    ZENODO: zenodo,
}

#: Counts in the order of the descriptions, which no manifest keeps. Others come last.
_COUNTS = ("records", "responses", "superseded", "cells", "models", "tasks", "items", "runs", "failures")


def descriptions(description: Description, contents: Contents) -> dict[str, bytes]:
    """Name -> content of each description. `contents` has the version's other files."""
    return {name: write(description, contents) for name, write in _WRITERS.items()}


def kept_pool(version: Lake, pool: PoolFile) -> KeptPool:
    """What a version's descriptions say of a pool that it keeps. Raises ConfigError for one without a candidate."""
    try:
        lines = head(load_pools(version, choice=pool.choice, include=pool.include))
    except ConfigError as error:
        raise ConfigError(f"pool {pool.name}: {one_line(error)}") from error
    return KeptPool(pool.name, pool.digest, tuple(lines))


def descriptions_of_others(store: Lake, manifest: dict[str, Any]) -> list[str]:
    """Returns a line if this release would describe the version otherwise. All its files must be whole.

    Another release described it, or somebody changed what it says of itself: only the manifest's SHA-256 tells.
    """
    files = {name: entry for name, entry in manifest["files"].items() if name not in _WRITERS}
    stated, previous = manifest["description"], manifest.get("previous")
    try:
        description = Description(**{**stated, "creators": tuple(stated.get("creators") or ())})
        names = [layout.pool_name(name) for name in layout.pools_of(files)]
        pools = [kept_pool(store, parse_pool(store.read(name), name)) for name in names]
        before = Predecessor(previous["version"], previous["manifest_sha256"]) if previous else None
        provenance, version = manifest["provenance"], manifest["version"]
        counts = {name: manifest["counts"][name] for name in _COUNTS} | {
            name: manifest["counts"][name] for name in sorted(manifest["counts"], reverse=True)
        }
        contents = Contents(version, counts, provenance, files, tuple(pools), before)
        own = descriptions(description, contents)
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        return [f"manifest.json: its descriptions cannot be written anew: {one_line(error, 160)}"]
    unlike = [name for name in own if name in manifest["files"] and store.read(name) != own[name]]
    if not unlike:
        return []
    return [
        f"{min(unlike)}: {len(unlike)} of the descriptions are not as this release writes them: another release wrote "
        "them, or somebody changed them"
    ]
