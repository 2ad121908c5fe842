"""The oracle is one: of the best candidates the cheapest, an unknown cost last, then by name, wherever it counts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from collectors.lake.store import Lake
from collectors.matrix.pool_files import choose_pool
from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.pool import oracle_of_known
from collectors.publish.card import Description
from collectors.publish.version import build_version
from collectors.routers.checking import PublishedBasis
from collectors.routers.open_board import as_json, build
from collectors.routers.questions import NUMBERS, load_questions
from collectors.routers.registry import router_of
from collectors.routers.trial import Data, Fold, run_trial, write_data
from pipelines.matrix import main
from tests.collectors.routers.test_submissions import send
from tests.helpers.importing import imported, rows, table
from tests.helpers.routed_worlds import COLUMNS

QUESTIONS = 40


def test_oracle_costs_the_same_in_the_view_score_and_both_boards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(5)
    answers = [
        (model, "quiz", f"q{item}", float(draw.random() < 0.6), draw.random() * usd, f"text {item}")
        for item in range(QUESTIONS)
        for model, usd in (("a", 0.03), ("b", 0.02), ("c", 0.01))
    ]
    names = tuple(COLUMNS.values())
    imported("table", table(tmp_path / "rows.parquet", answers, names), tmp_path / "lake", options=COLUMNS)
    lake = Lake(str(tmp_path / "lake"))
    [(score, usd)] = rows(tmp_path / "lake", "SELECT avg(best_score), avg(usd) FROM oracle_items")

    choices = b"source_key,model\n" + b"".join(b"q%d,a\n" % item for item in range(QUESTIONS))
    path = send(tmp_path / "in", choices)
    scored = ["score", "--choices", str(path.with_suffix(".csv")), "--lake", lake.uri, "--include", "imported"]
    assert main([*scored, "--json"]) == 0
    [of_score] = json.loads(capsys.readouterr().out)

    (tmp_path / "v").mkdir()
    build_version(lake, tmp_path / "v", Description(), "1", include="imported")
    version = PublishedBasis(str(tmp_path / "v"))
    [board] = json.loads(as_json(build(tmp_path / "in", version), version))["boards"]
    [published] = [row for row in board["rows"] if row["router"] == "oracle"]

    questions = load_questions(lake, choose_pool(lake, None, "imported", {}))
    pool, every = questions.pool, np.arange(QUESTIONS)
    assert (pool.scores == pool.scores.max(axis=1, keepdims=True)).sum() > QUESTIONS, "no equals"
    (tmp_path / "data").mkdir()
    data = Data(tmp_path / "data", questions.ids, questions.tasks, questions.texts, pool.candidates, [], {})
    write_data(data, {"scores": pool.scores, **{name: pool.numbers[name] for name in NUMBERS if name in pool.numbers}})
    trained = run_trial(data, router_of("oracle"), Fold(every, every, 0), np.zeros((QUESTIONS, 0)))["chosen"]

    found = [
        (of_score["oracle_score"], of_score["oracle_usd"]),
        (published["score"], published["usd"]),
        (pool.scores[every, trained].mean(), pool.numbers["usd"][every, trained].mean()),
    ]
    assert found == [(pytest.approx(score), pytest.approx(usd))] * 3


def test_oracle_of_known_takes_an_unknown_cost_last_then_the_first() -> None:
    none = np.nan
    scores = np.array([[1, 1, 1], [1, 1, 0], [none, 0.3, 0.3], [none, none, none], [1, 1, 1]])
    usd = np.array([[none, 2, 1], [none, 9, 1], [1, 2, 2], [1, 1, 1], [none, none, none]])
    assert oracle_of_known(scores, usd).tolist() == [2, 1, 1, NO_CHOICE, 0]
    assert oracle_of_known(scores).tolist() == [0, 0, 1, NO_CHOICE, 0]
