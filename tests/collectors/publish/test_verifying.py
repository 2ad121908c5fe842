"""Verifying a copy of a version: every kind of tampering is named or refused, in one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from collectors.publish.publishing import publish
from collectors.publish.verifying import claim, verify
from pipelines.publish import main
from tests.helpers.filled_lakes import filled, published
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.signed_tampering import KINDS
from tests.helpers.tampering import DEEP, Copy


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("version")
    return Path(publish(published(filled(place / "lake").lake, place / "a"), str(place / "out"))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_verify_of_a_version_that_was_tampered_with_names_it(
    kind: str, version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Copy(version, tmp_path)
    KINDS[kind](copy)
    status = main(["verify", str(copy.folder)])
    shown = capsys.readouterr()
    assert status in (1, 2)
    assert "Traceback" not in shown.err
    assert len(shown.err.splitlines()) == 1, "what is refused, or the number of faults"
    assert all(line.isprintable() for line in (shown.out + shown.err).splitlines())
    if kind.endswith("future"):
        assert status == 2
        assert "newer release" in shown.err


def test_verify_of_a_whole_version_by_a_link_or_after_a_kill_is_whole(version: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(version)
    proof = verify(str(tmp_path / "latest"))
    assert not proof.faults
    copy = Copy(version, tmp_path)
    copy.put("claim.json", claim(proof.manifest_sha256))
    assert not verify(str(copy.folder)).faults


@pytest.mark.parametrize(
    ("file", "view"),
    [("views.sql", "leaderboard"), ("snapshot.duckdb", "oracle"), ("snapshot.duckdb", "leaderboard")],
)
def test_verify_of_a_view_that_was_changed_in_its_place_names_it(
    file: str, view: str, version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all digests made anew: whoever wrote it may be another release, so the version is whole."""
    assert not verify(str(version)).notes
    copy = Copy(version, tmp_path)
    if file == "views.sql":
        text = copy.read(file).decode()
        start = text.index(f"CREATE VIEW {view}")
        copy.sign(file, text.replace(text[start : text.index(";", start)], f"CREATE VIEW {view} AS SELECT 1").encode())
    else:
        shutil.copy(copy.folder / file, tmp_path / "changed.duckdb")
        with duckdb.connect(tmp_path / "changed.duckdb") as con:
            con.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT 1 AS rank")
        copy.sign(file, (tmp_path / "changed.duckdb").read_bytes())
    assert main(["verify", str(copy.folder)]) == 0
    assert f"note: {file}: 1 of its views, such as {view}, are not this release's" in capsys.readouterr().out


def test_a_version_with_a_part_outside_it_is_refused_by_readers_too(version: Path, tmp_path: Path) -> None:
    from collectors.lake.holdings import read_holdings
    from collectors.lake.store import Lake
    from schemas.failures import StorageError

    copy = Copy(version, tmp_path)
    KINDS["part_above_the_folder"](copy)
    with pytest.raises(StorageError, match="damaged"):
        read_holdings(Lake(str(copy.folder)))
    copy.put("compact/000001/manifest.json", DEEP)
    with pytest.raises(StorageError, match="damaged"):
        read_holdings(Lake(str(copy.folder)))


def test_verify_of_models_and_imports_that_are_named_like_paths_is_whole(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    cell = BuiltCell(model="/models/Llama/8B", items=4)
    builder.run(cell)
    builder.shard(cell, [cell.record(item, score=1.0) for item in range(4)], metadata={"host": "gpu1"})
    builder.items(cell.task, cell.items_digest, 4)
    uri, _ = publish(published(builder.lake, tmp_path / "a"), str(tmp_path / "out"))
    assert not verify(uri).faults
