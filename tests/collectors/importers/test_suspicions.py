"""Rows of a source that look wrong are named, and honest ones are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.importers.contradictions import ITEMS_AT_ONCE
from tests.helpers.importing import COLUMNS, imported, rows, table, write_json, write_lines


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


@pytest.mark.parametrize("again", ["a", "renamed"])
def test_suspicions_count_an_item_of_two_rows_once(tmp_path: Path, again: str) -> None:
    given = [(model, "quiz", str(item), 1.0) for model in "ab" for item in range(3 if model == "b" else 2)]
    path = table(tmp_path / "t.parquet", [*given, (again, "quiz", "0", 1.0)])
    report = imported("table", path, tmp_path / "lake", options=COLUMNS, aliases={"renamed": "a"})
    assert report.total.folded == 1
    messages = [one.message for one in report.suspicions if one.kind == "fewer_rows"]
    assert messages == ["2 items, while others of the source have 3"]


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


def stated_files(folder: Path, form: str) -> None:
    """Files that state 4 answers with a mean of 0.75, and hold 3 with a mean of 2 / 3."""
    scores = [1, 1, 0]
    if form == "inspect":
        metrics = {"accuracy": {"name": "accuracy", "value": 0.75}}
        results = {"total_samples": 4, "scores": [{"name": "s", "scorer": "s", "metrics": metrics}]}
        samples = [{"id": n, "input": "q", "scores": {"s": {"value": one}}} for n, one in enumerate(scores)]
        write_json(folder / "log.json", {"eval": {"model": "m", "task": "t"}, "results": results, "samples": samples})
    elif form == "llmrouterbench":
        records = [{"index": n, "score": one, "raw_output": "a"} for n, one in enumerate(scores)]
        value = {"counts": 4, "performance": 0.75, "records": records, "model_name": "m", "dataset_name": "t"}
        write_json(folder / "t-s-m-20250101_000000.json", {**value, "split": "s"})
    elif form == "lm_eval":
        time = "2026-01-02T03-04-05.678901"
        value = {"results": {"t": {"acc,none": 0.75}}, "n-samples": {"t": {"original": 9, "effective": 4}}}
        write_json(folder / f"results_{time}.json", {**value, "config": {"model_args": "pretrained=m"}})
        lines = [
            {
                "doc_id": n,
                "doc": {"q": n},
                "arguments": [[f"{n}", {}]],
                "filter": "none",
                "metrics": ["acc"],
                "acc": one,
            }
            for n, one in enumerate(scores)
        ]
        write_lines(folder / f"samples_t_{time}.jsonl", lines)
    elif form == "opencompass":
        details = [{"correct": bool(one)} for one in (1, 1, 0, 1)]
        write_json(folder / "w/results/m/t.json", {"accuracy": 75.0, "details": details})
        write_json(folder / "w/predictions/m/t.json", {str(n): {"prediction": "a"} for n in range(3)})
    else:
        named = {"evaluation_name": "t", "evaluation_id": "e", "model_id": "m"}
        lines = [{**named, "sample_id": str(n), "evaluation": {"score": one}} for n, one in enumerate(scores)]
        write_lines(folder / "u_samples.jsonl", lines)
        results = [{"evaluation_name": "t", "score_details": {"score": 0.75}}]
        write_json(folder / "u.json", {"evaluation_results": results})


@pytest.mark.parametrize("form", ["inspect", "llmrouterbench", "lm_eval", "opencompass", "every_eval_ever"])
def test_suspicion_of_a_source_that_states_other_figures_than_it_holds_names_both(tmp_path: Path, form: str) -> None:
    stated_files(tmp_path / "in", form)
    report = imported(form, tmp_path / "in", tmp_path / "lake")
    assert (report.total.records, report.rejects) == (3, [])
    messages = {one.kind: one.message for one in report.suspicions}
    assert messages == {
        **({} if form == "every_eval_ever" else {"odd_count": "the source states 4 answers, and 3 are imported"}),
        "odd_accuracy": ANOTHER_MEAN.replace("0.75", "75") if form == "opencompass" else ANOTHER_MEAN,
    }


@pytest.mark.parametrize("performance", [2 / 3, 0.6667, 200 / 3])
def test_suspicion_of_another_mean_is_not_raised_by_rounding_and_percent(tmp_path: Path, performance: float) -> None:
    stated_files(tmp_path / "in", "llmrouterbench")
    [path] = (tmp_path / "in").iterdir()
    write_json(path, {**json.loads(path.read_text()), "counts": 3, "performance": performance})
    assert imported("llmrouterbench", path, tmp_path / "lake").suspicions == []


ANOTHER_MEAN = "the source states a mean score of 0.75, and the imported scores have 0.666667"


def test_answers_that_have_repeats_alone_are_named(tmp_path: Path) -> None:
    names = ("model", "task", "id", "score", "trial")
    verdicts = [(model, "quiz", str(item), 1.0, trial) for model in "ab" for item in range(3) for trial in (1, 2)]
    verdicts += [("b", "quiz", str(item), 1.0, 0) for item in range(2)]
    path = table(tmp_path / "t.parquet", verdicts, names)
    report = imported("table", path, tmp_path / "lake", options={**COLUMNS, "repeat": "trial"})
    named = [(one.model, one.message.split(" items")[0]) for one in report.suspicions if one.kind == "no_first_answer"]
    assert named == [("a", "3"), ("b", "1")]
    assert rows(tmp_path / "lake", "SELECT count(*) FROM matrix WHERE model = 'b' AND score IS NOT NULL") == [(2,)]


@pytest.mark.few(1)
@pytest.mark.parametrize("at_once", [ITEMS_AT_ONCE, 1])
def test_suspicions_name_another_import_that_scores_the_same_answers_otherwise(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.importers.contradictions.ITEMS_AT_ONCE", at_once)
    names = ("model", "task", "id", "score", "prompt", "response")
    settings = {**COLUMNS, "prompt": "prompt", "response": "response"}

    def given(wrong: int, answer: str = "4") -> list[tuple[Any, ...]]:
        return [
            (m, "quiz", f"q{n}", float(n >= wrong or m == "b"), f"What is {n}?", f"{answer} {n}")
            for m in "ab"
            for n in range(12)
        ]

    def suspects(name: str, rows_of: list[tuple[Any, ...]], names: tuple[str, ...]) -> list[tuple[str, ...]]:
        own = {key: value for key, value in settings.items() if value in names}
        report = imported("table", table(tmp_path / f"{name}.parquet", rows_of, names), lake, name=name, options=own)
        return [(one.kind, one.model or "", one.message) for one in report.suspicions]

    lake = tmp_path / "lake"
    assert suspects("first", given(0), names) == []
    [(kind, model, message)] = suspects("second", given(3), names)
    assert (kind, model) == ("contradicts", "a")
    assert message.startswith("3 of 12 questions have other scores than in the import first (cell ")
    assert suspects("sampled-again", given(5, "5"), names) == [], "other answers may have other scores"
    bare = [row[:5] for row in given(3)]
    assert [(m, text[:44]) for _, m, text in suspects("bare", bare, names[:5])] == [
        ("a", "3 of 12 questions have other scores than in "),
        ("a", "2 of 12 questions have other scores than in "),
    ]
    assert rows(lake, "SELECT model, suspicions FROM coverage WHERE suspicions IS NOT NULL ORDER BY ALL") == [
        ("a", "contradicts"),
        ("a", "contradicts"),
    ]
