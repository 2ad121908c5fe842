"""Verifies a copy of a site: every file as `site.json` names it, and no other.

Owns that check, and that the version beside the pages is the one that they show. Nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.publish.manifests import is_count, is_plain
from collectors.publish.verifying import Proof
from collectors.website.building import KIND, SITE_MANIFEST, VERSION
from schemas.failures import ConfigError, one_line
from schemas.texts import visible


def is_site(uri: str) -> bool:
    """Whether a folder of this machine holds a site."""
    return (Path(uri) / SITE_MANIFEST).is_file()


def verify_site(folder: Path, progress: Callable[[int, int], None] = lambda done, files: None) -> Proof:
    """Compares every file with `site.json`. Raises ConfigError if that is damaged or of another kind."""
    data = (folder / SITE_MANIFEST).read_bytes()
    value = _parsed(data, folder)
    files: dict[str, dict[str, Any]] = value["files"]
    faults = []
    for number, (name, entry) in enumerate(files.items(), 1):
        if fault := _fault_of(folder / name, entry):
            faults.append(f"{name}: {fault}")
        progress(number, len(files))
    faults += _strays(folder, files)
    faults += _of_version(folder / VERSION, value["manifest_sha256"])
    size = sum(entry["bytes"] for entry in files.values())
    return Proof(len(files), size, [visible(fault) for fault in faults], hashlib.sha256(data).hexdigest())


def _parsed(data: bytes, folder: Path) -> dict[str, Any]:
    try:
        value = json.loads(data)
        if value["kind"] != KIND:
            raise ValueError("its kind is another")
        if not all(is_plain(name) and is_count(entry["bytes"]) for name, entry in value["files"].items()):
            raise ValueError("a file has no plain name or no size")
        if not all(isinstance(entry["sha256"], str) for entry in value["files"].values()):
            raise ValueError("a file has no SHA-256")
        value["manifest_sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{SITE_MANIFEST} in {folder} is not a site's: {one_line(error, 200)}") from error
    return dict(value)


def _fault_of(path: Path, entry: dict[str, Any]) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "it is a link or not a file" if os.path.lexists(path) else "missing"
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != entry["sha256"]:
        return f"its {path.stat().st_size:,} bytes differ from those in {SITE_MANIFEST} ({entry['bytes']:,} bytes)"
    return None


def _strays(folder: Path, files: dict[str, Any]) -> Iterator[str]:
    expected = {*files, SITE_MANIFEST}
    for place, folders, names in os.walk(folder):
        at = Path(place).relative_to(folder)
        if at == Path():
            folders[:] = [name for name in folders if name != VERSION]
            names = [name for name in names if name != VERSION]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted([*names, *links]):
            if (stray := (at / name).as_posix()) not in expected:
                yield f"{stray}: not part of the site"


def _of_version(place: Path, manifest_sha256: str | None) -> Iterator[str]:
    """The version beside the pages, where there is one: `publish verify` checks its own files."""
    if not os.path.lexists(place):
        return
    manifest = place / PUBLISHED_MANIFEST
    if not manifest.is_file():
        yield f"{VERSION}: no version is there"
    elif hashlib.sha256(manifest.read_bytes()).hexdigest() != manifest_sha256:
        yield f"{VERSION}: another version than the site's"
