"""Published versions: the same lake gives the same bytes, and every reader the same rows."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.compaction import compact
from collectors.lake.layout import forecast_fit_name, forecasts_name, split_name
from collectors.lake.pruning import prune
from collectors.lake.store import Lake
from collectors.matrix.blocks import load_blocks
from collectors.matrix.pool_files import PoolFile
from collectors.matrix.pools import load_matrix
from collectors.publish.published_sql import views_of_others
from collectors.publish.version import build_version
from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.records import FORECAST, FORECAST_FIT, PRICE, SPLIT
from schemas.views import PoolChoice
from tests.helpers.filled_lakes import (
    DESCRIPTION,
    NOW,
    SUMMARIES,
    VIEWS,
    add,
    assert_same,
    contents,
    everything,
    filled,
    published,
    query,
)
from tests.helpers.foretold_rows import foretold_row
from tests.helpers.importing import COLUMNS, imported, verdicts, write_json
from tests.helpers.importing import table as table_of
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.thorough import long_only

# ---- contents


@long_only
def test_version_of_a_lake_with_nul_in_a_name_holds_what_the_lake_holds(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")  # as an import wrote it that took such names
    for cell in (BuiltCell(model="m\0", task="a\0b", prompting="p\0"), BuiltCell(model="m")):
        builder.planned(cell, [1, 0, 1])
    sql = "SELECT model, task, item, score FROM records ORDER BY ALL"
    expected = query(builder.lake, sql)
    compact(builder.lake)
    assert query(builder.lake, sql) == expected
    (tmp_path / "version").mkdir()
    made = build_version(builder.lake, tmp_path / "version", DESCRIPTION)
    assert query(Lake(str(made.folder)), sql) == expected


def built(lake: Lake, folder: Path) -> dict[str, bytes]:
    """The files of a version that is built anew, as `published` does once for each content."""
    folder.mkdir()
    return contents(build_version(lake, folder, DESCRIPTION).folder)


def test_version_of_the_same_lake_is_the_same_bytes_compacted_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = filled(tmp_path / "lake")
    for first_item, generation in ((0, 0), (0, 3), (3, 0), (4, 3)):  # rows that are replaced twice, and overlaps
        add(builder, "c", "t", generation, first_item, 5)
    lake = builder.lake
    first = built(lake, tmp_path / "a")
    compact(lake)
    assert built(lake, tmp_path / "b") == first
    prune(lake, NOW)
    # Then each view is made over the others.
    monkeypatch.setattr("schemas.views._make_over_tables", lambda con, names, wanted: False)
    assert built(lake, tmp_path / "c") == first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_version_is_a_lake_that_says_what_its_lake_says(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake").lake
    made = published(lake, tmp_path / "s")
    expected, found = (everything(one, summaries=True) for one in (lake, Lake(str(made.folder))))
    assert found == expected
    wheres = ("true", "model IN ('a', 'c')", "true", "model <> 'a'")
    for tasks, where, questions in zip((None, ["t"], ["u"], ["t", "u"]), wheres, ("every", *["any"] * 3), strict=True):
        choice = PoolChoice(where, questions=questions)
        assert_same(load_matrix(str(made.folder), tasks, choice), load_matrix(lake, tasks, choice))
    with pytest.raises(ConfigError, match="no collected cell"):
        load_matrix(str(made.folder), choice=PoolChoice("model = 'nobody'"))


@long_only
def test_version_leaves_out_what_a_catalog_says_of_models_that_were_not_asked(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    builder.model("org/listed", "r" * 40)
    made = published(builder.lake, tmp_path / "s")
    said = {path.name for path in (made.folder / "models").iterdir()}
    assert said == {"all.parquet", "schema.parquet"}
    with duckdb.connect() as con:
        found = rows(con, f"SELECT DISTINCT model FROM read_parquet('{made.folder}/models/*.parquet')")
    assert found == [("a",)]  # the only model of its cells with a row in the lake


@long_only
def test_version_database_opens_from_its_folder_and_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(tmp_path / "lake").lake
    made = published(lake, tmp_path / "s")
    expected = everything(lake, summaries=True)
    monkeypatch.chdir(made.folder)
    with duckdb.connect("snapshot.duckdb", read_only=True) as con:
        assert sorted(rows(con, "FROM records"), key=repr) == sorted(
            rows(con, "FROM records WHERE model IS NOT NULL"), key=repr
        )
        for view in (*VIEWS, *SUMMARIES):
            assert len(rows(con, f"FROM {view}")) == len(expected[view]), view
        [(comment,)] = rows(con, "SELECT comment FROM duckdb_views() WHERE view_name = 'matrix'")
        assert "one row per collected item" in comment
    monkeypatch.chdir(tmp_path)
    shutil.copy(made.folder / "snapshot.duckdb", tmp_path / "alone.duckdb")
    with duckdb.connect("alone.duckdb", read_only=True) as con:
        for view in ("matrix", "records", "pool", "leaderboard", "items", "cells", "models", "coverage", "oracle"):
            assert len(rows(con, f"FROM {view}")) == query(lake, f"SELECT count(*) FROM {view}")[0][0], view
    with duckdb.connect("s/snapshot.duckdb", read_only=True) as con:
        con.execute("SET VARIABLE snapshot = 's'")
        assert len(rows(con, "FROM responses")) == len(expected["responses"])
    with duckdb.connect() as con:
        con.execute("SET VARIABLE snapshot = 's'")
        con.execute((made.folder / "views.sql").read_text())
        assert len(rows(con, "FROM matrix")) == len(expected["matrix"])


@pytest.mark.slow
def test_version_every_reader_counts_the_same(tmp_path: Path) -> None:
    import datasets
    import pandas as pd
    import polars as pl

    lake = filled(tmp_path / "lake").lake
    made = published(lake, tmp_path / "s")
    count = made.manifest["counts"]["records"]
    files = [made.folder / name for name in made.files if "/records-" in name]
    assert sum(len(pd.read_parquet(file)) for file in files) == count
    assert pl.read_parquet(files, hive_partitioning=False).height == count
    for config, table in (("records", "records"), ("responses", "responses"), ("items", "items")):
        found = datasets.load_dataset(str(made.folder), config, cache_dir=str(tmp_path / "cache"), split="train")
        assert found.num_rows == made.manifest["counts"][table], config
    matrix = datasets.load_dataset(str(made.folder), cache_dir=str(tmp_path / "cache"))["train"].to_pandas()
    [(pool_rows,)] = query(lake, "SELECT count(*) FROM _pool_rows")
    assert len(matrix) == pool_rows
    assert not matrix.duplicated(["task", "question", "candidate"]).any()


def test_version_takes_prices_that_had_begun_when_the_newest_was_added_whenever_it_is_published(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    cell = builder.planned(BuiltCell(model="a"), [1, 0, 1])
    builder.items(cell.task, cell.items_digest, 3)
    price = {"model": "a", "provider": "p", "usd_per_million_completion": 1.0, "source": "made"}
    added = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
    days = {1.0: dt.date(2026, 1, 1), 2.0: dt.date(2026, 1, 6), 3.0: dt.date(2026, 1, 7), 4.0: dt.date(2099, 1, 1)}
    rows = [{**price, "usd_per_million_prompt": usd, "valid_from": day, "added_at": added} for usd, day in days.items()]
    builder.lake.create_table("prices/made.parquet", pa.Table.from_pylist(rows, PRICE))
    made = published(builder.lake, tmp_path / "version")
    with duckdb.connect(str(made.folder / "snapshot.duckdb"), read_only=True) as con:
        assert con.execute("SELECT usd_per_million_prompt FROM _members").fetchall() == [(2.0,)]
    assert views_of_others(Lake(str(made.folder))) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_version_croissant_is_valid_and_reads_the_records(tmp_path: Path) -> None:
    import mlcroissant

    made = published(filled(tmp_path / "lake").lake, tmp_path / "s", "1.0.0")
    described = mlcroissant.Dataset(jsonld=str(made.folder / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    found = list(described.records("records"))
    assert len(found) == made.manifest["counts"]["records"]
    assert {row["records/model"] for row in found} == {b"a", b"b", b"c"}


def test_version_manifest_says_whence_its_numbers_are(tmp_path: Path) -> None:
    manifest = published(filled(tmp_path / "lake").lake, tmp_path / "s").manifest
    assert manifest["provenance"]["runs"] == ["run-0001"]
    assert [model["model"] for model in manifest["provenance"]["models"]] == ["a", "b", "c"]
    assert {task["task"] for task in manifest["provenance"]["tasks"]} == {"t", "u"}
    assert manifest["description"]["sources"] == {"quiz": "mit"}
    counts = manifest["counts"]
    assert (counts["models"], counts["tasks"], counts["items"], counts["failures"]) == (3, 2, 20, 1)


def test_version_of_an_empty_or_damaged_lake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to publish"):
        published(LakeBuilder(tmp_path / "empty").lake, tmp_path / "a")
    lake = filled(tmp_path / "lake").lake
    next((tmp_path / "lake" / "shards").glob("task=*/*.parquet")).write_bytes(b"PAR1")
    compact(lake)
    with pytest.raises(ConfigError, match="--prune"):
        published(lake, tmp_path / "b")


def test_version_is_never_written_into(tmp_path: Path) -> None:
    made = published(filled(tmp_path / "lake").lake, tmp_path / "s")
    with pytest.raises(ConfigError, match="never changes"):
        Lake(str(made.folder)).open_for_writing()
    next(made.folder.glob("compact/*/task=t/records-*")).write_bytes(b"PAR1")
    before = contents(made.folder)
    (made.folder / "packed" / "items.parquet").unlink()
    before.pop("packed/items.parquet")
    assert load_matrix(str(made.folder)).valid.any(), "the damaged part is passed over"
    assert contents(made.folder) == before


@pytest.mark.parametrize("name", ["shards/task=t/x", "items/task=t/i0", "failures/zz", "runs/zz"])
def test_version_of_a_lake_with_damage_that_nobody_met_is_refused(tmp_path: Path, name: str) -> None:
    lake = filled(tmp_path / "lake").lake
    if name.startswith("shards"):
        name = str(next((tmp_path / "lake").glob("shards/task=t/*-g*")).relative_to(tmp_path / "lake"))[:-8]
    (tmp_path / "lake" / f"{name}.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=name):
        published(lake, tmp_path / "s")


@long_only
def test_version_of_tasks_and_models_without_records_has_the_lakes_axes(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    builder.run(BuiltCell(model="a", task="t"), planned=3)
    builder.run(BuiltCell(model="z", task="t"), BuiltCell(model="z", task="u"))
    builder.scores(BuiltCell(model="a", task="t"), [1.0, 0.0])
    made = published(builder.lake, tmp_path / "s")
    assert_same(load_matrix(str(made.folder)), load_matrix(builder.lake))
    assert load_matrix(builder.lake).scores.shape == (2, 1)
    assert load_blocks(Lake(str(made.folder))).scores.shape == load_blocks(builder.lake).scores.shape == (20, 2)


@long_only
def test_version_holds_imported_records_only_when_asked(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake").lake
    question = {"question": "what is asked by others?", "scores": {"m": 1.0, "n": 0.0}}
    imported("routerdc", write_json(tmp_path / "quiz.json", [question]), tmp_path / "lake")
    compact(lake)
    counts = {}
    for include in ("collected", "imported", "all"):
        (tmp_path / include).mkdir()
        made = build_version(lake, tmp_path / include, DESCRIPTION, include=include)
        assert made.manifest["counts"]["shards left out, because no run planned their cells"] == 0
        counts[include] = (made.manifest["counts"]["records"], made.manifest["counts"]["models"])
        held = b"".join(contents(tmp_path / include).values())
        assert (b"what is asked by others?" in held) == (include != "collected")
        assert int(load_matrix(str(tmp_path / include), include=include).valid.sum()) > 0
    assert counts["imported"] == (2, 2)
    assert counts["all"] == tuple(a + b for a, b in zip(counts["collected"], counts["imported"], strict=True))


def test_version_of_imported_records_keeps_the_splits_of_their_questions(tmp_path: Path) -> None:
    imported("table", table_of(tmp_path / "rows.parquet", verdicts()), tmp_path / "lake", options=COLUMNS)
    lake = Lake(str(tmp_path / "lake"))
    head = {"split": "own", "rule": "content", "seed": 0, "fraction": 0.5, "task": "quiz"}
    rows = [{**head, "question": question, "near": question, "part": "train"} for question in ("x", "y")]
    lake.create_table(split_name("own"), pa.Table.from_pylist(rows, SPLIT))
    (tmp_path / "v").mkdir()
    made = build_version(lake, tmp_path / "v", DESCRIPTION, "1", include="imported")
    assert query(str(made.folder), "SELECT split, question FROM splits ORDER BY ALL") == [("own", "x"), ("own", "y")]


def test_version_refuses_pools_of_other_records_before_it_reads_the_lake(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake").lake
    pools = [PoolFile("wide", PoolChoice(), "all", b"")]
    with pytest.raises(ConfigError, match="pool wide includes all records, and the version has imported ones"):
        build_version(lake, tmp_path, DESCRIPTION, include="imported", pools=pools)
    with pytest.raises(ConfigError, match="have one name"):
        build_version(lake, tmp_path, DESCRIPTION, include="all", pools=pools * 2)


@long_only
def test_version_holds_forecasts_of_its_own_cells_alone(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake").lake
    question = {"question": "what is asked by others?", "scores": {"m": 1.0, "n": 0.0}}
    imported("routerdc", write_json(tmp_path / "quiz.json", [question]), tmp_path / "lake")
    bases = query(lake, "SELECT task, items_digest, prompting, metric, basis FROM _forecast_basis ORDER BY ALL")
    name = digest("forecast")
    given = [dict(zip(("task", "items_digest", "prompting", "metric", "basis"), one, strict=True)) for one in bases]
    given.append({"task": "all", "items_digest": "", "prompting": "", "metric": "", "basis": None})
    fits = [foretold_row(FORECAST_FIT, forecast=name, level=0.9, **one) for one in given]
    values = [
        foretold_row(FORECAST, forecast=name, model="a", value=0.5, low=0.4, high=0.6, level=0.9, **one)
        for one in given
    ]
    lake.create_table(forecasts_name(name, 0), pa.concat_tables(values))
    lake.create_table(forecast_fit_name(name), pa.concat_tables(fits))
    tasks = {}
    for include in ("collected", "imported", "all"):
        (tmp_path / include).mkdir()
        made = build_version(lake, tmp_path / include, DESCRIPTION, "1.0.0", include=include)
        tasks[include] = [pq.read_table(made.folder / table / "all.parquet")["task"].to_pylist()
                          for table in ("forecasts", "forecast_fits")]  # fmt: skip
        assert made.manifest["counts"]["forecasts"] == len(tasks[include][0])
    assert tasks == {
        "collected": [["t", "u"]] * 2,
        "imported": [["quiz"]] * 2,
        "all": [["all", "quiz", "t", "u"]] * 2,
    }


def test_version_names_no_path_user_or_host_of_the_machines_that_collected_it(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    cell = BuiltCell(model="my-finetune")
    folder = "/home/alice/My models/my-finetune"
    config = {"models": [folder], "include_tasks": ["/srv/shared/alice/tasks"], "lake": "file:///home/alice/lake"}
    run = builder.run(cell, source=folder, config=json.dumps(config))
    facts = {"run_id": run, "host": "alice-laptop.local", "engine_seconds": 2.5, "gpu": None}
    builder.shard(cell, [cell.record(item, score=1.0) for item in range(10)], metadata=facts)
    builder.items("quiz", "i0", 10, prompt=[f"What is in /usr/local/bin? {i}" for i in range(10)])
    builder.model("my-finetune", "r0", config="{}")
    message = f"{folder}/config.json on alice-laptop.local cannot be read: /home/alice/.cache/hub/x"
    builder.failure(run, "no_weights", message, model="other")
    made = published(builder.lake, tmp_path / "s")
    for file in made.folder.rglob("*"):
        if file.is_file():
            assert not re.search(rb"alice|My models|/srv/shared", file.read_bytes()), file
    second = str(made.folder)
    assert query(second, "SELECT source, config FROM runs JOIN cells USING (run_id)") == [
        ("my-finetune", '{"models": ["my-finetune"], "include_tasks": ["tasks"], "lake": "lake"}')
    ]
    assert query(second, "SELECT host, engine_seconds FROM shards") == [("host-1", 2.5)]
    assert query(second, "SELECT message FROM failures WHERE kind = 'no_weights'") == [
        ("my-finetune/config.json on host-1 cannot be read: x",)
    ]
    assert query(second, "SELECT prompt FROM items LIMIT 1") == [("What is in /usr/local/bin? 0",)]


def test_version_counts_models_once_and_those_with_records_alone(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    twice = [BuiltCell(model="a", dtype=dtype) for dtype in ("float32", "bfloat16")]
    builder.run(*twice, BuiltCell(model="dead"))
    for cell in twice:
        builder.scores(cell, [1.0] * 10)
    made = published(builder.lake, tmp_path / "s")
    assert made.manifest["counts"]["models"] == 1
    assert "| models | 1 |" in (made.folder / "README.md").read_text()
