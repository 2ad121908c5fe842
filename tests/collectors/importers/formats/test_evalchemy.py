"""Results of evalchemy: examples with verdicts that add up to the task's stated numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.importing import imported, rows, write_json

VERDICTS = "SELECT item, repeat, score, failure FROM records ORDER BY ALL"


def results(path: Path, task: dict[str, Any]) -> Path:
    whole = {"results": {"AIME24": task}, "config": {"model": "hf", "model_args": "pretrained=org/m"}}
    return write_json(path / "results_2025-01-01T00-00-00.000000.json", whole)


def example(gold: str, *answers: str) -> dict[str, Any]:
    outputs = [f"it is {answer}" for answer in answers]
    return {
        "problem": f"find {gold}",
        "expected_answer": gold,
        "model_outputs": outputs,
        "model_answers": list(answers),
    }


def stats(*solved: int) -> list[dict[str, Any]]:
    return [
        {"repetition": n, "num_total": 2, "num_solved": one, "accuracy": one / 2} for n, one in enumerate(solved, 1)
    ]


def test_evalchemy_repetitions_have_verdicts_that_give_their_accuracy(tmp_path: Path) -> None:
    task = {"examples": [example("12", "12", "12"), example("7", "7", "8")], "run_stats": stats(2, 1), "num_repeat": 2}
    report = imported("lm_eval", results(tmp_path, {**task, "accuracy_avg": 0.75}), tmp_path / "lake")
    assert report.rejects == []
    repeats = [(0, 1, 1.0), (0, 2, 1.0), (1, 1, 1.0), (1, 2, 0.0)]
    verdicts = [(0, 0, 1.0), (1, 0, 0.5)]
    assert [row[:3] for row in rows(tmp_path / "lake", VERDICTS)] == sorted([*repeats, *verdicts])
    assert rows(tmp_path / "lake", "SELECT avg(score) FROM records WHERE repeat = 0") == [(0.75,)]
    assert rows(tmp_path / "lake", "SELECT model, metric, correct_threshold FROM cells") == [("org/m", "accuracy", 0.5)]
    assert rows(tmp_path / "lake", "SELECT prompt FROM items ORDER BY item") == [("find 12",), ("find 7",)]
    query = "SELECT responses FROM responses WHERE repeat = 0 ORDER BY item"
    assert rows(tmp_path / "lake", query)[1] == (["it is 7", "it is 8"],)


def test_evalchemy_answers_are_compared_by_the_rule_that_gives_the_stated_number(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    one = {"problem": "half", "answer": "\\frac{1}{2}", "model_output": "x", "model_answer": "1/2"}
    imported("lm_eval", results(tmp_path, {"examples": [one], "num_solved": 1, "accuracy": 1.0}), tmp_path / "lake")
    assert rows(tmp_path / "lake", VERDICTS) == [(0, 0, 1.0, None)]


def test_evalchemy_answers_that_no_rule_judges_so_are_not_judged(tmp_path: Path) -> None:
    task = {"examples": [example("12", "13"), example("7", "8")], "run_stats": stats(1)}
    report = imported("lm_eval", results(tmp_path, task), tmp_path / "lake")
    assert rows(tmp_path / "lake", VERDICTS) == [(0, 0, None, "not_judged"), (1, 0, None, "not_judged")]
    assert [one.kind for one in report.suspicions] == ["odd_accuracy"]


def test_evalchemy_code_has_the_verdict_of_each_example(tmp_path: Path) -> None:
    examples = [{"content": ["x"], "difficulty": "easy", "correctness": right, "reason": ""} for right in (True, False)]
    task = {"examples": examples, "num_repeat": 6, "accuracy_avg": 0.4}
    imported("lm_eval", results(tmp_path, task), tmp_path / "lake")
    assert rows(tmp_path / "lake", VERDICTS) == [(0, 0, 1.0, None), (1, 0, 0.0, None)]
