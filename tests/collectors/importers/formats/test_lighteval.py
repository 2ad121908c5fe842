"""Details of lighteval since 0.11: items by their place in the data set, tokens without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.identity import content_hash
from tests.helpers.importing import imported, rows

TIME = "2025-10-01T00-00-00.000000"


def details(
    folder: Path, given: list[dict[str, Any]], names: tuple[str, str, str] = ("doc", "model_response", "metric")
) -> Path:
    place = folder / "details/org/m" / TIME
    place.mkdir(parents=True, exist_ok=True)
    table = [dict(zip(names, (row["doc"], row["answer"], row["metric"]), strict=True)) for row in given]
    pq.write_table(pa.Table.from_pylist(table), place / f"details_sums|0_{TIME}.parquet")
    return folder / "details"


def row(key: str | None, score: Any = 1, **answer: Any) -> dict[str, Any]:
    doc = {"query": f"q{key}", "choices": ["2", "3"], "gold_index": [0], "id": key}
    whole = {
        "input_tokens": [1, 2, 3],
        "output_tokens": [[5, 6]],
        "text": ["2"],
        "logprobs": [],
        "padded_tokens_count": 0,
    }
    return {"doc": doc, "answer": {**whole, **answer}, "metric": {"acc": score}}


@pytest.mark.parametrize(
    "names", [("doc", "model_response", "metric"), ("__doc__", "__model_response__", "__metric__")]
)
def test_lighteval_items_have_the_place_that_rows_state(tmp_path: Path, names: tuple[str, str, str]) -> None:
    report = imported("lighteval", details(tmp_path, [row("2", 1), row("0", 0)], names), tmp_path / "lake")
    assert report.rejects == []
    assert rows(tmp_path / "lake", "SELECT item, score FROM records ORDER BY ALL") == [(0, 0.0), (2, 1.0)]


@pytest.mark.parametrize("keys", [("0", "0"), (None, "1"), ("a", "b")])
def test_lighteval_items_are_rows_where_no_place_is_clear(tmp_path: Path, keys: tuple[str | None, ...]) -> None:
    given = [row(keys[0], 1), row(keys[1], 0)]
    imported("lighteval", details(tmp_path, given), tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT item, score FROM records ORDER BY ALL") == [(0, 1.0), (1, 0.0)]


CHOICES = {"text": [], "output_tokens": [[5, -1], [6, 7]]}
#: A backend's answer -> its tokens.
ANSWERS: dict[str, tuple[dict[str, Any], tuple[int | None, int | None]]] = {
    "likeliest_choice_with_padding": ({**CHOICES, "logprobs": [-1.0, -2.0]}, (3, 1)),
    "other_choice": ({**CHOICES, "logprobs": [-3.0, -2.0]}, (3, 2)),
    "unclear_choice": ({**CHOICES, "logprobs": []}, (3, None)),
    "prompt_with_padding": ({**CHOICES, "logprobs": [-1.0, -2.0], "input_tokens": [1, 2, -1]}, (2, 1)),
    "prompt_of_each_choice": (
        {**CHOICES, "logprobs": [-3.0, -2.0], "input_tokens": [[1, 2, 3], [1, 2, 3, 4]]},
        (4, 2),
    ),
    "several_texts": ({"text": ["2", "3"], "output_tokens": [[5], [6, 7, 8]]}, (3, 4)),
    "filled_from_the_left": ({"input_tokens": [0, 0, 1, 2, 3], "padded_tokens_count": 2}, (3, 2)),
    "filled_from_the_right": (
        {"input_tokens": [0, 1, 2], "padded_tokens_count": 1, "output_tokens": [[5, 0, 0, 0]]},
        (2, 2),
    ),
    "endings_that_are_no_padding": ({"output_tokens": [[5, 0, 0, 0]]}, (3, 4)),
    "no_tokens": ({"input_tokens": [], "output_tokens": []}, (None, None)),
}


def test_lighteval_tokens_leave_padding_out(tmp_path: Path) -> None:
    """The columns of a file have one type, so answers of unlike forms stand in files of their own models."""
    for name, (answer, _) in ANSWERS.items():
        path = details(tmp_path / name, [row("0", **answer)])
        (path / "org/m").rename(path / f"org/{name}")
    report = imported("lighteval", [tmp_path / name / "details" for name in ANSWERS], tmp_path / "lake")
    assert report.rejects == []
    tokens = rows(tmp_path / "lake", "SELECT model, prompt_tokens, completion_tokens FROM records")
    assert {model.removeprefix("org/"): tuple(right) for model, *right in tokens} == {
        name: right for name, (_, right) in ANSWERS.items()
    }


def test_lighteval_metric_of_the_whole_set_is_no_score(tmp_path: Path) -> None:
    given = [row("0", {"golds": ["2"], "preds": ["3"]})]
    report = imported("lighteval", details(tmp_path, given), tmp_path / "lake")
    assert report.rejects == []
    assert rows(tmp_path / "lake", "SELECT metric, score FROM records JOIN cells USING (cell_id)") == [("acc", None)]


def test_lighteval_scores_beyond_one_are_scores_without_a_threshold(tmp_path: Path) -> None:
    given = [row("0", 7.5), row("1", -0.033), row("2", 1.0)]
    report = imported("lighteval", details(tmp_path, given), tmp_path / "lake")
    assert report.rejects == []
    assert rows(tmp_path / "lake", "SELECT score, correct FROM records ORDER BY item") == [
        *[(7.5, None), (-0.033, None), (1.0, None)]
    ]


def test_lighteval_primary_metric_is_that_of_the_whole_file(tmp_path: Path) -> None:
    given = [row("0"), row("1"), row("2")]
    for one, metrics in zip(given, [(None, 1.0, "x"), (1.0, 0.0, "y"), (0.0, 1.0, None)], strict=True):
        one["metric"] = dict(zip(("em", "acc", "parts"), metrics, strict=True))
    report = imported("lighteval", details(tmp_path, given), tmp_path / "lake")
    assert report.rejects == []
    assert rows(tmp_path / "lake", "SELECT DISTINCT metric FROM cells") == [("em",)]
    query = "SELECT score, failure, metrics FROM records ORDER BY item"
    assert rows(tmp_path / "lake", query) == [
        (None, "not_judged", '{"acc":1.0,"parts":"x"}'),
        (1.0, None, '{"em":1.0,"acc":0.0,"parts":"y"}'),
        (0.0, None, '{"em":0.0,"acc":1.0}'),
    ]


@pytest.mark.parametrize(
    ("query", "choices", "answer", "asked"),
    [
        ("Who wrote it?", ["Ada", "Ada L."], {}, ("Who wrote it?", ())),
        ("Who wrote it?\nA. Ada\nB. Bo\nAnswer:", ["A", "B"], {}, ("Who wrote it?", ("Ada", "Bo"))),
        ("Who wrote it?", ["Ada", "Bo"], {"text": [], "logprobs": [-1.0, -2.0]}, ("Who wrote it?", ("Ada", "Bo"))),
    ],
)
def test_lighteval_right_answers_of_generated_texts_are_no_choices(
    tmp_path: Path, query: str, choices: list[str], answer: dict[str, Any], asked: tuple[str, tuple[str, ...]]
) -> None:
    given = row("0", **answer)
    given["doc"] |= {"query": query, "choices": choices}
    imported("lighteval", details(tmp_path, [given]), tmp_path / "lake")
    stored = rows(tmp_path / "lake", "SELECT content_hash, item_hash FROM items")
    assert stored == [(content_hash(*asked), content_hash(query, choices))], "the item keeps the identity that it had"
