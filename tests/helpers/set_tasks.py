"""lm-eval tasks whose metrics have a value over a set alone, groups of tasks, and lm-eval's own results on them.

Owns a model whose answers follow from its requests alone, so that no engine is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from collectors.harness.judge import to_json
from collectors.harness.own_code import use_code
from tests.helpers.mini_tasks import write_tasks

BOOTSTRAPS = 200
#: Tasks whose metrics have a value over a set alone, and one with unequal weights in a group.
MORE = {
    "set_mcc": {"output_type": "multiple_choice", "metric_list": [{"metric": "mcc"}]},
    "set_f1": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices[:2]}}",
        "doc_to_target": "{{gold % 2}}",
        "metric_list": [{"metric": "f1"}, {"metric": "mcc"}],
    },
    "set_median": {
        "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc", "aggregation": "median", "higher_is_better": True}],
    },
    "set_own": {
        "output_type": "generate_until",
        "process_results": "!function own.points",
        "metric_list": [
            {"metric": "points", "aggregation": "!function own.best", "higher_is_better": True},
            {"metric": "right", "aggregation": "!function own.share", "higher_is_better": True},
        ],
    },
}
CODE = """
def points(doc, results):
    return {"points": [doc["a"], len(results[0])], "right": float(doc["a"] % 2)} if doc["a"] else {"right": 0.0}
def best(pairs):
    return max(a for a, _ in pairs) + min(length for _, length in pairs)
def share(values):
    return sum(values) / len(values)
"""
GROUPS = {
    "by_items": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}],
    "by_tasks": [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}],
}
TASKS = ["mini_choice", "mini_likelihood", "mini_rolling", "mini_text", "mini_generate", *MORE]


class HashModel(LM):  # type: ignore[misc]
    """A model whose answers follow from its requests alone."""

    def _of(self, request: Any) -> float:
        digest = hashlib.sha256(repr(request.args[:2]).encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    def loglikelihood(self, requests: Any) -> Any:
        return [(-10 * self._of(request), self._of(request) < 0.3) for request in requests]

    def loglikelihood_rolling(self, requests: Any) -> Any:
        return [-100 * self._of(request) for request in requests]

    def generate_until(self, requests: Any) -> Any:
        return [["", " 12", "the number", request.args[0][-9:]][int(4 * self._of(request))] for request in requests]


def write_set_tasks(folder: Path) -> Path:
    """Writes TASKS and GROUPS below `folder`; returns it."""
    write_tasks(folder, items=17)
    use_code(True)
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    whole = yaml.safe_load((folder / "mini_choice.yaml").read_text(encoding="utf-8"))
    generates = yaml.safe_load((folder / "mini_generate.yaml").read_text(encoding="utf-8"))
    for name, changes in MORE.items():
        base = generates if changes["output_type"] == "generate_until" else whole
        task = {**base, **changes, "task": name}
        task.pop("filter_list", None)
        text = yaml.safe_dump(task).replace("'!function own.", "!function own.").replace("points'", "points")
        text = text.replace("best'", "best").replace("share'", "share")
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    small = {"name": "mini_few", "lines": (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()[:5]}
    (folder / "few.jsonl").write_text("\n".join(small["lines"]) + "\n", encoding="utf-8")
    few = {**whole, "task": "mini_few"}
    few["dataset_kwargs"] = {"data_files": {**whole["dataset_kwargs"]["data_files"], "test": str(folder / "few.jsonl")}}
    (folder / "mini_few.yaml").write_text(yaml.safe_dump(few), encoding="utf-8")
    for name, metrics in GROUPS.items():
        group = {
            "group": name,
            "task": ["mini_choice", "mini_few", "mini_likelihood"],
            "aggregate_metric_list": metrics,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return folder


def load(folder: Path, names: Sequence[str] = tuple(TASKS)) -> Mapping[str, Any]:
    """lm-eval's tasks and groups of these names."""
    return TaskManager(include_path=str(folder), include_defaults=False).load(list(names))


def evaluate(folder: Path, names: Sequence[str] = tuple(TASKS), bootstraps: int = BOOTSTRAPS) -> dict[str, Any]:
    """lm-eval's own results, with its samples."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        results: dict[str, Any] = lm_eval.simple_evaluate(
            model=HashModel(),
            tasks=list(names),
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            log_samples=True,
            bootstrap_iters=bootstraps,
        )
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
    return results


def values_of(stock: dict[str, Any], task: str) -> dict[str, list[str]]:
    """The metrics of a task's items, as records hold them."""
    values: dict[str, list[str]] = defaultdict(list)
    for sample in sorted(stock["samples"][task], key=lambda sample: sample["doc_id"]):
        values[sample["filter"]].append(to_json({name: sample[name] for name in sample["metrics"]}))
    return values
