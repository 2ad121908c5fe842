"""lm-eval tasks whose judges hang, die, reach out or run answers, and the rows of their judged answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from collectors.harness.loading import load_tasks
from collectors.harness.own_code import use_code
from collectors.harness.tasks import BoundTask
from collectors.specs import TaskSpec
from schemas.failures import TaskError

ITEMS = 4

_HEAD = """
import builtins, functools, os, re, signal, socket, sys, time
"""


def write_task(folder: Path, code: str, name: str = "judged", **settings: Any) -> Path:
    """Writes a task of ITEMS documents with a number `n`; `code` defines process_results(doc, results)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(ITEMS)))
    (folder / f"{name}_code.py").write_text(_HEAD + code)
    keys: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "Q{{n}}",
        "doc_to_target": "{{n}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12},
    }
    if "process_results" in code:
        use_code(True)
        keys["process_results"] = f"!function {name}_code.process_results"
    text = yaml.safe_dump({**keys, **settings})
    (folder / f"{name}.yaml").write_text(re.sub(r"'(!function [\w.]+)'", r"\1", text))
    return folder


def load(folder: Path, name: str = "judged") -> tuple[list[BoundTask], dict[str, TaskError]]:
    return load_tasks(TaskSpec(task=name), [str(folder)])


def bound(folder: Path, name: str = "judged") -> BoundTask:
    (task,), failed = load(folder, name)
    assert not failed
    return task
