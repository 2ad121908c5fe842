"""Snapshots: the same lake gives the same bytes, every reader the same rows, and a version never changes."""

from __future__ import annotations

import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import duckdb
import huggingface_hub.constants as hub
import numpy as np
import pytest
from huggingface_hub import HfFileSystem

from collectors.arrays import Matrix
from collectors.card import Description
from collectors.compaction import compact, prune
from collectors.dense import load_matrix
from collectors.lake import Lake
from collectors.publishing import Difference, differences, open_published, publish, verify
from collectors.reading import connect, open_store
from collectors.snapshot import MANIFEST, Snapshot, build_snapshot
from pipelines.publish import main
from schemas.failures import ConfigError, StorageError
from tests.collectors.test_compaction import NOW, VIEWS, add, everything, planned
from tests.dataset_hub import DatasetHub, dataset_hub
from tests.lake_builder import BuiltCell, LakeBuilder, rows
from tests.object_store import BUCKET

DESCRIPTION = Description("A matrix", "Of tests.", "cc-by-4.0", {"quiz": "mit"})


def filled(folder: Path) -> LakeBuilder:
    """Generations, gaps, unknown verdicts, fractions, two filters, answers, items and a failure."""
    builder = planned(str(folder))
    for shard in (
        ("a", "t", 0, 0, 5),
        ("a", "t", 1, 2, 2),
        ("b", "t", 0, 0, 5),
        ("b", "u", 0, 1, 4),
        ("c", "u", 2, 0, 3),
    ):
        add(builder, *shard)
    builder.items("t", "i0", 10)
    builder.items("u", "i0", 10)
    builder.failure("run-0001", "no_weights", "x has none", model="x")
    return builder


def snapshot(lake: Lake, folder: Path, version: str | None = None, description: Description = DESCRIPTION) -> Snapshot:
    folder.mkdir(parents=True)
    return build_snapshot(lake, folder, description, version)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(first: Matrix, second: Matrix) -> None:
    for name in ("scores", "valid", "prompt_tokens", "completion_tokens"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.items.equals(second.items)
    assert first.models.equals(second.models)


# ---- what is in it


def test_snapshot_of_the_same_lake_is_the_same_bytes_compacted_or_not(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    for first_item, generation in ((0, 0), (0, 3), (3, 0), (4, 3)):  # rows that are replaced twice, and overlaps
        add(builder, "c", "t", generation, first_item, 5)
    lake = builder.lake
    first = contents(snapshot(lake, tmp_path / "a").folder)
    compact(lake)
    assert contents(snapshot(lake, tmp_path / "b").folder) == first
    prune(lake, NOW)
    assert contents(snapshot(lake, tmp_path / "c").folder) == first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_snapshot_is_a_lake_that_says_what_its_lake_says(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake").lake
    made = snapshot(lake, tmp_path / "s")
    expected, found = everything(lake), everything(Lake(str(made.folder)))
    assert found == expected
    assert_same(load_matrix(str(made.folder)), load_matrix(lake))
    for tasks, models in ((["t"], None), (None, ["a", "c"]), (["u"], ["a"]), (["t", "u"], ["c", "b"])):
        assert_same(load_matrix(str(made.folder), tasks, models), load_matrix(lake, tasks, models))
    with pytest.raises(ConfigError, match="no cell"):
        load_matrix(str(made.folder), models=["nobody"])


def test_snapshot_database_opens_from_its_folder_and_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(tmp_path / "lake").lake
    made = snapshot(lake, tmp_path / "s")
    expected = everything(lake)
    monkeypatch.chdir(made.folder)
    with duckdb.connect("snapshot.duckdb", read_only=True) as con:
        assert sorted(rows(con, "FROM records"), key=repr) == sorted(
            rows(con, "FROM records WHERE model IS NOT NULL"), key=repr
        )
        for view in VIEWS:
            assert len(rows(con, f"FROM {view}")) == len(expected[view]), view
        [(comment,)] = rows(con, "SELECT comment FROM duckdb_views() WHERE view_name = 'matrix'")
        assert "one row per collected item" in comment
    monkeypatch.chdir(tmp_path)
    with duckdb.connect("s/snapshot.duckdb", read_only=True) as con:
        con.execute("SET VARIABLE snapshot = 's'")
        assert len(rows(con, "FROM matrix")) == len(expected["matrix"])
    with duckdb.connect() as con:
        con.execute("SET VARIABLE snapshot = 's'")
        con.execute((made.folder / "views.sql").read_text())
        assert len(rows(con, "FROM matrix")) == len(expected["matrix"])


@pytest.mark.slow
def test_snapshot_every_reader_counts_the_same(tmp_path: Path) -> None:
    import datasets
    import pandas as pd
    import polars as pl

    lake = filled(tmp_path / "lake").lake
    made = snapshot(lake, tmp_path / "s")
    count = made.manifest["counts"]["records"]
    files = [made.folder / name for name in made.files if "/records-" in name]
    assert sum(len(pd.read_parquet(file)) for file in files) == count
    assert pl.read_parquet(files, hive_partitioning=False).height == count
    for config, table in (("records", "records"), ("responses", "responses"), ("items", "items")):
        found = datasets.load_dataset(str(made.folder), config, cache_dir=str(tmp_path / "cache"), split="train")
        assert found.num_rows == made.manifest["counts"][table], config
    assert datasets.load_dataset(str(made.folder), cache_dir=str(tmp_path / "cache"))["train"].num_rows == count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_snapshot_croissant_is_valid_and_reads_the_records(tmp_path: Path) -> None:
    import mlcroissant

    made = snapshot(filled(tmp_path / "lake").lake, tmp_path / "s", "1.0.0")
    described = mlcroissant.Dataset(jsonld=str(made.folder / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    found = list(described.records("records"))
    assert len(found) == made.manifest["counts"]["records"]
    assert {row["records/model"] for row in found} == {b"a", b"b", b"c"}


def test_snapshot_manifest_says_whence_its_numbers_are(tmp_path: Path) -> None:
    manifest = snapshot(filled(tmp_path / "lake").lake, tmp_path / "s").manifest
    assert manifest["provenance"]["runs"] == ["run-0001"]
    assert [model["model"] for model in manifest["provenance"]["models"]] == ["a", "b", "c"]
    assert {task["task"] for task in manifest["provenance"]["tasks"]} == {"t", "u"}
    assert manifest["description"]["sources"] == {"quiz": "mit"}
    counts = manifest["counts"]
    assert (counts["models"], counts["tasks"], counts["items"], counts["failures"]) == (3, 2, 20, 1)


def test_snapshot_of_an_empty_or_damaged_lake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to publish"):
        snapshot(LakeBuilder(tmp_path / "empty").lake, tmp_path / "a")
    lake = filled(tmp_path / "lake").lake
    next((tmp_path / "lake" / "shards").glob("task=*/*.parquet")).write_bytes(b"PAR1")
    compact(lake)
    with pytest.raises(ConfigError, match="--prune"):
        snapshot(lake, tmp_path / "b")


def test_snapshot_is_never_written_into(tmp_path: Path) -> None:
    made = snapshot(filled(tmp_path / "lake").lake, tmp_path / "s")
    with pytest.raises(ConfigError, match="never changes"):
        Lake(str(made.folder)).open_for_writing()
    next(made.folder.glob("compact/*/task=t/records-*")).write_bytes(b"PAR1")
    before = contents(made.folder)
    (made.folder / "packed" / "items.parquet").unlink()
    before.pop("packed/items.parquet")
    assert load_matrix(str(made.folder)).valid.any(), "the damaged part is passed over"
    assert contents(made.folder) == before


@pytest.mark.parametrize("name", ["shards/task=t/x", "items/task=t/zz", "failures/zz", "runs/zz"])
def test_snapshot_of_a_lake_with_damage_that_nobody_met_is_refused(tmp_path: Path, name: str) -> None:
    lake = filled(tmp_path / "lake").lake
    if name.startswith("shards"):
        name = str(next((tmp_path / "lake").glob("shards/task=t/*-g*")).relative_to(tmp_path / "lake"))[:-8]
    (tmp_path / "lake" / f"{name}.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=name):
        snapshot(lake, tmp_path / "s")


def test_snapshot_of_tasks_and_models_without_records_has_the_lakes_axes(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    builder.run(BuiltCell(model="a", task="t"), planned=3)
    builder.run(BuiltCell(model="z", task="t"), BuiltCell(model="z", task="u"))
    builder.scores(BuiltCell(model="a", task="t"), [1.0, 0.0])
    made = snapshot(builder.lake, tmp_path / "s")
    for tasks, models in ((None, None), (None, ["a"]), (["u"], None), (None, ["z"])):
        assert_same(load_matrix(str(made.folder), tasks, models), load_matrix(builder.lake, tasks, models))
    assert load_matrix(builder.lake, models=["a"]).scores.shape == (10, 1)


# ---- publishing


def test_publish_into_a_lake_or_over_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = filled(tmp_path / "lake").lake
    before = contents(tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    for to, version in ((".", "lake"), ("lake", "compact"), ("lake/compact", "1.0.0"), ("", "x1"), ("/", "x1")):
        assert main(["--lake", lake.uri, "--to", to, "--version", version]) == 2, (to, version)
    assert contents(tmp_path / "lake") == before
    assert not Path("/x1").exists()
    capsys.readouterr()


def test_publish_again_is_the_same_and_other_content_is_refused(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    first = snapshot(builder.lake, tmp_path / "a", "1.0.0")
    uri = publish(first, str(tmp_path / "out"))
    before = contents(Path(uri))
    assert publish(first, str(tmp_path / "out")) == uri
    add(builder, "c", "t", 0, 0, 2)
    with pytest.raises(ConfigError, match="never changes"):
        publish(snapshot(builder.lake, tmp_path / "b", "1.0.0"), str(tmp_path / "out"))
    assert contents(Path(uri)) == before == contents(first.folder)


def test_publish_killed_half_way_goes_on_and_the_version_is_taken(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    mine = snapshot(builder.lake, tmp_path / "a", "1.0.0")

    def kill(done: int, files: int) -> None:
        if done == files // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(mine, str(tmp_path / "out"), kill)
    with pytest.raises(ConfigError, match="no snapshot"):
        open_published(str(tmp_path / "out" / "1.0.0"))
    add(builder, "c", "t", 0, 0, 2)
    with pytest.raises(ConfigError, match="begun"):
        publish(snapshot(builder.lake, tmp_path / "b", "1.0.0"), str(tmp_path / "out"))
    assert not verify(publish(mine, str(tmp_path / "out"))).faults


@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_publish_two_at_once_one_wins_and_the_other_is_told(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    to = str(tmp_path / "out")
    if place == "s3":
        request.getfixturevalue("s3_environment")
        to = f"s3://{BUCKET}/{secrets.token_hex(4)}"
    builder = filled(tmp_path / "lake")
    one = snapshot(builder.lake, tmp_path / "a", "1.0.0")
    add(builder, "c", "t", 0, 0, 2)
    two = snapshot(builder.lake, tmp_path / "b", "1.0.0")
    told: list[str] = []
    barrier = threading.Barrier(2)

    def run(mine: Snapshot) -> None:
        barrier.wait()
        try:
            told.append(publish(mine, to))
        except ConfigError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run, args=(mine,)) for mine in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("never changes" in text for text in told) == [False, True]
    assert not verify(f"{to}/1.0.0").faults
    won = json.loads(Lake(f"{to}/1.0.0").read(MANIFEST))
    assert won in (one.manifest, two.manifest)


@pytest.mark.slow
def test_publish_to_a_store_is_read_in_place(tmp_path: Path, s3_environment: Any) -> None:
    lake = filled(tmp_path / "lake").lake
    made = snapshot(lake, tmp_path / "s")
    uri = publish(made, f"s3://{BUCKET}/{secrets.token_hex(4)}/published")
    assert not verify(uri).faults
    store = Lake(uri)
    assert_same(load_matrix(uri), load_matrix(lake))
    with duckdb.connect(made.folder / "snapshot.duckdb", read_only=True) as con, connect(lake) as local:
        open_store(con, store)
        con.execute("SET VARIABLE snapshot = ?", [uri])
        assert rows(con, "FROM matrix ORDER BY ALL") == rows(local, "FROM matrix ORDER BY ALL")


# ---- the hub

on_the_hub = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's own client


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    with dataset_hub() as store:
        monkeypatch.setattr(hub, "ENDPOINT", store.endpoint)
        monkeypatch.setattr(
            hub, "HUGGINGFACE_CO_URL_TEMPLATE", store.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(hub, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hub, "HF_TOKEN_PATH", os.devnull)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        HfFileSystem.clear_instance_cache()
        yield store
        HfFileSystem.clear_instance_cache()


@on_the_hub
def test_publish_on_the_hub_is_a_commit_and_a_tag(tmp_path: Path, served: DatasetHub) -> None:
    builder = filled(tmp_path / "lake")
    made = snapshot(builder.lake, tmp_path / "a", "1.0.0")
    uri = publish(made, "hf://datasets/org/matrix")
    assert uri == "hf://datasets/org/matrix@1.0.0"
    assert served.large, "no file was large enough to go up apart"
    assert publish(made, "hf://datasets/org/matrix") == uri
    assert not verify(uri).faults
    add(builder, "c", "t", 0, 0, 2)
    with pytest.raises(ConfigError, match="never changes"):
        publish(snapshot(builder.lake, tmp_path / "b", "1.0.0"), "hf://datasets/org/matrix")
    later = publish(snapshot(builder.lake, tmp_path / "c", "1.1.0"), "hf://datasets/org/matrix")
    assert not verify(later).faults
    assert not verify(uri).faults
    assert_same(load_matrix(later), load_matrix(builder.lake))


@on_the_hub
def test_publish_on_the_hub_beside_another_who_is_faster_is_told(tmp_path: Path, served: DatasetHub) -> None:
    builder = filled(tmp_path / "lake")
    mine = snapshot(builder.lake, tmp_path / "a", "1.0.0")
    add(builder, "c", "t", 0, 0, 2)
    theirs = snapshot(builder.lake, tmp_path / "b", "1.0.0")

    def other() -> None:
        served.before_tag = None
        publish(theirs, "hf://datasets/org/matrix")

    served.before_tag = other
    with pytest.raises(ConfigError, match="never changes"):
        publish(mine, "hf://datasets/org/matrix")
    assert not verify("hf://datasets/org/matrix@1.0.0").faults


def test_publish_on_a_hub_that_refuses_is_one_line_without_the_token(tmp_path: Path, served: DatasetHub) -> None:
    made = snapshot(filled(tmp_path / "lake").lake, tmp_path / "a", "1.0.0")
    served.refuses = 403
    with pytest.raises(StorageError, match="HF_TOKEN") as caught:
        publish(made, "hf://datasets/org/matrix")
    assert "hf_secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    for wrong in ("hf://datasets/org", "hf://org/name", "hf://datasets/org/name/sub"):
        with pytest.raises(ConfigError, match="hf://datasets/OWNER/NAME"):
            publish(made, wrong)


# ---- verify and diff


def test_verify_names_what_is_changed_missing_and_not_part_of_it(tmp_path: Path) -> None:
    uri = Path(publish(snapshot(filled(tmp_path / "lake").lake, tmp_path / "a"), str(tmp_path / "out")))
    records = next(uri.glob("compact/*/task=t/records-*"))
    data = bytearray(records.read_bytes())
    data[len(data) // 2] ^= 1
    records.write_bytes(data)
    (uri / "views.sql").unlink()
    note = records.with_name("note.txt")
    note.write_text("hello")
    faults = verify(str(uri)).faults
    assert sorted(fault.split(":")[0] for fault in faults) == sorted(
        [str(records.relative_to(uri)), "views.sql", str(note.relative_to(uri))]
    )


def test_diff_says_what_came_went_and_changed_per_model_and_task(tmp_path: Path) -> None:
    first, second = LakeBuilder(tmp_path / "1"), LakeBuilder(tmp_path / "2")
    cells = [BuiltCell(model=m, task=t) for m in "abc" for t in ("t", "u")]
    for builder in (first, second):
        builder.run(*cells)
        builder.scores(BuiltCell(model="a", task="t"), [1.0, 0.0])
    first.scores(BuiltCell(model="b", task="t"), [1.0, 0.0, 1.0])
    second.scores(BuiltCell(model="b", task="t"), [0.0, 0.0])
    second.scores(BuiltCell(model="c", task="u"), [1.0])
    uris = [publish(snapshot(b.lake, tmp_path / f"s{i}"), str(tmp_path / "out")) for i, b in enumerate((first, second))]
    assert differences(*uris) == [Difference("t", "b", 0, 1, 1), Difference("u", "c", 1, 0, 0)]
    assert differences(uris[0], uris[0]) == []


# ---- the command


def test_publish_command_publishes_verifies_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = filled(tmp_path / "lake")
    publish_it = ["--lake", builder.lake.uri, "--to", str(tmp_path / "out"), "--source", "gsm8k=mit"]
    assert main(publish_it) == 0
    uri = capsys.readouterr().out.splitlines()[-1].rsplit(" ", 1)[-1]
    assert main(["verify", uri]) == 0
    assert "whole" in capsys.readouterr().out
    assert main(publish_it) == 0, "the same lake is the same version"
    assert len(list((tmp_path / "out").iterdir())) == 1
    add(builder, "c", "t", 0, 0, 2)
    assert main([*publish_it, "--version", "2.0.0"]) == 0
    capsys.readouterr()
    assert main(["diff", uri, str(tmp_path / "out" / "2.0.0")]) == 1
    assert "t, c" in capsys.readouterr().out
    assert main(["diff", uri, uri]) == 0
    (Path(uri) / "README.md").write_text("x")
    assert main(["verify", uri]) == 1


@pytest.mark.parametrize(
    "arguments",
    [["verify", "nowhere"], ["diff", "nowhere", "."], ["--lake", "nowhere", "--to", "x"], ["verify", "a@b://"]],
)
def test_publish_command_wrong_input_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("version", ["", "../x", "a/b", "-v", ".", "x" * 80, "a..b", "v.lock"])
def test_publish_command_versions_that_are_no_names_are_refused(version: str) -> None:
    with pytest.raises(SystemExit):
        main(["--to", "x", f"--version={version}"])
