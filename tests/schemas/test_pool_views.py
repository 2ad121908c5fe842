"""The views of the pool where names, metrics and gaps are odd."""

from __future__ import annotations

from pathlib import Path

from collectors.lake.reading import connect
from schemas.views import PoolChoice
from tests.helpers.lake_builder import BuiltCell, LakeBuilder


def test_candidates_of_revisions_that_begin_alike_have_different_names(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    for place, revision in enumerate(("checkpoint-step-1000", "checkpoint-step-2000", None)):
        cell = BuiltCell(model="m", filter=f"f{place}")  # the builder's cell id covers the filter
        lake.run(cell, planned=2, revision=revision)
        lake.scores(cell, [1.0, float(place == 0)])
    lake.planned(BuiltCell(model="m@int4"), [1.0, 1.0])
    lake.planned(BuiltCell(model="m", quantization="int4"), [1.0, 1.0])
    names = [name for (name,) in lake.rows("SELECT candidate FROM candidates ORDER BY 1")]
    assert len(names) == len(set(names)) == 5


def test_imported_accuracies_meet_no_metric_where_less_is_better(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    for model in "ab":
        cell = BuiltCell(model=model, metric="brier", higher_is_better=False)
        lake.run(cell, planned=4, correct_threshold=None)
        lake.scores(cell, [0.9, 0.9, 0.9, 0.1])
    theirs = BuiltCell(model="0")
    lake.run(theirs, planned=4, imported_from="them", revision=None)
    lake.scores(theirs, [1.0, 0.0, 1.0, 0.0])
    assert lake.rows("SELECT candidate FROM candidates ORDER BY 1") == [("a",), ("b",)]


def test_imported_cell_of_a_quantization_is_a_candidate_beside_the_whole_model(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    lake.planned(BuiltCell(model="m"), [1.0, 1.0, 0.0, 0.0])
    theirs = BuiltCell(model="m", quantization="int4")
    lake.run(theirs, planned=4, imported_from="them", revision=None)
    lake.scores(theirs, [0.0, 0.0, 0.0, 1.0])
    assert len(lake.rows("FROM candidates")) == 2


def test_oracle_of_any_questions_compares_on_those_that_all_scored(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    lake.planned(BuiltCell(model="a"), [1.0, *[None] * 9])
    lake.planned(BuiltCell(model="b"), [1.0, *[0.0] * 9])
    with connect(lake.lake, only=["oracle", "pareto"], choice=PoolChoice(questions="any")) as con:
        columns = "candidates, questions, questions_scored_by_any, best_model_score, oracle_score, gap"
        assert con.execute(f"SELECT {columns} FROM oracle").fetchall() == [(2, 1, 10, 1.0, 1.0, 0.0)]


def test_same_setting_that_is_unknown_is_not_what_candidates_share(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    lake.planned(BuiltCell(model="a", dtype="bfloat16"), [1.0])
    theirs = BuiltCell(model="b")
    lake.run(theirs, planned=1, imported_from="them", revision=None, dtype=None)
    lake.scores(theirs, [1.0])
    with connect(lake.lake, only=["candidates"], choice=PoolChoice(same=("dtype",))) as con:
        assert con.execute("SELECT candidate FROM candidates").fetchall() == [("a",)]


def test_question_that_we_failed_to_judge_has_no_row_where_a_verdict_is_needed(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    for model in "ab":
        cell = BuiltCell(model=model, items=2)
        lake.run(cell)
        lake.shard(cell, [cell.record(0, score=0.0), cell.record(1, failure="engine_died")])
    for view in ("oracle_items", "cheapest_correct"):
        assert lake.rows(f"SELECT item, candidates_scored FROM {view}") == [(0, 2)]
