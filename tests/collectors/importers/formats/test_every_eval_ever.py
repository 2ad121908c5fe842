"""Samples of Every Eval Ever: the file's own verdicts, several metrics and epochs of an answer, runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.importing import imported, rows, write_json, write_lines

VERDICTS = "SELECT task, item, repeat, score, correct, failure FROM records ORDER BY ALL"


def line(key: int, score: Any, correct: bool | None = None, **more: Any) -> dict[str, Any]:
    return {
        **{"evaluation_id": "quiz/org_m/1.0", "model_id": "org/m", "evaluation_name": "quiz", "sample_id": str(key)},
        **{"input": {"raw": f"q{key}", "reference": ["A"]}, "output": {"raw": ["A"]}},
        **{"evaluation": {"score": score, "is_correct": correct}},
        **more,
    }


def test_every_eval_ever_is_correct_wins_over_any_threshold(tmp_path: Path) -> None:
    given = [line(0, 1.0, False), line(1, 5.0, True), line(2, 0.5, False), line(3, 4.0, True), line(4, 1.0)]
    imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT score, correct FROM records ORDER BY item") == [
        *[(1.0, False), (5.0, True), (0.5, False), (4.0, True), (1.0, None)]
    ]
    assert rows(tmp_path / "lake", "SELECT correct_threshold FROM cells") == [(None,)]


def test_every_eval_ever_threshold_stays_where_it_gives_each_verdict(tmp_path: Path) -> None:
    given = [line(0, 1.0, True), line(1, 0.0, False), line(2, 0.0)]
    imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT correct_threshold FROM cells") == [(0.5,)]
    assert [row[4] for row in rows(tmp_path / "lake", VERDICTS)] == [True, False, False]


def test_every_eval_ever_metrics_of_an_answer_are_one_record(tmp_path: Path) -> None:
    given = [
        line(key, score, score == 1.0, evaluation_result_id=metric, output={"raw": [metric]})
        for key, scores in enumerate(({"f1": 0.4, "em": 0.0}, {"f1": 1.0, "em": 1.0}, {"em": 1.0}))
        for metric, score in scores.items()
    ]
    report = imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert (report.total.rows, report.total.records, report.total.folded, report.rejects) == (5, 3, 2, [])
    query = "SELECT score, correct, failure, metrics FROM records ORDER BY item"
    assert [(*row[:3], json.loads(row[3])) for row in rows(tmp_path / "lake", query)] == [
        (0.4, False, None, {"f1": 0.4, "em": 0.0}),
        (1.0, True, None, {"f1": 1.0, "em": 1.0}),
        (None, None, "not_judged", {"em": 1.0}),
    ]
    answers = rows(tmp_path / "lake", "SELECT responses FROM responses ORDER BY item")
    assert answers == [(["f1"],), (["f1"],), (["em"],)]
    assert rows(tmp_path / "lake", "SELECT metric FROM cells") == [("f1",)]


def test_every_eval_ever_epochs_are_repeats_and_a_verdict_where_they_agree(tmp_path: Path) -> None:
    given = [
        line(key, score, score == 1.0, metadata={"epoch": str(epoch)})
        for key, scores in enumerate(((1.0, 1.0), (1.0, 0.0)))
        for epoch, score in enumerate(scores, 1)
    ]
    report = imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert report.rejects == []
    assert [row[1:4] for row in rows(tmp_path / "lake", VERDICTS)] == [
        *[(0, 0, 1.0), (0, 1, 1.0), (0, 2, 1.0), (1, 1, 1.0), (1, 2, 0.0)]
    ]


def test_every_eval_ever_rows_of_no_result_are_not_judged(tmp_path: Path) -> None:
    rolling = {"metadata": {"lm_eval_metrics": '{"word_perplexity": [-8.4, 3]}'}}
    given = [line(0, 0.0, False, **rolling), line(1, 0.0, False), line(2, 1.0, True, evaluation_result_id="acc")]
    imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert [row[3:] for row in rows(tmp_path / "lake", VERDICTS)] == [
        *[(None, None, "not_judged"), (None, None, "not_judged"), (1.0, True, None)]
    ]
    imported("every_eval_ever", write_lines(tmp_path / "alone_samples.jsonl", given[:1]), tmp_path / "alone")
    assert [row[3:] for row in rows(tmp_path / "alone", VERDICTS)] == [(None, None, "not_judged")]


def test_every_eval_ever_runs_of_one_model_stay_apart(tmp_path: Path) -> None:
    for run, scores in (("1.0", (1.0, 0.0)), ("2.0", (0.0, 0.0))):
        given = [line(key, score, evaluation_id=f"quiz/org_m/{run}") for key, score in enumerate(scores)]
        write_lines(tmp_path / f"all/{run}_samples.jsonl", given)
    report = imported("every_eval_ever", tmp_path / "all", tmp_path / "lake", name="us")
    assert report.rejects == []
    query = "SELECT imported_from, item, score FROM records JOIN cells USING (cell_id) ORDER BY ALL"
    assert rows(tmp_path / "lake", query) == [("us", 0, 1.0), ("us", 1, 0.0), ("us#2", 0, 0.0), ("us#2", 1, 0.0)]


def test_every_eval_ever_input_leaves_out_what_was_cached(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 115}
    cached = {"input_tokens_cache_read": 80, "input_tokens_cache_write": 20, "reasoning_tokens": None}
    given = [line(0, 1.0, token_usage={**usage, **cached}), line(1, 1.0, token_usage=usage)]
    report = imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    query = "SELECT prompt_tokens, completion_tokens, cached_tokens FROM records ORDER BY item"
    assert rows(tmp_path / "lake", query) == [(110, 5, 80), (None, None, None)]
    assert [one.kind for one in report.suspicions] == ["no_usage", "odd_total"]


def test_every_eval_ever_lower_is_better_stands_in_the_evaluation_beside(tmp_path: Path) -> None:
    result = {"evaluation_result_id": "loss", "evaluation_name": "quiz", "metric_config": {"lower_is_better": True}}
    write_json(tmp_path / "x.json", {"evaluation_id": "quiz/org_m/1.0", "evaluation_results": [result]})
    given = [line(0, 0.2, True, evaluation_result_id="loss")]
    imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert rows(
        tmp_path / "lake", "SELECT higher_is_better, score, correct FROM cells JOIN records USING (cell_id)"
    ) == [(False, 0.2, True)]


def test_every_eval_ever_failed_calls_have_failed(tmp_path: Path) -> None:
    given = [line(0, 0.0, False, error="time-out"), line(1, 0.0, False)]
    imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert [row[3:] for row in rows(tmp_path / "lake", VERDICTS)] == [(None, None, "failed_call"), (0.0, False, None)]


def test_every_eval_ever_time_below_that_of_generation_is_unknown(tmp_path: Path) -> None:
    times = ({"latency_ms": 1.0, "generation_time_ms": 22.0}, {"latency_ms": 30.0, "generation_time_ms": 22.0})
    given = [line(key, 1.0, performance=time) for key, time in enumerate(times)]
    imported("every_eval_ever", write_lines(tmp_path / "x_samples.jsonl", given), tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT latency_s FROM records ORDER BY item") == [(None,), (0.03,)]
