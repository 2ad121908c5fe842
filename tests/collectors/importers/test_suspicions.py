"""Rows of a source that look wrong are named, and honest ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.importing import COLUMNS, imported, rows, table


def suspected(
    tmp_path: Path, given: list[tuple[Any, ...]], names: str, **settings: str
) -> list[tuple[str, str | None]]:
    path = table(tmp_path / "t.parquet", given, tuple(names.split()))
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, **settings})
    assert rows(tmp_path / "lake", "SELECT count(*) FROM suspicions") == [(len(report.suspicions),)]
    return [(one.kind, one.model) for one in report.suspicions]


def test_suspicions_name_token_counts_that_nobody_counted(tmp_path: Path) -> None:
    texts = [" ".join(["word"] * (number + 1)) for number in range(30)]
    given = [("a", "quiz", str(n), 1.0, 40, round(1.3 * (n + 1)), text) for n, text in enumerate(texts)]
    given += [("b", "quiz", str(n), 1.0, 30 + 7 * n % 13, 3 + n * n % 17, text) for n, text in enumerate(texts)]
    names = "model task id score prompt_tokens completion_tokens response"
    suspects = suspected(tmp_path, given, names, **{name: name for name in names.split()[4:]})
    assert suspects == [("constant_tokens", "a"), ("words", "a")]
    assert rows(tmp_path / "lake", "SELECT model, suspicions FROM coverage ORDER BY model") == [
        ("a", "constant_tokens, words"),
        ("b", None),
    ]


def test_suspicions_name_models_that_count_the_same_and_lack_rows_and_cost_nothing(tmp_path: Path) -> None:
    given = [(m, "quiz", str(n), 1.0, 10 + n, 0.0 if m == "a" else 0.1) for m in "ab" for n in range(25)]
    given += [("c", "quiz", str(n), 1.0, 11 + 2 * n, 0.1) for n in range(24)]
    suspects = suspected(tmp_path, given, "model task id score p usd", prompt_tokens="p", usd="usd")
    assert suspects == [("identical_tokens", None), ("free", "a"), ("fewer_rows", "c")]


def test_suspicions_name_right_answers_without_usage(tmp_path: Path) -> None:
    given = [("a", "quiz", str(n), 1.0, 0 if n < 2 else 5 + n, 0 if n < 2 else 1 + n % 3) for n in range(25)]
    suspects = suspected(tmp_path, given, "model task id score p c", prompt_tokens="p", completion_tokens="c")
    assert suspects == [("no_usage", "a")]


def test_suspicions_of_honest_counts_are_none(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    given = [
        (m, "quiz", str(n), 1.0, int(draw.integers(50, 90)), int(draw.integers(1, 9)), "some words in an answer")
        for m in "ab"
        for n in range(40)
    ]
    names = "model task id score prompt_tokens completion_tokens response"
    assert suspected(tmp_path, given, names, **{name: name for name in names.split()[4:]}) == []
