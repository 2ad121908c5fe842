"""RouteLLM's tables, read back as its benchmarks MMLU and GSM8K read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from schemas.failures import ConfigError
from tests.helpers.exporting import RESPONSES, build, exported
from tests.helpers.importing import imported, rows

PROMPTS = ["plain", "[not python]", "quotes \" and ' and, commas", "lines\r\nand\ttabs\n", "ü 漢 🙂"]
SCORES = {"org/strong": [1, 0, 1, 1, 1], "weak": [1, 1, 0, 0, 0]}


def test_routellm_tables_are_those_that_its_benchmarks_read(tmp_path: Path) -> None:
    tasks = ("gsm8k", "mmlu_virology", "arc")
    lake = build(tmp_path / "lake", SCORES, tasks=tasks, prompts=PROMPTS)
    [note] = exported(lake, "routellm", tmp_path / "out")
    assert note == "its benchmarks read mmlu and gsm8k alone; 1 other tasks are laid as gsm8k"
    places = {"gsm8k": "gsm8k/gsm8k_responses.csv", "mmlu_virology": "mmlu/responses/mmlu_virology.csv"}
    places["arc"] = "arc/arc_responses.csv"
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.csv")} == set(
        places.values()
    )
    for task, place in places.items():
        frame = pd.read_csv(tmp_path / "out" / place)
        assert frame.prompt.tolist() == PROMPTS
        for model, scores in SCORES.items():
            assert frame[model].dtype == np.bool_
            assert len(frame[frame[model] == True]) / len(frame) == sum(scores) / 5  # noqa: E712 as it counts
        texts = task != "mmlu_virology"
        assert set(frame.columns) == {"prompt", *SCORES} | (
            {f"{model}_response" for model in SCORES} if texts else set()
        )
    frame = pd.read_csv(tmp_path / "out/gsm8k/gsm8k_responses.csv", keep_default_na=False)
    assert frame["weak_response"].tolist() == RESPONSES[:5]


def test_routellm_through_the_importer_is_the_same(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", SCORES, tasks=("mmlu_virology",), prompts=PROMPTS)
    exported(lake, "routellm", tmp_path / "out")
    assert imported("routellm", tmp_path / "out", tmp_path / "second").rejects == []
    sql = "SELECT prompt, model, score FROM costs JOIN items USING (task, items_digest, item) ORDER BY ALL"
    assert rows(tmp_path / "second", sql) == rows(tmp_path / "lake", sql)


def test_routellm_graded_scores_and_odd_names_are_refused(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a": [0.5, 1]})
    with pytest.raises(ConfigError, match="neither 0 nor 1: --threshold X"):
        exported(lake, "routellm", tmp_path / "out")
    [*_, note] = exported(lake, "routellm", tmp_path / "out", threshold=0.5)
    assert note == "scores of 0.5 and more are right in quiz"
    assert pd.read_csv(tmp_path / "out/quiz/quiz_responses.csv")["a"].tolist() == [True, True]
    lake = build(tmp_path / "odd", {"a": [1, 0], "a_response": [0, 1]}, prompts=["x", "y"])
    with pytest.raises(ConfigError, match="'a_response' is a column's name"):
        exported(lake, "routellm", tmp_path / "out2")
    lake = build(tmp_path / "none", {"a": [1, 0]}, prompts=["x", "None"])
    with pytest.raises(ConfigError, match="the text of 1 items as it is, such as item 1 of quiz"):
        exported(lake, "routellm", tmp_path / "out2")
