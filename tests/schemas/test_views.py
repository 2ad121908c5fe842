"""The views over small lakes whose answers are known or computed here in another way."""

from __future__ import annotations

import math
import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.lake.compaction import compact
from collectors.lake.reading import connect
from schemas import columns
from schemas.failures import ITEM_FAILURES, UNANSWERED, StorageError
from schemas.identity import ShardName
from schemas.records import RECORD, RUN_CELL
from schemas.views import contents, create_views, named_in, view_files
from tests.helpers.filled_lakes import add, filled
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, row, rows

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


@pytest.mark.parametrize("huge", [1e155, 1e278, 1.7e308])
def test_leaderboard_score_beyond_what_can_be_squared_leaves_the_others(lake: LakeBuilder, huge: float) -> None:
    lake.planned(BuiltCell(metric="word_perplexity"), [huge, 3.0, huge])
    lake.planned(BuiltCell(task="other"), [1.0, 0.0])
    found = dict(lake.rows("SELECT task, stderr FROM leaderboard"))
    assert found == {"quiz": None, "other": pytest.approx(0.5)}
    assert len(lake.rows("FROM oracle")) == 2


def test_views_and_their_columns_say_what_they_are(lake: LakeBuilder) -> None:
    con = lake.views(comments=True)
    assert rows(con, "SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL") == []
    said = dict(rows(con, "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'matrix'"))
    assert said["score"] == RECORD.field("score").metadata[b"doc"].decode()
    assert said["items_digest"] == RUN_CELL.field("items_digest").metadata[b"doc"].decode()


def test_every_column_of_a_public_view_says_what_it_holds_and_no_words_are_left_over(lake: LakeBuilder) -> None:
    views: dict[str, set[str]] = {}
    query = """
        SELECT table_name, column_name, duckdb_columns.comment FROM duckdb_columns()
        INNER JOIN duckdb_views() ON table_name = view_name WHERE NOT duckdb_views.internal AND view_name[1] <> '_'
    """
    silent = []
    for view, column, comment in rows(lake.views(comments=True), query):
        views.setdefault(view, set()).add(column)
        if not comment:
            silent.append(f"{view}.{column}")
    assert silent == []
    assert set(columns._OWN) | set(columns.SCHEMAS) <= set(views)
    shared = columns._SHARD.keys() | columns._POOL.keys()
    left = {view: set(own) - views[view] - shared for view, own in columns._OWN.items()}
    assert {view: names for view, names in left.items() if names} == {}


def test_records_ranges_of_one_generation_overlap_first_name_owns(lake: LakeBuilder) -> None:
    lake.scores(CELL, [0.1] * 4, first=0)
    lake.scores(CELL, [0.2] * 4, first=2)
    lake.scores(CELL, [0.3] * 2, first=3)  # inside what the others own
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


@settings(max_examples=15, deadline=None)
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


# ---- matrix


def test_matrix_filters_and_repeats_only_primary_filter_and_repeat_0(lake: LakeBuilder) -> None:
    cell = BuiltCell(filter="strict")
    lake.run(cell)
    lake.shard(
        cell,
        [
            cell.record(0, score=1.0),
            cell.record(0, score=0.0, filter="flexible"),
            cell.record(0, score=0.0, repeat=1),
            cell.record(0, score=0.0, repeat=2, filter="flexible"),
        ],
    )
    con = lake.views()
    assert rows(con, "SELECT item, score, correct FROM matrix") == [(0, 1.0, True)]
    assert row(con, "SELECT attempted, scored, score FROM leaderboard") == {"attempted": 1, "scored": 1, "score": 1.0}
    assert rows(con, "SELECT count(*) FROM records") == [(4,)]


def test_matrix_uncollected_item_has_no_row(lake: LakeBuilder) -> None:
    lake.planned(CELL, [1.0, None, 0.0])
    assert lake.rows("SELECT item, score FROM matrix ORDER BY item") == [(0, 1.0), (2, 0.0)]


def test_matrix_no_score_and_no_failure_kind_is_not_judged(lake: LakeBuilder) -> None:
    lake.run(CELL)
    lake.shard(
        CELL, [CELL.record(0), CELL.record(1, score=math.nan), CELL.record(2, failure="empty_answer", score=0.0)]
    )
    assert lake.rows("SELECT score, correct, failure FROM matrix ORDER BY item") == [
        (None, None, "not_judged"),
        (None, None, "not_judged"),
        (None, None, "empty_answer"),
    ]


def test_matrix_one_model_in_two_setups_stays_apart(lake: LakeBuilder) -> None:
    setups = [CELL, BuiltCell(dtype="bfloat16"), BuiltCell(prompting="p1"), BuiltCell(quantization="awq")]
    for score, cell in enumerate(setups):
        lake.planned(cell, [float(score % 2)])
    con = lake.views()
    columns = "prompting, dtype, quantization, items_digest"
    assert rows(con, f"SELECT count(*), count(DISTINCT ({columns})) FROM matrix") == [(4, 4)]
    assert rows(con, "SELECT models, items FROM oracle") == [(1, 1)] * 4


def test_matrix_shards_without_a_run_are_records_only(lake: LakeBuilder) -> None:
    lake.scores(CELL, [1.0])
    con = lake.views()
    assert rows(con, "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM matrix)") == [(1, 0)]


# ---- cells, tasks, runs, models, items, shards


def test_cells_planned_twice_newest_facts_and_largest_plan(lake: LakeBuilder) -> None:
    lake.run(CELL, planned=8, generation=3, engine="old")
    newest = lake.run(CELL, planned=4, generation=0, engine="new")
    found = lake.row("SELECT run_id, engine, planned_items, generation FROM cells")
    assert found == {"run_id": newest, "engine": "new", "planned_items": 8, "generation": 3}


def test_tasks_models_share_one_row_promptings_do_not(lake: LakeBuilder) -> None:
    lake.run(CELL, BuiltCell(model="model-b"), BuiltCell(prompting="p1"))
    assert lake.rows("SELECT task, prompting, metric, cells FROM tasks ORDER BY prompting") == [
        ("quiz", "p0", "acc", 2),
        ("quiz", "p1", "acc", 1),
    ]


def test_runs_two_cells_one_row(lake: LakeBuilder) -> None:
    run_id = lake.run(CELL, BuiltCell(task="other"), planned=4)
    found = lake.row("SELECT run_id, cells, models, tasks, planned_items FROM runs")
    assert found == {"run_id": run_id, "cells": 2, "models": 1, "tasks": 2, "planned_items": 8}


def test_models_and_items_are_what_was_written(lake: LakeBuilder) -> None:
    lake.model("model-a", "r0", parameters=7)
    lake.model("model-a", "r1")
    lake.items("quiz", "i0", 3)
    con = lake.views()
    assert rows(con, "SELECT revision, parameters FROM models ORDER BY revision") == [("r0", 7), ("r1", None)]
    assert rows(con, "SELECT task, items_digest, item FROM items ORDER BY item") == [
        ("quiz", "i0", i) for i in range(3)
    ]


def test_shards_facts_come_from_the_metadata_and_may_be_absent(lake: LakeBuilder) -> None:
    facts = {"run_id": "run-7", "host": "höst", "engine_seconds": 1.25, "requests": 8, "tokens_per_second": None}
    first = lake.shard(CELL, [CELL.record(0), CELL.record(1)], metadata=facts)
    second = lake.shard(CELL, [CELL.record(2)], generation=1)
    con = lake.views()
    names = rows(con, "SELECT cell_id, generation, first_item, last_item FROM shards ORDER BY generation")
    assert [ShardName(*name) for name in names] == [first, second]
    columns = "run_id, host, engine_seconds, requests, tokens_per_second, gpu"
    assert rows(con, f"SELECT {columns} FROM shards ORDER BY generation") == [
        ("run-7", "höst", 1.25, 8, None, None),
        (None,) * 6,
    ]


# ---- coverage and failures


def test_coverage_missing_wrong_unanswered_failed_are_counted_apart(lake: LakeBuilder) -> None:
    lake.run(CELL)
    failures = ["empty_answer", "prompt_too_long", "nan_logprobs", None]
    judged = [CELL.record(i, score=s) for i, s in enumerate([1.0, 0.0, 0.0])]
    lake.shard(CELL, judged + [CELL.record(3 + i, failure=kind) for i, kind in enumerate(failures)])
    con = lake.views()
    counts = row(con, "SELECT planned, attempted, scored, unanswered, failed, missing FROM coverage")
    assert counts == {"planned": 10, "attempted": 7, "scored": 3, "unanswered": 1, "failed": 3, "missing": 3}
    assert row(con, "SELECT score FROM leaderboard") == {"score": pytest.approx(1 / 3)}


def test_coverage_nothing_collected_all_is_missing_and_no_rank(lake: LakeBuilder) -> None:
    lake.run(CELL)
    con = lake.views()
    assert rows(con, "SELECT planned, attempted, scored, unanswered, failed, missing FROM coverage") == [
        (10, 0, 0, 0, 0, 10)
    ]
    assert rows(con, "FROM leaderboard") == []


@pytest.mark.parametrize("kind", sorted(ITEM_FAILURES | {"a kind of tomorrow"}))
def test_coverage_failure_kind_is_unanswered_exactly_where_the_schema_says(lake: LakeBuilder, kind: str) -> None:
    lake.run(CELL)
    lake.shard(CELL, [CELL.record(0, failure=kind)])
    expected = (1, 0) if kind in UNANSWERED else (0, 1)
    assert lake.rows("SELECT unanswered, failed FROM coverage") == [expected]


def test_failures_of_cells_and_items_each_have_their_level(lake: LakeBuilder) -> None:
    run_id = lake.run(CELL)
    lake.failure(run_id, "no_weights", "model-x: no weight files in the folder", model="model-x")
    other_filter = CELL.record(0, failure="empty_answer", filter="other")
    lake.shard(CELL, [CELL.record(0, failure="empty_answer"), other_filter, CELL.record(1, score=0.0)])
    con = lake.views()
    columns = "level, kind, model, task, first_item, last_item, run_id"
    assert rows(con, f"SELECT {columns} FROM failures ORDER BY level") == [
        ("cell", "no_weights", "model-x", None, None, None, run_id),
        ("item", "empty_answer", "model-a", "quiz", 0, 0, None),
    ]


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


def test_leaderboard_other_scores_normal_interval(lake: LakeBuilder) -> None:
    scores = [0.25, 3.5, -1.0, 0.0, 1.0]
    lake.run(CELL, correct_threshold=None)
    lake.scores(CELL, scores)
    found = lake.row("SELECT * FROM leaderboard")
    stderr = statistics.stdev(scores) / math.sqrt(len(scores))
    z = statistics.NormalDist().inv_cdf(0.975)
    mean = statistics.fmean(scores)
    assert found["ci_method"] == "normal"
    assert (found["score"], found["stderr"]) == (pytest.approx(mean), pytest.approx(stderr))
    assert (found["ci_low"], found["ci_high"]) == (pytest.approx(mean - z * stderr), pytest.approx(mean + z * stderr))


def test_leaderboard_interval_of_fractions_ends_where_they_do(lake: LakeBuilder) -> None:
    lake.planned(CELL, [0.0, 0.1, 0.9, 1.0])
    lake.planned(BuiltCell(task="high"), [1.0, 1.0, 0.9])
    found = lake.rows("SELECT ci_low, ci_high, ci_method FROM leaderboard ORDER BY task DESC")
    assert found == [(0.0, 1.0, "normal"), (pytest.approx(0.9013, abs=1e-4), 1.0, "normal")]


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
    lake.run(CELL)
    lake.shard(CELL, [CELL.record(0, failure="empty_answer")])
    lake.planned(BuiltCell(model="model-b"), [0.0])
    found = lake.row("SELECT * FROM leaderboard WHERE model = 'model-a'")
    assert [found[name] for name in ("rank", "score", "stderr", "ci_low", "ci_high", "ci_method")] == [None] * 6
    assert (found["attempted"], found["scored"], found["unanswered"]) == (1, 0, 1)
    assert lake.rows("SELECT rank FROM leaderboard WHERE model = 'model-b'") == [(1,)]


def test_leaderboard_ranks_do_not_cross_promptings_items_or_metrics(lake: LakeBuilder) -> None:
    cells = (CELL, BuiltCell(prompting="p1"), BuiltCell(items_digest="i1"), BuiltCell(metric="f1"))
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


def oracle_by_hand(models: Scores, higher: bool) -> tuple[float | int | None, ...] | None:
    """models, items, items_scored_by_any, best single score, oracle score, gap; None for an empty pool."""
    best = max if higher else min
    pool = [scores for scores in models if any(s is not None for s in scores)]
    if not pool:
        return None
    by_item = [[s for s in item if s is not None] for item in zip(*pool, strict=True)]
    common = [i for i, scores in enumerate(by_item) if len(scores) == len(pool)]
    any_scored = sum(1 for scores in by_item if scores)
    if not common:
        return len(pool), 0, any_scored, None, None, None
    oracle = statistics.fmean(best(by_item[i]) for i in common)
    single = best(statistics.fmean(s for i in common if (s := scores[i]) is not None) for scores in pool)
    return len(pool), len(common), any_scored, single, oracle, abs(oracle - single)


@settings(max_examples=12, deadline=None)
@given(score_tables, st.booleans())
def test_oracle_any_scores_with_holes_equals_brute_force(models: Scores, higher: bool) -> None:
    columns = "models, items, items_scored_by_any, best_model_score, oracle_score, gap"
    with TemporaryDirectory() as folder:
        lake = LakeBuilder(folder)
        for number, scores in enumerate(models):
            cell = BuiltCell(model=f"m{number}", higher_is_better=higher, items=len(scores))
            lake.run(cell)
            # Each shard is one item: a hole in a cell is a range that was never collected.
            for item, score in enumerate(scores):
                lake.scores(cell, [score], first=item)
        found = lake.rows(f"SELECT {columns} FROM oracle")
    expected = oracle_by_hand(models, higher)
    assert found == ([] if expected is None else [pytest.approx(expected)])


def test_oracle_unanswered_item_is_left_out_not_wrong(lake: LakeBuilder) -> None:
    lake.planned(CELL, [1.0, 0.0, 1.0])
    other = BuiltCell(model="model-b")
    lake.run(other)
    judged = [other.record(i, score=s) for i, s in enumerate([0.0, 1.0])]
    lake.shard(other, [*judged, other.record(2, failure="empty_answer")])
    silent = BuiltCell(model="model-c")  # scored nowhere: no part of the pool
    lake.run(silent)
    lake.shard(silent, [silent.record(i, failure="empty_answer") for i in range(3)])
    found = lake.row("SELECT * FROM oracle")
    assert (found["models"], found["items"], found["items_scored_by_any"]) == (2, 2, 3)
    assert (found["best_model"], found["best_model_score"], found["oracle_score"], found["gap"]) == (
        "model-a",
        0.5,
        1.0,
        0.5,
    )


def test_oracle_no_common_item_no_best_model(lake: LakeBuilder) -> None:
    lake.planned(CELL, [1.0])
    other = BuiltCell(model="model-b")
    lake.run(other)
    lake.scores(other, [1.0], first=1)
    found = lake.row("SELECT * FROM oracle")
    assert (found["items"], found["items_scored_by_any"]) == (0, 2)
    assert [found[name] for name in ("best_model", "best_cell_id", "best_model_score", "oracle_score", "gap")] == (
        [None] * 5
    )


# ---- the place of a lake


def test_views_empty_lake_every_view_answers_with_no_rows(lake: LakeBuilder) -> None:
    con = lake.views()
    views = [name for (name,) in rows(con, "SELECT view_name FROM duckdb_views() WHERE NOT internal")]
    assert len(views) == sum(file.kind == "view" for file in view_files().values())
    for view in views:
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


@pytest.mark.parametrize("name", HOSTILE)
def test_views_hostile_folder_name_reads_that_folder_only(tmp_path: Path, name: str) -> None:
    decoy = LakeBuilder(tmp_path / "a")  # what [ab], * and ? would match
    decoy.planned(CELL, [1.0] * 5)
    lake = LakeBuilder(tmp_path / name)
    lake.planned(CELL, [1.0, 0.0])
    con = lake.views()
    assert rows(con, "SELECT (SELECT count(*) FROM matrix), (SELECT count(*) FROM shards)") == [(2, 1)]


def test_views_relative_folder_holds_after_the_working_directory_changed(
    lake: LakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.planned(CELL, [1.0])
    monkeypatch.chdir(tmp_path)
    con = duckdb.connect()
    create_views(con, "lake")
    os.chdir("/")
    assert rows(con, "SELECT count(*) FROM matrix") == [(1,)]


def test_views_backslash_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="backslash"):
        create_views(duckdb.connect(), str(tmp_path / "a\\b"))


def test_views_that_a_query_names_say_without_the_others_what_they_say_among_all(tmp_path: Path) -> None:
    builder = filled(tmp_path / "lake")
    compact(builder.lake)
    add(builder, "a", "u", 0, 0, 3)  # beside what is folded
    views = sorted(name for kind, name in contents() if kind == "view")
    with connect(builder.lake) as everything:
        for view in views:
            query = f"FROM {view} ORDER BY ALL"
            with connect(builder.lake, only=named_in(query)) as con:
                assert repr(rows(con, query)) == repr(rows(everything, query)), view  # NaN is not equal to itself
    assert named_in("FROM models") == {"models"}
    assert named_in("SELECT 1") == set()
