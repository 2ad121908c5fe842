"""The leaderboard and the oracle: intervals, ranks, and a best model by hand."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.lake.holdings import read_holdings
from schemas.views import create_views
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.lake_builder import row as row_of
from tests.helpers.thorough import often

CELL = BuiltCell()


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


# ---- leaderboard


def wilson_by_bisection(successes: int, n: int) -> tuple[float, float]:
    """Where |p_hat - p| = z·sqrt(p(1 - p)/n), found without the closed formula."""
    z, p_hat = statistics.NormalDist().inv_cdf(0.975), successes / n

    def inside(p: float) -> bool:
        return abs(p_hat - p) <= z * math.sqrt(p * (1 - p) / n)

    bounds = []
    for outer in (0.0, 1.0):
        far, near = outer, p_hat
        for _ in range(200):
            middle = (far + near) / 2
            far, near = (far, middle) if inside(middle) else (middle, near)
        bounds.append(near)
    return bounds[0], bounds[1]


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 10), (0, 7), (7, 7), (49, 50)])
def test_leaderboard_scores_of_0_and_1_wilson_interval(lake: LakeBuilder, successes: int, n: int) -> None:
    lake.planned(CELL, [1.0] * successes + [0.0] * (n - successes))
    found = lake.row("SELECT score, ci_low, ci_high, ci_method, stderr FROM leaderboard")
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(wilson_by_bisection(successes, n), abs=1e-9)
    assert (found["score"], found["ci_method"]) == (successes / n, "wilson")
    scores = [1.0] * successes + [0.0] * (n - successes)
    assert found["stderr"] == (pytest.approx(statistics.stdev(scores) / math.sqrt(n)) if n > 1 else None)


@pytest.mark.parametrize(
    "scores", [[0.25, 3.5, -1.0, 0.0, 1.0], [250.0, 3500.0, -1000.0, 0.0, 1000.0], [5e9, 8e9, 4e9, 5.1e9, 4.9e9]]
)
def test_leaderboard_scores_without_a_range_interval_corrected_for_skewness(
    lake: LakeBuilder, scores: list[float]
) -> None:
    lake.run(CELL, correct_threshold=None)
    lake.scores(CELL, scores)
    found = lake.row("SELECT * FROM leaderboard")
    n, mean, deviation = len(scores), statistics.fmean(scores), statistics.stdev(scores)
    stderr, t = deviation / math.sqrt(n), 2.776445  # of a table
    skewness = statistics.fmean((score - mean) ** 3 for score in scores) / deviation**3
    assert found["ci_method"] == "hall"
    assert (found["score"], found["stderr"]) == (pytest.approx(mean), pytest.approx(stderr))
    for end, wanted in (("ci_low", t), ("ci_high", -t)):  # Hall's g of the distance to each end is the quantile
        x = (mean - found[end]) / stderr
        a = skewness / (3 * math.sqrt(n))
        assert x + a * x**2 + a**2 * x**3 / 3 + a / 2 == pytest.approx(wanted, rel=1e-3)


def test_leaderboard_interval_of_fractions_ends_where_they_do(lake: LakeBuilder) -> None:
    lake.planned(CELL, [0.0, 0.1, 0.9, 1.0, 0.5])
    lake.planned(BuiltCell(task="few"), [1.0, 1.0, 0.9, 1.0])
    lake.planned(BuiltCell(task="high"), [1.0, 1.0, 0.9, 1.0, 1.0])
    lake.planned(BuiltCell(task="same"), [0.5] * 9)
    found = lake.rows("SELECT task, ci_method, ci_low > 0.8 * (score - 0.4), ci_high FROM leaderboard ORDER BY task")
    assert [row[:2] for row in found] == [("few", None), ("high", "bounded"), ("quiz", "bounded"), ("same", None)]
    assert found[1][3] <= 1
    low, high = lake.row("SELECT ci_low, ci_high FROM leaderboard WHERE task = 'quiz'").values()
    assert 0 < low < 0.5 < high < 1


@pytest.mark.parametrize("scores", [[-1.0, 1, 1, -1, 1, 0.5], [1.0] * 6, [0.0, 1, 0, 1, 1, 1]])
def test_leaderboard_interval_belongs_to_the_stated_range_and_not_to_the_scores(
    lake: LakeBuilder, scores: list[float]
) -> None:
    lake.run(CELL, imported_from="other", correct_threshold=0.0, config='{"range": [-1, 1.0], "files": []}')
    lake.scores(CELL, scores)
    found = lake.row("SELECT score, ci_low, ci_high, ci_method FROM leaderboard")
    assert -1 <= found["ci_low"] < found["score"] <= found["ci_high"] <= 1
    assert found["ci_method"] == ("wilson" if scores == [1.0] * 6 else "bounded")
    if scores[0] == -1:
        assert found["ci_low"] < -0.4


def test_leaderboard_one_fractional_score_has_no_interval(lake: LakeBuilder) -> None:
    lake.planned(CELL, [0.5])
    found = lake.row("SELECT score, stderr, ci_low, ci_high, ci_method FROM leaderboard")
    assert found == {"score": 0.5, "stderr": None, "ci_low": None, "ci_high": None, "ci_method": None}


@pytest.mark.parametrize(("higher", "expected"), [(True, [3, 1, 1]), (False, [1, 2, 2])])
def test_leaderboard_rank_respects_direction_and_ties(lake: LakeBuilder, higher: bool, expected: list[int]) -> None:
    for model, scores in {"a": [0.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 0.0]}.items():
        lake.planned(BuiltCell(model=model, higher_is_better=higher), scores)
    assert lake.rows("SELECT rank FROM leaderboard ORDER BY model") == [(rank,) for rank in expected]


def test_leaderboard_nothing_scored_everything_about_the_score_is_null(lake: LakeBuilder) -> None:
    lake.run(CELL, planned=1)
    lake.shard(CELL, [CELL.record(0, failure="judge_died")])
    lake.planned(BuiltCell(model="model-b"), [0.0])
    found = lake.row("SELECT * FROM leaderboard WHERE model = 'model-a'")
    assert [found[name] for name in ("rank", "score", "stderr", "ci_low", "ci_high", "ci_method")] == [None] * 6
    assert (found["attempted"], found["scored"], found["failed"], found["judge"]) == (1, 0, 1, 1)
    assert lake.rows("SELECT rank FROM leaderboard WHERE model = 'model-b'") == [(1,)]


def test_leaderboard_rank_needs_every_planned_item_and_counts_models_asked_as_many(lake: LakeBuilder) -> None:
    lake.planned(BuiltCell(model="whole"), [1.0, 0.0])
    lake.planned(BuiltCell(model="better"), [1.0, 1.0])
    lake.planned(BuiltCell(model="missing"), [1.0, None])
    lake.planned(BuiltCell(model="asked more"), [0.0, 0.0, 0.0])
    lake.run(failed := BuiltCell(model="failed"), planned=2)
    lake.shard(failed, [failed.record(0, score=1.0), failed.record(1, failure="engine_died")])
    assert dict(lake.rows("SELECT model, rank FROM leaderboard")) == {
        "whole": 2,
        "better": 1,
        "missing": None,
        "asked more": 1,
        "failed": None,
    }


OUTCOMES = {
    "ok": {"score": 1.0},
    "empty": {"failure": "empty_answer", "score": 1.0},
    "truncated": {"finish_reason": "length", "score": 1.0},
    "overlong": {"failure": "prompt_too_long"},
    "nan": {"failure": "nan_logprobs"},
    "refused": {"failure": "unknown_token"},
    "judge": {"failure": "judge_timeout"},
    "engine": {"failure": "a kind of tomorrow"},
}


@pytest.mark.parametrize("older", [False, True])
def test_leaderboard_counts_each_outcome_and_scores_those_of_the_model(lake: LakeBuilder, older: bool) -> None:
    """`older`: rows of schema 6, where an empty answer has no score, but its verdict in the metrics."""
    lake.run(CELL, planned=len(OUTCOMES))
    rows = []
    for item, (name, columns) in enumerate(OUTCOMES.items()):
        row = CELL.record(item, **columns)
        assert row["outcome"] == name
        if older:
            verdict = {"metrics": '{"acc": 1.0}', "score": None} if name == "empty" else {}
            row = CELL.record(item, **{**columns, **verdict, "outcome": None})
        rows.append(row)
    lake.shard(CELL, rows)
    con = create_filled(lake) if older else lake.views().having("leaderboard matrix coverage failures")
    found = row_of(con, "SELECT * FROM leaderboard")
    counted = {name: found[name] for name in (*OUTCOMES, "filtered", "store")}
    assert counted == {**dict.fromkeys(OUTCOMES, 1), "filtered": 0, "store": 0}
    assert (found["score"], found["score_answered"], found["rank"]) == (3 / 6, 1.0, None)
    assert (found["attempted"], found["scored"], found["failed"]) == (8, 6, 2)
    scores = dict(con.execute("SELECT outcome, score FROM matrix").fetchall())
    assert scores == {
        **dict.fromkeys(OUTCOMES, 0.0),
        "ok": 1,
        "empty": 1,
        "truncated": 1,
        "judge": None,
        "engine": None,
    }
    kinds = con.execute("SELECT kind FROM failures ORDER BY kind").fetchall()
    assert kinds == [("a kind of tomorrow",), ("judge_timeout",)]


def create_filled(lake: LakeBuilder) -> duckdb.DuckDBPyConnection:
    """The views as an older lake has them: rows may lack outcomes."""
    con = duckdb.connect()
    files = dataclasses.replace(read_holdings(lake.lake).view_files(), filled=True)
    create_views(con, lake.lake.uri, files, only=["leaderboard", "matrix", "oracle", "failures"], comments=False)
    return con


@pytest.mark.parametrize("metric", ["perplexity", "mcc", "f1"])
def test_scores_of_schema_6_of_a_metric_over_sets_are_none(lake: LakeBuilder, metric: str) -> None:
    cell = BuiltCell(metric=metric)
    lake.planned(cell, [])
    lake.shard(cell, [cell.record(item, score=-3.0, outcome=None) for item in range(2)])
    con = create_filled(lake)
    assert (
        con.execute("SELECT score, correct, failure, outcome FROM matrix").fetchall()
        == [(None, None, "set_level", "ok")] * 2
    )
    assert con.execute("SELECT score, scored, ok, rank FROM leaderboard").fetchall() == [(None, 0, 2, None)]
    assert con.execute("FROM oracle").fetchall() == []


def test_leaderboard_ranks_do_not_cross_promptings_items_or_metrics(lake: LakeBuilder) -> None:
    cells = (CELL, BuiltCell(prompting="p1"), BuiltCell(items_digest="i1"), BuiltCell(metric="em"))
    for score, cell in enumerate(cells):
        lake.planned(cell, [score / 4])
    assert lake.rows("SELECT rank FROM leaderboard") == [(1,)] * 4


def test_leaderboard_unknown_tokens_stay_unknown(lake: LakeBuilder) -> None:
    unknown = dict.fromkeys(["prompt_tokens", "completion_tokens", "cached_tokens", "engine_tokens", "latency_s"])
    lake.run(CELL, BuiltCell(model="model-b"))
    lake.shard(CELL, [CELL.record(0, score=1.0, **unknown)])
    known = BuiltCell(model="model-b")
    half = known.record(1, score=1.0, **{**unknown, "engine_tokens": 100})
    lake.shard(known, [known.record(0, score=1.0), half])
    columns = "mean_prompt_tokens, prompt_tokens, completion_tokens, engine_tokens, cached_share, mean_latency_s"
    assert lake.rows(f"SELECT {columns} FROM leaderboard ORDER BY model") == [
        (None,) * 6,
        (10.0, 10, 2, 116, 4 / 16, 0.5),
    ]


# ---- oracle

Scores = Sequence[Sequence[float | None]]

score_tables = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.sampled_from([0.0, 1.0, 0.5, None]), min_size=n, max_size=n), min_size=1, max_size=4)
)


def without_scarce(pool: dict[str, Sequence[float | None]]) -> list[Sequence[float | None]]:
    """Leaves out models while that makes more than a tenth of the questions complete that half of them answered."""
    items = range(len(next(iter(pool.values()))))
    base = [item for item in items if 2 * sum(scores[item] is not None for scores in pool.values()) >= len(pool)]
    kept = list(pool)

    def complete(cells: list[str]) -> int:
        return sum(all(pool[cell][item] is not None for cell in cells) for item in base)

    while len(kept) > 1:
        gains = {cell: complete([other for other in kept if other != cell]) - complete(kept) for cell in kept}
        scored = {cell: sum(score is not None for score in pool[cell]) for cell in kept}
        most = max(gains.values())
        if most <= 0.1 * len(base):
            break
        kept.remove(min((cell for cell in kept if gains[cell] == most), key=lambda cell: (scored[cell], cell)))
    return [pool[cell] for cell in kept]


def oracle_by_hand(cells: dict[str, Sequence[float | None]], higher: bool) -> tuple[float | int | None, ...] | None:
    """candidates, questions, those scored by any, best single score, oracle score, gap; None for an empty pool."""
    best = max if higher else min
    scored = {cell: scores for cell, scores in cells.items() if any(s is not None for s in scores)}
    if not scored:
        return None
    pool = without_scarce(scored)
    by_item = [[s for s in item if s is not None] for item in zip(*pool, strict=True)]
    common = [i for i, scores in enumerate(by_item) if len(scores) == len(pool)]
    any_scored = sum(1 for scores in by_item if scores)
    if not common:
        return len(pool), 0, any_scored, None, None, None
    oracle = statistics.fmean(best(by_item[i]) for i in common)
    single = best(statistics.fmean(s for i in common if (s := scores[i]) is not None) for scores in pool)
    return len(pool), len(common), any_scored, single, oracle, abs(oracle - single)


@settings(max_examples=often(12))
@given(score_tables, st.booleans())
def test_oracle_any_scores_with_holes_equals_brute_force(models: Scores, higher: bool) -> None:
    columns = "candidates, questions, questions_scored_by_any, best_model_score, oracle_score, gap"
    with TemporaryDirectory() as folder:
        lake, cells = LakeBuilder(folder), {}
        for number, scores in enumerate(models):
            cell = BuiltCell(model=f"m{number}", higher_is_better=higher, items=len(scores))
            cells[cell.cell_id] = scores
            lake.run(cell)
            # Each shard is one item: a hole in a cell is a range that was never collected.
            for item, score in enumerate(scores):
                lake.scores(cell, [score], first=item)
        found = lake.rows(f"SELECT {columns} FROM oracle")
    expected = oracle_by_hand(cells, higher)
    assert found == ([] if expected is None else [pytest.approx(expected)])


def test_oracle_item_that_failed_by_our_fault_is_left_out_not_wrong(lake: LakeBuilder) -> None:
    # So many that one question is less than a tenth of them.
    lake.planned(CELL, [1.0, 0.0, 1.0] + [0.0] * 9)
    other = BuiltCell(model="model-b")
    lake.run(other)
    judged = [other.record(i, score=s) for i, s in enumerate([0.0, 1.0, None] + [0.0] * 9) if s is not None]
    lake.shard(other, [*judged, other.record(2, failure="judge_died")])
    silent = BuiltCell(model="model-c")  # scored nowhere: no part of the pool
    lake.run(silent)
    lake.shard(silent, [silent.record(i, failure="judge_died") for i in range(3)])
    found = lake.row("SELECT * FROM oracle")
    assert (found["candidates"], found["questions"], found["questions_scored_by_any"]) == (2, 11, 12)
    assert (found["best_model"], found["best_model_score"], found["oracle_score"], found["gap"]) == (
        "model-a",
        *map(pytest.approx, (1 / 11, 2 / 11, 1 / 11)),
    )


def test_oracle_no_common_item_no_best_model(lake: LakeBuilder) -> None:
    for item, name in enumerate("abc"):  # so few share a question that leaving one out helps nobody
        cell = BuiltCell(model=name)
        lake.run(cell)
        lake.scores(cell, [1.0], first=item)
    found = lake.row("SELECT * FROM oracle")
    assert (found["questions"], found["questions_scored_by_any"]) == (0, 3)
    assert [found[name] for name in ("best_model", "best_cell_id", "best_model_score", "oracle_score", "gap")] == (
        [None] * 5
    )


@pytest.mark.parametrize("items", [7, 10, 28, 49, 101])
def test_interval_of_all_right_and_of_all_wrong_ends_at_the_range(tmp_path: Path, items: int) -> None:
    lake = LakeBuilder(tmp_path)
    for model, score in (("right", 1), ("wrong", 0)):
        lake.planned(BuiltCell(model=model, items=items), [score] * items)
    rest = 1.959963984540054**2 / (items + 1.959963984540054**2)  # Wilson's z² / (n + z²)
    found = lake.rows("SELECT model, ci_low, ci_high FROM leaderboard ORDER BY model")
    assert [row[0] for row in found] == ["right", "wrong"]
    assert (found[0][2], found[1][1]) == (1.0, 0.0)
    assert (found[0][1], found[1][2]) == pytest.approx((1 - rest, rest))
