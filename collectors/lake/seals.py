"""Seals: the SHA-256 of an object's bytes and its name, written into the object itself.

Owns the form of a seal, in the footer of a Parquet object and in a JSON object. Knows nothing of an object's meaning.

Page checksums do not suffice: they leave out the footer, with its statistics and metadata, and DuckDB neither writes
nor checks them. Of 300 single bits flipped 3 passed pyarrow's check, all in the footer; a seal covers every byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEY = "routerlake_seal"
_DIGITS = 64
#: Thrift's compact form writes a string as its type, its length and its characters.
_IN_A_FOOTER = KEY.encode() + b"\x18"
_IN_JSON = b'"seal": "'


@dataclass(frozen=True)
class Seal:
    """The SHA-256 of an object's bytes, and the text of its seal; None without a seal."""

    #: SHA-256 of the bytes, with the digits of the seal as zeros. Without a seal `sha256sum` prints the same.
    sha256: str
    stated: str | None
    #: The name that the object was written under; '' if none was stated.
    name: str | None

    @property
    def is_broken(self) -> bool:
        return self.stated is not None and self.stated != self.sha256


def unsigned(name: str) -> str:
    """Returns a seal's text before its digits are known, for an object of this name."""
    return f"{'0' * _DIGITS}  {name}"


def sealed(data: bytes) -> bytes:
    """Returns `data`, which holds the text of `unsigned`, with the digits filled in."""
    span = _span(data)
    assert span, "it has no place for a seal"
    return b"".join((data[: span[0]], _sha256(data, span[0]).encode(), data[span[0] + _DIGITS :]))


def sealed_json(value: Mapping[str, Any], name: str) -> bytes:
    """Returns a JSON object with its seal. `value` must hold JSON values."""
    return sealed(json.dumps({**value, "seal": unsigned(name)}, indent=1).encode())


def read_seal(data: bytes) -> Seal:
    span = _span(data)
    if span is None:
        return Seal(hashlib.sha256(data).hexdigest(), None, None)
    text = data[span[0] : span[1]]
    stated, name = (part.decode(errors="replace") for part in (text[:_DIGITS], text[_DIGITS + 2 :]))
    return Seal(_sha256(data, span[0]), stated, name)


def broken_seal(data: bytes, name: str, recorded: str | None = None) -> str | None:
    """Returns the reason why these are not the bytes that were written under `name`; None if none can be given.

    `recorded` is the SHA-256 that a compaction holds of an object without a seal. A sealed one may have been collected
    again under its name, with other bytes.
    """
    return seal_fault(read_seal(data), name, recorded)


def seal_fault(seal: Seal, name: str, recorded: str | None = None) -> str | None:
    """Returns the reason of `broken_seal` for bytes whose seal was read."""
    if seal.is_broken:
        return "its bytes are not those that were written: their SHA-256 is another"
    if seal.name and seal.name != name:
        return f"it is a copy of {seal.name}, under another name"
    if seal.stated is None and recorded not in (None, seal.sha256):
        return "its bytes are not those that a compaction recorded: their SHA-256 is another"
    return None


def _sha256(data: bytes, start: int) -> str:
    """SHA-256 with the digits at `start` as zeros. hashlib lets other threads run meanwhile."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(b"0" * _DIGITS)
    digest.update(view[start + _DIGITS :])
    return digest.hexdigest()


def _span(data: bytes) -> tuple[int, int] | None:
    """The place of the seal's text; None without one. In a footer it stands behind all other metadata."""
    if data[-4:] == b"PAR1":
        footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        at = data.rfind(_IN_A_FOOTER, max(0, footer))
        if at < 0:
            return None
        at += len(_IN_A_FOOTER)
        length, shift = 0, 0
        while at < len(data):
            length |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                break
        end = at + length
    else:
        at = data.rfind(_IN_JSON)
        if at < 0:
            return None
        at += len(_IN_JSON)
        end = data.find(b'"', at)
    return (at, end) if at + _DIGITS <= end <= len(data) else None
