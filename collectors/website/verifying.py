"""Verifies a copy of a site: every file as `site.json` names it, and no other.

Owns that check, and whether the version beside the pages is the one that they show. Nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from collectors.file_digests import sha256_of
from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.publish.manifests import check_entry, is_sha256, open_published, without_doubles
from collectors.publish.verifying import Proof
from collectors.website.building import KIND, OF_LAKE, SITE_MANIFEST, VERSION
from schemas.failures import ConfigError, one_line
from schemas.texts import visible


def is_site(uri: str) -> bool:
    """Whether a folder of this machine holds a site."""
    return os.path.isfile(Path(uri) / SITE_MANIFEST)  # Path.is_file raises for a name that is too long


def first_stray(folder: Path) -> str | None:
    """A line for the first file below a site that is not the site's own: deleting the site would delete it, too.

    The link to a version is the site's own, a folder of that name is not. Raises ConfigError if `folder` is no site,
    and OSError.
    """
    files = _parsed((folder / SITE_MANIFEST).read_bytes(), folder)["files"]
    if (folder / SITE_MANIFEST).is_symlink():
        return f"{SITE_MANIFEST}: it is a link"
    if os.path.lexists(folder / VERSION) and not (folder / VERSION).is_symlink():
        return f"{VERSION}: not a link of the site"
    return next((visible(stray) for stray in _strays(folder, files)), None)


def verify_site(folder: Path, progress: Callable[[int, int], None] = lambda done, files: None) -> Proof:
    """Compares every file with `site.json`. Raises ConfigError if that is damaged or of another kind."""
    data = (folder / SITE_MANIFEST).read_bytes()
    value = _parsed(data, folder)
    files: dict[str, dict[str, Any]] = value["files"]
    faults = [f"{SITE_MANIFEST}: it is a link"] if (folder / SITE_MANIFEST).is_symlink() else []
    for number, (name, entry) in enumerate(files.items(), 1):
        if fault := _fault_of(folder / name, entry):
            faults.append(f"{name}: {fault}")
        progress(number, len(files))
    faults += _strays(folder, files)
    faults += _of_pages(folder, value)
    faults += _of_version(folder / VERSION, value["manifest_sha256"])
    size = sum(entry["bytes"] for entry in files.values())
    return Proof(len(files), size, [visible(fault) for fault in faults], hashlib.sha256(data).hexdigest())


def _parsed(data: bytes, folder: Path) -> dict[str, Any]:
    try:
        value = json.loads(data, object_pairs_hook=without_doubles)
        if value["kind"] != KIND:
            raise ValueError("its kind is another")
        for name, entry in value["files"].items():
            check_entry(name, entry)
        if value["manifest_sha256"] is not None and not is_sha256(value["manifest_sha256"]):
            raise ValueError("its manifest_sha256 is no SHA-256")
        if not isinstance(value["version"], str):
            raise ValueError("its version is not a text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{SITE_MANIFEST} in {folder} is not a site's: {one_line(error, 200)}") from error
    return dict(value)


def _of_pages(folder: Path, value: dict[str, Any]) -> Iterator[str]:
    """The start page names the version, too: the two have to agree."""
    if "index.html" not in value["files"]:
        yield f"{SITE_MANIFEST}: it names no index.html"
        return
    if _fault_of(folder / "index.html", value["files"]["index.html"]):
        return
    page = (folder / "index.html").read_text(encoding="utf-8", errors="replace")
    digest = value["manifest_sha256"]
    has_name = f'<span class="version">{value["version"]}</span>' in page
    if not has_name or (digest is None) != (value["version"] == OF_LAKE):
        yield f"{SITE_MANIFEST}: its version is not the one of the pages"
    if digest and f"<code>{digest}</code>" not in page:
        yield f"{SITE_MANIFEST}: its manifest_sha256 is not the one of the pages"


def _fault_of(path: Path, entry: dict[str, Any]) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "it is a link or not a file" if os.path.lexists(path) else "missing"
    if sha256_of(path) != entry["sha256"] or path.stat().st_size != entry["bytes"]:
        return f"its {path.stat().st_size:,} bytes differ from those in {SITE_MANIFEST} ({entry['bytes']:,} bytes)"
    return None


def _strays(folder: Path, files: dict[str, Any]) -> Iterator[str]:
    expected = {*files, SITE_MANIFEST}
    parents = {parent.as_posix() for name in files for parent in Path(name).parents}
    for place, folders, names in os.walk(folder):
        at = Path(place).relative_to(folder)
        if at == Path():
            folders[:] = [name for name in folders if name != VERSION]
            names = [name for name in names if name != VERSION]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted([*names, *links]):
            if (stray := (at / name).as_posix()) not in expected:
                yield f"{stray}: not part of the site"
        if at.as_posix() not in parents and not names and not folders:
            yield f"{at.as_posix()}: an empty folder that is not part of the site"


def _of_version(place: Path, manifest_sha256: str | None) -> Iterator[str]:
    """The version beside the pages, where there is one: `publish verify` checks its own files."""
    if not os.path.lexists(place):
        return
    if not (place / PUBLISHED_MANIFEST).is_file():
        yield f"{VERSION}: no version is there"
    elif sha256_of(place / PUBLISHED_MANIFEST) != manifest_sha256:
        yield f"{VERSION}: another version than the site's"


def shown_version(folder: Path) -> tuple[Path, list[str]] | None:
    """The folder of the version beside the pages and the names of its files, if it is the one that they show.

    A site from elsewhere may hold a link that leads anywhere.
    """
    place = Path(os.path.realpath(folder / VERSION))
    try:
        wanted = _parsed((folder / SITE_MANIFEST).read_bytes(), folder)["manifest_sha256"]
        if any(_of_version(place, wanted)) or wanted is None:
            return None
        _, manifest = open_published(str(place))
    except (OSError, ConfigError):
        return None
    return place, [PUBLISHED_MANIFEST, *manifest["files"]]
