"""What is exported of a lake, and what becomes of gaps: never a score of 0, never a cost of 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from collectors.exporters.gaps import complete
from collectors.exporters.out import new_path
from collectors.exporters.reading import needed_views, read_grids
from collectors.exporters.registry import FORMATS
from collectors.lake.holdings import read_holdings
from collectors.lake.reading import connect
from schemas.failures import ConfigError
from schemas.views import PoolChoice
from tests.helpers.exporting import build, exported, grids, price
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

#: Item 1 was never asked of c, item 3 has no verdict of org/a.
GAPS: dict[str, list[float | None]] = {"org/a": [1, 0, 1, 0], "b": [1, 1, 0, 0], "c": [0, None, 0, 1]}


def test_missing_scores_are_refused_with_counts_and_what_to_do(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", GAPS))
    with pytest.raises(ConfigError) as caught:
        exported(lake, "routerbench", tmp_path / "out.csv")
    assert str(caught.value) == (
        "1 of 12 answers have no score (c 1); 1 of 12 answers have no known cost (c 1): --missing drop-items leaves "
        "out 1 of 4 items, drop-models 1 of 3 models; prices.py puts prices into the lake"
    )
    assert not (tmp_path / "out.csv").exists()


def test_missing_drop_items_and_models_leave_out_what_they_said(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", GAPS))
    [note] = exported(lake, "routerbench", tmp_path / "items.csv", missing="drop-items")
    assert note == "left out: 1 of 4 items with an answer of unknown score or cost"
    frame = pd.read_csv(tmp_path / "items.csv")
    assert frame.sample_id.tolist() == ["quiz.0", "quiz.2", "quiz.3"]
    assert frame["c"].tolist() == [0, 0, 1]
    [note] = exported(lake, "routerbench", tmp_path / "models.csv", missing="drop-models")
    assert note == "left out: 1 of 3 models with an answer of unknown score or cost: c"
    frame = pd.read_csv(tmp_path / "models.csv")
    assert [name for name in frame.columns if f"{name}|total_cost" in frame] == ["b", "org/a"]
    assert len(frame) == 4


def test_missing_answers_that_failed_are_gaps_too(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", {"b": [1, 1]}))
    cell = BuiltCell(model="c")
    lake.run(cell)
    failed = {"score": None, "failure": "judge_died", "completion_tokens": 0}
    lake.shard(cell, [cell.record(0, score=1.0), cell.record(1, **failed)])
    with pytest.raises(ConfigError, match=r"1 of 4 answers have no score \(c 1\): --missing"):
        exported(lake, "routerbench", tmp_path / "out.csv")


def test_missing_whole_tasks_of_a_model_are_gaps(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", {"b": [1, 1], "c": [1, 0]}, tasks=("x", "y")))
    lake.planned(BuiltCell(model="org/a", task="x"), [1, 1])
    with pytest.raises(ConfigError, match=r"2 of 12 answers have no score \(org/a 2\)"):
        exported(lake, "routerbench", tmp_path / "out.csv")
    notes = exported(lake, "routerbench", tmp_path / "out.csv", missing="drop-items")
    assert notes[0] == "left out: 2 of 4 items with an answer of unknown score or cost; nothing is left of y"
    assert set(pd.read_csv(tmp_path / "out.csv").eval_name) == {"x"}


def test_missing_costs_are_refused_and_a_price_of_nothing_is_a_cost(tmp_path: Path) -> None:
    scores = {"b": [1.0, 0.0], "c": [0.0, 1.0]}
    lake = price(build(tmp_path / "lake", scores), {"b": 1.0})
    with pytest.raises(ConfigError, match=r"2 of 4 answers have no known cost \(c 2\): --missing drop-models 1 of 2"):
        exported(lake, "routerbench", tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="--missing drop-items would leave nothing"):
        exported(lake, "routerbench", tmp_path / "out.csv", missing="drop-items")
    price(lake, {"c": 0.0})
    exported(lake, "routerbench", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["c|total_cost"].tolist() == [0.0, 0.0]


def test_missing_texts_of_items_are_refused(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", {"b": [1, 0]}, prompts=["one", None]))
    for missing in ("error", "drop-models"):
        with pytest.raises(ConfigError, match="1 items have no text in the lake"):
            exported(lake, "routerbench", tmp_path / "out.csv", missing=missing)
    exported(lake, "routerbench", tmp_path / "out.csv", missing="drop-items")
    assert pd.read_csv(tmp_path / "out.csv").prompt.tolist() == ["['one']"]


def test_grids_hold_the_pool_in_the_order_of_its_items(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", GAPS)
    [grid] = grids(lake, "routerbench", "model <> 'b'")
    assert grid.models == ["c", "org/a"]
    np.testing.assert_array_equal(grid.scores, [[0, 1], [np.nan, 0], [0, 1], [1, 0]])
    assert grid.asked.tolist() == [[True, True], [False, True], [True, True], [True, True]]
    assert grid.responses[1].tolist() == [None, ["[1, 2"]]
    assert complete([grid], "drop-items")[0][0].responses.shape == (3, 2)


def test_grids_of_the_pool_leave_out_questions_that_lack_a_score(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"b": [1, 0] * 5, "c": [0, None, *[1] * 8], "d": [None] * 5 + [1] * 5})
    lake.run(BuiltCell(task="later"))
    [grid] = grids(lake, "routerbench", questions="every")
    assert grid.models == ["b", "c"], "d lacks more than a tenth"
    assert [item["item"] for item in grid.items] == [0, *range(2, 10)]
    np.testing.assert_array_equal(grid.scores[:3], [[1, 0], [1, 1], [0, 1]])
    [whole] = grids(lake, "huggingface", questions="every")
    assert whole.scores.shape == (10, 2), "answers of questions that do not count are written, too"


def test_grids_of_no_pool_are_errors(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", GAPS)
    with pytest.raises(ConfigError, match="no cell with a score that meets the pool's condition"):
        grids(lake, "routerbench", "false")
    with pytest.raises(ConfigError, match="no cell with a score of task nothing"):
        grids(lake, "routerbench", tasks=["nothing"])
    with pytest.raises(ConfigError, match="no candidate with a score in nothing"):
        grids(lake, "routerbench", tasks=["quiz", "nothing"])
    with pytest.raises(ConfigError, match="the pool's condition"):
        grids(lake, "routerbench", "nonsense = 1")
    lake.planned(BuiltCell(task="costs", higher_is_better=False), [1, 1])
    with pytest.raises(ConfigError, match="costs: less is better for acc"):
        grids(lake, "routerbench", tasks=["costs"])
    assert {grid.task for grid in grids(lake, "routerbench")} == {"quiz"}, "the others are exported"


def test_grids_of_items_without_a_table_have_their_hashes(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    lake.planned(BuiltCell(model="b"), [1, 0])
    [grid] = grids(lake, "huggingface")
    assert [item["item_hash"] for item in grid.items] == ["hash-0", "hash-1"]
    assert [(item["item"], item["prompt"], item["source_key"]) for item in grid.items] == [
        (0, None, None),
        (1, None, None),
    ]


class Counted:
    """A connection that counts its queries."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con, self.queries = con, 0

    def execute(self, *sql: Any) -> duckdb.DuckDBPyConnection:
        self.queries += 1
        return self.con.execute(*sql)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.con, name)


def test_grids_of_many_tasks_take_as_many_queries_as_one(tmp_path: Path) -> None:
    queries = []
    for count in (1, 9):
        lake = build(tmp_path / f"lake-{count}", GAPS, tasks=[f"task{n}" for n in range(count)]).lake
        holdings = read_holdings(lake)
        with connect(lake, holdings, only=needed_views(holdings, ["usd", "cached_tokens"])) as con:
            counted = Counted(con)
            read, _ = read_grids(counted, lake, holdings, None, PoolChoice(), texts=True)  # type: ignore[arg-type]
            assert len(list(read)) == count
            queries.append(counted.queries)
    assert queries[0] == queries[1]


def test_grids_have_the_numbers_that_were_asked_for(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", GAPS, tasks=("x", "y"))).lake
    holdings = read_holdings(lake)
    with connect(lake, holdings, only=needed_views(holdings, ["usd", "cached_tokens"])) as con:
        whole = list(read_grids(con, lake, holdings, None, PoolChoice())[0])
        for numbers in ((), ("latency_s",), ("usd", "completion_tokens")):
            some, _ = read_grids(con, lake, holdings, None, PoolChoice(), numbers=numbers)
            for grid, other in zip(some, whole, strict=True):
                assert grid.numbers.keys() == {"score", *numbers}
                for name, values in grid.numbers.items():
                    assert np.array_equal(values, other.numbers[name], True)
                assert (grid.models, grid.items) == (other.models, other.items)
    assert {name for name, form in FORMATS.items() if "usd" in form.numbers} == {
        *("routerbench", "routerbench_long", "llmrouterbench", "routerarena", "huggingface", "every_eval_ever")
    }


def write_half(out: Path, name: str) -> None:
    with new_path(out) as path:
        (path if name == "." else path / name).parent.mkdir(exist_ok=True)
        (path if name == "." else path / name).write_text("half")
        raise ZeroDivisionError


def write_late(out: Path) -> None:
    with new_path(out) as path:
        path.write_text("mine")
        out.write_text("another's")


@pytest.mark.parametrize("name", [".", "half"])
def test_new_path_of_what_fails_half_way_is_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "out.csv", name)
    assert list(tmp_path.iterdir()) == []


def test_new_path_is_never_in_place_of_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        write_late(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "another's"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    with pytest.raises(ConfigError, match="there is no folder"):
        write_late(tmp_path / "none/out.csv")


@pytest.mark.parametrize("name", FORMATS)
def test_formats_say_what_they_are_and_what_they_lose_in_a_line(name: str) -> None:
    form = FORMATS[name]
    assert "\n" not in form.what + form.cannot
    assert len(form.what) < 100
    assert form.cannot
