"""Few-shot examples: an item is never its own, other prompts are lm-eval's, and too few are a failure of the plan."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.engines.stub import ByteTokenizer
from collectors.harness.encoding import Encoder
from collectors.harness.index import manager_of
from collectors.harness.loading import load_tasks
from collectors.harness.tasks import BoundTask
from collectors.specs import TaskSpec
from tests.helpers.asked import bind
from tests.helpers.mini_tasks import own_caches
from tests.helpers.planned_cells import configured, ids, model, planned

__all__ = ["model", "own_caches"]  # fixtures

ITEMS = [{"question": f"Which number is number {i}?", "answer": f"secret-{i}"} for i in range(8)]
OTHERS = [{"question": f"Which letter is letter {i}?", "answer": f"letter-{i}"} for i in range(6)]
SPLITS = {
    "test": ITEMS,
    "train": OTHERS,
    "half": ITEMS[:4] + OTHERS[:3],
    "renumbered": [{**item, "id": i} for i, item in enumerate(ITEMS[::2])] + [{**item, "id": 9} for item in OTHERS],
    "copies": [ITEMS[0]] * 3 + OTHERS[:2],
}
#: Task -> its keys beside those of all.
TASKS: dict[str, dict[str, Any]] = {
    "no_other_split": {"test_split": "test"},
    "first_of_no_other_split": {"test_split": "test", "fewshot_config": {"sampler": "first_n"}},
    "test_by_name": {"test_split": "test", "fewshot_split": "test"},
    "validation_only": {"validation_split": "test", "fewshot_split": "test"},
    "shares_documents": {"test_split": "test", "fewshot_split": "half"},
    "shares_questions": {"test_split": "test", "fewshot_split": "renumbered"},
    "apart": {"test_split": "test", "fewshot_split": "train"},
    "same_prompt": {"test_split": "test", "fewshot_split": "train", "doc_to_text": "Say something.\nA:"},
}
FEW: dict[str, tuple[dict[str, Any], str]] = {
    "few": ({"fewshot_split": "train", "num_fewshot": 7}, "wants 7 examples and has 6"),
    "few_first": (
        {"fewshot_split": "train", "num_fewshot": 7, "fewshot_config": {"sampler": "first_n"}},
        "wants 7 examples and has 6",
    ),
    "few_itself": ({"num_fewshot": 8}, "wants 8 examples and has 8, of which 7 are others than the item that is asked"),
    "few_copies": (
        {"fewshot_split": "copies", "num_fewshot": 3},
        "wants 3 examples and has 5, of which 2 are others than the item that is asked",
    ),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, docs in SPLITS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    shared = {
        "dataset_path": "json",
        "output_type": "generate_until",
        "num_fewshot": 2,
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    few = {name: {"test_split": "test", **keys} for name, (keys, _) in FEW.items()}
    for name, keys in {**TASKS, **few}.items():
        splits = {split for key, split in keys.items() if key.endswith("_split")}
        files = {split: str(folder / f"{split}.jsonl") for split in splits}
        task = {"task": name, **shared, "dataset_kwargs": {"data_files": files}, **keys}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return folder


def prompts(task: BoundTask) -> list[str]:
    return [item[0].args[0] for item in Encoder(ByteTokenizer()).build(task, len(task.docs))]


def stock_prompts(tasks: Path, name: str, **keys: Any) -> list[str]:
    """Those of lm-eval alone."""
    task = manager_of(name, [str(tasks)]).load([name])["tasks"][name]
    for key, value in keys.items():
        task.set_config(key=key, value=value)
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests()
    return [instance.args[0] for instance in task.instances]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("shots", [1, 2, 5])
def test_an_item_is_never_its_own_example_and_other_prompts_are_lm_evals(tasks: Path, name: str, shots: int) -> None:
    task = bind(tasks, name, num_fewshot=shots)
    ours, stock = prompts(task), stock_prompts(tasks, name, num_fewshot=shots)
    kept = 0
    for item, mine, theirs in zip(ITEMS, ours, stock, strict=True):
        examples = mine.split("\n\n")[:-1]
        assert len(examples) == len(set(examples)) == shots or name == "same_prompt"
        assert item["answer"] not in mine
        if item["answer"] not in theirs:
            assert mine == theirs
            kept += 1
    assert (kept < len(ITEMS)) == (task.settings.examples is not None)
    if name in ("apart", "test_by_name", "same_prompt"):
        assert kept == len(ITEMS)


def test_examples_out_of_the_items_themselves_are_said_once(tasks: Path) -> None:
    expected = {
        "no_other_split": "takes its examples from its own items, as it has no other split; no item is its own example",
        "shares_questions": "has items among its examples; no item is its own example",
    }
    for name, note in expected.items():
        assert bind(tasks, name, num_fewshot=5).notes == [f"task {name} {note}"]
    assert bind(tasks, "apart").notes == bind(tasks, "test_by_name").notes == []
    assert bind(tasks, "no_other_split", num_fewshot=0).notes == []


def test_only_cells_with_a_changed_prompt_have_another_identity(tasks: Path, model: Path) -> None:
    for name in TASKS:
        task = bind(tasks, name, num_fewshot=5)
        changed = task.settings.examples is not None
        assert changed == (name not in ("apart", "test_by_name", "same_prompt"))
        assert (dataclasses.replace(task.settings, examples=None).prompting != task.settings.prompting) == changed
    assert ids(planned(configured(tasks, model, tasks=["no_other_split"])))


def test_examples_do_not_depend_on_the_number_of_items_asked(tasks: Path) -> None:
    task, encoder = bind(tasks, "no_other_split"), Encoder(ByteTokenizer())
    whole = prompts(task)
    assert [item[0].args[0] for item in encoder.build(task, 3)] == whole[:3]
    assert prompts(bind(tasks, "no_other_split")) == whole


@pytest.mark.parametrize("name", FEW)
def test_examples_that_do_not_suffice_are_the_plans_failure(tasks: Path, model: Path, name: str) -> None:
    plan = planned(configured(tasks, model, tasks=[name, "apart"]))
    assert [(row["task"], row["kind"], row["message"]) for row in plan.failures] == [
        (name, "no_examples", f"task {name} {FEW[name][1]}")
    ]
    assert [cell.row["task"] for cell in plan.cells] == ["apart"]


def test_examples_of_a_split_that_the_data_lack_are_the_plans_failure(tmp_path: Path, tasks: Path, model: Path) -> None:
    task = yaml.safe_load((tasks / "apart.yaml").read_text())
    (tmp_path / "no_split.yaml").write_text(yaml.safe_dump({**task, "task": "no_split", "fewshot_split": "dev"}))
    (failure,) = planned(configured(tmp_path, model, tasks=["no_split"])).failures
    assert (failure["kind"], failure["message"]) == ("no_data", "task no_split: its data set has no split 'dev'")


def test_first_item_that_cannot_be_rendered_is_the_plans_failure(tmp_path: Path, tasks: Path, model: Path) -> None:
    """lm-eval renders the first question when it loads a task, but none of its examples."""
    task = yaml.safe_load((tasks / "apart.yaml").read_text())
    task |= {"task": "broken", "fewshot_config": {"doc_to_text": "{{ question.no.such.key }}"}}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(task))
    for chat in (False, True):
        (failure,) = planned(configured(tmp_path, model, tasks=["broken"], chat_template=chat)).failures
        assert failure["kind"] == "bad_task"
        assert failure["message"].startswith("task broken cannot build its requests: UndefinedError")


def test_as_many_examples_as_there_are_suffice(tasks: Path) -> None:
    for name, shots in (("apart", 6), ("no_other_split", 7), ("test_by_name", 7)):
        (task,), failed = load_tasks(TaskSpec(task=name, num_fewshot=shots), [str(tasks)])
        assert not failed
        assert all(prompt.count("A: ") == shots for prompt in prompts(task))
