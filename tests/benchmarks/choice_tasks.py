"""lm-eval tasks in the shapes of real benchmarks, of any size, from Python's own help: MMLU, MMLU-Pro, ARC, GSM8K."""

from __future__ import annotations

import json
import pydoc_data.topics
import random
import re
from pathlib import Path
from typing import Any

import yaml

_ACC = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
_NORM = [*_ACC, {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}]


def _letters(count: int) -> dict[str, Any]:
    letters = "ABCDEFGHIJ"[:count]
    lines = "".join(f"\n{letter}. {{{{choices[{i}]}}}}" for i, letter in enumerate(letters))
    return {
        "output_type": "multiple_choice",
        "doc_to_text": f"{{{{question.strip()}}}}{lines}\nAnswer:",
        "doc_to_choice": list(letters),
        "doc_to_target": "answer" if count == 10 else "{{answer % 4}}",
        "fewshot_config": {"sampler": "first_n"},
        "metric_list": _ACC,
    }


#: Name -> shape. Few-shot counts are the tasks' own.
TASKS: dict[str, dict[str, Any]] = {
    "bench_letters": _letters(4),
    "bench_letters_shots": {**_letters(4), "num_fewshot": 5},
    "bench_ten": _letters(10),
    "bench_texts": {  # ARC's shape: choices of several tokens
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices[:4]}}",
        "doc_to_target": "{{answer % 4}}",
        "metric_list": _NORM,
    },
    "bench_words": {  # GSM8K's: text after examples that are drawn for each item
        "output_type": "generate_until",
        "num_fewshot": 5,
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["Question:", "\n\n"], "max_gen_toks": 16, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


def write_tasks(folder: Path, items: int) -> Path:
    """Writes the tasks with `items` items each below `folder`; returns it, for include_tasks."""
    folder.mkdir(parents=True)
    text = re.sub(r"[^A-Za-z0-9 .,]+", " ", " ".join(pydoc_data.topics.topics.values()))
    words, draw = text.split(), random.Random(0)

    def said(low: int, high: int) -> str:
        at = draw.randrange(len(words) - high)
        return " ".join(words[at : at + draw.randrange(low, high)])

    for split, count in (("train", 50), ("test", items)):
        docs = [
            {"question": said(15, 40) + "?", "choices": [said(2, 8) for _ in range(10)], "answer": draw.randrange(10)}
            for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {s: str(folder / f"{s}.jsonl") for s in ("train", "test")}},
        "training_split": "train",
        "fewshot_split": "train",
        "test_split": "test",
        "metadata": {"version": 1.0},
    }
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **shared, **task}), encoding="utf-8")
    return folder
