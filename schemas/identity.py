"""Names that hold across runs and machines: digests, cell ids, run ids and shard names.

Owns the contents of an identity. A cell's identity leaves out, on purpose, GPU, batch size, node, engine and harness
versions, time and `limit`; they are recorded beside it.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

#: The key of a column: one column for each model as a router could call it.
COLUMN_KEY = ("model", "revision", "dtype", "quantization", "max_length", "overrides", "imported_from", "effort")
#: The key of a block of rows: one block for each task under one prompting.
BLOCK_KEY = ("task", "items_digest", "prompting", "metric", "higher_is_better")

#: Most items in one shard, so that 100,000 cells do not become a million objects.
MAX_SHARD_ITEMS = 4096

#: Highest generation that a shard's name can hold.
MAX_GENERATION = 999_999

#: First letter of the ids of imported cells and promptings, in place of a hex digit: the name alone identifies them.
IMPORTED = "i"

#: The name of a shard, for Python's regular expressions and DuckDB's: cell, generation, first and last item, and of a
#: sparse shard the digest of its list of items.
SHARD_PATTERN = (
    r"(?P<cell>[0-9a-fi][0-9a-f]{15})-g(?P<generation>[0-9]{1,6})-(?P<first>[0-9]{7})-(?P<last>[0-9]{7})"
    r"(?:-s(?P<item_set>[0-9a-f]{16}))?\.parquet"
)
_SHARD = re.compile(rf"(?:.*/)?{SHARD_PATTERN}", re.DOTALL)


def digest(value: Any, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of `value` as canonical JSON (sorted keys, no spaces).

    Raises TypeError for a value that JSON cannot hold.
    """
    return _hashed(_canonical(value), length)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _hashed(text: str, length: int = 16) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


#: The settings that make two models different cells. The source is left out: the revision is a commit or a fingerprint
#: of the files.
MODEL_IDENTITY = ("name", "revision", "dtype", "quantization", "max_length", "overrides")


def cell_identity(model: Mapping[str, Any], prompting: str, settings: Mapping[str, Any] | None = None) -> str:
    """Returns the cell id: 16 hex digits over the model (the keys of MODEL_IDENTITY) and the prompting hash.

    `settings` are those that depend on both, such as the date that the model's chat template writes; most cells have
    none.
    """
    # The text is as in digest(). A plan needs each model once per task, so it is cached.
    text = _model_text(*(model[key] for key in MODEL_IDENTITY))
    more = f',"settings":{_canonical(dict(settings))}' if settings else ""
    return _hashed(f'{{"model":{text},"prompting":{_prompting_text(prompting)}{more}}}')


@functools.lru_cache(maxsize=20_000)
def _model_text(*values: Any) -> str:
    return _canonical(dict(zip(MODEL_IDENTITY, values, strict=True)))


_prompting_text = functools.lru_cache(maxsize=20_000)(_canonical)


def imported_identity(value: Any) -> str:
    """Returns the id of an imported cell or prompting: 'i' and 15 hex digits."""
    return IMPORTED + digest(value, 15)


def is_imported(identity: str) -> bool:
    """Whether a cell id or a prompting is of an imported cell."""
    return identity.startswith(IMPORTED)


def content_hash(question: str, choices: Sequence[str] = (), context: str = "") -> str:
    """Returns a hash of an item's question that is equal for equal items of all sources.

    It is the SHA-256 of context, question and choices as a JSON list, each in Unicode's composed form (NFC), with every
    run of white space as one space and none at its ends. Nothing else is normalised: another wording is another item.
    """
    asked = [_even(context), _even(question), [_even(choice) for choice in choices]]
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def _even(text: str) -> str:
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def new_run_id() -> str:
    """Returns UTC time to the second and eight random hex digits: it sorts by time and is unique across machines."""
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def safe_name(name: str) -> str:
    """Returns `name` as one element of any store's key, at most 100 characters. Two names never give the same.

    Characters outside [A-Za-z0-9._-] become '_', and a name that was changed or cut ends in its digest.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return name if safe == name and len(name) <= 100 else f"{safe[:83]}-{digest(name)}"


@functools.total_ordering
@dataclass(frozen=True, slots=True)
class ShardName:
    """A run of a cell's items, first to last inclusive: the unit of work, commit and resume.

    It has all items from first to last, or as a sparse shard those of its list that are between them.
    """

    cell_id: str
    generation: int
    first: int
    last: int
    #: Digest of the list of items (item_set_of); '' for all.
    item_set: str = ""

    def __str__(self) -> str:
        sparse = f"-s{self.item_set}" if self.item_set else ""
        return f"{self.cell_id}-g{self.generation}-{self.first:07d}-{self.last:07d}{sparse}.parquet"

    def __lt__(self, other: ShardName) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[Any, ...]:
        """As the names sort within a generation: '-' comes before '.', so the sparse one of two first."""
        return self.cell_id, self.generation, self.first, self.last, not self.item_set, self.item_set

    @staticmethod
    def fits(path: str) -> bool:
        """Whether `path` names a shard."""
        return _SHARD.fullmatch(path) is not None

    @classmethod
    def parse(cls, path: str) -> ShardName | None:
        """Returns the shard that `path` names; None for other names (schema files, temporary files)."""
        match = _SHARD.fullmatch(path)
        if not match:
            return None
        cell, generation, first, last, item_set = match.groups()
        return cls(cell, int(generation), int(first), int(last), item_set or "")


def item_set_of(items: Sequence[int]) -> str:
    """The digest of a list of items, in ascending order, each once."""
    return digest(list(items))


def missing_ranges(done: Iterable[ShardName], items: int) -> list[tuple[int, int]]:
    """Returns the item ranges (first, last, inclusive) of 0..items-1 that no shard of `done` covers.

    No shard may be sparse: collectors.lake.item_sets reads their lists.
    """
    gaps, position = [], 0
    for shard in sorted(done, key=lambda s: (s.first, s.last)):
        if shard.first > position:
            gaps.append((position, min(shard.first, items) - 1))
        position = max(position, shard.last + 1)
    if position < items:
        gaps.append((position, items - 1))
    return [(first, last) for first, last in gaps if first <= last]
