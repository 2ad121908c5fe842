"""Publishing: a version never changes, two who publish do not mix, and a copy proves that it is whole."""

from __future__ import annotations

import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

import duckdb
import huggingface_hub.constants as hub
import pytest
from huggingface_hub import HfFileSystem

from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.lake.reading import connect, open_store
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from collectors.publish.manifests import open_published
from collectors.publish.publishing import Difference, differences, publish
from collectors.publish.verifying import verify
from collectors.publish.version import PublishedVersion
from pipelines.publish import main
from schemas.failures import ConfigError, StorageError, UnreachableError
from tests.helpers.dataset_hub import DatasetHub, dataset_hub
from tests.helpers.filled_lakes import add, assert_same, contents, filled, plain_lake, published
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.object_store import BUCKET
from tests.helpers.thorough import long_only

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


@pytest.mark.slow
def test_publish_again_is_the_same_and_other_content_is_refused(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    first = published(builder.lake, tmp_path / "a", "1.0.0")
    uri, is_new = publish(first, str(tmp_path / "out"))
    assert is_new
    before = contents(Path(uri))
    assert publish(first, str(tmp_path / "out")) == (uri, False)
    add(builder, "c", "t", 0, 0, 2)
    with pytest.raises(ConfigError, match="never changes"):
        publish(published(builder.lake, tmp_path / "b", "1.0.0"), str(tmp_path / "out"))
    assert contents(Path(uri)) == before == contents(first.folder)


@pytest.mark.slow
def test_publish_killed_half_way_goes_on_and_the_version_is_taken(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    mine = published(builder.lake, tmp_path / "a", "1.0.0")

    def kill(done: int, files: int) -> None:
        if done == files // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(mine, str(tmp_path / "out"), kill)
    with pytest.raises(ConfigError, match="no published version"):
        open_published(str(tmp_path / "out" / "1.0.0"))
    add(builder, "c", "t", 0, 0, 2)
    with pytest.raises(ConfigError, match="partly published"):
        publish(published(builder.lake, tmp_path / "b", "1.0.0"), str(tmp_path / "out"))
    assert not verify(publish(mine, str(tmp_path / "out"))[0]).faults


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_publish_two_at_once_one_wins_and_the_other_is_told(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    to = str(tmp_path / "out")
    if place == "s3":
        request.getfixturevalue("s3_environment")
        to = f"s3://{BUCKET}/{secrets.token_hex(4)}"
    builder = filled(tmp_path / "lake")
    one = published(builder.lake, tmp_path / "a", "1.0.0")
    add(builder, "c", "t", 0, 0, 2)
    two = published(builder.lake, tmp_path / "b", "1.0.0")
    told: list[str] = []
    barrier = threading.Barrier(2)

    def run(mine: PublishedVersion) -> None:
        barrier.wait()
        try:
            told.append(publish(mine, to)[0])
        except ConfigError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run, args=(mine,)) for mine in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("never changes" in text for text in told) == [False, True]
    assert not verify(f"{to}/1.0.0").faults
    won = json.loads(Lake(f"{to}/1.0.0").read(PUBLISHED_MANIFEST))
    assert won in (one.manifest, two.manifest)


@pytest.mark.slow
def test_publish_to_a_store_is_read_in_place(tmp_path: Path, s3_environment: Any) -> None:
    lake = filled(tmp_path / "lake").lake
    made = published(lake, tmp_path / "s")
    uri, _ = publish(made, f"s3://{BUCKET}/{secrets.token_hex(4)}/published")
    assert not verify(uri).faults
    store = Lake(uri)
    assert_same(load_matrix(uri), load_matrix(lake))
    with (
        duckdb.connect(made.folder / "snapshot.duckdb", read_only=True) as con,
        connect(lake, only=["matrix"]) as local,
    ):
        open_store(con, store)
        con.execute("SET VARIABLE snapshot = ?", [uri])
        assert rows(con, "FROM matrix ORDER BY ALL") == rows(local, "FROM matrix ORDER BY ALL")


def test_publish_again_over_a_copy_that_is_not_whole_says_so(tmp_path: Path) -> None:
    made = published(filled(tmp_path / "lake").lake, tmp_path / "a")
    uri, _ = publish(made, str(tmp_path / "out"))
    (Path(uri) / "views.sql").unlink()
    with pytest.raises(StorageError, match=r"not whole any more \(views.sql: missing\)"):
        publish(made, str(tmp_path / "out"))


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
    made = published(builder.lake, tmp_path / "a", "1.0.0")
    uri, _ = publish(made, "hf://datasets/org/matrix")
    assert uri == "hf://datasets/org/matrix@1.0.0"
    assert served.large, "no file was large enough to go up apart"
    assert publish(made, "hf://datasets/org/matrix") == (uri, False)
    assert not verify(uri).faults
    add(builder, "c", "t", 0, 0, 2)
    with pytest.raises(ConfigError, match="never changes"):
        publish(published(builder.lake, tmp_path / "b", "1.0.0"), "hf://datasets/org/matrix")
    later, _ = publish(published(builder.lake, tmp_path / "c", "1.1.0"), "hf://datasets/org/matrix")
    assert not verify(later).faults
    assert not verify(uri).faults
    assert_same(load_matrix(later), load_matrix(builder.lake))


@long_only
@on_the_hub
def test_publish_on_the_hub_beside_another_who_is_faster_is_told(tmp_path: Path, served: DatasetHub) -> None:
    builder = filled(tmp_path / "lake")
    mine = published(builder.lake, tmp_path / "a", "1.0.0")
    add(builder, "c", "t", 0, 0, 2)
    theirs = published(builder.lake, tmp_path / "b", "1.0.0")

    def other() -> None:
        served.before_tag = None
        publish(theirs, "hf://datasets/org/matrix")

    served.before_tag = other
    with pytest.raises(ConfigError, match="never changes"):
        publish(mine, "hf://datasets/org/matrix")
    assert not verify("hf://datasets/org/matrix@1.0.0").faults


def test_publish_on_a_hub_that_refuses_is_one_line_without_the_token(tmp_path: Path, served: DatasetHub) -> None:
    made = published(filled(tmp_path / "lake").lake, tmp_path / "a", "1.0.0")
    served.refuses = 403
    with pytest.raises(StorageError, match="HF_TOKEN") as caught:
        publish(made, "hf://datasets/org/matrix")
    assert "hf_secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    for wrong in ("hf://datasets/org", "hf://org/name", "hf://datasets/org/name/sub"):
        with pytest.raises(ConfigError, match="hf://datasets/OWNER/NAME"):
            publish(made, wrong)


def test_publish_with_the_hub_away_is_one_line_that_may_pass(
    tmp_path: Path, served: DatasetHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = published(plain_lake(str(tmp_path / "lake"), 1).lake, tmp_path / "a", "1.0.0")
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError) as caught:
        publish(made, "hf://datasets/org/matrix")
    assert "\n" not in str(caught.value)


# ---- verify and diff


def test_verify_names_what_is_changed_missing_and_not_part_of_it(tmp_path: Path) -> None:
    uri = Path(publish(published(filled(tmp_path / "lake").lake, tmp_path / "a"), str(tmp_path / "out"))[0])
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
    made = [published(b.lake, tmp_path / f"s{i}") for i, b in enumerate((first, second))]
    uris = [publish(one, str(tmp_path / "out"))[0] for one in made]
    assert differences(*uris) == [Difference("t", "b", 0, 1, 0, 1), Difference("u", "c", 1, 0, 0, 0)]
    assert differences(uris[0], uris[0]) == []
