"""A lake and a published version of schema version 6, made once at e367efa and kept for good.

Every later program reads them, collects into the lake, compacts, prunes and publishes it, and shows the same rows.
tests/golden/lake_v6/README.md shows how they were made. These tests use commands and views alone, as a person does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import yaml

from collectors.publish import publishing
from pipelines import compact, export, matrix, plot, prices, publish, score, status
from tests.e2e.conftest import Cluster
from tests.helpers.older_lakes import LAKE_V6, ROOT, Shown, even, golden, shown
from tests.helpers.runs import collect_here
from tests.helpers.thorough import LONG, long_only

#: Records of the published version with another score under the rules of version 7; two more are of LOST.
RULED = 37
#: Nothing listens here: a run that asks an engine fails.
NO_RAY = "127.0.0.1:1"
PUBLISHED = LAKE_V6 / "published" / "1.0.0-all"
#: The cell of a shard whose run is not in the lake.
LOST = "b16774e8f1028e87"

#: The lake's configs -> exit code and plan of a dry run. All of them were collected, but for the cells that failed.
PLANS = {
    "first": (0, "to collect: 0 items in 0 cells; already in the lake: 16"),
    "overlapping": (0, "to collect: 0 items in 0 cells; already in the lake: 42"),
    "one_more": (0, "to collect: 0 items in 0 cells; already in the lake: 7"),
    "prompted": (0, "to collect: 0 items in 0 cells; already in the lake: 54"),
    "unanswered": (0, "to collect: 0 items in 0 cells; already in the lake: 16"),
    "budget": (0, "to collect: 0 items in 0 cells; already in the lake: 16"),
    "placed": (0, "to collect: 0 items in 0 cells; already in the lake: 4"),
    "listed": (0, "to collect: 0 items in 0 cells; already in the lake: 9"),
    "lost": (0, "to collect: 0 items in 0 cells; already in the lake: 2"),
    "failing": (1, "to collect: 8 items in 1 cells; already in the lake: 8"),
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of the configs name their files from the root on."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A copy of the lake."""
    return Path(shutil.copytree(LAKE_V6 / "lake", tmp_path / "lake"))


@pytest.fixture(scope="module")
def rows() -> Shown:
    """The rows that e367efa showed; where version 7 scores by other rules, those of rows_7."""
    return golden(LAKE_V6 / "rows") | golden(LAKE_V6 / "rows_7")


def objects(lake: Path) -> dict[str, bytes]:
    return {str(f.relative_to(lake)): f.read_bytes() for f in lake.rglob("*") if f.is_file()}


#: Views of the others' rows and nothing else: binding them takes most of the time.
SUMMARIES = (
    "leaderboard",
    "oracle",
    "oracle_items",
    "complementarity",
    "cheapest_correct",
    "pareto",
    "profile",
    "costs",
)


def assert_shows(lake: Path, rows: Shown, folder: Path | None) -> None:
    """The views over `lake` show these rows and no others."""
    views_now = shown(lake, folder, columns={view: names for view, (names, _) in rows.items()})
    for view, (_, expected) in rows.items():
        here, there = even(view, views_now[view][1]), even(view, expected)
        came, went = sorted(set(here) - set(there)), sorted(set(there) - set(here))
        assert here == there, f"{view}: {len(came)} rows came, {came[:2]}; {len(went)} went, {went[:2]}"


def values(rows: Shown, view: str, column: str) -> list[object]:
    """A column of a view's rows, in their order."""
    names, texts = rows[view]
    return [json.loads(text)[names.index(column)] for text in texts]


def of_cells(rows: Shown, view: str, column: str, wanted: set[object]) -> list[str]:
    """The rows of a view with one of these values."""
    return [text for text, value in zip(rows[view][1], values(rows, view, column), strict=True) if value in wanted]


# ---- reading


@pytest.mark.parametrize("view", ["matrix", "records"])
def test_rules_of_version_7_change_scores_of_sets_and_of_the_models_outcomes_alone(view: str) -> None:
    before, after = (as_dicts(golden(LAKE_V6 / folder)[view]) for folder in ("rows", "rows_7"))
    assert before.keys() == after.keys()
    changed = set()
    for key, old in before.items():
        new = after[key]
        different = {name for name in old if old[name] != new[name]}
        assert different <= {"score", "correct", "failure"}, key
        assert not different or new["outcome"] in ("empty", "nan") or new["failure"] in (None, "set_level")
        if different and new["outcome"] == "ok":
            assert (new["score"], old["metrics" if view == "records" else "metric"]) != (None, "acc")
            changed.add("set_level")
        elif different:
            assert (old["score"], new["score"]) == (None, 0.0)
            changed.add(new["outcome"])
    assert changed == {"set_level", "empty", "nan"}


def as_dicts(view: tuple[list[str], list[str]]) -> dict[str, dict[str, object]]:
    """The rows of a view by item, filter, repeat and cell."""
    names, texts = view
    rows = [dict(zip(names, json.loads(text), strict=True)) for text in texts]
    keys = ("cell_id", "item", "filter", "repeat", "generation")
    return {json.dumps([row.get(key) for key in keys]): row for row in rows}


def test_a_lake_of_version_6_shows_the_rows_that_it_showed(lake: Path, rows: Shown, tmp_path: Path) -> None:
    before = objects(lake)
    assert_shows(lake, rows, tmp_path)
    assert objects(lake) == before


@pytest.mark.slow
def test_a_lake_of_version_6_shows_collected_records_alone_unless_asked(rows: Shown, tmp_path: Path) -> None:
    views = {view: rows[view] for view in ("records", "matrix", "cells")}
    views_now = shown(LAKE_V6 / "lake", tmp_path, "collected", {view: names for view, (names, _) in views.items()})
    assert views_now["cells"][1] == of_cells(rows, "cells", "imported_from", {None}) != rows["cells"][1]
    collected = {*values(views_now, "cells", "cell_id"), LOST}
    for view in ("records", "matrix"):
        assert views_now[view][1] == of_cells(rows, view, "cell_id", collected)


# ---- the published version


def of_version(rows: Shown) -> Shown:
    """The lake's rows that a published version shows: it leaves out unplanned cells and models without a cell."""
    cells, models = (set(values(rows, "cells", column)) for column in ("cell_id", "model"))
    by_cell = ("records", "responses", "shards", "collection_costs")
    kept = {view: of_cells(rows, view, "cell_id", cells) for view in by_cell}
    kept |= {"models": of_cells(rows, "models", "model", models)}
    assert all(len(kept[view]) < len(rows[view][1]) for view in kept)
    return {view: (names, kept.get(view, texts)) for view, (names, texts) in rows.items()}


@pytest.mark.slow
def test_a_published_version_of_version_6_is_whole_and_shows_its_rows(rows: Shown, tmp_path: Path) -> None:
    assert publish.main(["verify", str(PUBLISHED)]) == 0
    assert_shows(PUBLISHED, of_version(rows), tmp_path)


def test_the_database_of_a_published_version_of_version_6_opens_from_anywhere() -> None:
    rows = golden(LAKE_V6 / "rows")  # its views are in the file
    with duckdb.connect(PUBLISHED / "snapshot.duckdb", read_only=True) as con:
        con.execute("SET VARIABLE snapshot = ?", [str(PUBLISHED)])
        for view in ("records", "responses", "matrix", "leaderboard", "costs", "oracle_items"):
            [(count,)] = con.execute(f"SELECT count(*) FROM {view}").fetchall()
            assert count == len(of_version(rows)[view][1]), view


# ---- compacting, pruning, publishing


@pytest.mark.slow
def test_a_lake_of_version_6_that_is_compacted_pruned_and_published_shows_the_same(
    lake: Path, rows: Shown, tmp_path: Path
) -> None:
    before, stored = objects(lake), {view: rows[view] for view in rows if view not in SUMMARIES}
    of_parts = {view: rows[view] for view in ("records", "responses", "superseded", "shards")}
    folder = tmp_path if LONG else None  # other tests here show the views of a file
    assert compact.main(["--lake", str(lake)]) == 0
    compacted = objects(lake)
    assert before.items() <= compacted.items()
    assert_shows(lake, stored if LONG else of_parts, folder)

    folded = {Path(file).name for file in files_of_parts(lake)}
    assert compact.main(["--lake", str(lake), "--prune", "--keep-hours", "0"]) == 0
    pruned = objects(lake)
    assert pruned.items() <= compacted.items()
    gone = compacted.keys() - pruned.keys()
    assert {Path(name).name for name in gone if name.startswith("shards/")} <= folded
    assert {name.split("/")[0] for name in gone} == {"compact", "shards"}
    assert [name for name in pruned if LOST in name]  # of no run that is in the lake: nobody folded it
    assert_shows(lake, stored, folder)

    assert publish.main(["--lake", str(lake), "--to", str(tmp_path / "to"), "--version", "2", "--include", "all"]) == 0
    assert publish.main(["verify", str(tmp_path / "to" / "2")]) == 0
    assert_shows(tmp_path / "to" / "2", of_version(rows), folder)
    differences = publishing.differences(str(PUBLISHED), str(tmp_path / "to" / "2"))
    assert {(one.came, one.went) for one in differences} == {(0, 0)}
    assert sum(one.changed for one in differences) == RULED


def files_of_parts(lake: Path) -> list[str]:
    """The shards that a compaction holds."""
    texts = shown(lake, None, columns={"shards": ["file", "in_compaction"]})["shards"][1]
    return [file for file, in_compaction in map(json.loads, texts) if in_compaction]


# ---- collecting


@pytest.mark.few(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_config_of_a_lake_of_version_6_plans_nothing_that_is_there(
    name: str, lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an identity drifted, everything would be collected once more."""
    monkeypatch.setenv("RAY_ADDRESS", NO_RAY)
    before, (code, plan) = objects(lake), PLANS[name]
    config = LAKE_V6 / "configs" / f"{name}.yaml"
    run = collect_here(capsys, config, "--lake", str(lake), "--dry-run")
    assert (run.code, plan in run.out) == (code, True), run.out
    assert objects(lake) == before
    if name == "failing":
        assert "quarantined: 1 cells of 1 models that broke engines or their cap before (stub/broken)" in run.out
        return
    run = collect_here(capsys, config, "--lake", str(lake))
    assert (run.code, "nothing to collect" in run.out) == (0, True), run.out
    after = objects(lake)
    assert before.items() <= after.items()
    new = {object_name.rsplit("/", 1)[0] for object_name in after.keys() - before.keys()}
    # Of tables that are younger than the lake the empty file is new, too; the last is the mark of this version.
    assert new <= {"runs", "run_ends", "aggregates", "verdicts", "judges", "splits", "retractions", "shards/schema"} | {
        "forecasts",
        "forecast_fits",
        "item_sets",
        "probe_sets",
    }


@long_only
@pytest.mark.slow
def test_a_larger_limit_in_a_lake_of_version_6_collects_only_what_is_missing(
    lake: Path,
    rows: Shown,
    cluster: Cluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    keys = yaml.safe_load((LAKE_V6 / "configs" / "overlapping.yaml").read_text(encoding="utf-8"))
    del keys["tasks"][1]["limit"]  # alpha and beta lack items 6 and 7 of it, gamma 7
    (tmp_path / "larger.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    before = objects(lake)
    run = collect_here(capsys, tmp_path / "larger.yaml", "--lake", str(lake))
    assert (run.code, "to collect: 5 items in 3 cells; already in the lake: 43" in run.out) == (0, True), run.out
    assert before.items() <= objects(lake).items()

    held = {view: rows[view] for view in ("records", "responses", "superseded", "matrix", "items")}
    views_now = shown(lake, tmp_path, columns={view: names for view, (names, _) in held.items()})
    for view, (_, expected) in held.items():
        new = [json.loads(text) for text in sorted(set(views_now[view][1]) - set(expected))]
        assert set(expected) <= set(views_now[view][1]), view
        assert len(new) == {"records": 10, "responses": 10, "matrix": 5}.get(view, 0), view
    assert compact.main(["--lake", str(lake), "--prune", "--keep-hours", "0"]) == 0
    assert shown(lake, tmp_path, columns={view: names for view, (names, _) in held.items()}) == views_now


# ---- other commands


#: Cells that a router may choose from, and that a format can hold side by side.
POOL = ["--pool", "metric = 'acc' AND model IN ('stub/alpha', 'stub/beta', 'stub/gamma') AND num_fewshot = 0"]
COMMANDS: dict[str, Callable[[str, Path], int]] = {
    "show": lambda lake, folder: matrix.main(["--lake", lake, "--show", "--out", str(folder / "matrix.duckdb")]),
    "query": lambda lake, _: matrix.main(["--lake", lake, "--sql", "FROM leaderboard"]),
    "status": lambda lake, _: status.main(["--lake", lake, "--json"]),
    "prices": lambda lake, _: prices.main(["--lake", lake]),
    "score": lambda lake, folder: score.main(["--lake", lake, *POOL, "--choices", str(choices(folder))]),
    "export": lambda lake, folder: export.main(
        ["--lake", lake, *POOL, "--format", "huggingface", "--out", str(folder / "long.parquet")]
    ),
    "plot": lambda lake, folder: plot.main(["--lake", lake, *POOL, "--out", str(folder / "pictures")]),
}


def choices(folder: Path) -> Path:
    """A router that asks one model of two items."""
    path = folder / "choices.csv"
    path.write_text("task,item,model\nold_choice,0,stub/alpha\nold_choice,1,stub/gamma\n", encoding="utf-8")
    return path


@pytest.mark.few(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_reads_a_lake_of_version_6(name: str, lake: Path, tmp_path: Path) -> None:
    before = objects(lake)
    assert COMMANDS[name](str(lake), tmp_path) == 0
    assert objects(lake) == before
