"""Readers of a compaction of many parts: which of them they open, and that their answers are those of all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import routerlake
from collectors.lake import chunks, narrowing
from collectors.lake.compaction import compact
from collectors.lake.holdings import newest_manifest
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from pipelines import matrix
from schemas.views import PoolChoice, named_in
from tests.helpers.counted_store import Counts, counted
from tests.helpers.equal_lakes import RandomLake, put_prices
from tests.helpers.filled_lakes import add, filled, plain_lake, published

MODELS = 5
#: A version has no bits: the names of its candidates depend on which cells of all tasks have a score, by their rows.
ALL_OF_VERSION = -1
#: Queries with conditions of every kind that a plan may bring to the files of records.
QUERIES = [
    "SELECT * FROM matrix WHERE task = 'quiz'",
    "SELECT * FROM records WHERE model = 'model-a'",
    "SELECT * FROM records WHERE task = 'maths' AND model IN ('model-b', 'model-e') AND item BETWEEN 3 AND 20",
    "SELECT * FROM records WHERE item >= 59 OR model LIKE '%c'",
    "SELECT * FROM records WHERE model ILIKE 'MODEL-%' AND model <> 'model-a' AND item < 2",
    "SELECT * FROM matrix WHERE task = 'quiz''s' OR (task = 'quiz' AND item = 7)",
    "SELECT * FROM costs WHERE model = 'model-f'",
    "SELECT * FROM responses WHERE task = 'quiz' AND item > 30",
    "SELECT * FROM matrix WHERE cell_id = (SELECT min(cell_id) FROM cells WHERE task = 'maths')",
    "SELECT * FROM matrix WHERE prompting = 'p1' OR metric = 'gain' AND score > 0.5",
    "SELECT a.score FROM matrix AS a JOIN records AS b USING (item) WHERE a.task = 'quiz' AND b.task = 'maths'",
    "SELECT (SELECT sum(item) FROM matrix WHERE model = 'model-a') AS a, (SELECT sum(item) FROM records) AS b",
    "SELECT * FROM pool WHERE candidate = 'model-a'",
    "SELECT * FROM leaderboard WHERE task = 'quiz'",
    "SELECT * FROM matrix WHERE model = 'nobody'",
]


@pytest.fixture
def parts_of_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell is a part, and two of them are many."""
    monkeypatch.setattr(chunks, "PART_ROWS", 1)
    monkeypatch.setattr(narrowing, "FEW_PARTS", 1)


def rows_of(lake: Lake, query: str, *, narrowed: bool, choice: PoolChoice | None = None) -> list[str]:
    def read(con: Any, holdings: Any) -> list[str]:
        if narrowed:
            narrowing.narrow(con, lake.uri, holdings, query)
        return sorted(map(repr, con.execute(query).fetchall()))

    return ask(lake, read, only=named_in(query), choice=choice)


@pytest.mark.parametrize("seed", [1, 2])
def test_narrowed_queries_of_an_odd_lake_give_the_rows_of_all_parts(
    tmp_path: Path, parts_of_a_cell: None, seed: int
) -> None:
    lake = RandomLake(seed, is_odd=True).write(tmp_path / "lake", 2, halfway=compact)
    compact(lake)
    found = {query: rows_of(lake, query, narrowed=True) for query in QUERIES}
    assert found == {query: rows_of(lake, query, narrowed=False) for query in QUERIES}
    assert sum(map(bool, found.values())) > len(QUERIES) // 2


def test_narrowed_queries_give_replaced_and_repeated_rows_answers_and_open_shards(
    tmp_path: Path, parts_of_a_cell: None
) -> None:
    builder = filled(tmp_path / "lake")
    compact(builder.lake)
    add(builder, "a", "t", 3, 0, 2)  # outdates rows of a part
    add(builder, "c", "t", 0, 0, 2)
    conditions = (
        "task = 't'",
        "task = 'u'",
        "model = 'a'",
        "model = 'c' AND item = 1",
        "item > 3",
        "filter = 'strict'",
    )
    for view in ("records", "responses", "matrix", "superseded"):
        for condition in conditions:
            if view == "matrix" and "filter" in condition:
                continue
            query = f"SELECT * FROM {view}"
            query += f" WHERE {condition}" if view != "responses" or "model" not in condition else ""
            assert rows_of(builder.lake, query, narrowed=True) == rows_of(builder.lake, query, narrowed=False), query


def test_model_is_found_by_each_name_that_a_run_gave_it(tmp_path: Path, parts_of_a_cell: None) -> None:
    lake = plain_lake(str(tmp_path / "lake"), MODELS).lake
    compact(lake)
    for name in lake.names("runs"):
        if "schema" not in name:
            Path(lake.local_path(name)).unlink()  # no run tells the model of a cell any more
    query = "SELECT item FROM records WHERE model = 'm3'"
    assert rows_of(lake, query, narrowed=True) == rows_of(lake, query, narrowed=False) != []


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A compacted lake of MODELS × 2 tasks, each cell a part, and a published version of it."""
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "PART_ROWS", 1)
        patch.setattr("collectors.publish.version.PART_ROWS", 1)
        lake = plain_lake(str(folder / "lake"), MODELS).lake
        put_prices(lake, [(f"m{number}", 1.0, 2.0) for number in range(MODELS)])
        compact(lake)
        published(lake, folder / "version")
        yield {"lake": folder / "lake", "version": folder / "version"}


def sql(query: str, *options: str) -> Callable[[str], object]:
    return lambda uri: matrix.main(["--lake", uri, *options, "--sql", query])


@pytest.mark.parametrize("kind", ["lake", "version"])
@pytest.mark.parametrize(
    ("read", "needed"),
    [
        (lambda uri: load_matrix(uri, ["t"], numbers=["usd"]), ALL_OF_VERSION),
        (lambda uri: load_matrix(uri, None, PoolChoice(where="model = 'm1'"), numbers=["usd"]), 2),
        (sql("SELECT sum(score) FROM matrix WHERE model = 'm1'"), 2),
        (lambda uri: routerlake.open(uri).pool("t").questions, ALL_OF_VERSION),
        (lambda uri: routerlake.open(uri).pool("t", pool="task = 't' AND model IN ('m1', 'm2')").usd, 2),
        (sql("SELECT sum(score) FROM matrix WHERE task = 't'"), MODELS),
        (sql("SELECT sum(usd) FROM costs WHERE task = 't' AND model = 'm2'"), 1),
        (sql("SELECT sum(score) FROM matrix WHERE item = 99999"), 0),
        (sql("SELECT count(*) FROM pool", "--pool", "task = 't' AND model = 'm1'"), 1),
    ],
)
def test_reader_opens_the_parts_that_hold_what_it_asks_for_and_lists_no_version(
    lakes: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    read: Callable[[str], object],
    needed: int,
) -> None:
    monkeypatch.setattr(narrowing, "FEW_PARTS", 1)
    monkeypatch.setattr("collectors.lake.holdings.FEW_ROWS", 0)  # a small lake's views are tables of all its rows
    with counted(lakes[kind]) as (uri, counts):
        manifest = newest_manifest(Lake(uri))
        assert manifest
        assert len(manifest.parts) == 2 * MODELS
        counts.forget()
        read(uri)
        opened = counts.parts()
        if needed == ALL_OF_VERSION:
            needed = MODELS if kind == "lake" else 2 * MODELS
        assert len(opened) <= needed + _bound(counts), opened
        assert needed == 0 or opened
        if kind == "version":
            assert not counts.listed


def test_relation_is_asked_of_all_parts_because_another_query_may_be_built_on_it(
    tmp_path: Path, parts_of_a_cell: None
) -> None:
    lake = plain_lake(str(tmp_path / "lake"), MODELS).lake
    compact(lake)
    relation = routerlake.open(lake.uri).sql("FROM matrix WHERE model = 'm1'")
    every = "SELECT count(DISTINCT model) FROM matrix"
    assert relation.query("mine", every).fetchall() == [(MODELS,)]


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{", '{"files": {}}', '{"kind": "routerlake snapshot", "files": [1, 2]}', "[" * 100_000]
)
def test_lake_with_a_foreign_or_damaged_manifest_is_listed(tmp_path: Path, manifest: str) -> None:
    lake = plain_lake(str(tmp_path / "lake"), MODELS).lake
    names = lake.names("shards")
    (tmp_path / "lake/manifest.json").write_text(manifest)
    assert Lake(lake.uri).open_for_reading().names("shards") == names != []


def _bound(counts: Counts) -> int:
    """DuckDB opens the first file of all for its columns, when a view is made and when a query is planned."""
    return min(1, len(counts.parts()))
