"""Plans: collected items, open items, and cells that cannot be planned."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from collectors.harness.loading import load_like
from collectors.lake.failure_rows import failure_row, write_failure
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from collectors.runs.quarantine import mark
from schemas.failures import ConfigError, EngineError, TaskError
from schemas.identity import ShardName
from schemas.records import FAILURE, ITEM, MODEL, RUN_CELL
from tests.helpers.mini_tasks import GROUP, ITEMS, TASKS, own_caches, write_tasks
from tests.helpers.planned_cells import TASK, base, configured, ids, model, planned, tasks, write_model

__all__ = ["base", "model", "own_caches", "tasks"]  # fixtures


# ---- planned cells


@pytest.mark.slow
def test_plan_group_becomes_its_tasks_once_per_model(tasks: Path) -> None:
    config = configured(tasks, "", models=["org/a", "org/b"], tasks=["mini_group"], engine={"name": "stub"})
    plan = planned(config)
    assert [(cell.row["task"], cell.row["model"]) for cell in plan.cells] == [
        (task, model) for task in GROUP["task"] for model in ("org/a", "org/b")
    ]
    assert {cell.cell.group for cell in plan.cells} == {"mini_group"}
    assert len(set(ids(plan))) == 4


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_config_of_two_files_that_define_one_task_names_both(tasks: Path, model: Path, tmp_path: Path) -> None:
    files = [tasks / "mini_choice.yaml", tmp_path / "copy.yaml"]
    shutil.copy(*files)
    with pytest.raises(ValueError, match="both define the task mini_choice") as error:
        configured(tasks, model, tasks=list(map(str, files)))
    assert all(str(file) in str(error.value) for file in files)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        (
            {"doc_to_target": "label"},
            "none of its items has a right answer among its choices (doc_to_target gives 'label",
        ),
        (
            {"doc_to_target": "{{ gold if a % 2 else 9 }}"},
            " have no right answer among their choices (doc_to_target gi",
        ),
        ({"doc_to_target": "{{ 9 }}"}, "doc_to_target gives 9, and its first item has no such choice"),
        ({"doc_to_choice": "texts"}, "doc_to_choice is neither a column of the documents nor a list"),
    ],
    ids=str,
)
def test_plan_says_which_items_no_answer_can_be_right_for(
    tasks: Path, model: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """lm-eval calls every answer to such an item wrong: a misspelt column would give each model 0."""
    own = {**yaml.safe_load((tasks / "mini_choice.yaml").read_text()), "task": "own", **changed}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    plan = planned(configured(tasks, model, tasks=[str(tmp_path / "own.yaml")]))
    failed = [row["message"] for row in plan.failures]
    lines = failed or [note for note in plan.notes if "right answer" in note]
    assert [said in line for line in lines] == ([True] if said else []), lines
    assert len(plan.cells) == (0 if failed else 1)
    assert bool(failed) == bool(changed and "%" not in changed.get("doc_to_target", ""))


@pytest.mark.parametrize("key", ["doc_to_text", "doc_to_target"])
def test_plan_names_a_text_that_stands_for_all_items(tasks: Path, model: Path, tmp_path: Path, key: str) -> None:
    own = {**yaml.safe_load((tasks / "mini_generate.yaml").read_text()), "task": "own", key: "anwser"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    [note] = planned(configured(tasks, model, tasks=[str(tmp_path / "own.yaml")])).notes
    assert f" is the text 'anwser' ({key}); columns are " in note


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


@pytest.mark.slow
def test_plan_committed_shards_are_planned_again_for_another_generation_only(
    tasks: Path, model: Path, base: str, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path)).open_for_writing()
    config = configured(tasks, model, limit=8)
    assert planned(config, tmp_path).cells[0].todo == [(0, 7)]
    for first, last in ((0, 2), (5, 5)):
        lake.create(shard_name(TASK, ShardName(base, 0, first, last)), b"")
    assert planned(config, tmp_path).cells[0].todo == [(3, 4), (6, 7)]
    assert planned(configured(tasks, model), tmp_path).cells[0].todo == [(3, 4), (6, ITEMS - 1)]
    assert planned(configured(tasks, model, limit=3), tmp_path).items_todo == 0
    (again,) = planned(config, tmp_path, generation=1).cells
    assert (again.cell.generation, again.todo) == (1, [(0, 7)])
    lake.create(shard_name(TASK, ShardName(base, 1, 0, 3)), b"")
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


@pytest.mark.slow
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


def test_plan_context_of_a_cell_depends_on_its_own_task_alone(tasks: Path, tmp_path: Path) -> None:
    far = write_model(tmp_path / "far")
    config = json.loads((far / "config.json").read_text(encoding="utf-8"))
    (far / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 131072}), encoding="utf-8")
    long = {"task": "mini_generate", "decoding": {"max_gen_toks": 20_000}}
    alone, both = (
        {cell.cell.spec.task: cell.cell for cell in planned(configured(tasks, far, tasks=names)).cells}
        for names in (["mini_choice"], ["mini_choice", long])
    )
    assert (alone["mini_choice"].model.context, alone["mini_choice"].context) == (None, None)  # which is 8192
    assert alone["mini_choice"].cell_id == both["mini_choice"].cell_id
    assert {cell.model.context for cell in both.values()} == {both["mini_generate"].context}
    assert (both["mini_choice"].context, both["mini_generate"].context) == (8192, 21504)


@pytest.mark.parametrize(
    ("overlong", "what"), [("fail", "answers get the room that prompts leave"), ("truncate", "prompts are cut")]
)
def test_plan_names_a_task_that_may_need_more_than_the_context(
    tasks: Path, model: Path, overlong: str, what: str
) -> None:
    long = {"task": "mini_generate", "decoding": {"max_gen_toks": 500}, "overlong": overlong}
    plan = planned(configured(tasks, model, tasks=[long, "mini_choice"], max_length=512))
    [note] = [note for note in plan.notes if "the context has" in note]
    assert note.startswith("mini_generate may need ")
    assert f"the context has 512: {what}: " in note
    assert not planned(configured(tasks, model, tasks=["mini_generate"])).notes
    short = {"task": "mini_generate", "num_fewshot": 0, "overlong": overlong}
    assert not planned(configured(tasks, model, tasks=[short], max_length=512)).notes
