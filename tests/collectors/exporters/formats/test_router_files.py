"""Files of RouterDC, EmbedLLM and LLMRouterBench, and the long Parquet file, read back by their descriptions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.failures import ConfigError
from tests.helpers.exporting import PROMPTS, RESPONSES, USD, answers, build, exported, price
from tests.helpers.importing import imported, rows
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

SCORES: dict[str, list[float | None]] = {"org/a": [1, 0, 1, 0, 1, 0], "b": [1, 1, 0, 0, 1, 0], "c": [0, 0, 0, 1, 0, 1]}
#: Without a null character.
TEXTS = [prompt.replace("\x00", "") for prompt in PROMPTS]
IN_ORDER = "SELECT task, prompt, model, score FROM costs JOIN items USING (task, items_digest, item) ORDER BY ALL"


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# ---- RouterDC


def test_routerdc_read_back_is_the_lake(tmp_path: Path) -> None:
    scores = {**SCORES, "half": [0.5, 0.1, 0.3, 1, 0, 0.25]}
    lake = build(tmp_path / "lake", scores, tasks=("arc", "quiz"))
    assert exported(lake, "routerdc", tmp_path / "out") == []
    written = [
        (task, item, model, score)
        for task in ("arc", "quiz")
        for item, row in enumerate(load(tmp_path / f"out/{task}.json"))
        for model, score in sorted(row["scores"].items())
    ]
    assert written == answers(lake, "task, item, model, score")
    assert [row["question"] for row in load(tmp_path / "out/quiz.json")] == PROMPTS
    assert imported("routerdc", tmp_path / "out", tmp_path / "second").rejects == []
    again = rows(tmp_path / "second", "SELECT task, item, model, score FROM costs ORDER BY task, item, model")
    assert again == written


def test_routerdc_scores_beyond_0_and_1_and_gaps_are_refused(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a": [1, 3.5]})
    with pytest.raises(ConfigError, match="'quiz' has scores outside 0 to 1"):
        exported(lake, "routerdc", tmp_path / "out")
    lake = build(tmp_path / "gaps", {"a": [1, None], "b": [1, 0]})
    with pytest.raises(ConfigError, match="1 of 4 answers have no score"):
        exported(lake, "routerdc", tmp_path / "out")


# ---- EmbedLLM


def test_embedllm_read_back_is_the_lake(tmp_path: Path) -> None:
    scores = {model: [*of, *[1, 0] * 10] for model, of in SCORES.items()}
    lake = build(tmp_path / "lake", scores, tasks=("arc", "quiz"), prompts=TEXTS)
    assert len(exported(lake, "embedllm", tmp_path / "out")) == 1
    parts = {split: pd.read_csv(tmp_path / f"out/{split}.csv") for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [3 * 2 * 20, 3 * 2 * 3, 3 * 2 * 3]
    questions, models = (pd.read_csv(tmp_path / f"out/{name}_order.csv") for name in ("question", "model"))
    assert questions.prompt_id.tolist() == list(range(52))
    frame = pd.concat(parts.values())
    columns = ["prompt_id", "model_id", "category_id", "label", "model_name", "category", "prompt"]
    assert list(frame.columns) == columns
    assert set(frame.groupby("prompt_id").size()) == {3}
    assert (frame.prompt == questions.prompt[frame.prompt_id].to_numpy()).all()
    assert (frame.model_name == models.model_name[frame.model_id].to_numpy()).all()
    assert frame.groupby("category").category_id.unique().map(list).to_dict() == {"arc": [0], "quiz": [1]}
    written = [
        (row.category, row.prompt_id - 26 * row.category_id, row.model_name, row.label) for row in frame.itertuples()
    ]
    assert sorted(written) == answers(lake, "task, item, model, score")
    assert imported("embedllm", tmp_path / "out", tmp_path / "second").rejects == []
    assert rows(tmp_path / "second", IN_ORDER) == rows(tmp_path / "lake", IN_ORDER)


def test_embedllm_graded_scores_are_right_from_the_threshold_that_is_stated(tmp_path: Path) -> None:
    grades = [0.1 * n for n in range(10)]
    lake = build(tmp_path / "lake", {"a": grades, "b": grades[::-1]}, prompts=[f"q{n}" for n in range(10)])
    with pytest.raises(ConfigError, match="neither 0 nor 1: --threshold X"):
        exported(lake, "embedllm", tmp_path / "out")
    with pytest.raises(ConfigError, match="no graded score is so high; the highest is"):
        exported(lake, "embedllm", tmp_path / "high", threshold=5)
    assert not (tmp_path / "high").exists()
    notes = exported(lake, "embedllm", tmp_path / "out", threshold=0.7)
    assert "scores of 0.7 and more are right in quiz" in notes
    frame = pd.concat([pd.read_csv(tmp_path / f"out/{part}.csv") for part in ("train", "val", "test")])
    right = {(row.model_name, row.prompt_id): row.label for row in frame.itertuples()}
    assert [right["a", n] for n in range(10)] == [int(grade >= 0.7) for grade in grades]
    assert [right["b", n] for n in range(10)] == [int(grade >= 0.7) for grade in grades[::-1]]


def test_embedllm_threshold_leaves_verdicts_as_they_are(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a": [1, 0]}, prompts=["x", "y"])
    notes = exported(lake, "embedllm", tmp_path / "out", threshold=0.0)
    assert not any("right in" in note for note in notes)
    frame = pd.concat([pd.read_csv(tmp_path / f"out/{part}.csv") for part in ("train", "val", "test")])
    assert frame.sort_values("prompt_id").label.tolist() == [1, 0]


def test_embedllm_has_no_prompt_in_two_parts(tmp_path: Path) -> None:
    prompts = [f"question {n % 7}" for n in range(40)]
    lake = build(tmp_path / "lake", {"a": [1, 0] * 20}, tasks=("x", "y"), prompts=prompts)
    notes = exported(lake, "embedllm", tmp_path / "out")
    parts = {part: pd.read_csv(tmp_path / f"out/{part}.csv") for part in ("train", "val", "test")}
    held = {part: set(frame.prompt) for part, frame in parts.items()}
    assert not held["train"] & held["test"]
    assert not held["train"] & held["val"]
    assert sum(len(frame) for frame in parts.values()) == 80
    assert any("with the text of an earlier one stand in its part" in note for note in notes)


@pytest.mark.parametrize(
    ("build_with", "message"),
    [
        ({"scores": {"a": [0.5, 1]}}, "'quiz' has scores that are neither 0 nor 1"),
        ({"scores": {"NA": [0, 1]}}, "'NA' reads as missing in pandas"),
        ({"scores": {"a": [0, 1]}, "tasks": ("null",)}, "'null' reads as missing in pandas"),
        ({"scores": {"a": [0, 1]}, "prompts": ["x", "None"]}, "the text of 1 items as it is, such as item 1 of quiz"),
        ({"scores": {"a": [0, 1]}, "prompts": ["x", "a\x00b"]}, "such as item 1 of quiz"),
        ({"scores": {"a": [0, None], "b": [0, 1]}}, "1 of 4 answers have no score"),
    ],
)
def test_embedllm_refuses_names_and_scores_that_it_cannot_hold(
    tmp_path: Path, build_with: dict[str, Any], message: str
) -> None:
    lake = build(tmp_path / "lake", **build_with)
    with pytest.raises(ConfigError, match=re.escape(message)):
        exported(lake, "embedllm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- LLMRouterBench

#: What the loader of its baselines asks of a file and of a record.
FILE = {"dataset_name", "split", "model_name", "demo", "records", "performance", "counts", "cost", "time_taken"}
RECORD = {"index", "origin_query", "prompt", "prediction", "raw_output", "ground_truth", "score", "cost"}


def test_llmrouterbench_read_back_is_the_lake(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("arc", "quiz")))
    assert exported(lake, "llmrouterbench", tmp_path / "out") == []
    written, asked = [], []
    for path in sorted((tmp_path / "out/results/bench").rglob("*.json")):
        value = load(path)
        dataset, split, model = path.relative_to(tmp_path / "out/results/bench").parts[:3]
        assert (value["dataset_name"], value["split"]) == (dataset, split)
        assert re.fullmatch(rf"{dataset}-{split}-{model}-\d{{8}}_\d{{6}}\.json", path.name)
        assert value.keys() >= FILE
        assert value["counts"] == 6
        assert value["performance"] == pytest.approx(sum(SCORES[value["model_name"]]) / 6)  # type: ignore[arg-type]
        for record in value["records"]:
            assert record.keys() >= RECORD
            written.append((dataset, record["index"], value["model_name"], record["score"], record["cost"]))
            asked.append((record["origin_query"], record["raw_output"], record["prompt_tokens"]))
        assert value["cost"] == pytest.approx(sum(record["cost"] for record in value["records"]))
    assert sorted(written) == answers(lake)
    assert set(asked) == {(PROMPTS[n], RESPONSES[n], 10 + n) for n in range(6)}
    assert imported("llmrouterbench", tmp_path / "out", tmp_path / "second").rejects == []
    columns = "split_part(task, '/', 1), item, model, score, usd, prompt_tokens, completion_tokens"
    again = rows(tmp_path / "second", f"SELECT {columns} FROM costs ORDER BY task, item, model")
    assert again == answers(lake, columns)


def untokened(folder: Path) -> LakeBuilder:
    """b with token counts and a cost, c with a cost alone."""
    lake = build(folder, {"b": [1, 0]}, stated_usd=0.25)
    cell = BuiltCell(model="c")
    lake.run(cell)
    unknown = {"prompt_tokens": None, "completion_tokens": None, "latency_s": None}
    lake.shard(cell, [cell.record(n, score=1.0, stated_usd=0.5, **unknown) for n in range(2)])
    return lake


def test_llmrouterbench_unknown_tokens_and_costs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 of 4 answers have no token counts \(c 2\).*--tokens .*--accuracy-only"):
        exported(untokened(tmp_path / "lake"), "llmrouterbench", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"2 of 2 answers have no known cost .*; prices.py .*; --accuracy-only"):
        exported(build(tmp_path / "unpriced", {"b": [1, 0]}), "llmrouterbench", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_llmrouterbench_of_accuracy_alone_has_no_key_of_a_count_or_cost(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"b": [1, 0]}, responses=None)
    [note] = exported(lake, "llmrouterbench", tmp_path / "out", accuracy_only=True)
    assert note.startswith("without token counts and costs")
    [path] = (tmp_path / "out/results/bench/quiz/test/b").iterdir()
    value = load(path)
    assert not {"prompt_tokens", "completion_tokens", "cost"} & (value.keys() | value["records"][0].keys())
    assert (value["performance"], [record["score"] for record in value["records"]]) == (0.5, [1, 0])


def test_llmrouterbench_takes_counts_of_one_tokenizer_where_the_lake_has_none(tmp_path: Path) -> None:
    lake = untokened(tmp_path / "lake")
    cell = BuiltCell(model="c").cell_id
    known = {"cell_id": [cell, cell, BuiltCell(model="b").cell_id], "item": [0, 1, 0], "tokenizer": ["cl100k_base"] * 3}
    table = pa.table({**known, "question_tokens": [7, 8, 99], "response_tokens": [1, 2, 99]})
    pq.write_table(table, tmp_path / "counts.parquet")
    [note] = exported(lake, "llmrouterbench", tmp_path / "out", tokens=tmp_path / "counts.parquet")
    assert note == "4 unknown token counts are those of cl100k_base"
    counts = {}
    for path in (tmp_path / "out").rglob("*.json"):
        value = load(path)
        records = value["records"]
        counts[value["model_name"]] = [(one["prompt_tokens"], one["completion_tokens"]) for one in records]
        assert value["prompt_tokens"] == sum(one["prompt_tokens"] for one in records)
    assert counts == {"b": [(10, 2), (11, 2)], "c": [(7, 1), (8, 2)]}
    with pytest.raises(ConfigError, match="--tokens"):
        exported(lake, "llmrouterbench", tmp_path / "out2", tokens=tmp_path / "out")


def test_llmrouterbench_models_of_one_folder_and_hostile_names_are_refused(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a/b": [1], "a_b": [0]}, stated_usd=0.5)
    with pytest.raises(ConfigError, match="have one folder"):
        exported(lake, "llmrouterbench", tmp_path / "out")
    lake = build(tmp_path / "dots", {"..": [1]}, stated_usd=0.5)
    with pytest.raises(ConfigError, match=r"'\.\.' cannot be a file's name"):
        exported(lake, "llmrouterbench", tmp_path / "out")


# ---- one long Parquet file


def test_huggingface_read_back_is_the_lake_with_its_gaps(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", {**SCORES, "c": [0, None, 0, 1, 0, 1]}, tasks=("arc", "quiz")))
    cell = BuiltCell(model="failing")
    lake.run(cell)
    lake.shard(cell, [cell.record(0, failure="judge_timeout"), cell.record(1, score=1.0)])
    notes = exported(lake, "huggingface", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    items = {(row["task"], row["items_digest"], row["item"]) for row in table.to_pylist()}
    unasked = len(items) * len(set(table["model"].to_pylist())) - table.num_rows
    assert notes == [
        "1 answers have no score: null, with their failure",
        f"{unasked} items were not asked of a model that others were asked: no row",
    ]
    names = ["task", "item", "model", "score", "usd", "failure", "prompt_tokens", "completion_tokens", "latency_s"]
    written = [tuple(row[name] for name in names) for row in table.to_pylist()]
    assert sorted(written, key=lambda row: row[:3]) == answers(lake, ", ".join(names))
    assert [row["prompt"] for row in table.to_pylist()[:6]] == PROMPTS
    assert [row["responses"] for row in table.to_pylist()[:6]] == [[text] for text in RESPONSES]
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names == table.column_names
    assert loaded["score"][:] == table["score"].to_pylist()
    assert USD["b"] * (10 + 20) / 1e6 == pytest.approx(loaded[0]["usd"])
