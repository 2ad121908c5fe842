"""Whether a manifest has the fields, and values of the types, of tests/golden/manifest_fields.yaml.

Stands in for the published schemas, which no package of the lock carries. Knows nothing of the meaning of fields.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

TYPES: dict[str, dict[str, str]] = yaml.safe_load(
    (Path(__file__).parent.parent / "golden" / "manifest_fields.yaml").read_text(encoding="utf-8")
)
_PLAIN = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
_QUANTITY = re.compile(r"\d+(\.\d+)?([KMGTPE]i?|m|k)?")


def faults(value: Any, kind: str, place: str = "") -> list[str]:
    """What is wrong with `value`, which should be of type `kind`; each line begins with its place."""
    place = place or kind
    if kind.endswith("[]"):
        if not isinstance(value, list):
            return [f"{place}: no list"]
        return [fault for i, one in enumerate(value) for fault in faults(one, kind[:-2], f"{place}[{i}]")]
    if kind.endswith("{}"):
        if not isinstance(value, dict):
            return [f"{place}: no mapping"]
        return [fault for key, one in value.items() for fault in faults(one, kind[:-2], f"{place}.{key}")]
    if kind.endswith("?"):
        return [] if value is None else faults(value, kind[:-1], place)
    if kind in TYPES:
        return _fields(value, TYPES[kind], place)
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "boolean" or not isinstance(value, bool))
    elif kind == "quantity":
        fits = isinstance(value, (int, str)) and _QUANTITY.fullmatch(str(value)) is not None
    else:
        fits = value in kind.removeprefix("=").split("|")
    return [] if fits else [f"{place}: {value!r} is no {kind}"]


def _fields(value: Any, fields: dict[str, str], place: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{place}: no mapping"]
    known = {name.rstrip("!"): kind for name, kind in fields.items()}
    found = [f"{place}.{name}: unknown" for name in value if name not in known]
    found += [f"{place}.{name[:-1]}: missing" for name in fields if name.endswith("!") and name[:-1] not in value]
    return found + [
        fault for name, one in value.items() if name in known for fault in faults(one, known[name], f"{place}.{name}")
    ]
