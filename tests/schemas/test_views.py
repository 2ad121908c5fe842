"""The views over small lakes whose answers are known or computed here in another way."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.lake.compaction import compact
from collectors.lake.holdings import read_holdings
from collectors.lake.reading import connect
from schemas import columns
from schemas.failures import StorageError
from schemas.identity import ShardName
from schemas.records import RECORD, RUN_CELL
from schemas.views import KEPT, POOL, PRICES, READS_CELLS, PoolChoice, contents, create_views, named_in, view_files
from schemas.views.files import RULED_ROWS
from tests.helpers.filled_lakes import add, everything, filled
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.thorough import LONG, often

CELL = BuiltCell()


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


# ---- which rows count


def owners(lake: LakeBuilder, view: str = "records") -> dict[int, float]:
    found = lake.rows(f"SELECT item, {'score' if view == 'records' else 'filtered::DOUBLE'} FROM {view}")
    assert len(found) == len(dict(found)), "an item is there twice"
    return dict(found)


@pytest.mark.parametrize("renamed", ["cell", "range"])
def test_records_of_a_shard_under_another_name_are_not_doubled(lake: LakeBuilder, renamed: str) -> None:
    lake.run(CELL)
    name = lake.shard(CELL, [CELL.record(item, score=1.0) for item in range(4)])
    folder = Path(lake.lake.root) / "shards" / "task=quiz"
    other = ShardName("f" * 16, 0, 0, 3) if renamed == "cell" else ShardName(name.cell_id, 0, 2, 9)
    shutil.copy(folder / str(name), folder / str(other))
    shutil.copy(folder / str(name), folder / "copy.parquet")
    assert owners(lake) == dict.fromkeys(range(4), 1.0)
    (folder / str(name)).unlink()
    assert owners(lake) == ({} if renamed == "cell" else {2: 1.0, 3: 1.0})


@pytest.mark.few(1)
@pytest.mark.parametrize("huge", [1.7e308, 1e278, 1e155])
def test_leaderboard_score_beyond_what_can_be_squared_leaves_the_others(lake: LakeBuilder, huge: float) -> None:
    lake.planned(BuiltCell(metric="points"), [huge, 3.0, huge])
    lake.planned(BuiltCell(task="other"), [1.0, 0.0])
    found = dict(lake.rows("SELECT task, stderr FROM leaderboard"))
    assert found == {"quiz": None, "other": pytest.approx(0.5)}
    assert len(lake.rows("FROM oracle")) == 2


@pytest.fixture(scope="module")
def commented(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """All views over an empty lake, with what they and their columns mean."""
    con = duckdb.connect()
    create_views(con, LakeBuilder(tmp_path_factory.mktemp("commented") / "lake").lake.uri)
    return con


def test_views_and_their_columns_say_what_they_are(commented: duckdb.DuckDBPyConnection) -> None:
    con = commented
    assert rows(con, "SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL") == []
    said = dict(rows(con, "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'matrix'"))
    assert said["score"] == RECORD.field("score").metadata[b"doc"].decode()
    assert said["items_digest"] == RUN_CELL.field("items_digest").metadata[b"doc"].decode()


def test_every_column_of_a_public_view_says_what_it_holds_and_no_words_are_left_over(
    commented: duckdb.DuckDBPyConnection,
) -> None:
    views: dict[str, set[str]] = {}
    query = """
        SELECT table_name, column_name, duckdb_columns.comment FROM duckdb_columns()
        INNER JOIN duckdb_views() ON table_name = view_name WHERE NOT duckdb_views.internal AND view_name[1] <> '_'
    """
    silent = []
    for view, column, comment in rows(commented, query):
        views.setdefault(view, set()).add(column)
        if not comment:
            silent.append(f"{view}.{column}")
    assert silent == []
    assert set(columns._OWN) | set(columns.SCHEMAS) <= set(views)
    shared = columns._SHARD.keys() | columns._POOL.keys() | columns._COUNTS.keys()
    left = {view: set(own) - views[view] - shared for view, own in columns._OWN.items()}
    assert {view: names for view, names in left.items() if names} == {}


def test_records_ranges_of_one_generation_overlap_first_name_owns(lake: LakeBuilder) -> None:
    lake.scores(CELL, [0.1] * 4, first=0)
    lake.scores(CELL, [0.2] * 4, first=2)
    lake.scores(CELL, [0.3] * 2, first=3)  # inside the items of the others
    assert owners(lake) == {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.1, 4: 0.2, 5: 0.2}


def test_records_same_first_item_shorter_range_owns_its_items(lake: LakeBuilder) -> None:
    lake.scores(CELL, [0.1] * 2)
    lake.scores(CELL, [0.2] * 4)
    assert owners(lake) == {0: 0.1, 1: 0.1, 2: 0.2, 3: 0.2}


def test_records_newer_generation_covers_a_part_only_that_part_is_replaced(lake: LakeBuilder) -> None:
    lake.scores(CELL, [0.1] * 6)
    lake.scores(CELL, [0.2] * 2, first=2, generation=1)
    lake.scores(CELL, [0.3] * 1, first=3, generation=10)
    assert owners(lake) == {0: 0.1, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.1, 5: 0.1}


def test_records_another_cell_recollected_nothing_is_dropped(lake: LakeBuilder) -> None:
    lake.scores(CELL, [1.0] * 3)
    lake.scores(BuiltCell(model="model-b"), [0.0] * 3, generation=1)
    assert lake.rows("SELECT model, count(*) FROM records GROUP BY ALL ORDER BY ALL") == [
        ("model-a", 3),
        ("model-b", 3),
    ]


def test_records_file_that_is_no_shard_is_not_read(lake: LakeBuilder) -> None:
    lake.scores(CELL, [1.0] * 3)
    [shard] = Path(lake.lake.root).glob("shards/task=*/*.parquet")
    for name in (f"copy-of-{shard.name}", "x.parquet"):
        shutil.copy(shard, shard.with_name(name))
    assert lake.rows("SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM shards)") == [(3, 1)]


def test_responses_overlap_follows_records(lake: LakeBuilder) -> None:
    lake.shard(CELL, [CELL.record(i, filtered="1") for i in range(3)])
    lake.shard(CELL, [CELL.record(i, filtered="2") for i in range(1, 5)])
    assert owners(lake, "responses") == {0: 1, 1: 1, 2: 1, 3: 2, 4: 2}


ranges = st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 5)).map(lambda t: (t[0], t[1], t[1] + t[2]))


@settings(max_examples=often(15))
@given(st.lists(ranges, min_size=1, max_size=7, unique=True))
def test_records_any_ranges_and_generations_equal_the_rule_item_by_item(files: list[tuple[int, int, int]]) -> None:
    expected: dict[int, float] = {}
    for generation in sorted({file[0] for file in files}):
        taken: set[int] = set()
        seen = -1
        for number, (_, first, last) in sorted((n, f) for n, f in enumerate(sorted(files)) if f[0] == generation):
            taken |= (own := set(range(max(first, seen + 1), last + 1)))
            expected |= dict.fromkeys(own, float(number))
            seen = max(seen, last)
    with TemporaryDirectory() as folder:
        lake = LakeBuilder(folder)
        for number, (generation, first, last) in enumerate(sorted(files)):
            lake.scores(CELL, [float(number)] * (last - first + 1), first=first, generation=generation)
        assert owners(lake) == expected


def test_records_read_whole_touches_no_response_column(lake: LakeBuilder) -> None:
    lake.scores(CELL, [1.0])
    plans = {view: lake.rows(f"EXPLAIN (FORMAT json) SELECT * FROM {view}")[0][1] for view in ("records", "responses")}
    for column in ("responses", "loglikelihoods", "is_greedy", "filtered"):
        assert column in plans["responses"]
        assert column not in plans["records"]


def test_records_score_is_no_finite_number_is_unknown(lake: LakeBuilder) -> None:
    lake.shard(CELL, [CELL.record(i, score=s) for i, s in enumerate([math.nan, math.inf, -math.inf, 1.0])])
    assert lake.rows("SELECT score, correct FROM records ORDER BY item") == [(None, None)] * 3 + [(1.0, True)]


# ---- the place of a lake


def test_views_empty_lake_every_view_answers_with_no_rows(
    commented: duckdb.DuckDBPyConnection, lake: LakeBuilder
) -> None:
    con = commented if LONG else connect(lake.lake)  # views that list the files themselves take ten times as long
    views = [name for (name,) in rows(con, "SELECT view_name FROM duckdb_views() WHERE NOT internal")]
    made = {RULED_ROWS, *POOL} | (set() if LONG else {*KEPT, *PRICES})
    assert {name for name, file in view_files().items() if file.kind == "view"} - set(views) == made
    # Those that a person names, and in `make test-long` those that they read, too.
    for view in (view for view in views if LONG or not view.startswith("_")):
        assert rows(con, f"FROM {view}") == []


def test_views_shard_committed_later_is_seen(lake: LakeBuilder) -> None:
    con = lake.views()
    assert rows(con, "SELECT count(*) FROM matrix") == [(0,)]
    lake.planned(CELL, [1.0, 0.0])
    assert rows(con, "SELECT count(*) FROM matrix") == [(2,)]


HOSTILE = [
    "it's",
    "a b",
    "[ab]",
    "a[b",
    "]",
    "*",
    "**",
    "?",
    "t=1",
    "{lake}",
    '"',
    ";--",
    "%20",
    "ü",
    "$x",
    "~",
    "[!a]",
]


@pytest.mark.few(6)
@pytest.mark.parametrize("name", HOSTILE)
def test_views_hostile_folder_name_reads_that_folder_only(tmp_path: Path, name: str) -> None:
    decoy = LakeBuilder(tmp_path / "a")  # what [ab], * and ? would match
    decoy.planned(CELL, [1.0] * 5)
    lake = LakeBuilder(tmp_path / name)
    lake.planned(CELL, [1.0, 0.0])
    assert lake.rows("SELECT (SELECT count(*) FROM matrix), (SELECT count(*) FROM shards)") == [(2, 1)]


def test_views_relative_folder_holds_after_the_working_directory_changed(
    lake: LakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.planned(CELL, [1.0])
    monkeypatch.chdir(tmp_path)
    con = duckdb.connect()
    create_views(con, "lake", only=["matrix"], comments=False)
    os.chdir("/")
    assert rows(con, "SELECT count(*) FROM matrix") == [(1,)]


def test_views_backslash_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="backslash"):
        create_views(duckdb.connect(), str(tmp_path / "a\\b"))


@pytest.mark.slow
def test_views_that_a_query_names_say_without_the_others_what_they_say_among_all(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    compact(builder.lake)
    add(builder, "a", "u", 0, 0, 3)  # beside a folded shard
    # Of every third of those that a person names, and in `make test-long` of all and those that they read, too.
    views = sorted(
        name
        for kind, name in contents()
        if kind == "view" and name != RULED_ROWS and (LONG or not name.startswith("_"))
    )[:: 1 if LONG else 3]
    with connect(builder.lake) as whole:
        for view in views:
            query = f"FROM {view} ORDER BY ALL"
            with connect(builder.lake, only=named_in(query)) as con:
                assert repr(rows(con, query)) == repr(rows(whole, query)), view  # NaN is not equal to itself
    assert named_in("FROM models").isdisjoint({"cells", "matrix", "records"})
    assert named_in("SELECT 1") == set()


def test_views_of_a_small_lake_are_tables_where_several_read_them_and_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pool's condition becomes a variable in front of the first view that reads it.
    assert [name for name, view in view_files().items() if "'pool_cells'" in view.sql] == [READS_CELLS]
    lake = filled(tmp_path / "lake").lake
    query, tables = "FROM pool ORDER BY ALL", "SELECT table_name FROM duckdb_tables()"
    choice = PoolChoice("model <> 'a'")
    answers = []
    for rows_limit, is_table in ((10_000, True), (0, False)):
        monkeypatch.setattr("collectors.lake.holdings.FEW_ROWS", rows_limit)
        with connect(lake, only=named_in(query), choice=choice) as con:
            assert (("cells",) in rows(con, tables)) == is_table
            answers.append(rows(con, query))
        with duckdb.connect() as con:  # a file of views, whose tables are those of the pool alone
            create_views(con, lake.uri, read_holdings(lake).view_files(live=True), choice=choice)
            assert ("cells",) not in rows(con, tables)
            answers.append(rows(con, query))
    assert answers[0]
    assert {"a"}.isdisjoint(value for answer in answers[0] for value in answer)
    assert answers.count(answers[0]) == len(answers)


def test_views_open_shards_as_a_table_say_what_they_say_as_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = filled(tmp_path / "lake")
    compact(builder.lake)
    for model, task, generation, first, count in (("a", "u", 0, 0, 3), ("a", "t", 2, 1, 3), ("b", "t", 0, 3, 4)):
        add(builder, model, task, generation, first, count)
    before = everything(builder.lake)
    monkeypatch.setattr("schemas.views.open_shards.MANY_SHARDS", 1)
    monkeypatch.setattr("schemas.views.open_shards.SHARDS_AT_ONCE", 2)
    with connect(builder.lake, only=["matrix"]) as con:
        assert ("_open_verdicts",) in rows(con, "SELECT table_name FROM duckdb_tables()")
    assert repr(everything(builder.lake)) == repr(before)  # NaN is not equal to itself
    monkeypatch.setattr("schemas.views.open_shards.SOME_SHARDS", 1)
    for rows_limit, shards_limit in (("MOST_ROWS", 1), ("FEW_ROWS", 1000)):  # of a few shards fewer rows
        monkeypatch.setattr("schemas.views.open_shards.MANY_SHARDS", shards_limit)
        with connect(builder.lake, only=["matrix"]) as con:
            assert ("_open_verdicts",) in rows(con, "SELECT table_name FROM duckdb_tables()")
        monkeypatch.setattr(f"schemas.views.open_shards.{rows_limit}", 2)  # too many rows: they stay a view
        with connect(builder.lake, only=["matrix"]) as con:
            assert ("_open_verdicts",) not in rows(con, "SELECT table_name FROM duckdb_tables()")
