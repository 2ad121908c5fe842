"""Documents and settings as JSON that is the same in every process.

Owns the hashed form of objects that JSON lacks. lm-eval prints such objects, and many of them by their address.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import lm_eval.utils


class NoContentError(ValueError):
    """An object has no content to hash."""


def doc_hash(doc: Any) -> str:
    """lm-eval's own doc_hash: SHA-256 of the document as indented JSON (lm_eval.evaluator.evaluate).

    Raises NoContentError for an object that lm-eval would hash by its address.
    """
    return hash_and_size(doc)[0]


def hash_and_size(doc: Any) -> tuple[str, int]:
    """doc_hash, and the number of bytes that it hashed. Raises as doc_hash does."""
    text = json.dumps(doc, indent=2, default=_as_json, ensure_ascii=False)
    data = text.encode()
    return hashlib.sha256(data).hexdigest(), len(data)


#: How Python prints an object by its address, which is another one in each process.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def _as_json(value: Any) -> Any:
    """An object that JSON lacks as lm-eval would print it; pictures, and sets in their order, by their content."""
    if isinstance(value, set | frozenset) and all(isinstance(part, str) for part in value):
        return sorted(value)  # Python's order differs between processes
    if hasattr(value, "tobytes") and hasattr(value, "mode") and hasattr(value, "size"):  # Pillow's, if it is installed
        whole = value.convert("RGBA") if value.mode == "P" else value  # numbers alone do not show a palette's colours
        pixels = hashlib.sha256(whole.tobytes()).hexdigest()
        return {"picture": pixels, "mode": value.mode, "size": list(value.size)}
    printed = lm_eval.utils.handle_non_serializable(value)
    if isinstance(printed, str) and _ADDRESS.search(printed):
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise NoContentError(f"its documents hold objects of {name}, which cannot be told apart by their content")
    return printed


def plain(value: Any) -> Any:
    """Returns `value` as JSON types: functions as their source files, other objects as lm-eval would print them."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in (sorted(value, key=str) if isinstance(value, set) else value)]
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        try:  # the whole file, since a function also depends on the helpers and constants beside it
            return [name, Path(inspect.getfile(value)).read_text(encoding="utf-8")]
        except (TypeError, OSError):
            return name
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return _as_json(value)
