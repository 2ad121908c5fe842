"""Verifying a copy of a version: every kind of tampering is named or refused, in one line each."""

from __future__ import annotations

import datetime as dt
import io
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.matrix.packed import FILES
from collectors.publish.descriptions import descriptions_of_others
from collectors.publish.packed_form import packed_of_others
from collectors.publish.published_sql import _in_one_order, _words, views_of_others
from collectors.publish.publishing import publish
from collectors.publish.verifying import claim, verify
from pipelines.publish import main
from tests.helpers.equal_lakes import put_prices
from tests.helpers.filled_lakes import filled, published
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.signed_tampering import KINDS
from tests.helpers.tampering import DEEP, Copy


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a price that began today."""
    place = tmp_path_factory.mktemp("version")
    lake = filled(place / "lake").lake
    put_prices(lake, [("a", 1.0, 2.0)], str(dt.datetime.now().date()))
    return Path(publish(published(lake, place / "a"), str(place / "out"))[0])


@pytest.mark.few(60)
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


def test_verify_of_a_view_that_was_changed_in_its_place_names_it(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all digests made anew: whoever wrote it may be another release, so the version is whole."""
    assert not verify(str(version)).notes
    copy = Copy(version, tmp_path)
    text = copy.read("views.sql").decode()
    start = text.index("CREATE VIEW leaderboard")
    changed = text.replace(text[start : text.index(";", start)], "CREATE VIEW leaderboard AS SELECT 1")
    copy.sign("views.sql", changed.encode())
    assert main(["verify", str(copy.folder)]) == 0
    assert "note: views.sql: 1 of its views, such as leaderboard, are not this release's" in capsys.readouterr().out


def test_verify_of_descriptions_that_say_something_else_names_them(version: Path, tmp_path: Path) -> None:
    copy = Copy(version, tmp_path)
    store = Lake(str(copy.folder))
    for file in ("croissant.json", "README.md", "DATASHEET.md", "CITATION.cff", ".zenodo.json"):
        changed = copy.read(file).replace(b"Router benchmark matrix", b"A better matrix")
        copy.sign(file, changed if changed != copy.read(file) else changed + b"\n")
        [line] = descriptions_of_others(store, copy.manifest)
        assert line.startswith(f"{file}: 1 of the descriptions")
        copy.sign(file, (version / file).read_bytes())
    assert descriptions_of_others(store, copy.manifest) == []
    copy.state(description={**copy.manifest["description"], "licence": "cc0-1.0"})
    assert "of the descriptions are not as this release writes them" in verify(str(copy.folder)).notes[0]


def test_notes_on_a_database_name_views_macros_and_tables_of_the_pool_that_were_changed(
    version: Path, tmp_path: Path
) -> None:
    views = ["CREATE OR REPLACE VIEW oracle AS SELECT 1 AS rank", "CREATE OR REPLACE MACRO _mean(x, scale) AS 1.0"]
    yesterday = "UPDATE _members SET usd_per_million_prompt = NULL, usd_per_million_completion = NULL"
    [line] = _notes(version, tmp_path / "views", [*views, yesterday])
    assert line.startswith("snapshot.duckdb: 2 of its views, such as _mean,"), "yesterday's prices are no change"
    [line] = _notes(version, tmp_path / "pool", ["UPDATE _members SET merit_sign = -1", "DELETE FROM _scored"])
    assert line.startswith("snapshot.duckdb: 2 of its tables of the pool, such as _members,")


def test_note_on_a_matrix_with_other_rows_than_the_records_names_it(version: Path, tmp_path: Path) -> None:
    copy = Copy(version, tmp_path)
    name = next(name for name in copy.manifest["files"] if name.startswith("matrix/task="))
    table = pq.read_table(copy.folder / name)
    scores = pa.array([1.0] * len(table))
    sink = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index("score"), "score", scores), sink)
    copy.sign(name, sink.getvalue())
    [line] = views_of_others(Lake(str(copy.folder)))
    assert line.startswith(f"matrix/: 1 of its files, such as {name},")


def test_note_on_a_packed_matrix_that_the_records_do_not_give_names_it(version: Path, tmp_path: Path) -> None:
    copy = Copy(version, tmp_path)
    assert packed_of_others(Lake(str(copy.folder))) == []
    table = pq.read_table(copy.folder / FILES["items"])
    sink = io.BytesIO()
    pq.write_table(table.slice(1), sink)
    copy.sign(FILES["items"], sink.getvalue())
    [line] = verify(str(copy.folder)).notes
    assert line.startswith(f"{FILES['items']}: 1 of the files of the packed matrix")


def _notes(version: Path, place: Path, statements: list[str]) -> list[str]:
    place.mkdir()
    copy = Copy(version, place)
    shutil.copy(copy.folder / "snapshot.duckdb", place / "changed.duckdb")
    with duckdb.connect(place / "changed.duckdb") as con:
        for statement in statements:
            con.execute(statement)
    copy.put("snapshot.duckdb", (place / "changed.duckdb").read_bytes())
    return views_of_others(Lake(str(copy.folder)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a - b", "SELECT b - a"),
        ("CASE WHEN a THEN b ELSE c END", "CASE WHEN a THEN c ELSE b END"),
        ("ORDER BY a ASC, b DESC", "ORDER BY a DESC, b ASC"),
        ("SELECT 'a  b'", "SELECT 'a b'"),
        ("* REPLACE ((a - b) AS a)", "* REPLACE ((b - a) AS a)"),
        ("* EXCLUDE (a), b", "* EXCLUDE (b), a"),
        ('"replace"(a, b)', '"replace"(b, a)'),
    ],
)
def test_words_of_another_view_are_others(one: str, other: str) -> None:
    assert _in_one_order(_words(one)) != _in_one_order(_words(other))


def test_words_of_a_view_are_the_same_however_duckdb_prints_it() -> None:
    one = "SELECT * EXCLUDE (a, t.b) REPLACE (f(x, y) AS c, (SELECT * EXCLUDE (e, d) FROM u) AS v), w FROM t"
    other = "SELECT * EXCLUDE (t.b, a) REPLACE ((SELECT * EXCLUDE (d, e)\n FROM u) AS v, f(x, y) AS c), w FROM t; -- x"
    assert _in_one_order(_words(one)) == _in_one_order(_words(other))


def test_a_version_with_a_part_outside_it_is_refused_by_readers_too(version: Path, tmp_path: Path) -> None:
    from collectors.lake.holdings import read_holdings
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
