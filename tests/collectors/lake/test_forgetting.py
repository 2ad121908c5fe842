"""What is forgotten is in no view, as if it had never been there; it comes back, or is deleted for good."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.compaction import compact
from collectors.lake.forgetting import Wish, plan_forgetting, take_back, write_retraction
from collectors.lake.holdings import committed, newest_manifest
from collectors.lake.pruning import prune
from collectors.lake.retractions import read_retracted
from collectors.lake.store import Lake
from collectors.lake.verifying import verify
from schemas.failures import ConfigError
from schemas.identity import ShardName
from tests.helpers.filled_lakes import NOW, everything, query
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

A, B, C = (BuiltCell(model=model, items=6) for model in ("model-a", "model-b", "model-c"))
DAY = dt.timedelta(days=1)


def built(folder: Path, *cells: BuiltCell) -> LakeBuilder:
    """A lake of these cells, each of two shards, with answers and a generation more of two items."""
    builder = LakeBuilder(folder)
    builder.items("quiz", "i0", 6)
    for cell in cells:
        builder.run(cell, planned=6, started_at=dt.datetime(2026, 1, 5, tzinfo=dt.UTC), run_id=f"run-{cell.model}")
        for first in (0, 3):
            rows = [
                cell.record(i, score=float(i % 2), responses=[f"{cell.model} {i}"]) for i in range(first, first + 3)
            ]
            builder.shard(cell, rows, metadata={"run_id": f"run-{cell.model}", "host": "h"})
        again = [cell.record(i, score=1.0, responses=[f"again {i}"]) for i in (1, 2)]
        builder.shard(cell, again, generation=1, metadata={"run_id": f"run-{cell.model}", "host": "h"})
    return builder


def forget(lake: Lake, **wish: Any) -> str:
    return write_retraction(lake, plan_forgetting(lake, Wish(**wish)), "a test")


def before(folder: Path, *steps: str) -> LakeBuilder:
    builder = built(folder, A, B, C)
    for step in steps:
        assert compact(builder.lake).manifest if step == "compact" else prune(builder.lake, NOW)
    return builder


@pytest.mark.few(1)
@pytest.mark.parametrize("steps", [(), ("compact",), ("compact", "prune")], ids="-".join)
def test_forget_a_model_every_view_is_as_if_it_had_never_been_there(tmp_path: Path, steps: tuple[str, ...]) -> None:
    lake = before(tmp_path / "lake", *steps).lake
    other, few = built(tmp_path / "other", A, C).lake, "prune" in steps
    whole, without = everything(lake), everything(other, summaries=few)
    assert whole["records"] != without["records"]
    retraction = forget(lake, models=("model-b",))
    assert everything(lake, summaries=few) == without
    if not few:
        assert everything(lake, live=True) == without
    assert set(committed(lake)) == {A.cell_id, C.cell_id}

    take_back(lake, retraction, "it was right")
    assert everything(lake) == whole


@pytest.mark.few(1)
@pytest.mark.parametrize("steps", [(), ("compact",), ("compact", "prune")], ids="-".join)
def test_forget_compacted_away_and_taken_back_before_the_grace_time_all_rows_return(
    tmp_path: Path, steps: tuple[str, ...]
) -> None:
    lake = before(tmp_path / "lake", *steps).lake
    whole, without = everything(lake), everything(built(tmp_path / "other", A, C).lake)
    retraction = forget(lake, models=("model-b",))
    compact(lake)
    prune(lake, DAY)
    assert everything(lake) == without
    taken = take_back(lake, retraction, "it was right")
    assert (taken.lost, everything(lake)) == (0, whole)
    compact(lake)
    assert everything(lake) == whole
    assert not verify(lake).faults


@pytest.mark.few(1)
@pytest.mark.parametrize("steps", [(), ("compact",), ("compact", "prune")], ids="-".join)
def test_forget_pruned_after_the_grace_time_no_object_holds_it(tmp_path: Path, steps: tuple[str, ...]) -> None:
    lake = before(tmp_path / "lake", *steps).lake
    without = everything(built(tmp_path / "other", A, C).lake)
    retraction = forget(lake, models=("model-b",))
    compact(lake)
    prune(lake, NOW)
    assert everything(lake) == without
    shards = [path for path in Path(lake.uri).rglob("*") if path.is_file() and path.parts[-3] in ("shards", "compact")]
    assert shards
    assert not [path for path in shards if b"model-b" in path.read_bytes()]
    assert not verify(lake).faults
    assert take_back(lake, retraction, "too late").lost == 1
    assert everything(lake)["records"] == without["records"]


def test_forget_everything_a_compaction_without_parts_is_left(tmp_path: Path) -> None:
    lake = before(tmp_path / "lake", "compact", "prune").lake
    forget(lake, where="task = 'quiz'")
    assert compact(lake).forgotten == 9
    assert (manifest := newest_manifest(lake))
    assert not manifest.parts
    assert everything(lake)["records"] == []


def test_forget_items_of_a_cell_only_they_are_missing_and_a_later_generation_fills_them(tmp_path: Path) -> None:
    builder = before(tmp_path / "lake", "compact")
    lake = builder.lake
    forget(lake, models=("model-a",), items=((2, 3),))

    def items() -> list[tuple[Any, ...]]:
        return query(lake, f"SELECT item, generation FROM matrix WHERE cell_id = '{A.cell_id}' ORDER BY ALL")

    left: list[tuple[Any, ...]] = [(0, 0), (1, 1), (4, 0), (5, 0)]
    assert items() == left
    compact(lake)
    assert items() == left
    assert compact(lake).forgotten == 0
    assert newest_manifest(lake).number == 2
    retracted = read_retracted(lake)
    assert retracted.next_generation(A.cell_id, 1) == 2
    assert [(s.first, s.last) for s in committed(lake)[A.cell_id]] == [(0, 1), (4, 5), (1, 1)]
    builder.scores(A, [1.0, 1.0], first=2, generation=2)
    assert items() == sorted([*left, (2, 2), (3, 2)])
    compact(lake)
    assert items() == sorted([*left, (2, 2), (3, 2)])


def test_forget_collected_again_as_the_next_generation_counts(tmp_path: Path) -> None:
    builder = before(tmp_path / "lake", "compact")
    forget(builder.lake, models=("model-b",))
    assert read_retracted(builder.lake).next_generation(B.cell_id, 0) == 2
    builder.run(B, planned=6, generation=2)
    builder.scores(B, [1.0] * 6, generation=2)
    for _ in range(2):
        sql = f"SELECT DISTINCT generation FROM matrix WHERE cell_id = '{B.cell_id}'"
        assert query(builder.lake, sql) == [(2,)]
        compact(builder.lake)
    assert committed(builder.lake)[B.cell_id] == [ShardName(B.cell_id, 2, 0, 5)]


def test_forget_a_run_only_its_own_shards_are_hidden(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path)
    for number, first in enumerate((0, 3)):
        run = builder.run(A, planned=6)
        rows = [A.record(item, score=1.0) for item in range(first, first + 3)]
        builder.shard(A, rows, metadata={"run_id": run})
        assert run == f"run-{number + 1:04d}"
    planned = plan_forgetting(builder.lake, Wish(run_id="run-0001"))
    assert (planned.records, planned.cells) == (3, 1)
    write_retraction(builder.lake, planned, "a test")
    found = everything(builder.lake)
    assert sorted(row[2] for row in found["matrix"]) == [3, 4, 5]
    assert [row[0] for row in found["runs"]] == ["run-0002"]


def test_forget_a_model_its_failures_and_description_are_hidden_and_those_of_others_stay(tmp_path: Path) -> None:
    builder = built(tmp_path, A, B)
    for model in ("model-a", "model-b"):
        builder.model(model, "r0", config="{}")
        builder.failure("run-x", "no_weights", f"{model} has none", model=model)
    forget(builder.lake, models=("model-b",))
    found = everything(builder.lake)
    assert {row[0] for row in found["models"]} == {"model-a"}
    assert {row[2] for row in found["failures"]} == {"model-a"}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"models": ("model-a", "modl-a")}, "no model modl-a; did you mean model-a?"),
        ({"where": "task = 'other'"}, "nothing to forget: no cell"),
        ({"where": "modl = 'a'"}, "the condition"),
        ({"where": "true) OR (true"}, "the condition"),
        ({"where": "(SELECT count(*) FROM read_text('/etc/passwd')) > 0"}, "may do more"),
    ],
)
def test_forget_a_wrong_wish_is_refused(tmp_path: Path, wish: dict[str, Any], message: str) -> None:
    lake = built(tmp_path, A).lake
    with pytest.raises(ConfigError, match=message):
        plan_forgetting(lake, Wish(**wish))


def test_take_back_twice_or_of_an_unknown_retraction_is_refused(tmp_path: Path) -> None:
    lake = built(tmp_path, A).lake
    retraction = forget(lake, models=("model-a",))
    take_back(lake, retraction, "right")
    with pytest.raises(ConfigError, match="taken back already"):
        take_back(lake, retraction, "right")
    with pytest.raises(ConfigError, match="is not in the lake"):
        take_back(lake, "20260101T000000-00000000", "right")


def test_forget_items_of_two_cells_of_a_model_both_are_folded_without_them(tmp_path: Path) -> None:
    other = BuiltCell(model="model-a", items=6, prompting="p9")
    lake = built(tmp_path / "lake", A, other, B).lake
    forget(lake, tasks=("quiz",), items=((0, 3),))
    left = query(lake, "SELECT cell_id, item, generation FROM matrix ORDER BY ALL")
    assert [row[1] for row in left] == [4, 5] * 3
    compact(lake)
    assert query(lake, "SELECT cell_id, item, generation FROM matrix ORDER BY ALL") == left
    prune(lake, NOW)
    assert query(lake, "SELECT cell_id, item, generation FROM matrix ORDER BY ALL") == left
