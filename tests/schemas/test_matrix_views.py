"""The views of the matrix, of cells, and of missing and failed items."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import duckdb
import pytest

from schemas.failures import ITEM_FAILURES
from schemas.identity import ShardName
from schemas.verdicts import OF_OURS, SET_LEVEL_METRICS, SET_LEVEL_OF_CHOICES, is_set_level, outcome_of, score_of
from schemas.views import view_files
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, row, rows

CELL = BuiltCell()


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


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
    lake.shard(CELL, [CELL.record(0), CELL.record(1, score=math.nan), CELL.record(2, failure="judge_died", score=0.0)])
    assert lake.rows("SELECT score, correct, failure FROM matrix ORDER BY item") == [
        (None, None, "not_judged"),
        (None, None, "not_judged"),
        (None, None, "judge_died"),
    ]


def test_matrix_one_model_in_two_setups_stays_apart(lake: LakeBuilder) -> None:
    setups = [CELL, BuiltCell(dtype="bfloat16"), BuiltCell(prompting="p1"), BuiltCell(quantization="awq")]
    for score, cell in enumerate(setups):
        lake.planned(cell, [float(score % 2)])
    con = lake.views()
    columns = "prompting, dtype, quantization, items_digest"
    assert rows(con, f"SELECT count(*), count(DISTINCT ({columns})) FROM matrix") == [(4, 4)]
    # To a router they are two: settings are not candidates, and a quantized model is another.
    assert rows(con, "SELECT candidate, cells FROM candidates ORDER BY 1") == [("model-a@awq", 1), ("model-a@whole", 3)]
    assert rows(con, "SELECT candidates, questions FROM oracle") == [(2, 1)]


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


def test_cells_of_a_copied_run_are_one_row_each(lake: LakeBuilder) -> None:
    other = BuiltCell(task="other")
    lake.run(other, planned=3)
    newest = lake.run(CELL, other, planned=4)
    (Path(lake.lake.root) / "runs" / "29990101T000000-00000000.parquet").write_bytes(
        (Path(lake.lake.root) / "runs" / f"{newest}.parquet").read_bytes()
    )
    found = lake.rows("SELECT task, run_id, planned_items FROM cells ORDER BY task")
    assert found == [("other", newest, 4), ("quiz", newest, 4)]


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


@pytest.mark.parametrize("metric", ["$acc", "/acc", "a.b", "a b", "[0]", "", "*", 'a"b', "a\\b"])
def test_verdict_of_a_metric_with_an_odd_name_never_breaks_the_view(metric: str) -> None:
    con = duckdb.connect()
    for name in ("_finite", "_verdict"):
        con.execute(view_files()[name].sql)
    found = con.execute("SELECT _verdict(?, ?)", [json.dumps({metric: 0.5}), metric]).fetchall()
    reads = bool(metric) and not set(metric) & set('"*\\')
    assert found == [(0.5 if reads else None,)]


# ---- coverage and failures


def test_coverage_missing_wrong_empty_and_failed_are_counted_apart(lake: LakeBuilder) -> None:
    lake.run(CELL)
    failures = ["empty_answer", "prompt_too_long", "nan_logprobs", None]
    judged = [CELL.record(i, score=s) for i, s in enumerate([1.0, 0.0, 0.0])]
    lake.shard(CELL, judged + [CELL.record(3 + i, failure=kind) for i, kind in enumerate(failures)])
    con = lake.views()
    counts = row(con, "SELECT planned, attempted, scored, ok, empty, overlong, nan, failed, missing FROM coverage")
    assert counts == {
        **{"planned": 10, "attempted": 7, "scored": 6, "failed": 1, "missing": 3},
        **{"ok": 3, "empty": 1, "overlong": 1, "nan": 1},
    }
    assert row(con, "SELECT score, score_answered FROM leaderboard") == {
        "score": pytest.approx(1 / 6),
        "score_answered": pytest.approx(1 / 3),
    }


def test_coverage_nothing_collected_all_is_missing_and_no_rank(lake: LakeBuilder) -> None:
    lake.run(CELL)
    con = lake.views()
    assert rows(con, "SELECT planned, attempted, scored, failed, missing FROM coverage") == [(10, 0, 0, 0, 10)]
    assert rows(con, "FROM leaderboard") == []


@pytest.mark.few(6)
@pytest.mark.parametrize("kind", sorted(ITEM_FAILURES | {"a kind of tomorrow"}))
@pytest.mark.parametrize("higher", [True, False])
def test_rules_of_the_views_are_those_of_the_schema(lake: LakeBuilder, kind: str, higher: bool) -> None:
    cell = BuiltCell(higher_is_better=higher)
    lake.run(cell)
    lake.shard(cell, [cell.record(0, failure=kind, outcome=None), cell.record(1, failure=kind)])
    outcome = outcome_of(kind, None, is_judged=False)
    score = score_of(outcome, None, higher_is_better=higher)
    correct = None if score is None else False
    assert lake.rows("SELECT outcome, score, correct, failure FROM matrix") == [(outcome, score, correct, kind)] * 2
    failed = 2 * (outcome in OF_OURS)
    assert lake.rows("SELECT failed, scored FROM coverage") == [(failed, 0 if score is None else 2)]


METRICS = (*SET_LEVEL_METRICS, *SET_LEVEL_OF_CHOICES, "acc", "exact_match", "brier_score")


def test_rule_for_metrics_over_sets_is_that_of_the_schema() -> None:
    con = duckdb.connect()
    con.execute(view_files()["_is_set_level"].sql)
    for metric, aggregation, kind, imported in itertools.product(
        METRICS, (None, "mean", "mcc"), (None, "multiple_choice", "generate_until"), (False, True)
    ):
        [(ours,)] = con.execute("SELECT _is_set_level(?, ?, ?, ?)", [aggregation, metric, kind, imported]).fetchall()
        assert ours == is_set_level(aggregation, metric, kind, is_imported=imported), (metric, aggregation, kind)


@pytest.mark.parametrize(
    ("metrics", "value"),
    [
        ('{"acc": 0.25}', 0.25),
        ('{"acc": true}', 1.0),
        ('{"acc": false}', 0.0),
        ('{"acc": "1"}', 1.0),
        ('{"acc": [1, 2]}', None),
        ('{"acc": null}', None),
        ('{"other": 1}', None),
        (None, None),
    ],
)
def test_verdict_is_read_from_metrics(metrics: str | None, value: float | None) -> None:
    con = duckdb.connect()
    for name in ("_finite", "_verdict"):
        con.execute(view_files()[name].sql)
    assert con.execute("SELECT _verdict(?, 'acc')", [metrics]).fetchall() == [(value,)]


def test_failures_of_cells_and_items_each_have_their_level(lake: LakeBuilder) -> None:
    run_id = lake.run(CELL)
    lake.failure(run_id, "no_weights", "model-x: no weight files in the folder", model="model-x")
    other_filter = CELL.record(0, failure="judge_died", filter="other")
    empty = CELL.record(2, failure="empty_answer")  # an outcome of the model
    lake.shard(CELL, [CELL.record(0, failure="judge_died"), other_filter, CELL.record(1, score=0.0), empty])
    con = lake.views()
    columns = "level, kind, model, task, first_item, last_item, run_id"
    assert rows(con, f"SELECT {columns} FROM failures ORDER BY level") == [
        ("cell", "no_weights", "model-x", None, None, None, run_id),
        ("item", "judge_died", "model-a", "quiz", 0, 0, None),
    ]
