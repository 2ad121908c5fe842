"""Writes shards again that a compaction left out, after their retraction was taken back.

Owns which items come back, from where, and under which names. Knows nothing of the choice of what to forget
(collectors.lake.forgetting).

A shard that a compaction left out whole comes back under its own name. Of a shard that was cut the compaction holds the
other items under that name, so its items come back in shards of higher generations, the older ones below the newer.
Those of a sparse shard come back together, by a list of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from collectors.lake.item_sets import ItemSets, ranges
from collectors.lake.reading import connect
from collectors.lake.retractions import Retracted
from collectors.lake.store import Lake
from schemas.identity import ShardName
from schemas.records import ANSWERS, KEY, RECORD
from schemas.versions import with_columns

Ranges = list[tuple[int, int]]

#: Metadata that a shard shares with each piece of it. The compaction keeps the cut shard with its seconds, tokens and
#: requests: they count once.
_ORIGIN = ("run_id", "host", "gpu", "gpu_class", "gpus", "engine", "prefix_caching", "swapped", "code", "served")


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
    ever, sets = ever_committed(lake), ItemSets(lake)
    folded = _folded(lake, newest)
    before = _before(lake, taken)
    of_before = _folded(lake, before) if before else {}
    count = 0
    for name, (shard, facts) in of_before.items():
        if before and name not in folded and shard not in ever.get(shard.cell_id, ()) and taken.touches(shard):
            count += _write_from_part(lake, before, name, shard, facts, sets)
    there = set(lake.names(layout.SHARDS))
    lost: list[ShardName] = []
    for cut, new in _pieces(folded, there - folded.keys(), taken, others, ever, sets):
        name = f"{cut.name.rpartition('/')[0]}/{new}"
        piece = dataclasses.replace(new, generation=cut.shard.generation)
        facts = _of_piece(cut.facts, len(sets.items_of(piece)))
        if (before and cut.name in of_before) or cut.name in there:
            if new.item_set:
                sets.write(new.item_set)
            if before and cut.name in of_before:
                count += _write_from_part(lake, before, name, piece, facts, sets)
            else:
                count += _write_from_shard(lake, name, piece, cut.name, facts, sets)
        else:
            lost += [ShardName(piece.cell_id, piece.generation, *one) for one in sets.ranges_of(piece)]
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
    open_shards: Iterable[str],
    taken: Retracted,
    others: Retracted,
    ever: Mapping[str, Sequence[ShardName]],
    sets: ItemSets,
) -> Iterator[tuple[_Cut, ShardName]]:
    """Yields each piece of a cut shard with its new name.

    What an open shard holds that came back whole, under its own name, stays its own if it goes before the cut one.
    The newest generation comes first: after a kill the next call takes the written pieces for collected again, which
    then costs no more than older answers to the same items.
    """
    cuts: dict[str, list[_Cut]] = defaultdict(list)
    for name, (shard, facts) in sorted(folded.items()):
        left = _overlaps(shard, taken)
        for other in others.over(shard):
            left = _minus(left, (other.first, other.last))
        if left and (not shard.item_set or _listed(shard, left, sets)):
            cuts[shard.cell_id].append(_Cut(name, shard, facts, left))
    whole: dict[str, list[ShardName]] = defaultdict(list)
    for shard in filter(None, map(ShardName.parse, open_shards)):
        whole[shard.cell_id].append(shard)
    for cell_id, of_cell in cuts.items():
        again = [one for one in ever[cell_id] if all(one.generation > old.generation for old in taken.ranges[cell_id])]
        above = max(one.generation for one in ever[cell_id])
        generations = sorted({cut.shard.generation for cut in of_cell})
        written: dict[int, Ranges] = defaultdict(list)
        for cut in sorted(of_cell, key=lambda cut: (-cut.shard.generation, cut.name)):
            generation = above + 1 + generations.index(cut.shard.generation)
            left = ranges(_listed(cut.shard, cut.ranges, sets)) if cut.shard.item_set else cut.ranges
            # Of two shards of one generation the first by name owns an item.
            before = [one for one in whole[cell_id] if _goes_before(one, cut.shard)]
            for held in [*(held for one in (*again, *before) for held in sets.ranges_of(one)), *written[generation]]:
                left = _minus(left, held)
            written[generation] += left
            if cut.shard.item_set and left:
                items = [item for first, last in left for item in range(first, last + 1)]
                yield cut, ShardName(cell_id, generation, items[0], items[-1], sets.add(items))
                continue
            for first, last in left:
                yield cut, ShardName(cell_id, generation, first, last)


def _goes_before(one: ShardName, other: ShardName) -> bool:
    """Whether the first of two shards of a cell owns the items that both hold."""
    return one.generation > other.generation or (one.generation == other.generation and one < other)


def _listed(shard: ShardName, within: Ranges, sets: ItemSets) -> list[int]:
    """The items of a sparse shard in some ranges."""
    return [item for item in sets.items_of(shard) if any(first <= item <= last for first, last in within)]


def _overlaps(shard: ShardName, taken: Retracted) -> Ranges:
    """The items of a shard that some range names, each once."""
    named = sorted((max(one.first, shard.first), min(one.last, shard.last)) for one in taken.over(shard))
    merged: Ranges = []
    for first, last in named:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        elif first <= last:
            merged.append((first, last))
    return merged


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


def _of_piece(facts: str | None, items: int) -> str | None:
    """The metadata of a piece of a shard, as JSON."""
    stated = json.loads(facts) if facts else {}
    kept = {name: stated[name] for name in _ORIGIN if name in stated}
    return json.dumps({**kept, "items": items}) if kept else None


def _write_from_shard(lake: Lake, name: str, piece: ShardName, source: str, facts: str | None, sets: ItemSets) -> bool:
    rows = pq.ParquetFile(lake.open_object(source)).read()
    return _write(lake, name, _rows_of(piece, with_columns(rows, RECORD).cast(RECORD), sets), facts)


def _rows_of(shard: ShardName, rows: pa.Table, sets: ItemSets) -> pa.Table:
    items = rows["item"].to_numpy()
    return rows.filter(pa.array(np.isin(items, np.asarray(sets.items_of(shard)))))


def _write_from_part(
    lake: Lake, manifest: Manifest, name: str, shard: ShardName, facts: str | None, sets: ItemSets
) -> bool:
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
    return _write(lake, name, _rows_of(shard, rows, sets), facts)


def _as_before(lake: Lake, manifest: Manifest, shard: ShardName) -> Holdings:
    """What a reader of an older compaction saw of one cell, before anything was forgotten."""
    holdings = read_holdings(lake)
    listed = {**holdings.listed, layout.SHARDS: [], layout.RETRACTIONS: []}
    rows = read_folded(lake, manifest, columns=["cell_id", "part"])
    parts = {str(row["part"]) for row in rows if row["cell_id"] == shard.cell_id}
    one = dataclasses.replace(manifest, parts=tuple(part for part in manifest.parts if part.records in parts))
    return dataclasses.replace(holdings, listed=listed, manifest=one)
