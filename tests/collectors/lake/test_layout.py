"""Names of shards and the ranges of items that they cover."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import MAX_GENERATION, ShardName, missing_ranges, safe_name
from tests.helpers.opened_lakes import CELL, shard

shard_names = st.builds(
    lambda cell, generation, first, length: ShardName(cell, generation, first, first + length),
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.integers(0, MAX_GENERATION),
    st.integers(0, 9_000_000),
    st.integers(0, 4095),
)


@given(shard_names, st.sampled_from(["", "shards/task=x/", "/a b/ü\n/", "s3://b/"]))
def test_shard_name_any_comes_back_from_its_path(name: ShardName, folder: str) -> None:
    assert ShardName.parse(f"{folder}{name}") == name
    assert safe_name(str(name)) == str(name)


@given(shard_names, st.text(min_size=1, max_size=3).filter(lambda text: "/" not in text))
def test_shard_name_with_anything_more_is_no_shard(name: ShardName, more: str) -> None:
    assert ShardName.parse(f"{name}{more}") is None
    assert ShardName.parse(f"{more}{name}") is None


@given(st.lists(shard_names, max_size=8))
def test_shard_name_of_one_cell_and_generation_sorts_as_its_text(names: list[ShardName]) -> None:
    names = [ShardName(CELL, 3, name.first, name.last) for name in names]
    assert sorted(names) == sorted(names, key=str)


ranges = st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 15))


@given(st.lists(ranges, max_size=10), st.integers(0, 45))
def test_missing_ranges_any_shards_equal_the_items_one_by_one(done: list[tuple[int, int, int]], items: int) -> None:
    shards = [shard(first, first + length, g) for g, first, length in done]
    found = missing_ranges(iter(shards), items)
    covered = {i for s in shards for i in range(s.first, s.last + 1)}
    assert [i for first, last in found for i in range(first, last + 1)] == [i for i in range(items) if i not in covered]
    # each gap is one range: nothing is cut that belongs together
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(found))
