"""Verifies a copy of a published version: a closed set of files, each as it was written.

Owns the check of each file against the manifest, and the search for files that are not part of the version.
collectors.publish.closed checks that the files fit together. Nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from collectors.lake.layout import PUBLISHED_MANIFEST, PUBLISHING
from collectors.lake.store import Lake
from collectors.publish.closed import set_faults
from collectors.publish.descriptions import descriptions_of_others
from collectors.publish.manifests import open_published
from collectors.publish.packed_form import packed_of_others
from collectors.publish.provenance import provenance_faults
from collectors.publish.published_sql import database_faults, views_of_others
from collectors.publish.whole import fault_of

#: The tag at the end of a version's URI on the hub.
_TAG = re.compile(r"hf://datasets/[^/@]+/[^/@]+@([^/]+)/?")


@dataclass(frozen=True)
class Proof:
    """The result of verifying a copy."""

    files: int
    bytes: int
    #: A line for each file that is missing, has other content, is not in the manifest, or does not fit the others.
    faults: list[str]
    #: Digest of the manifest, which holds all other digests. Compare it with the publisher's.
    manifest_sha256: str
    #: A line for what only that digest can tell from the publisher's own.
    notes: tuple[str, ...] = ()


def verify(uri: str, progress: Callable[[int, int], None] = lambda done, files: None) -> Proof:
    """Compares every file with the manifest at `uri`, reports other files, and checks that all fit together.

    `progress` gets the numbers of read files and of all files. Raises ConfigError without a version at `uri`, and for
    a file of a newer schema version.
    """
    store, manifest = open_published(uri)
    files: dict[str, dict[str, Any]] = manifest["files"]
    faults, sound = [], set[str]()
    for number, (name, entry) in enumerate(files.items()):
        if fault := fault_of(store, name, entry):
            faults.append(f"{name}: {fault}")
        else:
            sound.add(name)
        progress(number + 1, len(files))
    sha256 = hashlib.sha256(store.read(PUBLISHED_MANIFEST)).hexdigest()
    faults += _strays(store, files, sha256)
    faults += _misnamed(store, uri, manifest["version"])
    faults += set_faults(store, manifest, sound)
    if not faults:
        faults += [*provenance_faults(store, manifest), *database_faults(store, manifest)]
    notes: tuple[str, ...] = ()
    if not faults:
        notes = (*packed_of_others(store), *views_of_others(store), *descriptions_of_others(store, manifest))
    return Proof(len(files), sum(entry["bytes"] for entry in files.values()), faults, sha256, notes)


def claim(manifest_sha256: str) -> bytes:
    """Returns the content of `claim.json` while a version with this manifest is being published."""
    return json.dumps({"sha256 of the manifest": manifest_sha256}).encode()


def _strays(store: Lake, files: dict[str, Any], sha256: str) -> Iterator[str]:
    expected = {*files, PUBLISHED_MANIFEST}
    if store.uri.startswith("hf://"):
        expected.add(".gitattributes")
    if not store.is_plain_file(PUBLISHED_MANIFEST):
        yield f"{PUBLISHED_MANIFEST}: a link, or not a file"
    for name in store.every_name():
        if name in expected:
            continue
        # Whoever publishes is killed between the manifest and the removal of the claim.
        if name == PUBLISHING and store.is_plain_file(name) and store.read(name) == claim(sha256):
            continue
        yield f"{name}: not part of the version"
    yield from (f"{name}/: an empty folder is not part of the version" for name in store.empty_folders())


def _misnamed(store: Lake, uri: str, version: str) -> Iterator[str]:
    if uri.startswith("hf://"):
        match = _TAG.fullmatch(uri)
        name = match[1] if match else version  # a branch has no version's name
    else:
        name = os.path.realpath(store.root).rpartition("/")[2] if store.local else store.root.rpartition("/")[2]
    if name != version:
        yield f"{PUBLISHED_MANIFEST}: it is of version {version}, and its place is named {name}"
