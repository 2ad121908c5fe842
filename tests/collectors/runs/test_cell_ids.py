"""What changes the id of a cell, and what leaves it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.mini_tasks import TASKS, own_caches, write_tasks
from tests.helpers.planned_cells import TASK, base, configured, ids, model, planned, tasks, write_model
from tests.helpers.thorough import long_only

__all__ = ["base", "model", "own_caches", "tasks"]  # fixtures
ROOT = Path(__file__).parents[3]

GOLDEN = ROOT / "tests" / "golden" / "cells.json"

ANOTHER: dict[str, dict[str, Any]] = {
    "dtype": {"dtype": "float16"},
    "num_fewshot": {"num_fewshot": 1},
    "fewshot_seed": {"fewshot_seed": 5},
    "chat_template": {"chat_template": True},
    "chat_template_name": {"chat_template": "tool_use"},
    "multiturn": {"chat_template": True, "fewshot_as_multiturn": False},
    "system_prompt": {"system_prompt": "Be brief."},
    "decoding": {"decoding": {"temperature": 1.0}},
    "filter": {"tasks": [{"task": TASK, "filter": "flexible"}]},
    "another_task": {"tasks": ["mini_text"]},
    "max_length": {"max_length": 512},
    "own_code": {"models": [{"source": "$TINY_MODEL", "trust_remote_code": True}]},
    "engine_arguments": {"engine": {"name": "vllm", "options": {"extra": {"kv_cache_dtype": "fp8"}}}},
    "other_engine_arguments": {
        "engine": {"name": "vllm"},
        "models": [{"source": "$TINY_MODEL", "engine": {"extra": {"a": 1}}}],
    },
}

SAME: dict[str, dict[str, Any]] = {
    "nothing": {},
    "limit": {"limit": 3},
    "task_limit": {"tasks": [{"task": TASK, "limit": 5}]},
    "engine": {"engine": {"name": "vllm"}},
    "engine_options": {"engine": {"name": "vllm", "options": {"max_num_seqs": 2}}},
    "max_length_beyond_the_models": {"max_length": 100_000},
    "models_own_max_length": {"max_length": None},
    "workers": {"fleet": {"workers": 3, "shard_seconds": 5}},
    "lake": {"lake": "elsewhere"},
    "dtype_that_auto_means": {"dtype": "float32"},
    "default_metric": {"tasks": [{"task": TASK, "metric": "exact_match", "filter": "strict-match"}]},
    "own_fewshot": {"num_fewshot": 2},
    "empty_system_prompt": {"system_prompt": ""},
    "multiturn_without_chat": {"fewshot_as_multiturn": False},
}

#: Of a task without few-shot examples.
SAME_ALONE: list[dict[str, Any]] = [
    {"fewshot_seed": 5},
    {"chat_template": True, "fewshot_as_multiturn": False},
    {"decoding": {"temperature": 0, "top_p": 1}},
]


@pytest.mark.parametrize("change", ANOTHER)
def test_cell_id_what_changes_answers_or_verdicts_makes_another(
    tasks: Path, model: Path, base: str, change: str
) -> None:
    (cell_id,) = ids(planned(configured(tasks, model, **ANOTHER[change])))
    assert cell_id != base


@pytest.mark.slow
def test_cell_id_every_change_makes_one_of_its_own(tasks: Path, model: Path) -> None:
    cells = [ids(planned(configured(tasks, model, **change)))[0] for change in ANOTHER.values()]
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize("change", SAME)
def test_cell_id_what_changes_no_answer_leaves_it(tasks: Path, model: Path, base: str, change: str) -> None:
    assert ids(planned(configured(tasks, model, **SAME[change]))) == [base]


def test_cell_id_of_a_task_without_examples_leaves_out_how_they_are_drawn_and_shown(tasks: Path, model: Path) -> None:
    alike: list[dict[str, Any]] = [{}, {"chat_template": True}, {"decoding": {"temperature": 0.0, "top_p": 1.0}}]
    for change, same in zip(SAME_ALONE, alike, strict=True):
        one, other = (ids(planned(configured(tasks, model, tasks=["mini_text"], **c))) for c in (change, same))
        assert one == other


def test_cell_id_primary_metric_makes_another(tasks: Path, model: Path) -> None:
    kinds = [{"task": "mini_choice", "metric": metric} for metric in ("acc", "acc_norm", None)]
    one, other, default = (ids(planned(configured(tasks, model, tasks=[kind])))[0] for kind in kinds)
    assert one == default != other


def test_cell_id_other_places_of_the_same_files_leave_it(
    tmp_path: Path, tasks: Path, model: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = write_tasks(tmp_path / "other tasks")
    shutil.copytree(model, tmp_path / "deep" / "er" / "tiny")
    (tmp_path / "deep" / "er" / "tiny" / "README.md").write_text("moved here")
    config = configured(moved, tmp_path / "deep" / "er" / "tiny")
    assert ids(planned(config, tmp_path / "lake")) == [base]
    monkeypatch.chdir(tmp_path / "deep")
    assert ids(planned(configured(Path("../other tasks"), "er/tiny"))) == [base]


def test_cell_id_another_name_or_other_weights_make_another(
    tmp_path: Path, tasks: Path, model: Path, base: str
) -> None:
    (named,) = ids(planned(configured(tasks, model, models=[{"source": str(model), "name": "other"}])))
    (trained,) = ids(planned(configured(tasks, write_model(tmp_path / "tiny", b"weightz"))))
    assert len({base, named, trained}) == 3


@pytest.mark.parametrize("file", ["test.jsonl", "train.jsonl"])
def test_cell_id_another_item_or_few_shot_example_makes_another(
    tmp_path: Path, model: Path, base: str, file: str
) -> None:
    changed = write_tasks(tmp_path / "tasks")
    data = changed / file
    lines = data.read_text().splitlines()
    doc = {**json.loads(lines[-1]), "subject": "subtraction"}
    data.write_text("\n".join([*lines[:-1], json.dumps(doc)]) + "\n")
    assert ids(planned(configured(changed, model))) != [base]


def test_cell_id_few_shot_pool_without_few_shot_is_left_out(tmp_path: Path, tasks: Path, model: Path) -> None:
    changed = write_tasks(tmp_path / "tasks")
    pool = changed / "train.jsonl"
    pool.write_text("\n".join(pool.read_text().splitlines()[:4]) + "\n")
    one, other = (planned(configured(folder, model, tasks=["mini_choice"])) for folder in (tasks, changed))
    assert ids(one) == ids(other)


@pytest.mark.parametrize(
    "change", [{"doc_to_text": "{{a}}+{{b}}="}, {"metadata": {"version": 2.0}}, {"description": "Add."}]
)
def test_cell_id_another_task_definition_makes_another(
    tmp_path: Path, model: Path, base: str, change: dict[str, Any]
) -> None:
    changed = write_tasks(tmp_path / "tasks")
    file = changed / f"{TASK}.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    assert ids(planned(configured(changed, model))) != [base]


def test_cell_id_and_facts_of_known_cells_stay_as_they_were(tasks: Path) -> None:
    """Identities must outlive releases: change the golden file only together with a new schema version."""
    config = configured(tasks, "org/model", tasks=sorted(TASKS), engine={"name": "stub"}, dtype="float32")
    found = {cell.row["task"]: cell.row for cell in planned(config).cells}
    golden = json.loads(GOLDEN.read_text())
    assert {task: {name: row[name] for name in golden[task]} for task, row in found.items()} == golden


PLANNER = """
import dataclasses, json, sys
from collectors.runs.config import RunConfig
from collectors.harness.loading import load_like
from collectors.harness.loading import use_datasets
from collectors.lake.store import Lake
from collectors.runs.planning import make_plan
config = RunConfig.model_validate(json.load(sys.stdin))
use_datasets(config.datasets)
plan = make_plan(config, Lake("/nowhere/lake"))
print(json.dumps([plan.failures, [[c.row, c.todo] for c in plan.cells]], sort_keys=True))
"""


@long_only
@pytest.mark.slow
def test_plans_of_processes_with_other_hash_seeds_and_folders_are_identical(tmp_path: Path) -> None:
    """Benchmarks with functions and sets in their configs, and copies of them at two places."""
    data = ROOT / "pipelines" / "configs" / "demo_data"
    names = ["gsm8k", "mmlu_world_religions_continuation", TASK]
    plans = []
    for seed in ("1", "2"):
        place = tmp_path / seed
        config = configured(write_tasks(place / "tasks"), "org/model", tasks=names, engine={"name": "stub"})
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC+{seed}", "PYTHONPATH": str(ROOT)}
        environment |= {"HF_HOME": str(place / "hf"), "ROUTERLAKE_CACHE": str(ROOT / ".cache" / "routerlake")}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", PLANNER], cwd=place, env=environment, **pipes)
        plans.append((process, config.model_copy(update={"datasets": str(data)}).model_dump_json()))
    outputs = [process.communicate(config, timeout=300)[0] for process, config in plans]
    assert outputs[0] == outputs[1]
    failures, cells = json.loads(outputs[0])
    assert (failures, len(cells)) == ([], len(names))
