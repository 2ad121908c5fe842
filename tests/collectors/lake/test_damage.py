"""Damaged and foreign objects are named, lose nothing and count nothing twice, whatever is mended by hand later."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake import seals
from collectors.lake.compaction import compact
from collectors.lake.damage import record_damage
from collectors.lake.holdings import committed, newest_manifest
from collectors.lake.pruning import prune
from collectors.lake.reading import ask, connect
from collectors.lake.store import Lake
from schemas.failures import StorageError
from schemas.records import SCHEMA_FILES
from tests.helpers.filled_lakes import NOW, VIEWS, add, everything, plain_lake, planned
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows


def without_failures(lake: Lake) -> dict[str, list[object]]:
    found = everything(lake)
    return {view: found[view] for view in [*VIEWS, "shards"] if view != "failures"}


def counted(lake: Lake, view: str = "matrix") -> int:
    [(count,)] = ask(lake, lambda con, _: rows(con, f"SELECT count(*) FROM {view}"), only=[view])
    return int(count)


def test_damaged_part_without_all_of_its_shards_counts_nothing_twice_once_it_is_mended(tmp_path: Path) -> None:
    builder = planned(str(tmp_path))
    for first in (0, 5):
        add(builder, "a", "t", 0, first, 5)
    add(builder, "b", "t", 0, 0, 5)
    manifest = compact(builder.lake).manifest
    assert manifest
    whole = without_failures(builder.lake)
    part = tmp_path / manifest.parts[0].records
    data = part.read_bytes()
    part.write_bytes(data[:-50])
    next((tmp_path / "shards" / "task=t").glob("*-0000005-0000009.parquet")).unlink()
    assert counted(builder.lake) == 10
    outcome = compact(builder.lake)
    assert (outcome.folded, outcome.withheld) == (0, 2)
    add(builder, "a", "t", 1, 0, 3)  # a new generation of a cell of the damaged part
    add(builder, "c", "u", 0, 0, 5)
    outcome = compact(builder.lake)
    assert (outcome.folded, outcome.withheld) == (1, 3)
    part.write_bytes(data)
    expected = counted(builder.lake)
    assert expected == 20
    before = without_failures(builder.lake)
    assert compact(builder.lake).folded == 1
    assert without_failures(builder.lake) == before
    prune(builder.lake, NOW)
    assert without_failures(builder.lake) == before
    assert set(whole["matrix"]) - set(before["matrix"]), "the new generation took the place of some"


@pytest.mark.parametrize("kind", ["responses", "older"])
def test_damaged_answers_are_read_from_shards_and_written_again(tmp_path: Path, kind: str) -> None:
    builder = planned(str(tmp_path))
    add(builder, "a", "t", 0, 0, 5)
    add(builder, "a", "t", 1, 0, 3)
    manifest = compact(builder.lake).manifest
    assert manifest
    before = without_failures(builder.lake)
    path = tmp_path / str(getattr(manifest.parts[0], kind))
    path.write_bytes(path.read_bytes()[:-50])
    counts = {view: len(before[view]) for view in ("responses", "superseded", "matrix")}
    assert {view: counted(builder.lake, view) for view in counts} == counts
    assert compact(builder.lake).folded == 2
    prune(builder.lake, NOW)
    assert without_failures(builder.lake) == before


def test_part_that_prune_finds_damaged_is_written_again_by_the_next_compaction(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path)).lake
    manifest = compact(lake).manifest
    assert manifest
    part = tmp_path / manifest.parts[0].records
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(StorageError, match="nothing was deleted"):
        prune(lake, NOW)
    assert compact(lake).folded == 3
    prune(lake, NOW)
    assert counted(lake) == 60


def test_damaged_list_of_folded_shards_says_what_to_do_and_that_helps(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path)).lake
    manifest = compact(lake).manifest
    assert manifest
    (tmp_path / manifest.folded).write_bytes(b"PAR1")
    for action in (lambda: counted(lake), lambda: compact(lake), lambda: committed(lake), lambda: prune(lake, NOW)):
        with pytest.raises(StorageError, match=f"remove it and {manifest.name} instead"):
            action()
    (tmp_path / manifest.name).unlink()
    (tmp_path / manifest.folded).unlink()
    assert compact(lake).folded == 6
    assert counted(lake) == 60


def test_manifest_without_its_parts_is_damaged(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path)).lake
    manifest = compact(lake).manifest
    assert manifest
    path = tmp_path / manifest.name
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps({**value, "shards": value["shards"] + 1}))
    with pytest.raises(StorageError, match="is damaged"):
        newest_manifest(lake)
    del value["seal"]  # as in version 6
    path.write_text(json.dumps({**value, "parts": []}))
    with pytest.raises(StorageError, match="is damaged"):
        newest_manifest(lake)
    path.write_text(json.dumps({**value, "parts": value["parts"][:1]}))
    with pytest.raises(StorageError, match="lacks"):
        compact(lake)


def unsealed(shard: Path) -> pa.Table:
    """The rows of a shard with its metadata, but without its seal, which another writer cannot keep."""
    table = pq.ParquetFile(io.BytesIO(shard.read_bytes())).read()
    return table.replace_schema_metadata({k: v for k, v in table.schema.metadata.items() if k != seals.KEY.encode()})


def foreign(shard: Path, change: str) -> None:
    table = unsealed(shard)
    if change == "castable":
        position = table.schema.get_field_index("score")
        table = table.set_column(position, "score", table["score"].cast(pa.string()))
    elif change == "no value":
        position = table.schema.get_field_index("filter")
        table = table.set_column(position, "filter", pa.nulls(len(table), pa.string()))
    elif change == "a row twice":
        table = pa.concat_tables([table, table.slice(0, 1)])
    pq.write_table(table, shard)


@pytest.mark.parametrize("change", ["castable", "no value", "a row twice"])
def test_foreign_shard_is_named_and_not_folded(tmp_path: Path, change: str) -> None:
    lake = plain_lake(str(tmp_path)).lake
    shard = min((tmp_path / "shards" / "task=t").glob("*.parquet"))
    foreign(shard, change)
    outcome = compact(lake)
    assert list(outcome.damaged) == [str(shard.relative_to(tmp_path))]
    assert "foreign" in outcome.damaged[str(shard.relative_to(tmp_path))]
    assert outcome.folded == 5
    assert counted(lake) == 50
    assert prune(lake, NOW).damaged == 1
    assert any((tmp_path / "damaged").rglob("*")), "its bytes stay"


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("table", "view"), [("items", "items"), ("runs", "matrix"), ("compact/records", "matrix"), ("models", "models")]
)
def test_damaged_schema_file_is_named_with_what_to_do_and_hides_no_row(
    tmp_path: Path, table: str, view: str, caplog: pytest.LogCaptureFixture
) -> None:
    lake = plain_lake(str(tmp_path)).lake
    if table.startswith("compact"):
        compact(lake)
    before, count = without_failures(lake), counted(lake, view)
    (tmp_path / SCHEMA_FILES[table]).write_bytes(b"garbage")
    assert counted(lake, view) == count
    assert f"{SCHEMA_FILES[table]}: it is not a whole Parquet file" in caplog.text
    assert "remove it" in caplog.text
    (tmp_path / SCHEMA_FILES[table]).unlink()
    lake.open_for_writing()
    assert without_failures(lake) == before


def test_prune_removes_what_killed_writers_left_a_day_ago(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path)).lake
    old, new, other = (
        tmp_path / "shards" / "task=t" / name for name in (f".{'a' * 16}.tmp", f".{'b' * 16}.tmp", "x.tmp")
    )
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 90_000,) * 2)
    compact(lake)
    assert prune(lake, NOW).others == 1 + 2, "and the commits of two parts"
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)
    assert counted(lake) == 60


def test_shard_of_another_writer_of_parquet_is_folded(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    before = without_failures(builder.lake)
    for shard in (tmp_path / "shards" / "task=t").glob("*.parquet"):
        table = unsealed(shard)
        pq.write_table(table, shard, version="1.0", use_dictionary=False, compression="none")
    builder.planned(BuiltCell(model="m9", task="u"), [1.0])
    assert compact(builder.lake).folded == 7
    assert len(without_failures(builder.lake)["matrix"]) == len(before["matrix"]) + 1


@pytest.mark.parametrize("kind", ["records", "responses"])
def test_damaged_part_without_its_shards_can_be_given_up_and_collected_again(tmp_path: Path, kind: str) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    lost, kept = BuiltCell(items=4), BuiltCell(task="other", items=4)
    for cell in (lost, kept):
        lake.run(cell, planned=4)
        lake.shard(cell, [cell.record(item, score=1.0, responses=["a"]) for item in range(4)])
    manifest = compact(lake.lake).manifest
    assert manifest
    prune(lake.lake, dt.timedelta())
    [part] = [part for part in manifest.parts if part.task == lost.task]
    name = getattr(part, kind)
    path = Path(lake.lake.root) / name
    path.write_bytes(path.read_bytes()[:-50])
    record_damage(lake.lake, name, "cut")
    whole = compact(lake.lake, give_up=True).manifest
    assert whole
    assert whole.number == manifest.number + 1
    assert [part.task for part in whole.parts] == [kept.task]
    assert committed(lake.lake).keys() == {kept.cell_id}  # the items of the other are open
    lake.shard(lost, [lost.record(item, score=0.0) for item in range(4)])
    again = compact(lake.lake).manifest
    assert again
    with connect(lake.lake, only=["matrix"]) as con:
        assert con.execute("SELECT task, avg(score), count(*) FROM matrix GROUP BY task ORDER BY task").fetchall() == [
            ("other", 1.0, 4),
            ("quiz", 0.0, 4),
        ]
