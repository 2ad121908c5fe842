"""A new engine is one file and one line of the registry, and whoever asks for the traits of an engine loads none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from collectors.engines import ModelRef
from collectors.engines.base import BaseEngine, EngineOptions
from collectors.engines.stub import ByteTokenizer
from tests.helpers.mini_tasks import ITEMS, write_tasks
from tests.helpers.thorough import long_only

ROOT = Path(__file__).parents[3]
REGISTRY = "ENGINES = {\n"

#: An engine without weights: it answers sums from a dict, and nothing that is not a text.
SCRIPTED = """
import re

from collectors.engines import Generation, ModelRef, Usage, check_key
from collectors.engines.base import BaseEngine, EngineOptions
from collectors.engines.stub import ByteTokenizer


class ScriptedOptions(EngineOptions):
    #: Question -> answer.
    script: dict[str, str] = {}


class ScriptedEngine(BaseEngine[ScriptedOptions]):
    NAME = "scripted"
    OPTIONS = ScriptedOptions

    needs_files = False
    answers = frozenset({"generate_until"})

    @classmethod
    def pin(cls, spec, dtype, max_length):
        return ModelRef(spec.label, spec.source, "script-1", None, "text", has_files=False)

    @property
    def overrides(self):
        return {"script": self._options.script}

    def _open(self, model):
        self.tokenizer, self.max_length = ByteTokenizer(), 4096

    def generate(self, key, requests):
        check_key(self, key)
        texts = [self._options.script[bytes(request.prompt).decode().rpartition("\\n\\n")[2]] for request in requests]
        usages = [Usage(len(r.prompt), len(t), finish_reason="stop") for r, t in zip(requests, texts)]
        return key, [Generation(text, list(text.encode()), usage) for text, usage in zip(texts, usages)]
"""

PLAN = """
import json, sys
from collectors.lake.store import Lake
from collectors.runs.config import load_config
from collectors.runs.planning import make_plan

config = load_config(sys.argv[1])
lake = Lake(config.lake).open_for_writing()
plan = make_plan(config, lake)
"""
COLLECT = f"""{PLAN}
from collectors.runs.collector import Collector
from collectors.runs.estimate import estimate

plan.write(lake)
assumed = estimate(plan, lake).assumptions
collector = Collector(plan.run_id, lake.uri, config.engine.name, config.engine.options, config.include_tasks)
for planned in plan.cells:
    for first, last in planned.todo:
        assert collector.collect(planned.cell, first, last).committed
again = make_plan(config, lake)
print(json.dumps({{
    "tasks": [cell.cell.spec.task for cell in plan.cells],
    "failures": [[row["task"], row["kind"]] for row in plan.failures],
    "assumed": assumed,
    "left": again.items_todo,
}}))
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A copy of the packages with the scripted engine planted: one file, and one line."""
    for name in ("schemas", "collectors", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("demo_data"))
    (tmp_path / "collectors" / "engines" / "scripted.py").write_text(SCRIPTED, encoding="utf-8")
    registry = tmp_path / "collectors" / "engines" / "__init__.py"
    source = registry.read_text(encoding="utf-8")
    assert source.count(REGISTRY) == 1
    line = f'{REGISTRY}    "scripted": "collectors.engines.scripted:ScriptedEngine",\n'
    registry.write_text(source.replace(REGISTRY, line), encoding="utf-8")
    return tmp_path


def python(code: str, *arguments: str, folder: Path = ROOT) -> Any:
    """What a process prints as JSON that imports the packages from `folder`."""
    env = {**os.environ, "PYTHONPATH": str(folder), "ROUTERLAKE_CACHE": str(ROOT / ".cache" / "routerlake")}
    env["HF_DATASETS_CACHE"] = str(folder / "datasets")
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@long_only
def test_engine_added_by_one_file_and_one_line_collects_a_task(packages: Path) -> None:
    tasks = write_tasks(packages / "tasks")
    sums = [json.loads(line) for line in (tasks / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {f"Q: {doc['a']}+{doc['b']}=\nA:": f" {doc['answer'] if doc['a'] % 2 else 'none'}" for doc in sums}
    config: dict[str, Any] = {
        "models": ["script"],
        "tasks": ["mini_generate", "mini_choice"],
        "include_tasks": [str(tasks)],
        "lake": str(packages / "lake"),
        "engine": {"name": "scripted", "options": {"script": answers}},
    }
    (packages / "run.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    done = python(COLLECT, "run.yaml", folder=packages)
    assert done["tasks"] == ["mini_generate"]
    assert done["failures"] == [["mini_choice", "not_answerable"]]
    assert "4 characters a token" in done["assumed"][0]
    assert done["left"] == 0

    [shard] = (packages / "lake" / "shards").glob("task=*/*.parquet")
    rows = [row for row in pq.read_table(shard).to_pylist() if row["filter"] == "strict-match"]
    assert len(rows) == ITEMS
    assert {row["item"]: row["score"] for row in rows} == {i: float(doc["a"] % 2) for i, doc in enumerate(sums)}
    assert {row["model"] for row in rows} == {"script"}

    config["engine"]["options"]["script"] = dict.fromkeys(answers, " none")
    (packages / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    left = python(f"{PLAN}\nprint(plan.items_todo)", "run.yaml", folder=packages)
    assert left == ITEMS, "other options, another cell"


def test_traits_of_all_engines_load_no_library_that_runs_a_model() -> None:
    code = """
import json, sys
from collectors.engines import ENGINES, KINDS, engine_class
for name in ENGINES:
    engine = engine_class(name)
    assert engine.answers <= KINDS and engine.characters_per_token > 0
    engine.packages, engine.needs_files, engine.needs_placement, engine.pin
print(json.dumps(sorted({"torch", "transformers", "vllm", "numpy", "safetensors"} & set(sys.modules))))
"""
    assert python(code) == []


class Counting(BaseEngine[EngineOptions]):
    """Sets what the guide asks for, and nothing else."""

    NAME = "counting"
    OPTIONS = EngineOptions

    def _open(self, model: ModelRef) -> None:
        self.tokenizer, self.max_length = ByteTokenizer(), 100 + len(model.name)


def test_engine_that_sets_no_other_lengths_can_score_its_whole_context() -> None:
    engine = Counting()
    for name in ("a", "bcd"):
        engine.load(ModelRef(name, name, f"{name}-1", None))
        assert engine.score_length == engine.rolling_length == engine.max_length == 100 + len(name)


def test_models_without_files_that_share_a_revision_are_loaded_apart() -> None:
    keys = [ModelRef(name, name, "script-1", None, "text", has_files=False).key for name in ("a", "b")]
    assert keys[0] != keys[1]
    files = [ModelRef(name, name, "files-1", None, "float32").key for name in ("a", "b")]
    assert files[0] == files[1], "one copy of the weights serves both"
