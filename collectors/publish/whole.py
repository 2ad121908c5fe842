"""Whether the files of a published version are those that its manifest names.

What is made of a version and carries its name, such as a site or a board, is made of these files alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from collectors.lake import layout
from collectors.lake.store import Lake
from schemas.failures import ConfigError

#: Records and answers: in a store that is far away they are not read a second time.
_LARGE = (layout.COMPACTIONS, layout.PACKED, layout.MATRIX)


def fault_of(store: Lake, name: str, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, by its entry in the manifest."""
    if not store.is_plain_file(name):
        return (
            "it is a link, or lies behind one, or is not a file" if store.local and store.is_there(name) else "missing"
        )
    data = store.read(name)
    if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        return f"its {len(data):,} bytes differ from the manifest's ({entry['bytes']:,} bytes)"
    return None


def check_whole(store: Lake, manifest: Mapping[str, Any]) -> None:
    """Raises ConfigError for a version with a file that is not the manifest's."""
    for name, entry in manifest["files"].items():
        if not store.local and name.partition("/")[0] in _LARGE:
            continue
        if fault := fault_of(store, name, entry):
            raise ConfigError(
                f"the version at {store.uri} is not the one that was published: {name}: {fault} (publish.py "
                "verify names all such files)"
            )
