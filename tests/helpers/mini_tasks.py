"""lm-eval tasks of our own, one for each kind of request and result that the harness has to carry: sums and their like.

Owns the YAML and JSON Lines files that it writes; the tiny models are trained on the same sums.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ITEMS = 12

_ACC = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
_NORM = [*_ACC, {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}]
_EXACT = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
_QUESTION = "Q: {{a}}+{{b}}=\nA:"
_GENERATE: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": _QUESTION,
    "doc_to_target": "{{answer}}",
    "metric_list": _EXACT,
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False},
}


def _filters(**names: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name.replace("_", "-"), "filter": steps} for name, steps in names.items()]


_NUMBER = {"function": "regex", "regex_pattern": "(\\d+)"}
_FIRST = {"function": "take_first"}

#: Task name -> its YAML beside the data and splits, which all share.
TASKS: dict[str, dict[str, Any]] = {
    "mini_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": _QUESTION,
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [*_NORM, {"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}],
    },
    "mini_inputs": {  # winogrande's shape: the choices are in the contexts
        "output_type": "multiple_choice",
        "doc_to_text": "{{gold}}",
        "doc_to_choice": "{{prefixes}}",
        "doc_to_target": "\n\n",
        "target_delimiter": "",
        "metric_list": _ACC,
    },
    "mini_letters": {  # choices of one token, after examples that all items share
        "output_type": "multiple_choice",
        "num_fewshot": 3,
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": "Q: {{a}}+{{b}}=\n{% for c in choices %}{{ 'ABCD'[loop.index0] }}. {{c}}\n{% endfor %}A:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "{{gold}}",
        "metric_list": _NORM,
    },
    "mini_alike": {  # choices of several tokens that begin alike, far beyond a block of the prefix cache
        "output_type": "multiple_choice",
        "doc_to_text": _QUESTION,
        "doc_to_choice": "{% set alike = [] %}{% for c in choices %}"
        "{% set _ = alike.append('so it says in the book of sums, ' * 12 + c) %}{% endfor %}{{alike}}",
        "doc_to_target": "{{gold}}",
        "metric_list": _NORM,
    },
    "mini_mutual": {
        "output_type": "multiple_choice",
        "doc_to_text": _QUESTION,
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}, *_ACC],
    },
    "mini_likelihood": {  # lambada's shape
        "output_type": "loglikelihood",
        "doc_to_text": _QUESTION,
        "doc_to_target": " {{answer}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            *_ACC,
        ],
    },
    "mini_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "mini_generate": {
        **_GENERATE,
        "num_fewshot": 2,
        "filter_list": _filters(
            strict_match=[{**_NUMBER, "regex_pattern": "^ (\\d+)$"}, _FIRST], flexible=[_NUMBER, _FIRST]
        ),
    },
    "mini_repeats": {
        **_GENERATE,
        "repeats": 3,
        "filter_list": _filters(
            first=[_NUMBER, _FIRST],
            majority=[_NUMBER, {"function": "majority_vote"}, _FIRST],
            maj_at_2=[{"function": "take_first_k", "k": 2}, _NUMBER, {"function": "majority_vote"}, _FIRST],
        ),
    },
    "mini_text": {  # metrics without a number for an item
        **_GENERATE,
        "metric_list": [{"metric": m, "aggregation": m, "higher_is_better": True} for m in ("bleu", "chrf")],
    },
}
GROUP = {
    "group": "mini_group",
    "task": ["mini_choice", "mini_likelihood"],
    "aggregate_metric_list": [{"metric": "acc"}],
}


def documents(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    docs = []
    for i in range(count):
        a, b = draw.randrange(20), draw.randrange(20)
        choices = [str(a + b), str(a + b + 1 + i % 3), f"the number {a}", "none of these"]
        draw.shuffle(choices)
        gold = choices.index(str(a + b))
        sums = "".join(f"Q: {j}+{a}=\nA: {j + a}\n\n" for j in range(i + 1))
        doc = {"a": a, "b": b, "answer": str(a + b), "choices": choices, "gold": gold, "text": sums, "subject": "sums"}
        docs.append(doc | {"prefixes": [f"Q: {a}+{b}=\nA: {choice}" for choice in choices]})
    return docs


@pytest.fixture(scope="module", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Data sets in a folder of these tests; the index of lm-eval's tasks, seconds to make, stays between sessions."""
    import datasets  # most who import this module need no data sets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))
        yield


def write_tasks(folder: Path, *, items: int = ITEMS) -> Path:
    """Writes all tasks, the group and an empty task below `folder`; returns it, for include_tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, docs in {"train": documents(8, 1), "test": documents(items, 2), "none": []}.items():
        lines = "".join(json.dumps(doc) + "\n" for doc in docs)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    data = {"data_files": {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}}
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": data,
        "training_split": "train",
        "fewshot_split": "train",
        "test_split": "test",
        "metadata": {"version": 1.0},
    }
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **shared, **task}), encoding="utf-8")
    empty = {"data_files": {"train": data["data_files"]["train"], "test": str(folder / "none.jsonl")}}
    nothing = {"task": "mini_empty", **shared, **TASKS["mini_choice"], "dataset_kwargs": empty}
    (folder / "mini_empty.yaml").write_text(yaml.safe_dump(nothing), encoding="utf-8")
    (folder / "groups").mkdir(exist_ok=True)  # away from its members, as many of lm-eval's own groups are
    (folder / "groups" / "mini_group.yaml").write_text(yaml.safe_dump(GROUP), encoding="utf-8")
    return folder
