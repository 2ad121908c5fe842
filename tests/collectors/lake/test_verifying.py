"""`verify` names what is damaged, swapped or missing, in folders and stores, in old lakes and new ones."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest

from collectors.lake import seals
from collectors.lake.compaction import compact
from collectors.lake.forgetting import Wish, plan_forgetting, write_retraction
from collectors.lake.holdings import newest_manifest, read_holdings
from collectors.lake.layout import is_object, shard_name
from collectors.lake.pruning import prune
from collectors.lake.store import Lake
from collectors.lake.verifying import record_faults, verify
from collectors.matrix.pools import load_matrix
from collectors.publish.card import Description
from collectors.publish.version import build_version
from schemas.failures import ConfigError, StorageError
from schemas.identity import ShardName
from tests.helpers.filled_lakes import NOW, plain_lake
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.object_store import BUCKET
from tests.helpers.older_lakes import LAKE_V6
from tests.helpers.rot import ENDED, rotting_lake

#: A run of the lake of version 6 is not in it, on purpose, and a shard of a cell of that run.
LOST = ["runs/20261129T103308-ecc2211b.parquet", "shards/task=old_choice/b16774e8f1028e87-g0-0000000-0000001.parquet"]


def faults(lake: Lake) -> dict[str, str]:
    return {name: fault.reason for name, fault in verify(lake).faults.items()}


def reason(lake: Lake, name: str) -> str:
    """The reason of the only fault, which is of this object."""
    [(named, why)] = faults(lake).items()
    assert named == name
    return why


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that no test changes."""
    return Path(rotting_lake(tmp_path_factory.mktemp("whole") / "lake").root)


@pytest.fixture
def lake(whole: Path, tmp_path: Path) -> Lake:
    """A copy of it."""
    return Lake(str(shutil.copytree(whole, tmp_path / "lake")))


def test_verify_a_whole_lake_reads_every_object_and_names_none(lake: Lake) -> None:
    seen: list[tuple[int, int]] = []
    verified = verify(lake, lambda done, total: seen.append((done, total)))
    names = [name for name in lake.names("", 4) if is_object(name)]
    assert (verified.objects, verified.unsealed, verified.faults) == (len(names), 0, {})
    assert verified.bytes == sum(len(lake.read(name)) for name in names)
    assert seen[-1] == (len(names), len(names))


def test_verify_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    shard = next(tmp_path.glob("lake/shards/task=t/*-g0-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert faults(lake)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_shard_under_the_name_of_another_generation_is_named(lake: Lake) -> None:
    """Its rows fit that name: cell, items and their range are the same."""
    [name] = [name for name in lake.names("shards") if "-g1-" in name]
    copy = name.replace("-g1-", "-g2-")
    lake.create(copy, lake.read(name))
    assert reason(lake, copy) == f"it is a copy of {name}, under another name"


@pytest.mark.parametrize("table", ["models", "prices", "runs", "items", "failures"])
def test_row_under_the_name_of_another_object_is_named(lake: Lake, table: str) -> None:
    names = [name for name in lake.names(table) if "schema" not in name]
    source = next(name for name in names if lake.read(name) != lake.read(names[0]))
    Path(lake.root, names[0]).write_bytes(lake.read(source))
    assert faults(lake)[names[0]] == f"it is a copy of {source}, under another name"


def test_parts_that_were_swapped_are_named(lake: Lake) -> None:
    first, second = read_holdings(lake).parts
    swapped = lake.read(first.records), lake.read(second.records)
    for name, data in zip((second.records, first.records), swapped, strict=True):
        Path(lake.root, name).write_bytes(data)
    assert faults(lake).keys() == {first.records, second.records}


def test_shard_that_a_finished_run_collected_is_missing(lake: Lake) -> None:
    name = next(name for name in lake.names("shards") if "-g0-0000005" in name)
    Path(lake.root, name).unlink()
    assert reason(lake, name).startswith("no shard holds these items any more; run run-0002 had all of them")


def test_shard_that_was_collected_again_after_forgetting_is_missing(tmp_path: Path) -> None:
    """The older shard does not stand for it, and what was forgotten later is not missing."""
    builder, cell = LakeBuilder(tmp_path / "lake"), BuiltCell(items=4)
    builder.items(cell.task, cell.items_digest, 4)
    for generation, first in ((0, 0), (1, 2)):
        run = builder.run(cell, generation=generation)
        builder.shard(cell, [cell.record(i, score=1.0) for i in range(first, 4)], generation=generation)
        builder.end(run, "finished", ENDED)
        if not generation:
            wish = Wish(models=(cell.model,), items=((2, 3),))
            write_retraction(builder.lake, plan_forgetting(builder.lake, wish), "wrong")
    assert not faults(builder.lake)
    name = shard_name(cell.task, ShardName(cell.cell_id, 1, 2, 3))
    Path(builder.lake.root, name).unlink()
    assert reason(builder.lake, name).startswith("no shard holds these items any more; run run-0002 had all of them")
    write_retraction(builder.lake, plan_forgetting(builder.lake, Wish(models=(cell.model,))), "all of it")
    assert not faults(builder.lake)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("compact/*/task=t/records-*", "manifest.json names it"),
        ("compact/*/inventory-*", "manifest.json names it"),
        ("failures/*[0-9a-f].parquet", "compaction 1 listed it"),
        ("runs/run-0001.parquet", "compaction 1 listed it"),
        ("runs/run-0002.parquet", "is the end of this run"),
        ("items/task=u/i0.parquet", "compaction 1 listed it"),
    ],
)
def test_missing_object_is_named_by_what_others_say_of_it(lake: Lake, pattern: str, why: str) -> None:
    path = min(Path(lake.root).glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    path.unlink()
    assert why in faults(lake)[str(path.relative_to(lake.root))]


def test_items_that_no_compaction_listed_are_missed_by_the_cells_that_were_asked_them(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path)
    builder.planned(BuiltCell(), [1.0] * 10)
    assert "was asked its items" in reason(builder.lake, "items/task=quiz/i0.parquet")


def test_bits_are_told_by_their_sha256_and_the_scores_read_instead(lake: Lake) -> None:
    [part] = [part for part in read_holdings(lake).parts if part.task == "u"]
    assert part.bits
    whole, path = load_matrix(lake).scores, Path(lake.root, part.bits)
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    assert (load_matrix(lake).scores == whole).all()
    assert "SHA-256" in reason(lake, part.bits)


@pytest.mark.parametrize("table", ["shards", "items", "runs"])
def test_damaged_object_that_verify_names_is_set_aside_by_prune(lake: Lake, table: str) -> None:
    name = next(name for name in reversed(lake.names(table)) if "schema" not in name)
    data = bytearray(lake.read(name))
    data[200] ^= 1
    Path(lake.root, name).write_bytes(bytes(data))
    record_faults(lake, verify(lake).damaged)
    assert prune(lake, NOW).damaged == 1
    assert not lake.has(name)
    assert [aside for aside in lake.names("damaged", 5) if name in aside]


def test_part_that_rotted_is_not_folded_again(lake: Lake) -> None:
    """Its shards are gone, so the compaction leaves its cells alone and goes on with the others."""
    [part] = [part for part in read_holdings(lake).parts if part.task == "u"]
    path = Path(lake.root, part.records)
    whole = path.read_bytes()
    data = bytearray(whole)
    data[300] ^= 4
    path.write_bytes(bytes(data))
    outcome = compact(lake)
    assert list(outcome.damaged) == [part.records]
    assert outcome.manifest
    assert part in outcome.manifest.parts
    path.write_bytes(whole)
    assert not faults(lake)


def test_part_with_other_rows_than_its_manifest_is_refused_even_without_a_sha256(tmp_path: Path) -> None:
    builder = plain_lake(str(tmp_path))
    manifest = compact(builder.lake).manifest
    assert manifest
    value = json.loads((tmp_path / manifest.name).read_bytes())
    for key in ("seal", "inventory", "folded_sha256", "inventory_sha256"):
        del value[key]
    for part in value["parts"]:
        del part["sha256"]
        part["rows"] -= part["task"] == "u"
    (tmp_path / manifest.name).write_text(json.dumps(value))
    builder.planned(BuiltCell(model="m9", task="t"), [1.0] * 10)
    with pytest.raises(StorageError, match="has 30 rows, and its manifest 29"):
        compact(builder.lake)


@pytest.mark.slow
def test_lake_of_version_6_is_decoded_then_covered_by_its_first_compaction(tmp_path: Path) -> None:
    lake = Lake(str(shutil.copytree(LAKE_V6 / "lake", tmp_path / "lake")))
    verified = verify(lake)
    assert (verified.unsealed, list(verified.faults)) == (verified.objects, LOST)
    compact(lake)
    prune(lake, NOW)
    verified = verify(lake)
    assert (verified.unsealed, list(verified.faults)) == (1, LOST), "the shard that no run planned"
    manifest = newest_manifest(lake)
    assert manifest
    assert all(part.sha256 for part in manifest.parts)
    for table in ("items", "runs", "failures"):
        name = next(name for name in lake.names(table) if "schema" not in name)
        whole = lake.read(name)
        changed = bytearray(whole)
        changed[len(changed) // 2] ^= 16
        Path(lake.root, name).write_bytes(bytes(changed))
        assert "a compaction recorded" in faults(lake)[name]
        Path(lake.root, name).write_bytes(whole)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("runs/2*", "another run_id"), ("items/*/[0-9a-f]*", "another"), ("shards/task=old_choice/*", "another cell")],
)
def test_object_of_version_6_under_another_name_is_told_by_its_rows(tmp_path: Path, pattern: str, why: str) -> None:
    lake = Lake(str(shutil.copytree(LAKE_V6 / "lake", tmp_path / "lake")))
    first, *_, last = sorted(path for path in Path(lake.root).glob(pattern) if "schema" not in path.name)
    first.write_bytes(last.read_bytes())
    assert why in faults(lake)[str(first.relative_to(lake.root))]


@pytest.mark.slow
def test_verify_in_a_store_names_the_same_as_in_a_folder(tmp_path: Path, s3_environment: Any) -> None:
    stored = plain_lake(f"s3://{BUCKET}/{secrets.token_hex(4)}/lake").lake
    local = plain_lake(str(tmp_path / "lake")).lake
    for lake in (stored, local):
        compact(lake)
        name = lake.names("shards")[0]
        data = lake.read(name)
        lake.remove([name])
        lake.create(name, data[:-20] + bytes(20))
    assert verify(stored).faults == verify(local).faults
    assert len(verify(stored).faults) == 1 + 2, "the shard, and the items of two tasks"


def test_seal_covers_every_byte_of_an_object(lake: Lake) -> None:
    name = next(name for name in lake.names("models") if "schema" not in name)
    data = lake.read(name)
    assert seals.broken_seal(data, name) is None
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        seal = seals.read_seal(changed)
        assert seal.stated is None or seals.seal_fault(seal, name), at
    unsealed = sum(seals.read_seal(data[:at] + b"~" + data[at + 1 :]).stated is None for at in range(len(data)))
    assert unsealed < 40, "the key of the seal and what leads to it"


def test_lake_with_a_rotten_part_is_not_published(lake: Lake, tmp_path: Path) -> None:
    part = read_holdings(lake).parts[0]
    data = bytearray(lake.read(part.records))
    data[300] ^= 4
    Path(lake.root, part.records).write_bytes(bytes(data))
    (tmp_path / "to").mkdir()
    with pytest.raises(ConfigError, match=f"1 objects of .* are damaged, such as {part.records}"):
        build_version(lake, tmp_path / "to", Description())


@pytest.mark.parametrize("pattern", ["compact/000001/manifest.json", "compact/000001/folded-*.parquet"])
def test_damaged_list_of_folded_shards_is_named_alone(lake: Lake, pattern: str) -> None:
    """Not each shard that only it names."""
    [path] = Path(lake.root).glob(pattern)
    data = path.read_bytes()
    path.write_bytes(data[:90] + bytes([data[90] ^ 1]) + data[91:])
    assert list(faults(lake)) == [str(path.relative_to(lake.root))]
