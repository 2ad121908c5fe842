"""The versions at a place of publication that a new one may replace.

Owns how they are found: one level below a folder or store, and the newest one on the hub; and which one of them a new
version replaces. A folder without a sound manifest is passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.lake.store import Lake
from collectors.publish.card import Predecessor
from collectors.publish.citation import CITATION, ZENODO
from collectors.publish.datasheet import DATASHEET
from collectors.publish.manifests import open_published
from schemas.failures import ConfigError, StorageError, UnreachableError
from schemas.identity import digest

#: Files that describe a version: they name it and the one that it replaces.
_DESCRIPTIONS = ("README.md", "croissant.json", DATASHEET, CITATION, ZENODO)


def earlier_versions(to: str) -> list[Predecessor]:
    """The versions that are published at `to`. Raises UnreachableError for a store that is away."""
    return [version for uri in _places(to) if (version := _version(uri))]


def named_version(uri: str) -> Predecessor:
    """The version that the publisher names, whenever it began. Raises ConfigError if there is none at `uri`."""
    return _predecessor(uri, dated=False)


def replaced_by(
    files: Mapping[str, Mapping[str, Any]], changed: str, earlier: Sequence[Predecessor]
) -> Predecessor | None:
    """The version of `earlier` that a version of these files replaces: the newest whose runs are not newer.

    `changed` is when the lake's newest run began or records were last forgotten, in ISO 8601 as Predecessor.created.
    Of several with the same runs it is one that none of them replaced. A version with the same files is this one,
    published again: it replaces what that one did, so that it has the same bytes.
    """
    content = content_of(files)
    if same := [one for one in earlier if one.content == content]:
        return min(same, key=lambda one: one.version).previous
    before = [one for one in earlier if one.created <= changed]
    replaced = {one.previous.manifest_sha256 for one in before if one.previous}
    heads = [one for one in before if one.manifest_sha256 not in replaced]
    return max(heads, key=lambda one: (one.created, one.version), default=None)


def content_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """A digest of a version's files without their descriptions."""
    return digest({name: entry["sha256"] for name, entry in files.items() if name not in _DESCRIPTIONS})


def beside(uri: str, version: str) -> str:
    """Where another version lies that was published to the place of `uri`: in the next folder, on the hub at a tag."""
    if uri.startswith("hf://"):
        return f"{uri.partition('@')[0].rstrip('/')}@{version}"
    return f"{uri.rstrip('/').rpartition('/')[0]}/{version}"


def _version(uri: str) -> Predecessor | None:
    try:
        return _predecessor(uri)
    except UnreachableError:
        raise
    except (ConfigError, StorageError):
        return None


def _predecessor(uri: str, dated: bool = True) -> Predecessor:
    store, manifest = open_published(uri)
    sha256 = hashlib.sha256(store.read(PUBLISHED_MANIFEST)).hexdigest()
    if not dated:
        return Predecessor(manifest["version"], sha256)
    created = str(manifest["provenance"].get("created") or "~")
    stated = manifest.get("previous")
    previous = Predecessor(stated["version"], stated["manifest_sha256"]) if stated else None
    return Predecessor(manifest["version"], sha256, created, content_of(manifest["files"]), previous)


def _places(to: str) -> list[str]:
    if to.startswith("hf://"):
        return [to]  # the main branch holds the newest version
    store = Lake(to)
    if store.local:
        if not os.path.isdir(store.root):
            return []
        return sorted(entry.path for entry in os.scandir(store.root) if entry.is_dir())
    try:
        below = store.filesystem.ls(store.root, detail=True)
    except FileNotFoundError:
        return []
    return sorted(
        f"{store.uri}/{one['name'].rstrip('/').rpartition('/')[2]}" for one in below if one["type"] == "directory"
    )
