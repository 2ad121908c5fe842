"""Writes shards again that a compaction left out, after their retraction was taken back.

Owns which items come back, from where, and under which names. Knows nothing of the choice of what to forget
(collectors.lake.forgetting).

A shard that a compaction left out whole comes back under its own name. Of a shard that was cut the compaction holds the
other items under that name, so its items come back in shards of higher generations, the older ones below the newer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.holdings import (
    Holdings,
    Manifest,
    ever_committed,
    newest_manifest,
    read_folded,
    read_holdings,
    read_manifest,
)
from collectors.lake.reading import connect
from collectors.lake.retractions import Retracted
from collectors.lake.store import Lake
from schemas.identity import ShardName
from schemas.records import ANSWERS, KEY, RECORD

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Restored:
    """The result of `restore`."""

    #: Shards that were written again.
    shards: int
    #: Items of which no object holds anything any more, though a compaction names their shard.
    lost: list[ShardName]


@dataclass(frozen=True)
class _Cut:
    """A shard that a compaction holds without some of its items."""

    #: Its object.
    name: str
    shard: ShardName
    #: The metadata that its run wrote, as JSON.
    facts: str | None
    #: The items to bring back.
    ranges: Ranges


def restore(lake: Lake, taken: Retracted, others: Retracted) -> Restored:
    """Brings back what `taken` names and no one of `others` does, as far as some object still holds it.

    Items that were collected again meanwhile stay as they are. Raises StorageError if the lake cannot be read or
    written. After a kill the next call goes on.
    """
    newest = newest_manifest(lake)
    if newest is None or not taken.ids & set(newest.retracted):
        return Restored(0, [])
    ever, there = ever_committed(lake), set(lake.names(layout.SHARDS))
    folded = _folded(lake, newest)
    before = _before(lake, taken)
    of_before = _folded(lake, before) if before else {}
    count = 0
    for name, (shard, facts) in of_before.items():
        if before and name not in folded and shard not in ever.get(shard.cell_id, ()) and taken.touches(shard):
            count += _write_from_part(lake, before, name, shard, facts)
    lost = []
    for cut, new in _pieces(folded, taken, others, ever):
        name = f"{cut.name.rpartition('/')[0]}/{new}"
        piece = dataclasses.replace(cut.shard, first=new.first, last=new.last)
        if before and cut.name in of_before:
            count += _write_from_part(lake, before, name, piece, cut.facts)
        elif cut.name in there:
            count += _write_from_shard(lake, name, piece, cut)
        else:
            lost.append(piece)
    return Restored(count, lost)


def _before(lake: Lake, taken: Retracted) -> Manifest | None:
    """The newest compaction that did not follow the retractions yet."""
    manifests = [read_manifest(lake, name) for name in layout.manifest_names(lake.names(layout.COMPACTIONS))]
    return next((one for one in reversed(manifests) if not taken.ids & set(one.retracted)), None)


def _folded(lake: Lake, manifest: Manifest) -> dict[str, tuple[ShardName, str | None]]:
    """Object -> its shard and metadata."""
    shards = {}
    for row in read_folded(lake, manifest):
        if shard := ShardName.parse(str(row["file"])):
            shards[str(row["file"])] = (shard, None if row["facts"] is None else str(row["facts"]))
    return shards


def _pieces(
    folded: Mapping[str, tuple[ShardName, str | None]],
    taken: Retracted,
    others: Retracted,
    ever: Mapping[str, Sequence[ShardName]],
) -> Iterator[tuple[_Cut, ShardName]]:
    """Yields each piece of a cut shard with its new name, the older generations first."""
    cuts: dict[str, list[_Cut]] = defaultdict(list)
    for name, (shard, facts) in sorted(folded.items()):
        ranges = [*_overlaps(shard, taken)]
        for other in others.over(shard):
            ranges = _minus(ranges, (other.first, other.last))
        if ranges:
            cuts[shard.cell_id].append(_Cut(name, shard, facts, ranges))
    for cell_id, of_cell in cuts.items():
        again = [one for one in ever[cell_id] if all(one.generation > old.generation for old in taken.ranges[cell_id])]
        above = max(one.generation for one in ever[cell_id])
        generations = sorted({cut.shard.generation for cut in of_cell})
        written: dict[int, Ranges] = defaultdict(list)
        for cut in sorted(of_cell, key=lambda cut: (cut.shard.generation, cut.name)):
            generation = above + 1 + generations.index(cut.shard.generation)
            ranges = cut.ranges
            # Of two shards of one generation the first by name owns an item.
            for first, last in [*((one.first, one.last) for one in again), *written[generation]]:
                ranges = _minus(ranges, (first, last))
            written[generation] += ranges
            for first, last in ranges:
                yield cut, ShardName(cell_id, generation, first, last)


def _overlaps(shard: ShardName, taken: Retracted) -> Ranges:
    """The items of a shard that some range names, each once."""
    ranges: Ranges = []
    for one in taken.over(shard):
        first, last = max(one.first, shard.first), min(one.last, shard.last)
        new = [(first, last)]
        for held in ranges:
            new = _minus(new, held)
        ranges += new
    return sorted(ranges)


def _minus(ranges: Iterable[tuple[int, int]], cut: tuple[int, int]) -> Ranges:
    left: Ranges = []
    for first, last in ranges:
        left += [(first, min(last, cut[0] - 1)), (max(first, cut[1] + 1), last)] if cut[0] <= last else [(first, last)]
    return [(first, last) for first, last in dict.fromkeys(left) if first <= last]


# ---- writing


def _write(lake: Lake, name: str, rows: pa.Table, facts: str | None) -> bool:
    rows = rows.sort_by([("item", "ascending"), ("filter", "ascending"), ("repeat", "ascending")])
    metadata: dict[str, Any] | None = {"shard": json.loads(facts)} if facts else None
    return bool(len(rows)) and lake.create_table(name, rows.replace_schema_metadata(RECORD.metadata), metadata)


def _write_from_shard(lake: Lake, name: str, piece: ShardName, cut: _Cut) -> bool:
    rows = pq.ParquetFile(lake.open_object(cut.name)).read()
    for column in set(RECORD.names) - set(rows.column_names):  # of an older schema version
        rows = rows.append_column(RECORD.field(column), pa.nulls(len(rows), RECORD.field(column).type))
    item = rows["item"].to_numpy()
    rows = rows.select(RECORD.names).cast(RECORD).filter(pa.array((item >= piece.first) & (item <= piece.last)))
    return _write(lake, name, rows, cut.facts)


def _write_from_part(lake: Lake, manifest: Manifest, name: str, shard: ShardName, facts: str | None) -> bool:
    columns = ", ".join(f"old.{column}" for column in RECORD.names if column not in ANSWERS)
    answers = ", ".join(f"responses.{column}" for column in ANSWERS)
    key = [column for column in KEY if column in ("cell_id", "item", "filter", "repeat")]
    where = "cell_id = ? AND generation = ? AND item BETWEEN ? AND ?"
    of_shard = [shard.cell_id, shard.generation, shard.first, shard.last]
    holdings = _as_before(lake, manifest, shard)
    with contextlib.closing(connect(lake, holdings, only=["records", "responses", "superseded"])) as con:
        newest = con.execute(
            f"""
            SELECT {columns}, {answers}
            FROM (FROM records WHERE {where}) AS old LEFT JOIN responses USING ({", ".join(key)})
            """,
            of_shard,
        ).to_arrow_table()
        older = con.execute(f"SELECT * EXCLUDE (generation) FROM superseded WHERE {where}", of_shard).to_arrow_table()
    rows = pa.concat_tables([t.select(RECORD.names).cast(RECORD) for t in (newest, older)]).combine_chunks()
    return _write(lake, name, rows, facts)


def _as_before(lake: Lake, manifest: Manifest, shard: ShardName) -> Holdings:
    """What a reader of an older compaction saw of one cell, before anything was forgotten."""
    holdings = read_holdings(lake)
    listed = {**holdings.listed, layout.SHARDS: [], layout.RETRACTIONS: []}
    rows = read_folded(lake, manifest, columns=["cell_id", "part"])
    parts = {str(row["part"]) for row in rows if row["cell_id"] == shard.cell_id}
    one = dataclasses.replace(manifest, parts=tuple(part for part in manifest.parts if part.records in parts))
    return dataclasses.replace(holdings, listed=listed, manifest=one)
