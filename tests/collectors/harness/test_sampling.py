"""Sampling settings of tasks: each is used as the task says, and is part of the cell's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.harness.tasks import BoundTask
from schemas.failures import TaskError
from tests.helpers.asked import bind, collect, stub
from tests.helpers.mini_tasks import own_caches, write_tasks
from tests.helpers.planned_cells import configured, ids, model, planned

__all__ = ["model", "own_caches"]  # fixtures

#: Task -> its generation settings beside until and max_gen_toks.
SAMPLED: dict[str, dict[str, Any]] = {
    "greedy_text": {},
    "greedy_seeded": {"seed": 42},
    "greedy_zero": {"do_sample": True, "temperature": 0.0},
    "sampled_hot": {"do_sample": True, "temperature": 0.8},
    "sampled_default": {"do_sample": True},
    "sampled_seeded": {"do_sample": True, "temperature": 0.8, "seed": 42},
    "sampled_any_seed": {"temperature": 0.8, "seed": -1},
    "sampled_default_seeded": {"do_sample": True, "seed": 7},
    "sampled_wrong_seed": {"do_sample": True, "seed": "lucky"},
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    shared = yaml.safe_load((folder / "mini_repeats.yaml").read_text())
    for name, settings in SAMPLED.items():
        task = {**shared, "task": name, "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, **settings}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return folder


def asked(task: BoundTask) -> list[Any]:
    """The engine's requests, in the order of items and repeats."""
    engine = stub()
    collect(engine, task)
    return [request for request, _ in engine.log]


def test_do_sample_without_temperature_samples_at_1_as_lm_evals_vllm_backend(tasks: Path) -> None:
    task = bind(tasks, "sampled_default")
    requests = asked(task)
    assert {request.temperature for request in requests} == {1.0}
    assert len({request.seed for request in requests}) == len(requests)
    assert task.notes == ["task sampled_default samples at temperature 1: it has do_sample and no temperature"]


@pytest.mark.parametrize("name", ["greedy_text", "greedy_seeded", "greedy_zero"])
def test_greedy_tasks_stay_greedy_without_a_seed(tasks: Path, name: str) -> None:
    task = bind(tasks, name)
    assert {(request.temperature, request.seed, len(request.params)) for request in asked(task)} == {(0.0, None, 0)}
    assert task.settings.sampling is None
    assert task.notes == []


def test_a_tasks_own_seed_is_used_and_its_repeats_count_up(tasks: Path) -> None:
    task = bind(tasks, "sampled_seeded")
    requests = asked(task)
    assert [request.seed for request in requests] == [42, 43, 44] * (len(requests) // 3)
    assert all(request.params == {} for request in requests)
    assert task.notes == ["task sampled_seeded samples with its own seed, 42, plus the repeat's number"]
    (alone,) = {request.seed for request in asked(bind(tasks, "mini_generate", decoding=SAMPLED["sampled_seeded"]))}
    assert alone == 42


def test_seed_that_means_any_gets_one_drawn_for_each_answer(tasks: Path) -> None:
    seeds = [request.seed for request in asked(bind(tasks, "sampled_any_seed"))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seed_that_is_no_number_is_the_tasks_failure(tasks: Path) -> None:
    with pytest.raises(TaskError, match=r"sampled_wrong_seed has a wrong generation setting: .*lucky"):
        asked(bind(tasks, "sampled_wrong_seed"))


def test_identity_changes_only_where_answers_do(tasks: Path) -> None:
    """Programs before schema 7 decoded sampled_default greedily, and drew other seeds for the seeded ones."""
    implied = {name: bind(tasks, name).settings.sampling for name in SAMPLED}
    assert {name: value for name, value in implied.items() if value} == {
        "sampled_default": '{"temperature": 1.0}',
        "sampled_seeded": '{"seed": 42}',
        "sampled_default_seeded": '{"seed": 7, "temperature": 1.0}',
    }


def test_own_seed_makes_another_cell(tasks: Path, model: Path) -> None:
    decodings: list[dict[str, Any]] = [
        {"do_sample": True, "temperature": 1.0},
        {"do_sample": True, "temperature": 1.0, "seed": 1},
        {"do_sample": True, "temperature": 1.0, "seed": 2},
    ]
    cells = [ids(planned(configured(tasks, model, decoding=decoding)))[0] for decoding in decodings]
    assert len(set(cells)) == 3
