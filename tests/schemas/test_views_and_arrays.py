"""Oracle, cheapest correct model, Pareto and complementarity stand as SQL and as arrays: both give the same.

The arrays leave out an item that some model has no score on; where a view keeps such items, they are not compared.
"""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from collectors.lake.reading import connect
from collectors.metrics import pool as arrays
from collectors.metrics.complementarity import complementarity
from collectors.metrics.gaps import NO_CHOICE, complete_items
from collectors.metrics.plane import pareto_frontier
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, row, rows
from tests.helpers.thorough import often

Floats = npt.NDArray[np.float64]

COMPARED = ("oracle", "oracle_items", "cheapest_correct", "pareto", "complementarity", "pool", "candidates")

#: Halves too: graded scores that are right only from 1 on. Few values, so that models tie.
SCORES = st.sampled_from([0.0, 0.5, 1.0, math.nan])
#: Exact in binary, so that sums do not depend on their order.
COSTS = st.sampled_from([0.0, 0.25, 0.5, 2.0, math.nan])


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Scores and costs, both (items, models)."""
    items, models = draw(st.integers(1, 6)), draw(st.integers(2, 4))
    row = st.lists(st.tuples(SCORES, COSTS), min_size=models, max_size=models)
    both = np.array(draw(st.lists(row, min_size=items, max_size=items)))
    scores, costs = both[..., 0].copy(), both[..., 1].copy()
    for model in range(models):  # a cell without any score is in no pool
        if np.isnan(scores[:, model]).all():
            scores[0, model] = 1.0
    return scores, costs


def fill(folder: Path, scores: Floats, costs: Floats) -> tuple[LakeBuilder, list[str]]:
    """A lake with these cells, the models by name in the order of the columns; and the cell ids."""
    lake = LakeBuilder(folder)
    cells = [BuiltCell(model=f"model-{letter}", items=len(scores)) for letter in "abcd"[: scores.shape[1]]]
    lake.run(*cells)
    for column, cell in enumerate(cells):
        rows = [
            cell.record(item, score=score, stated_usd=None if math.isnan(usd) else usd)
            for item, (score, usd) in enumerate(zip(scores[:, column].tolist(), costs[:, column].tolist(), strict=True))
            if not math.isnan(score)
        ]
        lake.shard(cell, rows)
    return lake, [cell.cell_id for cell in cells]


def known(value: float | None) -> float:
    return math.nan if value is None else value


@settings(
    max_examples=often(8, few=3),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes half a second: shrinking takes minutes
)
@given(matrix=matrices())
def test_views_and_arrays_give_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, matrix: tuple[Floats, Floats]
) -> None:
    scores, costs = matrix
    lake, cells = fill(tmp_path_factory.mktemp("lake"), scores, costs)
    with connect(lake.lake, only=COMPARED) as con:
        left_out = {cell for (cell,) in rows(con, "SELECT cell_id FROM candidates WHERE left_out")}
        kept = [column for column, cell in enumerate(cells) if cell not in left_out]
        cells, scores, costs = [cells[column] for column in kept], scores[:, kept], costs[:, kept]
        complete = complete_items(scores)
        compare_oracle_items(con, cells, scores, costs, complete)
        compare_oracle(con, cells, scores, complete)
        compare_cheapest_correct(con, cells, scores, costs)
        compare_pareto(con, scores[complete], costs[complete])
        compare_complementarity(con, scores)


def compare_oracle_items(
    con: duckdb.DuckDBPyConnection, cells: list[str], scores: Floats, costs: Floats, complete: npt.NDArray[np.bool_]
) -> None:
    choices, best = arrays.oracle(scores, costs), arrays.best_scores(scores)
    by_item = {item: rest for item, *rest in rows(con, "SELECT item, best_score, cell_id, usd FROM oracle_items")}
    for item in np.flatnonzero(complete).tolist():
        score, cell, usd = by_item[item]
        assert (score, cell) == (best[item], cells[choices[item]])
        assert np.array_equal(known(usd), costs[item, choices[item]], equal_nan=True)


def compare_oracle(
    con: duckdb.DuckDBPyConnection, cells: list[str], scores: Floats, complete: npt.NDArray[np.bool_]
) -> None:
    shown = row(con, "SELECT questions, oracle_score, best_cell_id, best_model_score FROM oracle")
    assert shown["questions"] == complete.sum()
    if complete.any():
        means = arrays.model_means(scores)
        assert shown["oracle_score"] == pytest.approx(arrays.oracle_mean(scores).value, abs=1e-12)
        assert (shown["best_cell_id"], shown["best_model_score"]) == (
            cells[means.best],
            pytest.approx(means.best_single.value, abs=1e-12),
        )
    else:
        assert shown["best_cell_id"] is None


def compare_cheapest_correct(con: duckdb.DuckDBPyConnection, cells: list[str], scores: Floats, costs: Floats) -> None:
    cheapest = arrays.cheapest_correct(scores, costs)
    usable = complete_items(scores) & ~((scores >= 1) & np.isnan(costs)).any(axis=1)
    by_item = {item: rest for item, *rest in rows(con, "SELECT item, cell_id, usd FROM cheapest_correct")}
    paid = 0.0
    for item in np.flatnonzero(usable).tolist():
        cell, usd = by_item[item]
        choice = cheapest.choices[item]
        assert cell == (None if choice == NO_CHOICE else cells[choice])
        paid += usd or 0.0
    assert paid == (cheapest.total_cost or 0.0)


def compare_pareto(con: duckdb.DuckDBPyConnection, scores: Floats, costs: Floats) -> None:
    shown = rows(con, "SELECT score, usd_per_1000 / 1000, questions, usd_questions FROM pareto ORDER BY candidate")
    priced = np.flatnonzero((~np.isnan(costs)).any(axis=0))
    if not len(priced):
        assert shown == []
        return
    points = np.stack([np.nanmean(costs[:, priced], axis=0), scores[:, priced].mean(axis=0)], axis=1)
    on_frontier = np.sort(pareto_frontier(points))
    counts = (~np.isnan(costs[:, priced])).sum(axis=0)
    assert [(usd, score) for score, usd, *_ in shown] == [pytest.approx(tuple(point)) for point in points[on_frontier]]
    assert [row[2:] for row in shown] == [(len(scores), counts[place]) for place in on_frontier]


def compare_complementarity(con: duckdb.DuckDBPyConnection, scores: Floats) -> None:
    counts = complementarity(scores)
    place = {
        name: number
        for number, (name,) in enumerate(
            rows(con, "SELECT DISTINCT candidate FROM candidates WHERE NOT left_out ORDER BY 1")
        )
    }
    columns = 'candidate_a, candidate_b, questions, "both", only_a, only_b, neither'
    for a, b, *numbers in rows(con, f"SELECT {columns} FROM complementarity"):
        pair = place[a], place[b]
        tables = (counts.scored, counts.both, counts.only_row, counts.only_column, counts.neither)
        assert numbers == [table[pair] for table in tables]
