"""A model that broke engines stays out until the shard under which it did is in the lake."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from collectors.engines import ModelRef
from collectors.lake.item_sets import ItemSets
from collectors.lake.store import Lake
from collectors.runs.quarantine import mark, model_digest, quarantined
from schemas.identity import ShardName

MODEL = ModelRef("org/a", "org/a", "0" * 40, None, "bfloat16")
#: No shard here is sparse.
SETS = ItemSets(Lake("nowhere"))
SHARD = ShardName("0123456789abcdef", 1, 64, 127)


def test_marked_model_is_quarantined_by_name_alone() -> None:
    names = ["failures/schema.parquet", "failures/20260101T000000-00000000-11111111.parquet", mark(MODEL, SHARD, {})]
    assert quarantined(names, {}, SETS.holds) == {model_digest(MODEL)}


@pytest.mark.parametrize(
    ("first", "last", "generation", "free"),
    [(0, 63, 1, False), (0, 200, 1, True), (64, 64, 2, True), (64, 127, 0, False), (65, 127, 1, False)],
)
def test_marked_model_is_free_once_the_shards_first_item_is_committed(
    first: int, last: int, generation: int, free: bool
) -> None:
    held = {SHARD.cell_id: [ShardName(SHARD.cell_id, generation, first, last)]}
    assert (quarantined([mark(MODEL, SHARD, {})], held, SETS.holds) == set()) is free


@pytest.mark.parametrize("change", [{"revision": "1" * 40}, {"dtype": "float32"}, {"max_length": 5}, {"name": "b"}])
def test_another_revision_dtype_or_length_is_another_model(change: dict[str, Any]) -> None:
    assert model_digest(dataclasses.replace(MODEL, **change)) != model_digest(MODEL)
    moved = dataclasses.replace(MODEL, path="/elsewhere", options={"max_num_seqs": 1})
    assert model_digest(moved) == model_digest(MODEL)
