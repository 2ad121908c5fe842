"""The command that takes records back, and what it means for imports and published versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pytest

from collectors.lake.compaction import compact
from collectors.lake.pruning import prune
from collectors.lake.store import Lake
from pipelines import ingest, publish
from pipelines.forget import main
from tests.helpers.filled_lakes import NOW, query
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only

CSV = "who,question,asked,right\n" + "".join(f"m{m},What is {q}?,Say {q},{q % 2}\n" for m in (1, 2) for q in range(12))


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main([*arguments]) == code
    said = capsys.readouterr()
    return said.out + said.err


@pytest.fixture
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table, and two readings of it: one takes the wrong column for the prompt."""
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text(CSV)
    for name, prompt in (("wrong", "asked"), ("right", "question")):
        Path(f"{name}.yaml").write_text(
            f"model: who\ntask: {{value: quiz}}\nkey: {prompt}\nprompt: {prompt}\nscore: right\n"
        )
    return tmp_path


def imported(columns: str, *more: str) -> int:
    table = ["--format", "table", "scores.csv", "--columns", f"{columns}.yaml", "--lake", "lake"]
    return ingest.main([*table, *more])


def matrix_rows(lake: str = "lake") -> list[tuple[object, ...]]:
    return query(
        lake, "SELECT imported_from, count(*), count(DISTINCT item_hash) FROM matrix GROUP BY ALL ORDER BY ALL"
    )


def test_forget_command_a_wrong_import_comes_back_is_compacted_away_and_stays_away(
    imports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported("wrong", "--name", "mine") == 0
    held = matrix_rows()
    assert held == [("mine", 24, 12)]
    capsys.readouterr()
    assert "24 records of 2 cells: 2 models on 1 task" in run(capsys, "--import", "mine", "--dry-run", "--lake", "lake")
    assert "add --yes" in run(capsys, "--import", "mine", "--reason", "x", "--lake", "lake", code=2)
    assert "--reason is missing" in run(capsys, "--import", "mine", "--yes", "--lake", "lake", code=2)
    said = run(capsys, "--import", "mine", "--reason", "the wrong column", "--yes", "--lake", "lake")
    [retraction] = re.findall(r"forgotten by retraction (\S+);", said)
    for view in ("matrix", "cells", "runs", "imports", "coverage"):
        assert query("lake", f"FROM {view}") == []

    run(capsys, "--take-back", retraction, "--reason", "it was right", "--lake", "lake")
    assert matrix_rows() == held
    listed = run(capsys, "--list", "--lake", "lake")
    assert "import mine: the wrong column" in listed
    assert "taken back by" in listed

    run(capsys, "--import", "mine", "--reason", "no", "--yes", "--lake", "lake")
    compact(Lake("lake"))
    prune(Lake("lake"), NOW)
    assert matrix_rows() == []
    assert list(Path("lake/shards").rglob("i*.parquet")) == []


def test_ingest_command_replace_the_earlier_rows_are_gone_and_the_same_files_can_return(
    imports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported("wrong", "--replace", "mine") == 2
    assert imported("wrong", "--name", "mine") == 0
    capsys.readouterr()
    assert imported("right", "--replace", "mine", "--dry-run") == 0
    assert "replaces 24 records of 2 cells" in capsys.readouterr().out
    assert imported("right", "--replace", "mine") == 0
    assert matrix_rows() == [("mine", 24, 12)]
    assert query("lake", "SELECT DISTINCT prompt FROM items JOIN cells USING (items_digest) ORDER BY ALL LIMIT 1") == [
        ("What is 0?",)
    ]
    assert imported("right", "--name", "mine") == 0
    assert "nothing new" in capsys.readouterr().out
    assert imported("wrong", "--replace", "mine") == 0  # back to the first, as the next generation of its cells
    assert query("lake", "SELECT DISTINCT generation FROM matrix") == [(1,)]
    assert matrix_rows() == [("mine", 24, 12)]


def test_ingest_command_replace_that_fails_keeps_the_earlier_import(
    imports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported("wrong", "--name", "mine") == 0
    Path("right.yaml").write_text("model: nobody\ntask: {value: quiz}\nkey: question\nscore: right\n")
    assert imported("right", "--replace", "mine") != 0
    assert ("mine", 24, 12) in matrix_rows()


@long_only
def test_publish_command_a_model_that_was_forgotten_is_retracted_in_the_next_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = LakeBuilder(str(tmp_path / "lake"))
    cells = [BuiltCell(model=model, task=task) for model in ("a", "secret-model") for task in ("t", "u")]
    builder.run(*cells)
    for cell in cells:
        builder.scores(cell, [1.0, 0.0] * 5)
    builder.model("secret-model", "r0", config="{}")
    lake = builder.lake
    to = ["--lake", lake.uri, "--to", str(tmp_path / "to")]
    assert publish.main([*to, "--version", "1"]) == 0
    before = (tmp_path / "to/1/manifest.json").read_bytes()
    compact(lake)
    prune(lake, NOW)
    run(capsys, "--model", "secret-model", "--reason", "its licence forbids it", "--yes", "--lake", lake.uri)
    compact(lake)
    for _ in range(2):  # again, with itself at the place
        assert publish.main([*to, "--version", "2"]) == 0
    assert json.loads((tmp_path / "to/2/manifest.json").read_text())["previous"]["version"] == "1"
    capsys.readouterr()
    assert publish.main(["diff", str(tmp_path / "to/1"), str(tmp_path / "to/2")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0 records came, 20 went, 20 of them retracted, 0 changed: 1 model on 2 tasks"
    assert (tmp_path / "to/1/manifest.json").read_bytes() == before
    assert publish.main(["verify", str(tmp_path / "to/1")]) == 0
    assert publish.main(["verify", str(tmp_path / "to/2")]) == 0
    second = str(tmp_path / "to/2")
    assert query(second, "SELECT DISTINCT model FROM cells ORDER BY ALL") == [("a",)]
    assert query(second, "SELECT DISTINCT reason FROM retractions") == [("its licence forbids it",)]
    held = [path for path in Path(second).rglob("*") if path.is_file() and b"secret-model" in path.read_bytes()]
    assert {path.name if path.parent.name != "retractions" else "" for path in held} <= {"", "snapshot.duckdb"}
    with duckdb.connect(f"{second}/snapshot.duckdb", read_only=True) as con:
        tables = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        naming = [name for name in tables if "secret-model" in repr(con.execute(f"FROM {name}").fetchall())]
    assert set(naming) <= {"_file_retractions"}, "the retraction alone names it"


def test_forget_twice_names_the_retraction_that_did_it(imports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported("wrong", "--name", "mine") == 0
    text = run(capsys, "--import", "mine", "--reason", "wrong column", "--yes", "--lake", "lake")
    retraction = re.findall(r"retraction (\S+);", text)[0]
    for words, named in (
        (["--import", "mine"], "import mine"),
        (["--import", "mine", "--model", "m2"], "model m2"),
        (["imported_from = 'mine'", "--task", "quiz"], "task quiz"),
    ):
        again = run(capsys, *words, "--reason", "again", "--yes", "--lake", "lake", code=2)
        assert f"forgotten already: {named} by retraction {retraction} of 20" in again
        assert "(wrong column)" in again
    assert "has no import ours" in run(capsys, "--import", "ours", "--reason", "x", "--yes", "--lake", "lake", code=2)
    run(capsys, "--take-back", retraction, "--reason", "it was right", "--lake", "lake")
    assert "24 records" in run(capsys, "--import", "mine", "--dry-run", "--lake", "lake")
