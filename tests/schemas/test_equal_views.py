"""Every number of every view depends on nothing but its records: not on order, shards, threads or compactions."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from collectors.lake import layout
from collectors.lake.compaction import compact
from collectors.lake.reading import ask, connect
from collectors.lake.store import Lake
from collectors.matrix.pools import load_pools
from collectors.metrics.pool import model_means, oracle_mean
from collectors.publish.card import Description
from collectors.publish.version import build_version
from schemas.records import MODEL, PRICE, RUN_CELL
from tests.helpers.equal_lakes import RandomLake, answers, put_prices
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, _planned
from tests.helpers.thorough import long_only


def states(made: RandomLake, folder: Path, order: int, threads: int) -> list[dict[str, list[str]]]:
    """The answers over one order of the records: open, compacted, published."""
    lake = made.write(folder / f"order-{order}", order)
    found = [answers(lake, threads)]
    compact(lake)
    found.append(answers(lake, threads))
    build_version(lake, folder / f"version-{order}", Description(licence="mit"), include="all")
    return [*found, answers(Lake(str(folder / f"version-{order}")), threads)]


def test_views_of_the_same_records_in_another_order_equal_to_the_last_bit(tmp_path: Path) -> None:
    made = RandomLake(0, items=12, tasks=("maths",))  # scores up to 1e26
    one = answers(made.write(tmp_path / "a", 0), 1)
    other = made.write(tmp_path / "b", 3)
    compact(other)
    assert answers(other, 2) == one


@long_only
@pytest.mark.parametrize("seed", range(50))
def test_views_in_any_order_state_and_number_of_threads_equal_to_the_last_bit(tmp_path: Path, seed: int) -> None:
    made = RandomLake(seed)
    first, *others = (
        found for order, threads in enumerate((1, 2, 4, 2, 1)) for found in states(made, tmp_path, order, threads)
    )
    assert all(other == first for other in others)


def test_equal_models_in_another_order_rank_first_and_the_first_by_name_is_best(tmp_path: Path) -> None:
    lake, rng = LakeBuilder(tmp_path), np.random.default_rng(0)
    scores = np.round(rng.random(300), 3)
    for name in "bac":
        lake.planned(BuiltCell(model=name, items=len(scores)), rng.permutation(scores).tolist())
    assert lake.rows("SELECT DISTINCT rank FROM leaderboard") == [(1,)]
    assert lake.rows("SELECT best_model FROM oracle") == [("a",)]
    assert lake.rows("SELECT count(*) FROM leaderboard WHERE score = (SELECT max(score) FROM leaderboard)") == [(3,)]


def test_means_of_arrays_are_those_of_the_views_to_the_last_bit(tmp_path: Path) -> None:
    lake, rng = LakeBuilder(tmp_path), np.random.default_rng(1)
    for name in "abc":
        lake.planned(BuiltCell(model=name, items=100), (rng.beta(0.2, 0.8, 100) * 1e-3).tolist())
    pool = load_pools(lake.lake).of_task("quiz")
    views = lake.rows("SELECT score FROM leaderboard ORDER BY model")
    assert model_means(pool.scores).means.tolist() == [score for (score,) in views]
    assert lake.rows("SELECT oracle_score FROM oracle") == [(oracle_mean(pool.scores).value,)]


EARLY, LATE = (0, [1.0] * 8), (4, [0.0] * 8)


@pytest.mark.few(2)
@pytest.mark.parametrize("commits", [(EARLY, LATE), (LATE, EARLY)], ids=["in order", "earlier name later"])
@pytest.mark.parametrize("folded", [False, True])
def test_overlapping_shards_of_one_generation_score_the_same_whatever_was_compacted_when(
    tmp_path: Path, commits: Any, folded: bool
) -> None:
    lake, cell = LakeBuilder(tmp_path), BuiltCell(items=12)
    lake.run(cell)
    for first, scores in commits:
        lake.scores(cell, scores, first=first)
        if folded:
            compact(lake.lake)
    query = "SELECT score, scored FROM leaderboard"
    assert ask(lake.lake, lambda con, _: con.execute(query).fetchall()) == [(8 / 12, 12)]
    assert np.nansum(load_pools(lake.lake).every.scores) == 8


def test_numbers_of_a_cell_stay_when_what_does_not_concern_it_comes(tmp_path: Path) -> None:
    lake, mine = LakeBuilder(tmp_path / "lake"), BuiltCell(model="m")
    lake.run(mine, source="org/m", planned=3)
    lake.scores(mine, [1.0, 0.5, 0.25])
    put_prices(lake.lake, [("org/m", 1.0, 2.0)])
    numbers = f"SELECT * FROM leaderboard WHERE cell_id = '{mine.cell_id}'"
    costs = f"SELECT * FROM costs WHERE cell_id = '{mine.cell_id}' ORDER BY item"
    before = lake.rows(numbers), lake.rows(costs)
    assert lake.rows("SELECT basis FROM model_prices") == [("equal",)]
    for other in (
        BuiltCell(model="m", prompting="p1", dtype="bfloat16"),
        BuiltCell(model="n"),
        BuiltCell(task="other", model="m"),
    ):
        lake.run(other, source="/a/folder/of/m", revision="r1", planned=2)
        lake.scores(other, [0.0, 1.0])
    lake.model("m", "r1", parameters=7)
    put_prices(lake.lake, [("other/n", 5.0, 5.0)])
    put_prices(lake.lake, [("org/m", 0.001, 0.001)], day="2099-01-01")
    assert (lake.rows(numbers), lake.rows(costs)) == before


class ImportedCell(BuiltCell):
    @property
    def cell_id(self) -> str:
        return "i" + super().cell_id[1:]


def test_prices_by_size_of_imported_cells_are_the_lakes_in_a_version_too(tmp_path: Path) -> None:
    lake, cell = LakeBuilder(tmp_path / "lake"), ImportedCell(model="org/m")
    run = f"import-{'0' * 16}"
    planned = _planned(cell, run, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), 1) | {"imported_from": "other"}
    lake.lake.create_table(layout.run_name(run), pa.Table.from_pylist([planned], RUN_CELL))
    lake.scores(cell, [1.0])
    listed = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    row = {"model": "org/m", "source": "org/m", "revision": "r0", "parameters": 5, "listed_at": listed}
    lake.lake.create_table("models/catalog.parquet", pa.Table.from_pylist([row], MODEL))
    price = {"model": "small", "provider": "host", "valid_from": dt.date(2026, 1, 1), "source": "made"}
    price |= {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 1.0, "over_parameters": 0}
    table = pa.Table.from_pylist([{**price, "added_at": listed}], PRICE)
    lake.lake.create_table("prices/tiers.parquet", table)
    query = "SELECT basis, price_model FROM model_prices"
    assert lake.rows(query) == [("tier", "small")]
    build_version(lake.lake, tmp_path / "version", Description(licence="mit"), include="imported")
    with connect(Lake(str(tmp_path / "version")), only=["model_prices"]) as con:
        assert con.execute(query).fetchall() == [("tier", "small")]
