"""A search by name finds the same tasks as lm-eval's whole index."""

from __future__ import annotations

import os
import random
from pathlib import Path

import datasets
import pytest
import yaml
from lm_eval.tasks import TaskManager

from collectors.harness import index, loading
from collectors.specs import TaskSpec
from schemas.failures import ConfigError
from tests.helpers.thorough import long_only

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "pipelines" / "configs"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path))
    return tmp_path


def tasks_of_our_configs() -> set[str]:
    configs = [yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")]
    return {task if isinstance(task, str) else task["task"] for config in configs for task in config["tasks"]}


@long_only
@pytest.mark.slow
def test_index_a_task_is_found_where_lm_evals_whole_index_has_it(empty_cache: Path) -> None:
    theirs = TaskManager().task_index
    whole = index._folders(theirs)
    asked = {"hellaswag", "arc_ca", *tasks_of_our_configs(), *random.Random(5).sample(sorted(whole), 300)}
    found = index._single_tasks(frozenset(asked))
    assert found == {name: whole[name] for name in asked & found.keys()}
    assert not [name for name in asked & whole.keys() - found.keys() if whole[name] and "(" not in name]
    assert (
        not {"mmlu", "ai2_arc", "no_such_task"}
        & index._single_tasks(frozenset({"mmlu", "ai2_arc", "no_such_task"})).keys()
    )

    assert index._shipped({"gsm8k"}) == {"gsm8k": whole["gsm8k"]}
    assert not list(empty_cache.iterdir())
    assert index._shipped({"gsm8k", "mmlu"}) == whole
    (kept,) = empty_cache.iterdir()
    for damage in (kept.read_text(), "", '{"gsm8k": 5}'):
        kept.write_text(damage)
        index._read_entries.cache_clear()
        ours = index.manager((), True).task_index
        assert {name: (one.kind, one.yaml_path, one.tags) for name, one in ours.items()} == {
            name: (one.kind, one.yaml_path, one.tags) for name, one in theirs.items()
        }


@pytest.mark.slow
def test_index_names_that_nobody_has_are_told_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("task: gsm8k\noutput_type: generate_until\n")
    with pytest.raises(ConfigError, match=r"unknown task 'gsm9k'; did you mean .*gsm8k"):
        index.check_names([TaskSpec(task="gsm9k"), TaskSpec(task="gsm8k")], [])
    index.check_names([TaskSpec(task="gsm8k")], [str(own)])
    assert index.manager_of("gsm8k", [str(own)]).task_index["gsm8k"].yaml_path == own / "mine.yaml"


def test_load_of_a_data_set_is_counted_nowhere() -> None:
    assert loading.datasets is datasets
    assert ("HF_UPDATE_DOWNLOAD_COUNTS" in os.environ) == datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
