"""Names that hold across runs and machines: digests, cell ids, run ids and shard names.

Owns what goes into an identity and what is left out. A cell's identity leaves out, on purpose: GPU, batch size, node,
engine and harness versions, time and `limit`; they are recorded beside it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Most items in one shard: 100,000 cells must not become a million objects.
MAX_SHARD_ITEMS = 4096

_SHARD = re.compile(
    r"(?:.*/)?(?P<cell>[0-9a-f]{16})-g(?P<generation>[0-9]+)-(?P<first>[0-9]{7})-(?P<last>[0-9]{7})\.parquet", re.DOTALL
)


def digest(value: Any, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of `value` as canonical JSON (sorted keys, no spaces).

    Raises TypeError for a value that JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def cell_identity(model: Mapping[str, Any], prompting: str) -> str:
    """The cell id: 16 hex digits over the model's name, revision, dtype and quantization and the prompting hash.

    `model` needs the keys name, revision, dtype and quantization. The place that the model was read from is left out:
    its revision is a commit or a fingerprint of the files.
    """
    return digest(
        {"model": {k: model[k] for k in ("name", "revision", "dtype", "quantization")}, "prompting": prompting}
    )


def new_run_id() -> str:
    """UTC time to the second and eight random hex digits: sorts by time, unique between machines."""
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def safe_name(name: str) -> str:
    """`name` with every character outside [A-Za-z0-9._-] as '_': usable in any store's key."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


@dataclass(frozen=True, order=True)
class ShardName:
    """A contiguous run of a cell's items, first to last, both included: the unit of work, commit and resume."""

    cell_id: str
    generation: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.cell_id}-g{self.generation}-{self.first:07d}-{self.last:07d}.parquet"

    @classmethod
    def parse(cls, path: str) -> ShardName | None:
        """The shard that `path` names, or None when it names none (schema files, temporary files)."""
        match = _SHARD.fullmatch(path)
        return cls(match["cell"], int(match["generation"]), int(match["first"]), int(match["last"])) if match else None
