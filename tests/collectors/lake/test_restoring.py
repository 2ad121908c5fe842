"""Items of a shard that was cut come back, the right ones and once, whatever else was forgotten or collected since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collectors.lake.compaction import compact
from collectors.lake.forgetting import Wish, plan_forgetting, take_back, write_retraction
from collectors.lake.holdings import committed
from collectors.lake.layout import retraction_name
from collectors.lake.pruning import prune
from collectors.lake.store import Lake
from pipelines.forget import main
from schemas.failures import ConfigError
from schemas.identity import missing_ranges
from tests.helpers.filled_lakes import NOW, query
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

CELL = BuiltCell(model="model-a", items=6)


@pytest.fixture
def builder(tmp_path: Path) -> LakeBuilder:
    made = LakeBuilder(tmp_path / "lake")
    made.run(CELL)
    return made


def add(builder: LakeBuilder, first: int, last: int, score: float, generation: int = 0) -> None:
    rows = [CELL.record(i, score=score, responses=[f"{score} {i}"]) for i in range(first, last + 1)]
    builder.shard(CELL, rows, generation=generation)


def forget(lake: Lake, *items: tuple[int, int]) -> str:
    return write_retraction(lake, plan_forgetting(lake, Wish(models=("model-a",), items=items)), "a test")


def shown(lake: Lake) -> dict[int, float]:
    found = query(lake, "SELECT item, score FROM records ORDER BY ALL")
    assert len(found) == len(dict(found)), "an item is there twice"
    return dict(found)


@pytest.mark.few(1)
@pytest.mark.parametrize("compacted", [False, True])
def test_take_back_one_of_two_overlapping_retractions_shows_nothing_of_the_other(
    builder: LakeBuilder, compacted: bool
) -> None:
    add(builder, 0, 5, 1.0)
    lake = builder.lake
    if compacted:
        compact(lake)
    one, two = forget(lake, (0, 2)), forget(lake, (2, 4))
    compact(lake)
    assert set(shown(lake)) == {5}
    take_back(lake, one, "right")
    assert set(shown(lake)) == {0, 1, 5}
    compact(lake)
    assert set(shown(lake)) == {0, 1, 5}
    take_back(lake, two, "right")
    assert shown(lake) == dict.fromkeys(range(6), 1.0)
    compact(lake)
    prune(lake, NOW)
    assert shown(lake) == dict.fromkeys(range(6), 1.0)


def two_generations(builder: LakeBuilder, *, compacted: bool) -> tuple[Lake, dict[int, float]]:
    """Six items, four of them collected again. Returns what the lake shows of them, too."""
    add(builder, 0, 5, 0.0)
    add(builder, 1, 4, 1.0, generation=1)
    whole = shown(builder.lake)
    if compacted:
        compact(builder.lake)
    return builder.lake, whole


@pytest.mark.few(1)
@pytest.mark.parametrize("compacted", [False, True])
def test_take_back_items_of_two_generations_shows_the_newer(builder: LakeBuilder, compacted: bool) -> None:
    lake, whole = two_generations(builder, compacted=compacted)
    retraction = forget(lake, (1, 2))
    compact(lake)
    assert set(shown(lake)) == {0, 3, 4, 5}
    assert take_back(lake, retraction, "right").lost_items == 0
    assert shown(lake) == whole


@pytest.mark.few(1)
@pytest.mark.parametrize("compacted", [False, True])
def test_take_back_of_a_newer_shard_that_comes_back_whole_shows_it_over_the_older(
    builder: LakeBuilder, compacted: bool
) -> None:
    lake, whole = two_generations(builder, compacted=compacted)
    retraction = forget(lake, (1, 5))
    compact(lake)
    assert take_back(lake, retraction, "right").lost_items == 0
    assert shown(lake) == whole
    compact(lake)
    assert shown(lake) == whole


def test_take_back_killed_between_two_generations_goes_on_and_loses_nothing(
    builder: LakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(builder, 0, 5, 0.0)
    add(builder, 0, 3, 1.0, generation=1)
    lake = builder.lake
    whole = shown(lake)
    retraction = forget(lake, (1, 5))
    compact(lake)
    create, written = Lake.create_table, []

    def killed(self: Lake, name: str, *arguments: Any, **options: Any) -> bool:
        if name.startswith("shards/"):
            written.append(name)
            if len(written) > 1:
                raise KeyboardInterrupt
        return create(self, name, *arguments, **options)

    monkeypatch.setattr(Lake, "create_table", killed)
    with pytest.raises(KeyboardInterrupt):
        take_back(lake, retraction, "right")
    monkeypatch.setattr(Lake, "create_table", create)
    assert take_back(lake, retraction, "right").lost_items == 0
    assert shown(lake) == whole


def test_take_back_of_pieces_counts_the_seconds_of_their_shard_once(builder: LakeBuilder) -> None:
    facts = {"run_id": "r", "host": "h", "engine_seconds": 60.0, "requests": 6}
    builder.shard(CELL, [CELL.record(i, score=1.0) for i in range(6)], metadata=facts)
    lake = builder.lake
    sums = "SELECT sum(engine_seconds), sum(requests), count(DISTINCT run_id) FROM shards"
    before = query(lake, sums)
    retraction = forget(lake, (1, 2), (4, 4))
    compact(lake)
    assert take_back(lake, retraction, "right").lost_items == 0
    assert set(shown(lake)) == set(range(6))
    assert query(lake, sums) == before == [(60.0, 6, 1)]


def test_take_back_leaves_what_was_collected_again(builder: LakeBuilder) -> None:
    add(builder, 0, 5, 0.0)
    lake = builder.lake
    compact(lake)
    retraction = forget(lake, (1, 2))
    compact(lake)
    add(builder, 1, 1, 1.0, generation=1)
    take_back(lake, retraction, "right")
    assert shown(lake) == {0: 0.0, 1: 1.0, 2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0}


def test_take_back_of_two_shards_over_one_item_shows_that_of_the_first(builder: LakeBuilder) -> None:
    add(builder, 0, 3, 0.0)
    add(builder, 2, 5, 1.0)
    lake = builder.lake
    whole = shown(lake)
    retraction = forget(lake, (2, 4))
    compact(lake)
    take_back(lake, retraction, "right")
    assert shown(lake) == whole == {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0, 5: 1.0}


def test_take_back_of_pruned_items_names_them_and_leaves_them_to_be_collected(
    builder: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    add(builder, 0, 5, 1.0)
    lake = builder.lake
    retraction = forget(lake, (1, 2))
    compact(lake)
    prune(lake, NOW)
    assert main(["--take-back", retraction, "--reason", "too late", "--lake", lake.uri]) == 1
    shows = capsys.readouterr()
    assert "what is left of the records" in shows.out
    assert "2 items of other cells were deleted meanwhile: collect or import them again" in shows.err
    assert set(shown(lake)) == {0, 3, 4, 5}
    assert missing_ranges(committed(lake)[CELL.cell_id], 6) == [(1, 2)]
    add(builder, 1, 2, 1.0, generation=1)
    assert set(shown(lake)) == set(range(6))


def test_take_back_again_after_a_kill_writes_nothing_twice(
    builder: LakeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(builder, 0, 5, 1.0)
    lake = builder.lake
    compact(lake)
    retraction = forget(lake, (1, 2))
    compact(lake)
    with monkeypatch.context() as patch:
        patch.setattr("collectors.lake.forgetting._write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            take_back(lake, retraction, "right")
    assert take_back(lake, retraction, "right").restored == 0
    assert shown(lake) == dict.fromkeys(range(6), 1.0)


def test_take_back_of_a_damaged_retraction_says_so(builder: LakeBuilder) -> None:
    add(builder, 0, 5, 1.0)
    lake = builder.lake
    retraction = forget(lake, (1, 2))
    path = Path(lake.root) / retraction_name(retraction)
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=f"{retraction} is damaged, and hides nothing"):
        take_back(lake, retraction, "right")
