"""A lake outlives the program: a program of the next schema version works on today's lakes, and ours refuses its own.

The next version is this program with a copy of schemas/ that adds columns, a table or a migration.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from collectors.lake.compaction import compact
from collectors.lake.holdings import read_holdings
from collectors.lake.pruning import prune
from schemas.failures import ConfigError, StorageError
from schemas.records import SCHEMA_VERSION
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only

ROOT = Path(__file__).resolve().parents[3]
NEXT = SCHEMA_VERSION + 1
CELL = BuiltCell(items=6)

#: A column of the records, one of a small table, one of the items, and a table, all new.
GROWN = {
    "schemas/records.py": [
        (f"SCHEMA_VERSION = {SCHEMA_VERSION}", f"SCHEMA_VERSION = {NEXT}"),
        (
            '        _field("stated_usd"',
            '        _field("mood", pa.string(), "new in records"),\n        _field("stated_usd"',
        ),
        ('        _field("subject"', '        _field("topic", pa.string(), "new in items"),\n        _field("subject"'),
        ('        _field("library"', '        _field("hue", pa.string(), "new in models"),\n        _field("library"'),
        ('    "failures": FAILURE,', '    "failures": FAILURE,\n    "notes": FAILURE,'),
    ],
    "schemas/views/notes.sql": "-- notes: one row per note.\nCREATE VIEW notes AS\nFROM {notes};\n",
}

#: Finish reasons in capitals: no column changes, but what one means.
MIGRATED = {
    "schemas/records.py": [(f"SCHEMA_VERSION = {SCHEMA_VERSION}", f"SCHEMA_VERSION = {NEXT}")],
    "schemas/migrations/__init__.py": [
        (
            "MIGRATIONS: dict[int, Migration] = {}",
            f"""import pyarrow.compute as pc


def _shout(table: str, rows: pa.Table) -> pa.Table:
    if "finish_reason" not in rows.schema.names:
        return rows
    place = rows.schema.get_field_index("finish_reason")
    return rows.set_column(place, "finish_reason", pc.utf8_upper(rows["finish_reason"]))


MIGRATIONS: dict[int, Migration] = {{{NEXT}: Migration("finish reasons are in capitals", _shout)}}""",
        )
    ],
}


class Program:
    """A copy of this program with other files. One process runs it, because each takes a second to import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, script: str, *arguments: str | Path, rc: int = 0) -> str:
        """Runs a script of pipelines/. Returns its output; asserts its exit code."""
        code, output = self._ask(script, *arguments)
        assert code == rc, output
        return str(output)

    def rows(self, lake: Path, *queries: str) -> list[list[list[object]]]:
        """The rows of each query over the views of this program."""
        return list(self._ask("rows", lake, *queries))

    def _ask(self, *question: str | Path) -> Any:
        if self._process is None:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            env = {**os.environ, "PYTHONPATH": str(self.folder)}
            self._process = subprocess.Popen([sys.executable, "-P", "-c", _ANSWER], env=env, **pipes)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(list(map(str, question))) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        if self._process:
            self._process.communicate()


_ANSWER = """
import contextlib, importlib, io, json, sys
from collectors.lake.store import Lake
from collectors.lake.reading import ask
from schemas.views import named_in

def rows(place, *queries):
    lake, views = Lake(place).open_for_reading(), named_in(" ".join(queries))
    return ask(lake, lambda con, _: [con.execute(query).fetchall() for query in queries], only=views)

def run(script, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        code = importlib.import_module("pipelines." + script).main(list(arguments))
    return code, said.getvalue()

for line in sys.stdin:
    kind, *arguments = json.loads(line)
    answer = rows(*arguments) if kind == "rows" else run(kind, *arguments)
    print(json.dumps(answer, default=str), flush=True)
"""


@pytest.fixture(scope="module")
def today() -> Iterator[Program]:
    made = Program(ROOT)
    yield made
    made.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    made: list[Program] = []

    def build(edits: dict[str, list[tuple[str, str]] | str]) -> Program:
        folder = tmp_path / "program"
        folder.mkdir()
        for package in ("collectors", "pipelines"):
            (folder / package).symlink_to(ROOT / package)
        shutil.copytree(ROOT / "schemas", folder / "schemas", ignore=shutil.ignore_patterns("__pycache__"))
        for name, edit in edits.items():
            if isinstance(edit, str):
                (folder / name).write_text(edit)
                continue
            text = (folder / name).read_text()
            for old, new in edit:
                assert old in text, f"{name} has changed: {old}"
                text = text.replace(old, new)
            (folder / name).write_text(text)
        made.append(Program(folder))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    """Two cells of two generations with items, a model and a failure: one compacted, one open, one in part replaced."""
    builder = LakeBuilder(tmp_path / "lake")
    builder.items(CELL.task, CELL.items_digest, 6)
    builder.model(CELL.model, "r0")
    other = BuiltCell(model="model-b", items=6)
    builder.run(CELL, other)
    rows = [CELL.record(item, score=float(item % 2), finish_reason="stop", responses=["a"]) for item in range(4)]
    builder.shard(CELL, rows)
    builder.shard(other, [other.record(item, score=1.0, finish_reason="length") for item in range(6)])
    compact(builder.lake)
    builder.shard(CELL, [CELL.record(item, score=1.0, finish_reason="stop") for item in (1, 2)], generation=1)
    builder.shard(CELL, [CELL.record(item, score=0.0, finish_reason="stop") for item in (4, 5)])
    builder.failure("run-0001", "bad_model", "no weights", model="model-c")
    return builder


SEEN = {
    "records": "SELECT cell_id, item, score, finish_reason, generation FROM records ORDER BY ALL",
    "responses": "SELECT cell_id, item, responses, generation FROM responses ORDER BY ALL",
    "superseded": "SELECT cell_id, item, score, generation FROM superseded ORDER BY ALL",
    "matrix": "SELECT model, item, score FROM matrix ORDER BY ALL",
    "leaderboard": "SELECT model, score, scored, rank FROM leaderboard ORDER BY ALL",
    "items": "SELECT item, item_hash FROM items ORDER BY ALL",
    "models": "SELECT model, revision, licence FROM models ORDER BY ALL",
    "failures": "SELECT kind, model FROM failures ORDER BY ALL",
}


def seen(program: Program, lake: Path) -> dict[str, list[list[object]]]:
    return dict(zip(SEEN, program.rows(lake, *SEEN.values()), strict=True))


def objects(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_next_version_reads_todays_lake_and_changes_nothing(
    lake: LakeBuilder, program: Callable[..., Program], today: Program, tmp_path: Path
) -> None:
    before = objects(tmp_path / "lake")
    grown = program(GROWN)
    assert seen(grown, tmp_path / "lake") == seen(today, tmp_path / "lake")
    queries = ("SELECT DISTINCT mood FROM superseded", "SELECT DISTINCT topic FROM items", "FROM notes")
    assert grown.rows(tmp_path / "lake", *queries) == [[[None]], [[None]], []]
    assert objects(tmp_path / "lake") == before
    # `matrix.duckdb` lists its files anew at each query: another way to the same rows
    grown("matrix", "--lake", tmp_path / "lake", "--out", tmp_path / "grown.duckdb")
    with duckdb.connect(tmp_path / "grown.duckdb", read_only=True) as con:
        assert con.execute("SELECT count(*), count(mood) FROM records").fetchall() == [(12, 0)]
        assert con.execute("FROM notes").fetchall() == []


@long_only
def test_next_version_compacts_prunes_and_publishes_todays_lake_without_losing_a_row(
    lake: LakeBuilder, program: Callable[..., Program], today: Program, tmp_path: Path
) -> None:
    place = tmp_path / "lake"
    before = seen(today, place)
    grown = program(GROWN)
    grown("compact", "--lake", place, "--prune", "--keep-hours", "0")
    assert seen(grown, place) == before
    assert not (place / "damaged").exists()
    assert grown.rows(place, "FROM failures WHERE kind = 'damaged_file'") == [[]]
    grown("publish", "--lake", place, "--to", tmp_path / "published")
    [version] = [
        path.parent for path in (tmp_path / "published").rglob("manifest.json") if path.parent.name != "000001"
    ]
    assert seen(grown, version)["matrix"] == before["matrix"]
    assert grown.rows(version, "SELECT count(*), count(topic) FROM items") == [[[6, 0]]]


def test_todays_program_refuses_a_lake_of_the_next_version_and_changes_nothing(
    lake: LakeBuilder, program: Callable[..., Program], today: Program, tmp_path: Path
) -> None:
    place = tmp_path / "lake"
    program(GROWN)("compact", "--lake", place)
    before = objects(place)
    for script, *arguments in (("compact", "--prune", "--keep-hours", "0"), ("matrix", "--show"), ("status",)):
        said = today(script, "--lake", place, *arguments, rc=2)
        assert f"schema version {NEXT}, this program reads up to {SCHEMA_VERSION}" in said
        assert len(said.strip().splitlines()) == 1
    assert objects(place) == before


def assert_refused_whole(lake: LakeBuilder, folder: Path, path: Path) -> None:
    """Gives an object the next version: no compaction then changes anything."""
    table = pq.read_table(path)
    metadata = {**(table.schema.metadata or {}), b"routerlake_schema_version": str(NEXT).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    before = objects(folder)
    with pytest.raises(ConfigError, match=f"has schema version {NEXT}"):
        compact(lake.lake)
    assert objects(folder) == before


def test_shard_of_the_next_version_alone_is_never_damage(lake: LakeBuilder, tmp_path: Path) -> None:
    """Somebody copied it here: nothing of the lake may be folded, deleted or set aside around it."""
    [name] = [name for name in lake.lake.names("shards") if "-g1-" in name]
    path = tmp_path / "lake" / name
    assert_refused_whole(lake, tmp_path / "lake", path)


def test_column_added_without_a_new_version_reads_as_null_and_nothing_is_pruned(
    lake: LakeBuilder, program: Callable[..., Program], today: Program, tmp_path: Path
) -> None:
    """A test forbids it (tests/schemas/test_versions.py); it once made every shard foreign, and prune deleted them."""
    edits = [edit for edit in GROWN["schemas/records.py"] if "SCHEMA_VERSION" not in edit[0]]
    grown, place = program({**GROWN, "schemas/records.py": edits}), tmp_path / "lake"
    before = seen(today, place)
    assert seen(grown, place) == before
    grown("compact", "--lake", place, "--prune", "--keep-hours", "0")
    assert seen(grown, place) == before
    assert not (place / "damaged").exists()


@long_only
def test_migration_is_asked_for_then_run_into_a_new_compaction(
    lake: LakeBuilder, program: Callable[..., Program], today: Program, tmp_path: Path
) -> None:
    place = tmp_path / "lake"
    before, files = seen(today, place), objects(place)
    migrating = program(MIGRATED)
    said = migrating("matrix", "--lake", place, "--show", rc=2)
    assert "run compact.py" in said
    assert objects(place) == files
    migrating("compact", "--lake", place)
    after = seen(migrating, place)
    assert after["records"] == [[*row[:3], str(row[3]).upper(), row[4]] for row in before["records"]]
    assert {view: after[view] for view in after if view != "records"} == {
        view: before[view] for view in before if view != "records"
    }
    assert {name: objects(place)[name] for name in files} == files, "nothing is rewritten in place"
    migrating("compact", "--lake", place, "--prune", "--keep-hours", "0")
    assert seen(migrating, place) == after


def test_manifest_of_today_is_one_that_version_6_reads(lake: LakeBuilder) -> None:
    manifest = read_holdings(lake.lake).manifest
    assert manifest is not None
    assert b"parts" in manifest.to_json()
    assert SCHEMA_VERSION > 6 or json.loads(manifest.to_json())["parts"][0].keys() == {
        *("task", "prompting", "records", "responses", "older", "bits", "cells", "rows", "primary_rows"),
        *("first_item", "last_item", "is_grid", "bytes", "other_bytes"),
    }


def test_prune_sets_damaged_objects_aside_and_keeps_their_bytes(lake: LakeBuilder, tmp_path: Path) -> None:
    [name] = [name for name in lake.lake.names("shards") if "-g1-" in name]
    path = tmp_path / "lake" / name
    data = path.read_bytes()[:-9]
    path.write_bytes(data)
    compact(lake.lake)
    assert prune(lake.lake, dt.timedelta(days=1)).damaged == 1
    assert not path.exists()
    [kept] = (tmp_path / "lake" / "damaged").rglob("*.parquet-*")
    assert kept.read_bytes() == data
    assert prune(lake.lake, dt.timedelta(days=1)).damaged == 0


@long_only
def test_shard_of_an_older_version_copied_into_a_newer_lake_is_read(
    lake: LakeBuilder, program: Callable[..., Program], today: Program, tmp_path: Path
) -> None:
    grown, place = program(GROWN), tmp_path / "newer"
    before = seen(today, tmp_path / "lake")
    grown("prices", "--lake", place, "--shipped", "gpus")  # makes a lake
    for name in lake.lake.names("shards") + lake.lake.names("runs"):
        if not name.endswith("schema.parquet"):
            (place / name).parent.mkdir(exist_ok=True)
            shutil.copy(tmp_path / "lake" / name, place / name)
    assert seen(grown, place)["matrix"] == before["matrix"]
    grown("compact", "--lake", place, "--prune", "--keep-hours", "0")
    assert seen(grown, place)["matrix"] == before["matrix"]
    assert not (place / "damaged").exists()


@pytest.mark.parametrize("kind", ["records", "responses"])
def test_prune_keeps_the_shards_of_a_part_with_damage_inside(lake: LakeBuilder, tmp_path: Path, kind: str) -> None:
    """Its footer is whole, so only reading every byte shows it."""
    [part] = [part for part in read_holdings(lake.lake).parts if part.responses]
    name = part.records if kind == "records" else part.responses
    path = tmp_path / "lake" / str(name)
    data = bytearray(path.read_bytes())
    middle = data.index(b"PAR1") + 8
    data[middle : middle + 40] = bytes(byte ^ 255 for byte in data[middle : middle + 40])
    path.write_bytes(data)
    before = lake.lake.names("shards")
    with pytest.raises(StorageError, match="is damaged: nothing was deleted"):
        prune(lake.lake, dt.timedelta(0))
    assert lake.lake.names("shards") == before


@pytest.mark.parametrize("table", ["items/task=quiz", "models", "runs", "failures"])
def test_object_of_the_next_version_in_any_table_stops_a_compaction(
    lake: LakeBuilder, tmp_path: Path, table: str
) -> None:
    path = next(path for path in (tmp_path / "lake" / table).glob("*.parquet") if path.name != "schema.parquet")
    assert_refused_whole(lake, tmp_path / "lake", path)


@long_only
def test_mark_of_the_next_version_counts_without_the_schema_file(lake: LakeBuilder, tmp_path: Path) -> None:
    folder = tmp_path / "lake" / "shards" / "schema"
    (folder / "schema.parquet").rename(folder / f"schema-{NEXT:06d}.parquet")
    before = objects(tmp_path / "lake")
    for open_lake in (lake.lake.open_for_reading, lake.lake.open_for_writing):
        with pytest.raises(ConfigError, match=f"has schema version {NEXT}"):
            open_lake()
    assert objects(tmp_path / "lake") == before
