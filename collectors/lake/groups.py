"""The part of a lake that a group of chunks needs, and that another process gets to write their parts.

Owns what is left out: a lake may have millions of cells and shards, and a group has some. Knows nothing of the writing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from collectors.lake.chunks import Choice, Chunk
from collectors.lake.holdings import Holdings, Manifest
from collectors.lake.layout import SHARDS
from collectors.lake.store import Lake


@dataclass(frozen=True)
class GroupWork:
    """Chunks that are read together, and all that another process needs to write their parts."""

    uri: str
    holdings: Holdings
    choice: Choice
    inventory: Mapping[str, str]
    chunks: list[Chunk]


def work_of(
    lake: Lake, holdings: Holdings, choice: Choice, inventory: Mapping[str, str], group: list[Chunk]
) -> GroupWork:
    shards = [name for chunk in group for name in chunk.shards]
    holdings = dataclasses.replace(
        holdings, listed={**holdings.listed, SHARDS: shards}, manifest=manifest_of(holdings.manifest, group)
    )
    versions = {name: choice.versions[name] for name in shards}
    choice = Choice(cells=cells_of(choice, group), versions=versions, retracted=choice.retracted)
    known = {name: inventory[name] for name in shards if name in inventory}
    return GroupWork(lake.uri, holdings, choice, known, group)


def manifest_of(manifest: Manifest | None, group: list[Chunk]) -> Manifest | None:
    """The compaction before, with no other parts than those that go into the group."""
    parts = {part.records: part for chunk in group for part in chunk.parts}
    return dataclasses.replace(manifest, parts=tuple(parts.values())) if manifest else None


def cells_of(choice: Choice, group: list[Chunk]) -> pa.Table:
    """The rows of the view `cells` of a group."""
    import pyarrow.compute as pc  # 75 ms

    cells = [source.cell_id for chunk in group for source in chunk.sources]
    return choice.cells.filter(pc.field("cell_id").isin(cells))
