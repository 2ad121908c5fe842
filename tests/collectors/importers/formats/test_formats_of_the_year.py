"""DARS, R2-Bench, SPROUT and xRouteBench: files in the layouts that their own programs write and read.

No data hub is at hand, so the files are made by hand after the programs named in each format's module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.importing import imported, rows


def found(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    return rows(lake, sql)


# ---- DARS


def generation(model: str, decode: int, score: float, **changes: Any) -> dict[str, Any]:
    return {
        "generation_key": f"{model}-{decode}-{changes}",
        "dataset": "gpqa",
        "split": "train",
        "query_id": "q1",
        "prompt_variant_source": "rewrite",
        "prompt_variant_id": 0,
        "decode_id": decode,
        "model": model,
        "input_question": "Which one?",
        "choices": ["red", "blue"],
        "gold_answer": "A",
        "category": "physics",
        "output_text": f"Final Answer: {decode}",
        "finish_reason": "stop",
        "score": score,
        "score_type": "binary_mcq_accuracy",
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25, "cost": 0.001},
        "request_config": {"temperature": 0.7, "top_p": 0.95, "max_tokens": 768},
        **changes,
    }


def dars(folder: Path, lines: list[dict[str, Any]], name: str = "gpqa/train_scored_generations.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_dars_answers_are_repeats_and_a_rewrite_is_an_item_of_its_own(tmp_path: Path) -> None:
    lines = [generation("org/a", decode, score) for decode, score in enumerate((1, 0, 1))]
    lines += [generation("org/a", 0, 0, prompt_variant_id=1, input_question="Which of both?")]
    imported("dars", dars(tmp_path / "in", lines), tmp_path / "lake")
    primary = "SELECT source_key, score FROM matrix JOIN items USING (task, items_digest, item) ORDER BY 1"
    assert found(tmp_path / "lake", primary) == [("q1/rewrite-0", pytest.approx(2 / 3)), ("q1/rewrite-1", 0.0)]
    repeats = "SELECT repeat, score, prompt_tokens, stated_usd FROM records WHERE repeat > 0 AND item = 0 ORDER BY 1"
    assert found(tmp_path / "lake", repeats) == [(n, s, 20, 0.001) for n, s in ((1, 1.0), (2, 0.0), (3, 1.0))]


def test_dars_answers_to_one_question_in_two_files_have_one_mean(tmp_path: Path) -> None:
    parts = [[generation("org/a", decode, score, dataset="gpqa")] for decode, score in enumerate((1, 0))]
    for number, lines in enumerate(parts):
        dars(tmp_path / "in", lines, f"part-{number}/train_scored_generations.jsonl")
    report = imported("dars", tmp_path / "in", tmp_path / "lake")
    assert report.rejects == []
    repeats = "SELECT repeat, score FROM records ORDER BY 1"
    assert found(tmp_path / "lake", repeats) == [(0, 0.5), (1, 1.0), (2, 0.0)]


def test_dars_answers_at_several_temperatures_are_runs_and_not_averaged(tmp_path: Path) -> None:
    lines = [
        generation(
            "org/a", decode, score, split="test", prompt_variant_source="original", request_config={"temperature": t}
        )
        for decode, (t, score) in enumerate([(0.2, 1), (0.7, 0), (1.0, 0)])
    ]
    imported("dars", dars(tmp_path / "in", lines, "gpqa/test_scored_generations.jsonl"), tmp_path / "lake")
    sql = "SELECT count(DISTINCT cell_id), count(DISTINCT decoding) FROM cells"
    assert found(tmp_path / "lake", sql) == [(3, 3)]
    assert sorted(found(tmp_path / "lake", "SELECT score FROM records WHERE repeat = 0")) == [(0.0,), (0.0,), (1.0,)]


def test_dars_counts_that_do_not_add_up_are_unknown_and_rows_without_a_verdict_rejected(tmp_path: Path) -> None:
    odd = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 90, "cost": None}
    lines: list[dict[str, Any]] = [generation("org/a", 0, 1, usage=odd), {"model": "org/a"}]
    lines += [generation("org/b", 0, "x")]  # type: ignore[arg-type]
    report = imported("dars", dars(tmp_path / "in", lines), tmp_path / "lake")
    assert {reject["kind"] for reject in report.rejects} == {"unknown_layout", "damaged"}
    assert found(tmp_path / "lake", "SELECT DISTINCT prompt_tokens, stated_usd FROM records WHERE repeat = 1") == [
        (None, None)
    ]
    assert found(tmp_path / "lake", "SELECT kind FROM suspicions WHERE kind = 'odd_total'") == [("odd_total",)]


NEGATIVE = {"prompt_tokens": -3, "completion_tokens": 2, "total_tokens": -1, "cost": 0.1}
BEYOND = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 1e30}


#: Draws of one question -> its own verdict, and the kinds of rejects.
MEANS: list[tuple[list[tuple[Any, Any, dict[str, Any]]], float | None, list[str]]] = [
    ([(0, 2.0, {}), (1, 0.0, {})], 0.0, ["out_of_range"]),
    ([(0, 1e29, {}), (1, 0.0, {})], 0.0, ["out_of_range"]),
    ([(0, 1e308, {}), (1, 0.0, {})], 0.0, ["not_finite"]),
    ([(0, float("nan"), {}), (1, 0.0, {})], 0.0, ["not_finite"]),
    ([(0, -1.0, {}), (1, 1.0, {}), (2, 1.0, {})], 1.0, ["out_of_range"]),
    ([(0, 1.0, {})] * 3 + [(1, 0.0, {})], 0.5, []),
    ([(0, 1.0, {}), (0, 0.0, {}), (1, 0.0, {})], 0.5, ["conflict"]),
    ([(0, 1.0, {"usage": NEGATIVE})], None, ["negative_tokens"]),
    ([(0, 1.0, {"usage": BEYOND}), (1, 0.0, {})], 0.0, ["not_finite"]),
    ([(0, None, {}), (1, 1.0, {})], 1.0, []),
    ([(None, 1.0, {}), (None, 0.0, {})], 0.5, []),
    ([(0, 1.0, {"model": ""})], None, ["no_key"]),
]


def test_dars_mean_is_over_the_answers_that_are_taken(tmp_path: Path) -> None:
    lines = [
        generation(**{"model": "org/a", "decode": draw, "score": score, "query_id": f"q{place:02}", **more})
        for place, (draws, _, _) in enumerate(MEANS)
        for draw, score, more in draws
    ]
    report = imported("dars", dars(tmp_path / "in", lines), tmp_path / "lake")
    kinds: dict[str, list[str]] = {}
    for reject in report.rejects:
        kinds.setdefault(str(reject["source_key"])[:3], []).append(reject["kind"])
    assert kinds == {f"q{place:02}": named for place, (_, _, named) in enumerate(MEANS) if named}
    sql = "SELECT source_key[:3], score FROM matrix JOIN items USING (task, items_digest, item) ORDER BY 1"
    expected = [(f"q{place:02}", own) for place, (_, own, _) in enumerate(MEANS) if own is not None]
    assert found(tmp_path / "lake", sql) == expected


def test_dars_row_that_names_no_single_answer_is_rejected(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"decode_id": -1},
        {"decode_id": "x"},
        {"decode_id": 40_000},
        {"prompt_variant_id": None},
        {"prompt_variant_id": "x"},
        {"query_id": True},
        {"query_id": 1.5},
        {"query_id": {"a": 1}},
        {"query_id": ""},
        {"dataset": {"a": 1}},
    ]
    lines = [generation("org/a", 0, 1.0), *(generation("org/a", 1, 0.0, **change) for change in changes)]
    report = imported("dars", dars(tmp_path / "in", lines), tmp_path / "lake")
    rejects = sorted((reject["source_row"], reject["kind"]) for reject in report.rejects)
    assert rejects == [(row, "no_key") for row in range(2, len(changes) + 2)]
    assert found(tmp_path / "lake", "SELECT repeat, score FROM records ORDER BY 1") == [(0, 1.0), (1, 1.0)]


# ---- SPROUT

CELL = pa.struct(
    [
        ("num_input_tokens", pa.int64()),
        ("num_output_tokens", pa.int64()),
        ("response", pa.string()),
        ("score", pa.float64()),
    ]
)


def sprout(folder: Path, cells: dict[str, list[Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    many = len(next(iter(cells.values())))
    columns: dict[str, Any] = {
        "key": pa.array([f"k{n}" for n in range(many)]),
        "dataset": pa.array(["math", "openhermes"] * (many // 2) + ["math"] * (many % 2)),
        "dataset_level": pa.array(["1"] * many),
        "dataset_idx": pa.array(range(many)),
        "prompt": pa.array([f"What is {n}?" for n in range(many)]),
        "golden_answer": pa.array([str(n) for n in range(many)]),
        **{model: pa.array(values, CELL) for model, values in cells.items()},
    }
    path = folder / "test-00000-of-00001.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_sprout_has_a_verdict_for_each_model_with_its_tokens(tmp_path: Path) -> None:
    given = {"num_input_tokens": 9, "num_output_tokens": 4, "response": "zero", "score": 0.5}
    path = sprout(tmp_path / "in", {"openai-gpt-4o": [given, given], "wxai-x": [None, {**given, "score": 1.0}]})
    imported("sprout", path, tmp_path / "lake")
    sql = "SELECT model, task, score, prompt_tokens, completion_tokens FROM matrix ORDER BY ALL"
    assert found(tmp_path / "lake", sql) == [
        ("openai-gpt-4o", "math", 0.5, 9, 4),
        ("openai-gpt-4o", "openhermes", 0.5, 9, 4),
        ("wxai-x", "openhermes", 1.0, 9, 4),
    ]
    assert found(tmp_path / "lake", "SELECT DISTINCT responses FROM responses") == [(["zero"],)]
    assert found(tmp_path / "lake", "SELECT DISTINCT prompt, target FROM items WHERE task = 'math'") == [
        ("What is 0?", '"0"')
    ]


def test_sprout_scores_outside_0_and_1_and_missing_ones_are_rejected(tmp_path: Path) -> None:
    cells = [{"num_input_tokens": 1, "num_output_tokens": 1, "response": "a", "score": score} for score in (7.0, None)]
    report = imported("sprout", sprout(tmp_path / "in", {"m": cells}), tmp_path / "lake")
    assert report.total.rejected == 2
    assert found(tmp_path / "lake", "SELECT count(*) FROM records") == [(0,)]


def test_sprout_texts_doubled_names_and_parts_of_tokens_are_rejected(tmp_path: Path) -> None:
    cells = {
        '{"score": 1, "score": 0}': "doubled_name",
        '{"score": "0.5"}': "not_finite",
        '{"score": true}': "not_finite",
        '{"score": 1, "num_input_tokens": 2.6}': "negative_tokens",
        '{"score": 1, "num_output_tokens": "3"}': "negative_tokens",
        '{"score": 0.25, "num_input_tokens": 2.0, "num_output_tokens": null}': None,
    }
    columns = {name: [f"{name}{n}" for n in range(len(cells))] for name in ("key", "prompt", "golden_answer")}
    path = tmp_path / "in/train.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({**columns, "dataset": ["math"] * len(cells), "m": list(cells)}), path)
    report = imported("sprout", path, tmp_path / "lake")
    kinds = {reject["source_row"]: reject["kind"] for reject in report.rejects}
    assert [kinds.get(row) for row in range(1, len(cells) + 1)] == list(cells.values())
    assert found(tmp_path / "lake", "SELECT score, prompt_tokens, completion_tokens FROM matrix") == [(0.25, 2, None)]


# ---- R2-Bench


def r2bench(folder: Path, place: str, scores: list[Any]) -> Path:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = {
        "key": [f"k{n}" for n in range(len(scores))],
        "prompts_id": range(len(scores)),
        "original_prompt": [f"What is {n}?" for n in range(len(scores))],
        "templated_prompt": ["…"] * len(scores),
        "golden_answer": ["1"] * len(scores),
        "response": ["one"] * len(scores),
        "actual_token_count": [12] * len(scores),
        "judge_raw": [""] * len(scores),
        "correctness_score": scores,
    }
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def test_r2bench_a_model_under_a_budget_is_a_candidate_of_its_own(tmp_path: Path) -> None:
    r2bench(tmp_path / "in", "data/Qwen/Qwen3-0.6B/100_judge.csv", [0.25, 1.0])
    r2bench(tmp_path / "in", "data/Qwen/Qwen3-0.6B/unlimited_judge.csv", [0.5, 1.0])
    imported("r2bench", tmp_path / "in", tmp_path / "lake")
    sql = "SELECT model, task, score, prompt_tokens, completion_tokens FROM matrix ORDER BY ALL"
    assert found(tmp_path / "lake", sql) == [
        ("Qwen/Qwen3-0.6B", "r2-bench", 0.5, None, 12),
        ("Qwen/Qwen3-0.6B", "r2-bench", 1.0, None, 12),
        ("Qwen/Qwen3-0.6B:100", "r2-bench", 0.25, None, 12),
        ("Qwen/Qwen3-0.6B:100", "r2-bench", 1.0, None, 12),
    ]


def test_r2bench_a_score_that_is_none_is_rejected_with_its_row(tmp_path: Path) -> None:
    r2bench(tmp_path / "in", "data/o/m/10_judge.csv", ["good", 1.0])
    report = imported("r2bench", tmp_path / "in", tmp_path / "lake")
    assert [reject["source_row"] for reject in report.rejects] == [1]


def test_r2bench_a_budget_with_zeros_before_it_is_rejected(tmp_path: Path) -> None:
    r2bench(tmp_path / "in", "data/o/m/100_judge.csv", [1.0])
    r2bench(tmp_path / "in", "data/o/m/00100_judge.csv", [0.0])
    report = imported("r2bench", tmp_path / "in", tmp_path / "lake")
    assert [reject["kind"] for reject in report.rejects] == ["unknown_layout"]
    assert found(tmp_path / "lake", "SELECT model, score FROM matrix") == [("o/m:100", 1.0)]


# ---- xRouteBench


def test_xroutebench_is_llmrouters_routing_data_in_a_folder_a_configuration(tmp_path: Path) -> None:
    row = {
        "task_name": "mmlu",
        "query": "What?",
        "ground_truth": "B",
        "metric": "em_mc",
        "choices": None,
        "task_id": None,
        "model_name": "llama-3-8b-instruct-lite",
        "response": "B",
        "token_num": 12,
        "input_tokens": 10,
        "output_tokens": 2,
        "response_time": 0.5,
        "performance": 1.0,
        "embedding_id": 0,
    }
    queries = {name: row[name] for name in ("task_name", "query", "ground_truth", "metric", "choices", "task_id")}
    for place, value in (
        ("llmrouter_generic/train", row),
        ("llmrouter_generic/test", {**row, "query": "Who?", "embedding_id": 1, "performance": 0.0}),
        ("llmrouter_generic_queries/valid", queries),
        ("llm_candidates/train", {"model_name": "llama-3-8b-instruct-lite", "size": "8B"}),
    ):
        path = tmp_path / "in" / f"{place}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({name: [one] for name, one in value.items()}), path)
    report = imported("xroutebench", tmp_path / "in", tmp_path / "lake")
    assert not report.rejects
    sql = "SELECT model, task, score, prompt_tokens, completion_tokens, latency_s FROM matrix ORDER BY score"
    assert found(tmp_path / "lake", sql) == [
        ("llama-3-8b-instruct-lite", "mmlu", 0.0, 10, 2, 0.5),
        ("llama-3-8b-instruct-lite", "mmlu", 1.0, 10, 2, 0.5),
    ]
