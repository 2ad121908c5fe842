"""A model judges stored answers: its texts are read on their scale, pairs in both orders, tokens kept apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.verdicts.prompts import read_prompt
from pipelines import judge
from schemas.failures import ConfigError
from schemas.views import named_in
from tests.helpers.judged_lakes import ITEMS, collected_lake
from tests.helpers.mini_tasks import own_caches
from tests.helpers.runs import TEXT

__all__ = ["own_caches"]

#: The stub writes "The answer is N.", with N from 0 to 12.
SINGLE: dict[str, Any] = {
    "version": "1",
    "prompt": "Rate the answer.\n$question\n$answer\nIt should be $reference.",
    "parser": r"The answer is (\d+)\.",
    "scale": [1, 10],
    "correct_threshold": 0.5,
}
PAIR = {
    **{key: value for key, value in SINGLE.items() if key != "scale"},
    "prompt": "Which is better?\n$question\n[A] $answer_a\n[B] $answer_b",
    "names": {str(number): (number % 3) / 2 for number in range(10)},
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return collected_lake(tmp_path_factory.mktemp("models") / "lake", tasks=[TEXT])


def judged(lake: Lake, folder: Path, prompt: dict[str, Any], name: str, *more: str) -> list[dict[str, Any]]:
    (folder / "prompt.yaml").write_text(yaml.safe_dump(prompt))
    (folder / "judge.yaml").write_text(yaml.safe_dump({"models": ["stub/judge"], "engine": {"name": "stub"}}))
    files = ["--prompt", str(folder / "prompt.yaml"), "--config", str(folder / "judge.yaml")]
    assert judge.main(["--lake", lake.root, "--judge", name, *files, *more]) == 0
    sql = "SELECT verdicts.* FROM verdicts JOIN judges USING (judge_id) WHERE judge = ? ORDER BY cell_id, item"
    with connect(lake, only=named_in(sql)) as con:
        rows: list[dict[str, Any]] = con.execute(sql, [name]).to_arrow_table().to_pylist()
    return rows


def said(text: str) -> int:
    return int(re.findall(r"answer is (\d+)", text)[-1])


@pytest.mark.slow
def test_model_judges_on_its_scale_and_an_answer_off_it_is_unscored(lake: Lake, tmp_path: Path) -> None:
    rows = judged(lake, tmp_path, SINGLE, "rated")
    assert len(rows) == 2 * ITEMS
    numbers = [said(row["judge_texts"][0]) for row in rows]
    assert {number in range(1, 11) for number in numbers} == {True, False}  # else this shows nothing
    for number, row in zip(numbers, rows, strict=True):
        expected = (number - 1) / 9 if 1 <= number <= 10 else None
        assert (row["score"], row["outcome"]) == (expected, "ok" if expected is not None else "judge")
        assert row["correct"] == (None if expected is None else expected >= 0.5)
        assert row["judge_prompt_tokens"] > 0
        assert row["judge_completion_tokens"] > 0
    assert judged(lake, tmp_path, SINGLE, "rated") == rows  # nothing is asked twice
    other = judged(lake, tmp_path, {**SINGLE, "prompt": "Rate it.\n$answer"}, "rated")
    assert len(other) == 4 * ITEMS  # another text of one version is another judge


@pytest.mark.slow
def test_pairs_are_judged_in_both_orders(lake: Lake, tmp_path: Path) -> None:
    rows = judged(lake, tmp_path, PAIR, "pairs", "--against", "stub/b")
    assert len(rows) == ITEMS
    for row in rows:
        assert row["against"] not in (None, row["cell_id"])
        first, second = (PAIR["names"].get(str(said(text))) for text in row["judge_texts"])
        if first is None or second is None:
            assert row["score"] is None
        else:
            assert row["score"] == (first + 1 - second) / 2
            agrees = (first > 0.5, first < 0.5) == (second < 0.5, second > 0.5)
            assert json.loads(row["metrics"])["agrees"] == agrees


@pytest.mark.slow
def test_tokens_of_the_judge_are_apart_from_those_of_the_answers(lake: Lake, tmp_path: Path) -> None:
    before = "SELECT sum(prompt_tokens), sum(completion_tokens) FROM leaderboard"
    with connect(lake, only=named_in(before)) as con:
        answers = con.execute(before).fetchall()
    rows = judged(lake, tmp_path, SINGLE, "counted")
    sql = "SELECT judge_model, sum(judge_prompt_tokens), sum(verdicts), sum(unscored), any_value(judge_usd)"
    sql += " FROM judge_costs WHERE judge = 'counted' GROUP BY ALL"
    with connect(lake, only=named_in(f"{sql} {before}")) as con:
        assert con.execute(before).fetchall() == answers
        tokens, unscored = sum(row["judge_prompt_tokens"] for row in rows), sum(row["score"] is None for row in rows)
        assert con.execute(sql).fetchall() == [("stub/judge", tokens, len(rows), unscored, None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [10, 1]}, "scale: .*begins at or above its end"),
        ({"parser": "no group"}, r"parser: has no group"),
        ({"parser": "("}, "parser: "),
        ({"names": {"A": 1}}, "either scale or names"),
        ({"prompt": "Rate $answr"}, r"\$answr is none of"),
        ({"prompt": "Rate it"}, "names either"),
        ({"prompt": "$answer_a alone"}, "names either"),
        ({"version": 1}, "version: "),
        ({"more": 1}, "more: "),
    ],
)
def test_wrong_prompt_file_is_refused_by_its_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({**SINGLE, **change}))
    with pytest.raises(ConfigError, match=message) as error:
        read_prompt(tmp_path / "p.yaml")
    assert "\n" not in str(error.value)


def test_texts_of_an_answer_are_put_in_once_and_the_last_match_counts(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(SINGLE))
    prompt = read_prompt(tmp_path / "p.yaml").prompt
    assert "$reference $$" in prompt.request(question="q", reference="r", answer="$reference $$")
    assert prompt.read("The answer is 3. No: The answer is 10.") == 1
    assert [prompt.read(text) for text in ("The answer is 11.", "none", "", "The answer is 0.")] == [None] * 4
