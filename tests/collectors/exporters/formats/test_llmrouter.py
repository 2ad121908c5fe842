"""LLMRouter's files, read back as its DataLoader and its routers read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from collectors.exporters.formats.llmrouter import write_vectors
from schemas.failures import ConfigError
from tests.helpers.exporting import PROMPTS, answers, build, exported
from tests.helpers.importing import imported, rows
from tests.helpers.lake_builder import BuiltCell

SCORES = {"org/a": [1, 0, 1, 0, 0.5, *[0, 1] * 8], "b": [1, 1, 0, 0, 0.5, *[1, 1] * 8]}


def lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_llmrouter_read_back_is_the_lake(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", SCORES, tasks=("arc", "quiz"))
    notes = exported(lake, "llmrouter", tmp_path / "out")
    assert any("without embeddings" in note for note in notes)
    parts = {
        part: lines(tmp_path / f"out/routing_data/default_routing_{part}_data.jsonl") for part in ("train", "test")
    }
    queries = {part: lines(tmp_path / f"out/query_data/default_query_{part}.jsonl") for part in ("train", "test")}
    frame = pd.DataFrame(parts["train"] + parts["test"])
    columns = {"task_name", "query", "ground_truth", "metric", "choices", "task_id", "model_name", "response"}
    columns |= {"token_num", "input_tokens", "output_tokens", "response_time", "performance", "embedding_id"}
    assert set(frame.columns) == columns
    assert sorted(
        zip(frame.task_name, frame.task_id.astype(int), frame.model_name, frame.performance, strict=True)
    ) == (answers(lake, "task, item, model, score"))
    assert frame.ground_truth.isna().all(), "no item of the lake has a right answer"
    assert (frame.token_num == frame.input_tokens + frame.output_tokens).all()
    assert frame.groupby("embedding_id").size().tolist() == [2] * 42
    assert frame.groupby("embedding_id").query.nunique().max() == 1
    assert set(PROMPTS) <= set(frame["query"])
    assert not {row["query"] for row in parts["train"]} & {row["query"] for row in parts["test"]}
    for part, of in queries.items():
        assert [row["query"] for row in of] == [row["query"] for row in parts[part][::2]]
    best = frame.loc[frame.groupby("query")["performance"].idxmax()]  # what its KNNRouter trains on
    assert len(best) == len(set(frame["query"]))
    assert set(json.loads((tmp_path / "out/llm_candidates/default_llm.json").read_text())) == {"org/a", "b"}


def test_llmrouter_through_the_importer_is_the_same(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", SCORES)
    exported(lake, "llmrouter", tmp_path / "out")
    assert imported("llmrouter", tmp_path / "out/routing_data", tmp_path / "second").rejects == []
    columns = "task, model, score, prompt_tokens, completion_tokens"
    again = rows(tmp_path / "second", f"SELECT {columns} FROM costs ORDER BY ALL")
    assert again == sorted(answers(lake, columns))


def test_llmrouter_without_token_counts_is_refused_or_of_accuracy_alone(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"b": [1, 0]})
    other = BuiltCell(model="c")
    lake.run(other)
    lake.shard(other, [other.record(n, score=1.0, prompt_tokens=None, completion_tokens=None) for n in range(2)])
    with pytest.raises(ConfigError, match=r"no token counts \(c 2\)"):
        exported(lake, "llmrouter", tmp_path / "out")
    exported(lake, "llmrouter", tmp_path / "out", accuracy_only=True)
    rows_of = lines(tmp_path / "out/routing_data/default_routing_train_data.jsonl")
    assert not {"token_num", "input_tokens", "output_tokens"} & rows_of[0].keys()


@pytest.mark.slow  # imports torch
def test_llmrouter_embeddings_are_a_tensor_with_a_row_an_embedding_id(tmp_path: Path) -> None:
    import torch

    write_vectors(tmp_path / "vectors.pt", [[1.0, 2.0], [3.0, 4.5]])
    vectors = torch.load(tmp_path / "vectors.pt")
    assert (vectors[1].numpy().tolist(), vectors.dtype) == ([3.0, 4.5], torch.float32)
