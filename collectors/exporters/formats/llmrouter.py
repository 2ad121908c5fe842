"""Files that LLMRouter (ulab-uiuc/LLMRouter) trains and tests its routers on, named as in its data/example_data.

Its readers take every key of a row for a column. Most of its routers need an embedding of each query; these stand in a
file of torch, by embedding_id.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collectors.exporters.encoders import encoder_of
from collectors.exporters.grid import Grid, Options
from collectors.exporters.out import write_json
from collectors.exporters.parts import parts_apart
from collectors.exporters.texts import references, write_lines


def write(grids: Sequence[Grid], path: Path, options: Options) -> list[str]:
    """query_data, routing_data (a row for each query and model) and llm_candidates; with an encoder also embeddings.

    Train is train and val of collectors.exporters.parts, test its test.
    """
    parts, notes = parts_apart(grids)
    items = [(grid, row) for grid in grids for row in range(len(grid.items))]
    for folder in ("query_data", "routing_data", "llm_candidates"):
        (path / folder).mkdir(parents=True)
    for part, numbers in (("train", sorted(parts["train"] + parts["val"])), ("test", parts["test"])):
        chosen = [(number, *items[number]) for number in numbers]
        write_lines(path / f"query_data/default_query_{part}.jsonl", (_query(grid, row) for _, grid, row in chosen))
        rows = (one for number, grid, row in chosen for one in _answers(grid, row, number, options))
        write_lines(path / f"routing_data/default_routing_{part}_data.jsonl", rows)
    write_json(path / "llm_candidates/default_llm.json", {model: {"model": model} for model in grids[0].models})
    notes.append(
        "add size and prices to llm_candidates for its routers that ask for them: the lake's view models has them"
    )
    if options.encoder is None:
        return [
            *notes,
            "without embeddings, which most of its routers need: --encoder names a sentence-transformers model",
        ]
    prompts = [str(prompt) for grid in grids for prompt in grid.prompts]
    write_vectors(path / "routing_data/query_embeddings.pt", encoder_of(options.encoder)(prompts))
    return notes


def _query(grid: Grid, row: int) -> dict[str, Any]:
    item = grid.items[row]
    right = references(item["target"])
    return {
        "task_name": grid.task,
        "query": item["prompt"],
        "ground_truth": right[0] if len(right) == 1 else right or None,
        "metric": grid.metric,
        "choices": item["choices"],
        "task_id": item["source_key"] or str(item["item"]),
    }


def _answers(grid: Grid, row: int, number: int, options: Options) -> Iterator[dict[str, Any]]:
    query = _query(grid, row)
    for column, model in enumerate(grid.models):
        texts = grid.responses[row, column]
        answer = {
            **query,
            "model_name": model,
            "response": "" if texts is None else texts[0] if len(texts) == 1 else "\n".join(texts),
            "performance": float(grid.scores[row, column]),
            "embedding_id": number,
        }
        if not options.accuracy_only:
            asked, made = (int(grid.numbers[f"{name}_tokens"][row, column]) for name in ("prompt", "completion"))
            answer |= {"token_num": asked + made, "input_tokens": asked, "output_tokens": made}
        seconds = grid.numbers["latency_s"][row, column]
        yield answer | ({} if np.isnan(seconds) else {"response_time": float(seconds)})


def write_vectors(path: Path, vectors: Any) -> None:
    """(queries, dimensions), a tensor of float32 whose rows are numbered by embedding_id."""
    torch = importlib.import_module("torch")  # comes with every encoder
    torch.save(torch.from_numpy(np.asarray(vectors, np.float32)), path)
