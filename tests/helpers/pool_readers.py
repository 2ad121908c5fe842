"""One pool, as each reader of a lake or published version shows it: the views, Python, score, plot and export."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import routerlake
from collectors.matrix.pools import load_matrix
from pipelines.export import main as export
from pipelines.matrix import main as matrix
from pipelines.plot import main as plot
from pipelines.publish import main as publish

Capture = pytest.CaptureFixture[str]
Means = dict[str, float]


def sql(uri: str, query: str, capsys: Capture, *options: str) -> list[dict[str, Any]]:
    assert matrix(["--lake", uri, "--include", "all", "--sql", query, "--format", "json", *options]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def assert_every_reader_shows(
    uri: str, means: Mapping[str, float], questions: int, folder: Path, capsys: Capture, of: str = ""
) -> None:
    """Asserts the candidates of a lake of one task and of its version, their means, and the number of questions.

    `of` is what plot says of them beside these numbers.
    """
    assert publish(["--lake", uri, "--to", str(folder), "--include", "all", "--version", "1"]) == 0
    expected = {name: pytest.approx(mean) for name, mean in sorted(means.items())}
    for place in (uri, str(folder / "1")):
        capsys.readouterr()
        for pool in (routerlake.open(place).matrix(include="all"), load_matrix(place, include="all")):
            assert (pool.candidates, pool.scores.shape) == (list(expected), (questions, len(means)))
            assert dict(zip(pool.candidates, pool.scores.mean(axis=0).tolist(), strict=True)) == expected
        shown = sql(place, "SELECT candidate, count(*) AS n, avg(score) AS mean FROM pool GROUP BY 1", capsys)
        assert {row["candidate"]: row["mean"] for row in shown} == expected
        assert {row["n"] for row in shown} == {questions}
        [oracle] = sql(place, "FROM oracle", capsys)
        assert (oracle["candidates"], oracle["questions"]) == (len(means), questions)
        assert scored(place, folder, capsys) == (len(means), questions, oracle["best_model"], oracle["oracle_score"])
        values = list(expected.values())
        assert drawn(place, folder / "pictures", capsys, of) == (list(expected), questions, values)
        assert exported(place, folder / "x.parquet", capsys) == {name: (questions, expected[name]) for name in expected}


def scored(place: str, folder: Path, capsys: Capture) -> tuple[Any, ...]:
    """Candidates, questions, best single model and oracle of a router that takes the candidates in turn."""
    pool = routerlake.open(place).matrix(include="all")
    path = folder / "router.csv"
    names = [pool.candidates[row % len(pool.candidates)] for row in range(len(pool))]
    questions = pool.questions["question"].to_pylist()
    path.write_text("question,model\n" + "".join(f"{one},{name}\n" for one, name in zip(questions, names, strict=True)))
    assert matrix(["score", "--choices", str(path), "--lake", place, "--json", "--include", "all"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    return row["models"], row["items"], row["best_model"], row["oracle_score"]


def drawn(place: str, out: Path, capsys: Capture, of: str) -> tuple[Any, ...]:
    """Candidates, questions and means of the picture's page."""
    assert plot(["--lake", place, "--out", str(out), "--include", "all", "--draws", "1"]) == 0
    page = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', (out / "index.html").read_text())
    assert page is not None
    numbers = json.loads(page[1])
    [task] = numbers["tasks"]
    said = capsys.readouterr().out
    assert f"pool: {len(numbers['names'])} candidates × {task['items']} questions of {of}" in said
    return numbers["names"], task["items"], task["models"]["score"]


def exported(place: str, out: Path, capsys: Capture) -> dict[str, tuple[int, float]]:
    """Candidate -> its exported rows and their mean score."""
    out.unlink(missing_ok=True)
    assert export(["--format", "huggingface", "--lake", place, "--out", str(out), "--include", "all"]) == 0
    capsys.readouterr()
    rows: dict[str, list[float]] = {}
    for row in pq.read_table(out, columns=["model", "score"]).to_pylist():
        rows.setdefault(row["model"], []).append(row["score"])
    return {name: (len(scores), sum(scores) / len(scores)) for name, scores in rows.items()}
