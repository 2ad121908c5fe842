"""What a plan holds: cells whose identity is what decides an answer and nothing else, and what is left to collect."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from collectors.harness.tasks import load_like
from collectors.lake.failure_rows import failure_row, write_failure
from collectors.lake.store import Lake
from collectors.runs.config import RunConfig
from collectors.runs.plan import Plan
from collectors.runs.planning import make_plan
from collectors.runs.quarantine import mark
from schemas.failures import ConfigError, EngineError, TaskError
from schemas.identity import ShardName
from schemas.records import FAILURE, ITEM, MODEL, RUN_CELL
from tests.helpers.mini_tasks import GROUP, ITEMS, TASKS, own_caches, write_tasks

__all__ = ["own_caches"]  # a fixture

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "cells.json"
TASK = "mini_generate"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    """A folder that identity can be read from; no engine could load it."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "dtype": "float32", "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_MODEL", str(folder))
        yield folder


def configured(folder: Path, model: Path | str, /, **changes: Any) -> RunConfig:
    keys: dict[str, Any] = {
        "models": [str(model)],
        "tasks": [TASK],
        "include_tasks": [str(folder)],
        "engine": {"name": "hf"},
    }
    return RunConfig.model_validate({**keys, **changes})


def planned(config: RunConfig, lake: Path | str = "/nowhere/lake", **flags: Any) -> Plan:
    return make_plan(config, Lake(str(lake)), **flags)


def ids(plan: Plan) -> list[str]:
    return [cell.cell.cell_id for cell in plan.cells]


@pytest.fixture(scope="module")
def base(tasks: Path, model: Path) -> str:
    """The cell that the changes below are compared with."""
    (cell_id,) = ids(planned(configured(tasks, model)))
    return cell_id


# ---- identity

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
    assert found == json.loads(GOLDEN.read_text())


PLANNER = """
import dataclasses, json, sys
from collectors.runs.config import RunConfig
from collectors.harness.tasks import load_like
from collectors.harness.tasks import use_datasets
from collectors.lake.store import Lake
from collectors.runs.planning import make_plan
config = RunConfig.model_validate(json.load(sys.stdin))
use_datasets(config.datasets)
plan = make_plan(config, Lake("/nowhere/lake"))
print(json.dumps([plan.failures, [[c.row, c.todo] for c in plan.cells]], sort_keys=True))
"""


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


# ---- what is planned


def test_plan_group_becomes_its_tasks_once_per_model(tasks: Path) -> None:
    config = configured(tasks, "", models=["org/a", "org/b"], tasks=["mini_group"], engine={"name": "stub"})
    plan = planned(config)
    assert [(cell.row["task"], cell.row["model"]) for cell in plan.cells] == [
        (task, model) for task in GROUP["task"] for model in ("org/a", "org/b")
    ]
    assert {cell.cell.group for cell in plan.cells} == {"mini_group"}
    assert len(set(ids(plan))) == 4


@pytest.mark.parametrize("kind", ["group", "tag"])
def test_plan_group_with_members_that_cannot_be_had_names_them_and_plans_the_others(tmp_path: Path, kind: str) -> None:
    folder = write_tasks(tmp_path / "tasks")
    gone = yaml.safe_load((folder / "mini_choice.yaml").read_text())
    gone |= {"task": "mini_lost", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "gone.jsonl")}}}
    (folder / "mini_lost.yaml").write_text(yaml.safe_dump(gone))
    members = ["mini_choice", "mini_lost", "mini_empty", "mini_likelihood"]
    strange = ["mini_nowhere", {"task": "mini_nothing", "num_fewshot": 1}, 5]
    if kind == "group":
        (folder / "groups" / "mixed.yaml").write_text(yaml.safe_dump({"group": "mixed", "task": strange + members}))
    for name in members if kind == "tag" else ():
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "tag": ["mixed"]}))
    plan = planned(configured(folder, "org/a", tasks=["mixed"], engine={"name": "stub"}))
    assert [cell.row["task"] for cell in plan.cells] == ["mini_choice", "mini_likelihood"]
    kinds = {row["task"]: row["kind"] for row in plan.failures}
    assert {name: kinds.pop(name) for name in members if name in kinds} == {
        "mini_lost": "no_data",
        "mini_empty": "empty_task",
    }
    assert kinds == (
        {"mini_nowhere": "unknown_task", "mini_nothing": "bad_task", "5": "bad_task"} if kind == "group" else {}
    )
    alone = planned(configured(folder, "org/a", tasks=["mini_likelihood"], engine={"name": "stub"}))
    assert ids(alone) == ids(plan)[1:]


@pytest.mark.parametrize("member", [TASK, "own"])
def test_load_like_finds_what_only_the_group_can_make(tmp_path: Path, member: str) -> None:
    """A task whose filter its group lays over it, and one that stands in its group alone."""
    folder = write_tasks(tmp_path / "tasks")
    again = {"filter_list": [{"name": "again", "filter": [{"function": "take_first"}]}]}
    own = {**yaml.safe_load((folder / f"{TASK}.yaml").read_text()), "task": member, **again}
    group = {"group": "laid_over", "task": [TASK], **again} if member == TASK else {"group": "laid_over", "task": [own]}
    (folder / "groups" / "laid_over.yaml").write_text(yaml.safe_dump(group))
    tasks = [{"task": "laid_over", "filter": "again"}]
    (planned_cell,) = planned(configured(folder, "org/a", tasks=tasks, engine={"name": "stub"})).cells
    cell = planned_cell.cell
    bound = load_like(cell.spec, cell.group, cell.prompting, [str(folder)])
    assert (bound.name, bound.settings.filter) == (cell.spec.task, "again")
    with pytest.raises(TaskError, match="is not the one that was planned"):
        load_like(cell.spec, cell.group, "another", [str(folder)])


@pytest.mark.parametrize(
    "twice", [[TASK, TASK], [TASK, {"task": TASK, "limit": 3}], ["mini_group", "mini_choice"]], ids=str
)
def test_plan_task_twice_with_the_same_prompting_is_refused(tasks: Path, model: Path, twice: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"^tasks: mini_\w+ comes twice with the same prompting"):
        planned(configured(tasks, model, tasks=twice))


def test_plan_task_twice_with_another_prompting_is_two_cells(tasks: Path, model: Path) -> None:
    plan = planned(configured(tasks, model, tasks=[TASK, {"task": TASK, "num_fewshot": 1}]))
    assert [cell.row["num_fewshot"] for cell in plan.cells] == [2, 1]
    assert len(set(ids(plan))) == 2


def test_plan_model_twice_by_auto_and_the_dtype_that_it_means_is_refused(tasks: Path, model: Path) -> None:
    models = [str(model), {"source": str(model), "dtype": "float32"}]
    with pytest.raises(ConfigError, match="models: tiny comes twice in the same dtype, float32"):
        planned(configured(tasks, model, models=models))


@pytest.mark.parametrize("members", [None, []])
def test_plan_group_without_members_is_a_failure(tmp_path: Path, members: Any) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "groups" / "bare.yaml").write_text(yaml.safe_dump({"group": "bare", "task": members}))
    plan = planned(configured(folder, "org/a", tasks=["bare"], engine={"name": "stub"}))
    assert [(row["task"], row["kind"]) for row in plan.failures] == [("bare", "empty_task")]


def test_plan_empty_task_is_a_failure_and_the_others_are_planned(tasks: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(configured(tasks, model, tasks=["mini_empty", TASK]))
    assert [cell.row["task"] for cell in plan.cells] == [TASK]
    (failure,) = plan.failures
    assert (failure["kind"], failure["task"], failure.get("model")) == ("empty_task", "mini_empty", None)
    lake = Lake(str(tmp_path)).open_for_writing()
    plan.write(lake)
    (name,) = [name for name in lake.names("failures") if "schema" not in name]
    (row,) = pq.ParquetFile(tmp_path / name).read().to_pylist()
    assert row == {**dict.fromkeys(FAILURE.names), **failure}


def test_plan_missing_model_is_a_failure_and_the_others_are_planned(tasks: Path, model: Path, tmp_path: Path) -> None:
    plan = planned(configured(tasks, model, models=[str(tmp_path / "none"), str(model)]))
    assert [cell.row["model"] for cell in plan.cells] == ["tiny"]
    assert [(f["kind"], f["model"], f.get("task")) for f in plan.failures] == [("not_found", "none", None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["mini_choise"]}, "unknown task 'mini_choise'; did you mean mini_choice"),
        ({"tasks": [{"task": TASK, "metric": "acc"}]}, "has no metric 'acc'; it has exact_match"),
        ({"tasks": [{"task": TASK, "filter": "x"}]}, "has no filter 'x'; it has strict-match, flexible"),
        ({"include_tasks": ["/nowhere"]}, "include_tasks: no folder /nowhere"),
        ({"engine": {"name": "hf", "options": {"speed": 9}}}, "option 'speed' is unknown"),
    ],
)
def test_plan_config_that_names_what_is_not_there_is_refused(
    tasks: Path, model: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(configured(tasks, model, **change))


def test_plan_written_item_tables_are_complete_whatever_the_limit(tasks: Path, model: Path, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    plan = planned(configured(tasks, model, tasks=list(TASKS), limit=2), tmp_path)
    plan.write(lake)
    assert {cell.cell.items for cell in plan.cells} == {2}
    names = [name for name in lake.names("items") if "task=" in name]
    assert len(names) == len(TASKS)
    documents = [json.loads(line) for line in (tasks / "test.jsonl").read_text().splitlines()]
    for name in names:
        table = pq.ParquetFile(tmp_path / name).read()
        rows = table.to_pylist()
        assert table.schema.equals(ITEM)
        assert [json.loads(row["doc"]) for row in rows] == documents
        assert [row["item"] for row in rows] == list(range(ITEMS))
    runs = pq.ParquetFile(tmp_path / "runs" / f"{plan.run_id}.parquet").read()
    assert runs.schema.equals(RUN_CELL)
    assert set(runs["planned_items"].to_pylist()) == {2}
    assert set(runs["items"].to_pylist()) == {ITEMS}
    assert runs["cell_id"].to_pylist() == ids(plan)


def test_plan_committed_shards_are_planned_again_for_another_generation_only(
    tasks: Path, model: Path, base: str, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    config = configured(tasks, model, limit=8)
    assert planned(config, tmp_path).cells[0].todo == [(0, 7)]
    for first, last in ((0, 2), (5, 5)):
        lake.create(Lake.shard_path(TASK, ShardName(base, 0, first, last)), b"")
    assert planned(config, tmp_path).cells[0].todo == [(3, 4), (6, 7)]
    assert planned(configured(tasks, model), tmp_path).cells[0].todo == [(3, 4), (6, ITEMS - 1)]
    assert planned(configured(tasks, model, limit=3), tmp_path).items_todo == 0
    (again,) = planned(config, tmp_path, generation=1).cells
    assert (again.cell.generation, again.todo) == (1, [(0, 7)])
    lake.create(Lake.shard_path(TASK, ShardName(base, 1, 0, 3)), b"")
    (resumed,) = planned(config, tmp_path, generation=1).cells
    assert (resumed.cell.generation, resumed.todo) == (1, [(4, 7)])
    (plain,) = planned(config, tmp_path).cells
    assert (plain.cell.generation, plain.todo) == (1, [(4, 4), (6, 7)])
    with pytest.raises(ConfigError, match="has generation 1 already"):
        planned(config, tmp_path, generation=0)


@pytest.mark.parametrize(("task", "requests"), [("mini_choice", 4), ("mini_repeats", 3), ("mini_rolling", 1)])
def test_plan_requests_per_item_are_choices_times_repeats(tasks: Path, model: Path, task: str, requests: float) -> None:
    assert planned(configured(tasks, model, tasks=[task])).cells[0].requests_per_item == requests


def test_write_failure_of_any_text_and_twice_is_kept(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    plan = planned(configured(write_tasks(tmp_path / "tasks"), "x/y", tasks=["mini_empty"], engine={"name": "stub"}))
    for message in ("a\x00b", "日本" * 300, "same", "same"):
        write_failure(lake, {**plan.failures[0], "message": message})
    assert len([name for name in lake.names("failures") if "schema" not in name]) == 3


def test_plan_chat_template_that_the_model_lacks_fails_that_model_only(
    tasks: Path, model: Path, tmp_path: Path
) -> None:
    for name, template in (("bare", {}), ("whole", {"chat_template": "{{ messages }}"})):
        shutil.copytree(model, tmp_path / name)
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(template), encoding="utf-8")
    models = [str(tmp_path / "bare"), str(tmp_path / "whole")]
    plan = planned(configured(tasks, model, models=models, chat_template=True))
    assert [cell.cell.model.name for cell in plan.cells] == ["whole"]
    assert [(row["model"], row["kind"]) for row in plan.failures] == [("bare", "no_chat_template")]


def test_plan_models_of_the_catalog_asks_no_hub(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    said = {"listed_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "files_hash": "f", "weights": "safetensors"}
    config = json.dumps({"model_type": "llama", "dtype": "bfloat16", "max_position_embeddings": 512})
    rows = [
        {"model": f"org/{n}", "source": f"org/{n}", "revision": f"{n}" * 40, "downloads": n, "config": config, **said}
        for n in (1, 2, 3)
    ]
    lake.create_table("models/read.parquet", pa.Table.from_pylist(rows, schema=MODEL))
    entries = [{"source": "/nowhere/model", "name": "org/3"}, {"catalog": "downloads > 1", "most": 9}]
    plan = planned(configured(tasks, "", models=entries), lake.uri)
    [cell] = plan.cells
    assert (cell.cell.model.name, cell.cell.model.revision) == ("org/2", "2" * 40)
    assert (cell.row["dtype"], cell.row["max_length"]) == ("bfloat16", 512)
    assert [row["model"] for row in plan.failures] == ["org/3"]  # the folder that it names is not there


# ---- quarantine


def test_plan_of_a_model_that_broke_engines_leaves_its_open_cells_out(tasks: Path, model: Path, tmp_path: Path) -> None:
    config, lake = configured(tasks, model, tasks=[TASK, "mini_text"]), Lake(str(tmp_path))
    (first, other) = planned(config, tmp_path).cells
    row = failure_row("20260101T000000-00000000", EngineError("lost", "engine_died"), model=first.cell.model.name)
    write_failure(lake, row, mark(first.cell.model, ShardName(first.cell.cell_id, 0, 0, 1), row))
    plan = planned(config, tmp_path)
    assert (plan.cells, [p.cell.cell_id for p in plan.quarantined]) == ([], [first.cell.cell_id, other.cell.cell_id])
    assert ids(planned(config, tmp_path, retry_failed=True)) == [first.cell.cell_id, other.cell.cell_id]
    elsewhere = configured(tasks, model, dtype="float16")
    assert len(ids(planned(elsewhere, tmp_path))) == 1  # another dtype is another model to the cells
