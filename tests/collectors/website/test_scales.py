"""Scores on other scales than 0 to 1, and a task that is named as the pool of all tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.website.boards import heat_map
from collectors.website.database import _PAIRED, PAIRED, _ordered, write_database
from collectors.website.drawings import ALL, draw_all
from collectors.website.reading import Tables
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only

#: Model -> its scores of a task of accuracy; `single` has one task of the two alone, and is better there.
RIGHT = {"low": [0.0, 0.0, 1.0], "high": [1.0, 0.0, 1.0], "single": [1.0, 1.0, 1.0]}
#: Model -> its distances from the right answer, of which less is better.
DISTANCE = {"low": [9.0, 9.0, 9.0], "high": [12.0, 12.0, 12.0], "single": [35.0, 35.0, 35.0]}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeBuilder:
    builder = LakeBuilder(tmp_path_factory.mktemp("scales") / "lake")
    for model, scores in RIGHT.items():
        for task in (ALL, "t") if model != "single" else (ALL,):
            builder.planned(BuiltCell(model=model, task=task, items=3), scores)
        worded = BuiltCell(model=model, task="words", metric="distance", higher_is_better=False, items=3)
        builder.run(worded, correct_threshold=None)
        builder.shard(worded, [worded.record(n, score=one, correct=None) for n, one in enumerate(DISTANCE[model])])
    return builder


@long_only
def test_heat_map_scores_on_another_scale_have_no_colour_and_order_no_rows(lake: LakeBuilder, tmp_path: Path) -> None:
    write_database(lake.lake.uri, tmp_path / "site.duckdb")
    tables = Tables(tmp_path / "site.duckdb")
    page = heat_map(tables)
    tables.close()
    [table] = page.tables
    assert {column.label: column.kind for column in table.columns[1:]} == {ALL: "heat", "t": "heat", "words": "score"}
    assert [row["candidate"] for row in table.rows] == ["high", "low", "single"], "more tasks come before a better mean"
    assert "has another scale, or less is better there" in page.lead[1]


def test_pairs_are_of_the_best_candidates_where_less_is_better_too(lake: LakeBuilder) -> None:
    first = _PAIRED.replace(f"<= {PAIRED}", "<= 1")
    assert lake.rows(first + " ORDER BY ALL") == [(ALL, "single"), ("t", "high"), ("words", "low")]


def test_order_of_a_table_ends_in_the_whole_row() -> None:
    assert _ordered("task, score DESC, ALL") == "task, score DESC, COLUMNS(*)"
    assert _ordered("ALL") == "ALL"
    assert _ordered("task, candidate") == "task, candidate"


@long_only
def test_pictures_of_a_task_named_all_tasks_are_its_own(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    for model in ("low", "high"):
        for task in (ALL, "t"):
            builder.planned(BuiltCell(model=model, task=task, items=3), RIGHT[model])
    files: dict[str, bytes] = {}

    def write(name: str, data: bytes) -> None:
        assert name not in files, "written before, for another pool"
        files[name] = data

    made = draw_all(builder.lake, "collected", [ALL, "t"], 12, write)
    assert list(dict.fromkeys(picture.get("task") for picture in made)) == [None, ALL, "t"]
    assert {picture["address"] for picture in made} == set(files)
