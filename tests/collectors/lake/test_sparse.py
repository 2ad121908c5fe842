"""Sparse shards: each item of a cell is read once, from the shard that owns it, however the lake was kept."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake import layout
from collectors.lake.compaction import compact
from collectors.lake.forgetting import Wish, plan_forgetting, take_back, write_retraction
from collectors.lake.item_sets import ItemSets, ranges
from collectors.lake.pruning import prune
from collectors.lake.reading import ask, connect
from collectors.lake.store import Lake
from collectors.lake.verifying import verify
from collectors.publish.publishing import differences
from schemas.failures import StorageError
from schemas.identity import ShardName, item_set_of
from schemas.records import ITEM_SET, RETRACTION
from tests.helpers.filled_lakes import published
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.thorough import long_only, often

ITEMS = 24
CELL = BuiltCell()


class Owners:
    """What a reader should see, worked out item by item."""

    def __init__(self) -> None:
        self.shards: list[tuple[ShardName, list[int], float]] = []
        self.retracted: list[tuple[int, int, int]] = []

    def expected(self) -> dict[int, float]:
        """Item -> score, by the rules of the lake: the highest generation, in it the first shard by name."""
        best: dict[int, tuple[tuple[int, str], float]] = {}
        for name, items, score in self.shards:
            for item in items:
                if any(name.generation <= g and a <= item <= b for g, a, b in self.retracted):
                    continue
                key = (-name.generation, str(name))
                if item not in best or key < best[item][0]:
                    best[item] = (key, score)
        return {item: score for item, (_, score) in sorted(best.items())}

    def replaced(self) -> int:
        """How many rows count, but for another shard that has their item."""
        there = [
            item
            for name, items, _ in self.shards
            for item in items
            if not any(name.generation <= g and a <= item <= b for g, a, b in self.retracted)
        ]
        return len(there) - len(set(there))


def read(builder: LakeBuilder) -> tuple[dict[int, float], int]:
    with contextlib.closing(connect(builder.lake, only=["records", "superseded"])) as con:
        found = rows(con, "SELECT item, score FROM records ORDER BY item")
        assert len(dict(found)) == len(found), "an item came twice"
        [(replaced,)] = rows(con, "SELECT count(*) FROM superseded")
    return dict(found), replaced


def add(builder: LakeBuilder, owners: Owners, items: Sequence[int], generation: int, listed: list[int] | None) -> None:
    score = len(owners.shards) + 1.0
    with contextlib.suppress(AssertionError):  # the same name again: the first commit stands
        name = builder.shard(
            CELL, [CELL.record(item, score=score) for item in items], generation=generation, listed=listed
        )
        owners.shards.append((name, list(items), score))


def add_any(builder: LakeBuilder, owners: Owners, dice: random.Random) -> None:
    generation = dice.choice([0, 0, 0, 1])
    first = dice.randrange(ITEMS)
    last = min(ITEMS - 1, first + dice.randrange(12))
    if dice.random() < 0.4:
        add(builder, owners, range(first, last + 1), generation, None)
        return
    listed = sorted(dice.sample(range(ITEMS), dice.randint(1, 14)))
    # A list is shared by shards with other bounds in it.
    begin = dice.randrange(len(listed))
    add(builder, owners, listed[begin : begin + dice.randint(1, 6)], generation, listed)


def retract(builder: LakeBuilder, owners: Owners, generation: int, first: int, last: int) -> None:
    name = f"20260101T0000{len(owners.retracted):02d}-00000000"
    row = {
        **dict.fromkeys(RETRACTION.names),
        "retraction_id": name,
        "retracted_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "reason": "test",
        "condition": "test",
        "cell_id": CELL.cell_id,
        "model": CELL.model,
        "task": CELL.task,
        "generation": generation,
        "first_item": first,
        "last_item": last,
    }
    builder.lake.create_table(layout.retraction_name(name), pa.Table.from_pylist([row], RETRACTION))
    owners.retracted.append((generation, first, last))


@pytest.mark.parametrize("seed", range(often(60, 3)))
def test_records_of_sparse_and_whole_shards_are_those_of_the_owners_whatever_was_folded(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    builder, owners = LakeBuilder(tmp_path / "lake"), Owners()
    builder.run(CELL, planned=ITEMS)
    for _ in range(3):
        for _ in range(dice.randint(1, 5)):
            add_any(builder, owners, dice)
        if dice.random() < 0.3:
            first = dice.randrange(ITEMS)
            retract(builder, owners, dice.choice([0, 1]), first, min(ITEMS - 1, first + dice.randrange(4)))
        assert read(builder) == (owners.expected(), owners.replaced())
        if dice.random() < 0.7:
            compact(builder.lake)
            assert read(builder) == (owners.expected(), owners.replaced())
            if dice.random() < 0.5:
                prune(builder.lake, dt.timedelta())
                assert read(builder) == (owners.expected(), owners.replaced())


def test_missing_items_are_those_that_no_list_and_no_range_holds(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    listed = [1, 4, 5, 9]
    sets = ItemSets(builder.lake)
    name = builder.shard(CELL, [CELL.record(item, score=1.0) for item in listed], listed=listed)
    assert name.item_set == item_set_of(listed)
    assert str(name).endswith(f"-s{name.item_set}.parquet")
    assert ShardName.parse(f"shards/task=quiz/{name}") == name
    assert sets.missing([name, ShardName(CELL.cell_id, 0, 6, 7)], 11) == [(0, 0), (2, 3), (8, 8), (10, 10)]
    assert sets.ranges_of(ShardName(CELL.cell_id, 0, 2, 8, name.item_set)) == [(4, 5)]
    assert [item for item in range(11) if sets.holds(name, item)] == listed
    assert ranges([]) == []


def sampled_and_completed(builder: LakeBuilder) -> tuple[str, str, list[int], list[int]]:
    """A cell of which one run asked a list, and another the rest."""
    listed = [2, 3, 7, 11, 12]
    rest = [item for item in range(ITEMS) if item not in listed]
    first = builder.run(CELL, planned=ITEMS, sampled_items=len(listed), item_set=builder.item_set(listed))
    facts = {"run_id": first, "items": len(listed)}
    builder.shard(CELL, [CELL.record(i, score=1.0) for i in listed], listed=listed, metadata=facts)
    second = builder.run(CELL, planned=ITEMS)
    facts = {"run_id": second, "items": len(rest)}
    builder.shard(CELL, [CELL.record(i, score=0.0) for i in rest], listed=rest, metadata=facts)
    return first, second, listed, rest


def test_coverage_of_a_sampled_cell_left_out_items_are_not_missing(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    listed = [2, 3, 7]
    builder.run(CELL, planned=ITEMS, sampled_items=3, item_set=builder.item_set(listed))
    builder.shard(CELL, [CELL.record(i, score=1.0) for i in listed[:2]], listed=listed)
    counts = "SELECT planned, asked, left_out, attempted, missing FROM coverage"
    assert builder.rows(counts) == [(ITEMS, 3, ITEMS - 3, 2, 1)]
    assert builder.rows("SELECT rank FROM leaderboard") == [(None,)]
    builder.run(CELL, planned=ITEMS)
    assert builder.rows(counts) == [(ITEMS, ITEMS, 0, 2, ITEMS - 2)]


def test_coverage_of_runs_with_other_lists_asked_the_items_of_all(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    killed, finished = [0, 1, 2, 3], [3, 5, 6]
    for listed, done in ((killed, [0]), (finished, finished)):
        builder.run(CELL, planned=ITEMS, sampled_items=len(listed), item_set=builder.item_set(listed))
        builder.shard(CELL, [CELL.record(i, score=1.0) for i in done], listed=listed)
    counts = "SELECT planned, asked, left_out, attempted, missing FROM coverage"
    assert builder.rows(counts) == [(ITEMS, 6, ITEMS - 6, 4, 2)]


def test_coverage_of_a_limit_and_a_list_asked_both(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    listed = [1, 4, 7]
    builder.run(CELL, planned=5)
    builder.run(CELL, planned=ITEMS, sampled_items=3, item_set=builder.item_set(listed))
    builder.shard(CELL, [CELL.record(i, score=1.0) for i in range(5)])
    assert builder.rows("SELECT asked, left_out, missing FROM coverage") == [(6, ITEMS - 6, 1)]


@pytest.mark.parametrize("folded", [False, True])
def test_forgetting_a_run_of_a_sampled_cell_leaves_the_items_of_the_other(tmp_path: Path, folded: bool) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    first, _, listed, rest = sampled_and_completed(builder)
    lake = builder.lake
    if folded:
        compact(lake)
    planned = plan_forgetting(lake, Wish(run_id=first))
    assert planned.records == len(listed)
    retraction = write_retraction(lake, planned, "test")
    assert read(builder)[0] == dict.fromkeys(rest, 0.0)
    compact(lake)
    assert read(builder)[0] == dict.fromkeys(rest, 0.0)
    assert take_back(lake, retraction, "test").lost == 0
    everything = dict(sorted({**dict.fromkeys(rest, 0.0), **dict.fromkeys(listed, 1.0)}.items()))
    assert read(builder)[0] == everything
    compact(lake)
    assert read(builder)[0] == everything


@pytest.mark.parametrize("pruned", [False, True])
def test_taking_back_some_items_of_a_sparse_shard_they_come_back_in_one_shard(tmp_path: Path, pruned: bool) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    sampled_and_completed(builder)
    lake = builder.lake
    everything = read(builder)[0]
    compact(lake)
    retraction = write_retraction(lake, plan_forgetting(lake, Wish(items=((3, 11),))), "test")
    kept = {item: score for item, score in everything.items() if not 3 <= item <= 11}
    assert read(builder)[0] == kept
    compact(lake)
    if pruned:
        prune(lake, dt.timedelta())
    before = set(lake.names(layout.SHARDS))
    back = take_back(lake, retraction, "test")
    if pruned:  # the compaction before is gone with its rows
        assert (back.restored, back.lost_items) == (0, 9)
        assert read(builder)[0] == kept
        return
    assert read(builder)[0] == everything
    assert len(set(lake.names(layout.SHARDS)) - before) == 2, "one of each list"
    compact(lake)
    assert read(builder)[0] == everything


def test_verification_of_sparse_shards_names_a_lost_list_and_lost_items(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    first, second, listed, rest = sampled_and_completed(builder)
    for run in (first, second):
        builder.end(run, "finished", dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    lake = builder.lake
    builder.items("quiz", "i0", ITEMS)
    assert not verify(lake).missing
    [name] = [name for name in lake.names(layout.SHARDS) if item_set_of(listed) in name]
    lake.remove([name])
    missing = verify(lake).missing
    assert {ShardName.parse(one).first for one in missing} == {2, 7, 11}, "ranges of the items that are gone"
    lake.remove([layout.item_set_name(item_set_of(rest))])
    assert layout.item_set_name(item_set_of(rest)) in verify(lake).missing


@long_only
def test_published_version_of_a_sampled_cell_names_its_shards_and_its_lists(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    listed = [2, 3, 7, 11, 12]
    builder.items("quiz", "i0", ITEMS)
    builder.run(CELL, planned=ITEMS, sampled_items=len(listed), item_set=builder.item_set(listed))
    name = builder.shard(CELL, [CELL.record(i, score=1.0) for i in listed], listed=listed, metadata={"items": 5})
    before, after = (str(tmp_path / name) for name in ("before", "after"))
    published(builder.lake, Path(before))
    rest = [item for item in range(ITEMS) if item not in listed]
    builder.run(CELL, planned=ITEMS)
    builder.shard(CELL, [CELL.record(i, score=0.0) for i in rest], listed=rest, metadata={"items": 19})
    published(builder.lake, Path(after))
    with contextlib.closing(connect(Lake(before), only=["shards", "coverage", "item_sets"])) as con:
        assert rows(con, "SELECT item_set FROM shards") == [(name.item_set,)]
        assert rows(con, "SELECT asked, left_out, missing FROM coverage") == [(5, ITEMS - 5, 0)]
        assert rows(con, "SELECT item FROM item_sets ORDER BY item") == [(item,) for item in listed]
    [change] = differences(before, after)
    assert (change.came, change.went, change.changed) == (len(rest), 0, 0)


def with_lists(folder: Path) -> tuple[LakeBuilder, str]:
    """A cell of two lists that share the items 2 and 4, and the name of the second list."""
    builder, lists = LakeBuilder(folder), ([0, 2, 4, 6], [1, 2, 4, 9])
    builder.run(CELL, planned=ITEMS)
    builder.items("quiz", "i0", ITEMS)
    for score, listed in enumerate(lists):
        builder.shard(CELL, [CELL.record(i, score=float(score)) for i in listed], listed=listed)
    return builder, layout.item_set_name(item_set_of(lists[1]))


def write_list(builder: LakeBuilder, name: str, items: Sequence[int | None]) -> None:
    digest = name.rpartition("/")[2].removesuffix(".parquet")
    columns = {"item_set": pa.array([digest] * len(items)), "item": pa.array(items, pa.int32())}
    pq.write_table(pa.table(columns), Path(builder.lake.root) / name)


def count_records(lake: Lake) -> int:
    return ask(lake, lambda con, _: con.execute("SELECT count(*) FROM records").fetchall()[0][0], only=["records"])


@pytest.mark.parametrize("damage", ["gone", "cut", "null items", "a row twice", "other items"])
def test_a_list_that_is_lost_or_damaged_stops_readers_and_publish_and_stays(tmp_path: Path, damage: str) -> None:
    builder, name = with_lists(tmp_path / "lake")
    lake, file = builder.lake, tmp_path / "lake" / name
    assert count_records(lake) == 6
    rows_of = {"null items": [1, None, 4, 9], "a row twice": [1, 2, 2, 4, 9], "other items": [1, 3, 4, 9]}
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(whole[:60])
    else:
        write_list(builder, name, rows_of[damage])
    for act in (count_records, compact, lambda lake: published(lake, tmp_path / "out")):
        with pytest.raises(StorageError, match=name) as error:
            act(lake)
        assert "\n" not in str(error.value)
    prune(lake, dt.timedelta())
    assert file.exists() == (damage != "gone"), "a list that a shard names is not set aside"
    file.write_bytes(whole)
    assert count_records(lake) == 6


def test_a_lost_list_of_a_folded_shard_stops_readers_once_another_shard_may_share_its_items(tmp_path: Path) -> None:
    builder, name = with_lists(tmp_path / "lake")
    compact(builder.lake)
    prune(builder.lake, dt.timedelta())
    (tmp_path / "lake" / name).unlink()
    assert count_records(builder.lake) == 6, "the compaction has decided"
    builder.shard(CELL, [CELL.record(i, score=1.0) for i in range(1, 10)])
    with pytest.raises(Exception, match=name):
        count_records(builder.lake)


@pytest.mark.parametrize("items", [[5, 3, 1], [1, 1, 2], [-1, 3]])
def test_a_list_with_a_right_digest_that_is_not_ascending_from_zero_is_damaged(
    tmp_path: Path, items: list[int]
) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    digest = item_set_of(items)
    name = layout.item_set_name(digest)
    builder.lake.create_table(name, pa.table({"item_set": [digest] * len(items), "item": items}, schema=ITEM_SET))
    with pytest.raises(StorageError, match="ascending order"):
        ItemSets(builder.lake).of(digest)
    assert list(verify(builder.lake).damaged) == [name]
