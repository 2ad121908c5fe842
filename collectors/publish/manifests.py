"""Reads the manifest of a published version, which names every other file with its SHA-256 and size.

Owns the form of `manifest.json`, of the names in it, and of an entry of its list of files; sites have such a list, too.
Knows nothing of the files themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from collectors.lake.layout import PUBLISHED_KIND, PUBLISHED_MANIFEST
from collectors.lake.store import Lake
from schemas.failures import ConfigError, one_line
from schemas.versions import check_readable

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def is_version_name(text: str) -> bool:
    """Whether a text can name a version, which has to be valid as a folder name and as a git tag."""
    return bool(_VERSION.fullmatch(text)) and ".." not in text and not text.endswith((".", ".lock"))


def is_plain(name: str) -> bool:
    """Whether a name is a relative path below a folder, spelled in the only way: no '..', '//', '\\' or scheme."""
    parts = name.split("/")
    return name.isprintable() and not set(name) & set("\\:") and not {"", ".", ".."} & set(parts)


def open_published(uri: str) -> tuple[Lake, dict[str, Any]]:
    """Returns a published version and its manifest.

    Raises ConfigError if there is none at `uri`, if its manifest is damaged, or if a newer schema version wrote it.
    """
    store = Lake(uri)
    try:
        return store, parsed(store.read(PUBLISHED_MANIFEST), f"the version at {uri}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"no published version at {uri}: {PUBLISHED_MANIFEST} is missing; give the URI of one"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{PUBLISHED_MANIFEST} at {uri} is not the manifest of a published version: {one_line(error, 200)}"
        ) from error


def parsed(data: bytes, place: str) -> dict[str, Any]:
    """Returns the manifest of `place`. Raises ConfigError for a newer schema version, else an error with the reason.

    The version of the schema comes first: a newer one may have another form.
    """
    manifest = json.loads(data, object_pairs_hook=without_doubles)
    if not isinstance(manifest, dict) or manifest.get("kind") != PUBLISHED_KIND:
        raise ValueError("its kind is another")
    version = manifest["schema_version"]
    if type(version) is not int:
        raise ValueError(f"its schema_version is {version!r}")
    check_readable(place, version)
    name = manifest["version"]
    if not isinstance(name, str) or not is_version_name(name):
        raise ValueError(f"its version {name!r} cannot name one")
    if not all(isinstance(manifest[key], dict) for key in ("files", "counts", "provenance", "description")):
        raise ValueError("files, counts, provenance and description must be objects")
    if not all(is_count(count) for count in manifest["counts"].values()):
        raise ValueError("its counts are not all numbers")
    for file, entry in manifest["files"].items():
        check_entry(file, entry)
        if file == PUBLISHED_MANIFEST:
            raise ValueError(f"it names {file!r}, itself, as a file")
    _check_previous(manifest.get("previous"))
    return manifest


def _check_previous(previous: object) -> None:
    """Readers make a path of the name of the version before, so it is a name alone."""
    if previous is None:
        return
    if not isinstance(previous, dict):
        raise ValueError(f"its previous version is {previous!r:.80}")
    name = previous.get("version")
    if not isinstance(name, str) or not is_version_name(name):
        raise ValueError(f"its previous version {name!r:.80} cannot name one")
    if not is_sha256(previous.get("manifest_sha256")):
        raise ValueError("its previous version has no SHA-256")


def is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def check_entry(name: str, entry: object) -> None:
    """Raises ValueError for a file of a list that has no plain name, size and SHA-256."""
    if not is_plain(name):
        raise ValueError(f"its file {name!r} is not a plain relative name")
    if not isinstance(entry, dict) or not {"sha256", "bytes"} <= entry.keys():
        raise ValueError(f"its file {name} lacks sha256 or bytes")
    if not is_sha256(entry["sha256"]):
        raise ValueError(f"the sha256 of its file {name} is {entry['sha256']!r}")
    if not is_count(entry["bytes"]):
        raise ValueError(f"the bytes of its file {name} are {entry['bytes']!r}")


def without_doubles(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    """For json.loads: raises ValueError for an object that holds a name twice, whose readers could differ."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it holds {next(name for name in names if names.count(name) > 1)!r} twice")
    return value
