"""The versions at a place of publication that a new one may replace.

Owns how they are found: one level below a folder or store, and the newest one on the hub. A folder that holds no sound
manifest is no version, and is passed over.
"""

from __future__ import annotations

import hashlib
import os

from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.lake.store import Lake
from collectors.publish.card import Predecessor
from collectors.publish.manifests import open_published
from schemas.failures import ConfigError, StorageError, UnreachableError


def earlier_versions(to: str) -> list[Predecessor]:
    """The versions that are published at `to`. Raises UnreachableError for a store that is away."""
    return [version for uri in _places(to) if (version := _version(uri))]


def named_version(uri: str) -> Predecessor:
    """The version that the publisher names, whenever it began. Raises ConfigError if there is none at `uri`."""
    return _predecessor(uri, dated=False)


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
    created = manifest["provenance"].get("created")
    return Predecessor(manifest["version"], sha256, str(created or "~") if dated else "")


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
