"""Compaction changes no answer: every view shows the same rows before and after, in spite of kills and new shards."""

from __future__ import annotations

import datetime as dt
import secrets
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.lake import chunks
from collectors.lake.compaction import compact
from collectors.lake.damage import record_damage
from collectors.lake.holdings import committed, newest_manifest, read_holdings
from collectors.lake.pruning import prune
from collectors.lake.reading import ask, connect
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from schemas.failures import StorageError
from schemas.identity import ShardName
from tests.helpers.filled_lakes import NOW, SUMMARIES, VIEWS, add, everything, plain_lake, planned
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.object_store import BUCKET
from tests.helpers.thorough import LONG, long_only, often

#: A shard: model, task, generation, first item, number of items.
shards = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["t", "u"]), st.integers(0, 2), st.integers(0, 5), st.integers(1, 5)
)


@pytest.mark.slow
@settings(max_examples=often(8, few=1))
@given(st.lists(st.lists(shards, min_size=1, max_size=5), min_size=1, max_size=3), st.sampled_from([1, 20, 10**6]))
def test_compact_any_lake_every_view_says_the_same(rounds: list[list[Any]], part_rows: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "PART_ROWS", part_rows)
        builder = planned(folder)
        for batch in rounds:
            for shard in batch:
                add(builder, *shard)
            is_last = batch is rounds[-1]  # summaries are of the rows that are compared each time
            before = everything(builder.lake, summaries=is_last)
            rows_before = {view: before[view] for view in before if view not in SUMMARIES}
            assert not LONG or everything(builder.lake, live=True) == rows_before
            names = committed(builder.lake)
            compact(builder.lake)
            assert everything(builder.lake, summaries=is_last) == before
            assert not LONG or everything(builder.lake, live=True) == rows_before
            assert committed(builder.lake) == names
        prune(builder.lake, NOW)
        assert everything(builder.lake, live=True, summaries=LONG) == (before if LONG else rows_before)
        assert everything(builder.lake, summaries=True) == before
        assert committed(builder.lake) == names
        assert not read_holdings(builder.lake).listed["shards"]
        assert compact(builder.lake).folded == 0


def test_compact_again_after_nothing_new_writes_nothing(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path)).lake
    assert compact(lake).folded == 6
    names = lake.names("")
    outcome = compact(lake)
    assert (outcome.folded, outcome.manifest) == (0, newest_manifest(lake))
    assert lake.names("") == names


def test_compact_empty_lake_writes_nothing(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path).lake
    names = lake.names("")
    assert compact(lake).manifest is None
    assert lake.names("") == names
    assert prune(lake, NOW).shards == 0


def test_compact_small_parts_are_joined_by_the_next_one_and_full_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "PART_ROWS", 20)
    builder = plain_lake(str(tmp_path), models=3)
    first = compact(builder.lake).manifest
    assert first
    assert sorted(part.rows for part in first.parts) == [10, 10, 20, 20]
    late = BuiltCell(model="m9", task="t")
    builder.planned(late, [1.0] * 10)
    second = compact(builder.lake).manifest
    assert second
    assert sorted(part.rows for part in second.parts if part.task == "t") == [20, 20]
    assert {part for part in first.parts if part.rows == 20} <= set(second.parts)
    assert all(part.is_grid for part in second.parts)


def test_compact_shard_of_a_cell_that_no_run_planned_stays_and_is_counted(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    stray = BuiltCell(model="stray")
    builder.scores(stray, [1.0])
    before = everything(builder.lake)
    outcome = compact(builder.lake)
    assert (outcome.folded, outcome.unplanned) == (6, 1)
    prune(builder.lake, NOW)
    assert everything(builder.lake) == before
    assert list(committed(builder.lake)[stray.cell_id])


def test_compact_damaged_and_foreign_shards_are_named_passed_over_pruned_and_collected_anew(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    lake = builder.lake
    cell = BuiltCell(model="m0", task="t")
    paths = sorted((tmp_path / "shards").glob("task=*/*.parquet"))
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    # Another cell's rows under this one's name: whole, and of the right columns.
    other = next(path for path in paths[1:] if cell.cell_id not in path.name)
    foreign = tmp_path / "shards" / "task=t" / f"{cell.cell_id}-g7-0000000-0000009.parquet"
    foreign.write_bytes(other.read_bytes())
    outcome = compact(lake)
    assert len(outcome.damaged) == 2
    assert outcome.folded == 5
    with connect(lake, only=["failures", "matrix"]) as con:
        named = rows(con, "SELECT file FROM failures WHERE kind = 'damaged_file' ORDER BY file")
        assert named == [(str(path.relative_to(tmp_path)),) for path in sorted([paths[0], foreign])]
        assert rows(con, "SELECT count(*) FROM matrix") == [(50,)]
    assert prune(lake, NOW).damaged == 2
    lost = ShardName.parse(str(paths[0]))
    assert lost
    assert lost not in committed(lake).get(lost.cell_id, [])
    paths[0].write_bytes(whole)
    assert not read_holdings(lake).damaged, "what is collected anew is whole"
    assert compact(lake).folded == 1
    with connect(lake, only=["matrix"]) as con:
        assert rows(con, "SELECT count(*) FROM matrix") == [(60,)]


def test_reader_meets_a_damaged_part_names_it_and_goes_on(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path)).lake
    manifest = compact(lake).manifest
    assert manifest
    prune(lake, NOW)
    part = tmp_path / manifest.parts[0].records
    part.write_bytes(part.read_bytes()[:-50])
    found = ask(lake, lambda con, _: rows(con, "SELECT count(*), count(DISTINCT task) FROM matrix"), only=["matrix"])
    assert found == [(30, 1)]
    with connect(lake, only=["failures"]) as con:
        assert rows(con, "SELECT file FROM failures WHERE kind = 'damaged_file'") == [(manifest.parts[0].records,)]
    with pytest.raises(StorageError, match="nothing was deleted"):
        prune(lake, NOW)
    assert part.exists(), "the shards that it was made of may be gone"


def test_compact_what_it_would_rewrite_without_its_run_is_refused(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    compact(builder.lake)
    prune(builder.lake, NOW)
    [run] = (tmp_path / "runs").glob("run-*.parquet")
    run.unlink()
    builder.planned(BuiltCell(model="m9", task="t"), [1.0])
    with pytest.raises(StorageError, match="runs"):
        compact(builder.lake)


def test_prune_keeps_what_a_reader_who_began_lately_uses(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    lake = builder.lake
    reader = connect(lake, only=["matrix"])
    first = compact(lake).manifest
    later = connect(lake, only=["matrix"])
    builder.planned(BuiltCell(model="m9", task="t"), [1.0])
    assert compact(lake).manifest != first
    pruned = prune(lake, dt.timedelta(hours=1))
    assert (pruned.shards, pruned.others) == (0, 0)
    assert pruned.later
    assert rows(reader, "SELECT count(*) FROM matrix") == rows(later, "SELECT count(*) FROM matrix") == [(60,)]
    pruned = prune(lake, NOW)
    assert pruned.shards == 7
    assert pruned.others > 0
    manifest = newest_manifest(lake)
    assert manifest
    assert set(manifest.objects) <= set(lake.names("compact"))


@long_only
@pytest.mark.slow
def test_compact_in_a_store_says_the_same_as_in_a_folder(tmp_path: Path, s3_environment: Any) -> None:
    stored = plain_lake(f"s3://{BUCKET}/{secrets.token_hex(4)}/it's a lake").lake
    local = plain_lake(str(tmp_path / "lake")).lake
    for lake in (stored, local):
        assert compact(lake).folded == 6
        assert prune(lake, NOW).shards == 6
    views = ("matrix", "records", "coverage")
    with connect(stored, only=views) as con, connect(local, only=views) as plain:
        for view in views:
            assert rows(con, f"FROM {view} ORDER BY ALL") == rows(plain, f"FROM {view} ORDER BY ALL")
    assert (load_matrix(stored).scores == load_matrix(local).scores).all()


# ---- what goes wrong with a compaction itself


def counted(lake: Lake) -> int:
    [(count,)] = ask(lake, lambda con, _: rows(con, "SELECT count(*) FROM matrix"), only=["matrix"])
    return int(count)


@pytest.mark.parametrize("missing", [False, True])
def test_damaged_part_whose_shards_are_there_is_read_from_them_and_written_anew(tmp_path: Path, missing: bool) -> None:
    lake = plain_lake(str(tmp_path)).lake
    before = everything(lake)
    manifest = compact(lake).manifest
    assert manifest
    part = tmp_path / manifest.parts[0].records
    part.write_bytes(part.read_bytes()[:-50])
    if missing:
        part.unlink()
    assert counted(lake) == 60
    with pytest.raises(StorageError, match="nothing was deleted"):
        prune(lake, NOW)
    assert compact(lake).folded == 3
    prune(lake, NOW)
    found = everything(lake)
    assert {view: found[view] for view in VIEWS if view != "failures"} == {
        view: before[view] for view in VIEWS if view != "failures"
    }
    assert found["shards"] == before["shards"]
    assert not read_holdings(lake).damaged, "what was written anew is damaged no more, so it can be published"


def test_compact_killed_before_a_part_was_committed_keeps_models_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = LakeBuilder(tmp_path)
    for model, score in (("a", 1.0), ("b", 0.0)):
        builder.planned(BuiltCell(model=model, items=3), [score] * 3)
    create = Lake.create

    def killed(self: Lake, name: str, data: bytes) -> bool:
        if "/part-" in name:
            raise KeyboardInterrupt
        return create(self, name, data)

    monkeypatch.setattr(Lake, "create", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(builder.lake)
    monkeypatch.undo()
    builder.model("a", "r0", tokenizer_hash="z")  # sorts a behind b from now on
    compact(builder.lake)
    matrix = load_matrix(builder.lake)
    assert dict(zip(matrix.candidates, matrix.scores[0].tolist(), strict=True)) == {"a": 1.0, "b": 0.0}


def test_failures_row_of_others_deletes_nothing_outside_the_lake(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path / "lake")).lake
    precious = tmp_path / "precious.txt"
    precious.write_text("x")
    record_damage(lake, "../precious.txt", "x")
    record_damage(lake, "foo/bar.parquet", "x")
    compact(lake)
    prune(lake, NOW)
    assert precious.exists()
    assert counted(lake) == 60


def test_copy_of_a_compaction_beside_it_is_none(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    compact(builder.lake)
    shutil.copytree(tmp_path / "compact" / "000001", tmp_path / "compact" / "backup")
    builder.planned(BuiltCell(model="m9", task="t"), [1.0])
    manifest = compact(builder.lake).manifest
    assert manifest
    assert (manifest.number, manifest.shards) == (2, 7)
    assert compact(builder.lake).manifest == manifest


def test_damaged_answers_are_never_left_out_by_the_next_compaction(tmp_path: Path) -> None:
    builder = planned(str(tmp_path))
    add(builder, "a", "t", 0, 0, 5)
    manifest = compact(builder.lake).manifest
    assert manifest
    prune(builder.lake, NOW)
    answers = tmp_path / str(manifest.parts[0].responses)
    whole = answers.read_bytes()
    answers.write_bytes(whole[:-50])
    add(builder, "b", "t", 0, 0, 5)
    with pytest.raises(StorageError, match="damaged"):
        compact(builder.lake)
    answers.write_bytes(whole)
    assert compact(builder.lake).folded == 1
