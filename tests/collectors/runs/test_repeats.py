"""A part of a task's items that is asked several times: a cell of its own beside the one that asks each item once."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from collectors.harness.loading import load_tasks
from collectors.harness.stored import bind_stored, judging_digest
from collectors.harness.tasks import BoundTask, decoding_of
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.runs.estimate import Estimator
from collectors.runs.plan import Plan, PlannedCell
from collectors.runs.repeating import part_of
from collectors.specs import RepeatsSpec, TaskSpec
from pipelines.console.estimate_shown import shares_shown
from schemas.failures import ConfigError
from schemas.identity import digest
from tests.helpers.mini_tasks import own_caches, write_tasks
from tests.helpers.own_runs import ITEMS, MODELS, Runs
from tests.helpers.planned_cells import write_model

__all__ = ["own_caches"]  # fixtures
TASK = "mini_generate"
SAMPLED: dict[str, Any] = {"tasks": [TASK], "decoding": {"do_sample": True, "temperature": 0.7}}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), items=ITEMS)


@pytest.fixture(scope="module")
def task(tasks: Path) -> BoundTask:
    return load_tasks(TaskSpec(task=TASK), [str(tasks)])[0][0]


@pytest.fixture
def runs(tmp_path: Path, tasks: Path) -> Runs:
    return Runs(tmp_path / "lake", tasks)


def asked(runs: Runs, repeats: dict[str, Any] | None, **changes: Any) -> Plan:
    return runs.plan(**SAMPLED, repeats=repeats, **changes)


def several(plan: Plan) -> list[PlannedCell]:
    return [planned for planned in plan.cells if planned.cell.spec.repeats]


def items_of(planned: PlannedCell) -> list[int]:
    assert planned.listed is not None
    return list(planned.listed)


# ---- identity


def test_repeats_add_a_cell_that_differs_in_them_alone_and_change_no_other(runs: Runs) -> None:
    once = list(asked(runs, None).cells)
    both = asked(runs, {"times": 3, "share": 0.1}).cells
    assert [planned.row for planned in both if not planned.cell.spec.repeats] == [planned.row for planned in once]
    plain, repeated = (next(one for one in both if bool(one.cell.spec.repeats) is is_it) for is_it in (False, True))
    assert {name for name in plain.row if plain.row[name] != repeated.row[name]} == {"cell_id", "prompting", "decoding"}
    assert json.loads(repeated.row["decoding"]) == {**json.loads(plain.row["decoding"]), "repeats": 3}
    assert (plain.requests_per_item, repeated.requests_per_item) == (1, 3)
    other = several(asked(runs, {"times": 4, "share": 0.1}))[0]
    assert other.cell.cell_id not in {planned.cell.cell_id for planned in both}
    assert items_of(other) == items_of(repeated)


def test_task_that_a_worker_binds_has_the_settings_of_the_planned_one(tasks: Path, task: BoundTask) -> None:
    spec = TaskSpec(task=TASK, repeats=RepeatsSpec(times=3, items=2))
    [bound], _ = load_tasks(spec, [str(tasks)])
    planned = task.repeated(3)
    assert (bound.settings, bound.task.config.repeats) == (planned.settings, planned.task.config.repeats)
    assert (task.settings, task.task.config.repeats) == (planned.settings.once, 1)
    assert bound.settings.task_digest == task.settings.task_digest


def test_stored_answers_of_both_cells_have_one_judge(tasks: Path, task: BoundTask) -> None:
    columns = [one.settings.decoding for one in (task, task.repeated(3))]
    digests = {
        judging_digest(bind_stored(TaskSpec(task=TASK, decoding=decoding_of(column)), [str(tasks)], task.docs))
        for column in columns
    }
    assert len(digests) == 1


# ---- the part


def test_part_is_the_same_in_every_process_and_a_larger_one_keeps_it(task: BoundTask) -> None:
    """The numbers must outlive releases: another choice would ask other items beside those of a lake."""
    parts = [part_of(task, ITEMS, RepeatsSpec(times=2, items=count)) for count in (2, 5, 20)]
    assert parts[:2] == [[9, 33], [9, 18, 25, 33, 35]]
    assert set(parts[0]) < set(parts[1]) < set(parts[2])
    assert part_of(task, ITEMS, RepeatsSpec(times=9, share=0.05)) == parts[0]


def test_every_model_lake_and_prompting_is_asked_the_same_items(runs: Runs, tmp_path: Path) -> None:
    one = several(asked(runs, {"times": 2, "items": 5}))
    other = Runs(tmp_path / "other", runs.tasks)
    late = several(asked(other, {"times": 3, "items": 5}, models=["stub/late"], num_fewshot=1))
    assert {planned.sample for planned in [*one, *late]} == {one[0].sample}


def test_ids_ask_the_items_of_these_contents_among_those_of_the_limit(runs: Runs, task: BoundTask) -> None:
    ids = [task.contents[item] for item in (7, 3)]
    assert items_of(several(asked(runs, {"times": 2, "ids": ids}))[0]) == [
        item for item in range(ITEMS) if task.contents[item] in ids
    ]
    late = next(item for item in range(ITEMS) if task.contents[item] not in task.contents[:5])
    with pytest.raises(ConfigError, match=f"no item to ask has the content hash {task.contents[late]}"):
        asked(runs, {"times": 2, "ids": [ids[1], task.contents[late]]}, limit=5)


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoding": {}}, f"task {TASK} decodes greedily"),
        ({"decoding": {"do_sample": True, "temperature": 0.0}}, f"task {TASK} decodes greedily"),
        ({"tasks": ["mini_choice"]}, "task mini_choice asks for log-likelihoods"),
        ({"tasks": ["mini_repeats"]}, "task mini_repeats asks each item 3 times by itself"),
        ({"repeats": {"times": 2, "ids": [digest("x", 64)]}}, f"no item to ask has the content hash {digest('x', 64)}"),
        (
            {"repeats": {"times": 2, "ids": [digest(n, 64) for n in range(5)]}},
            f"{digest(2, 64)} and 2 more: they are content_hash",
        ),
    ],
)
def test_repeats_that_cannot_be_asked_are_refused_in_one_line(
    runs: Runs, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        runs.plan(**{**SAMPLED, "repeats": {"times": 2, "items": 3}, **changes})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "repeats",
    [
        {"times": 1, "items": 3},
        {"times": 1001, "items": 3},
        {"times": 2},
        {"times": 2, "items": 3, "share": 0.1},
        {"times": 2, "share": 0.1, "ids": [digest("x", 64)]},
        {"times": 2, "ids": []},
        {"times": 2, "ids": ["not a hash"]},
        {"times": 2, "share": 1.5},
    ],
)
def test_repeats_of_no_meaning_are_refused_by_the_config(repeats: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="repeats"):
        TaskSpec.model_validate({"task": TASK, "repeats": repeats})


def test_model_whose_generation_config_samples_nothing_is_named_and_the_others_are_asked(
    runs: Runs, tmp_path: Path
) -> None:
    folders = [write_model(tmp_path / name, name.encode()) for name in ("warm", "cold")]
    settings = {"do_sample": True, "temperature": 0.6}
    (folders[0] / "generation_config.json").write_text(json.dumps(settings))
    changes = {"tasks": ["mini_unset"], "models": [str(one) for one in folders], "engine": {"name": "hf"}}
    task = yaml.safe_load((runs.tasks / f"{TASK}.yaml").read_text())
    del task["generation_kwargs"]["do_sample"]
    (tmp_path / "mini_unset.yaml").write_text(yaml.safe_dump({**task, "task": "mini_unset"}))
    include = [str(runs.tasks), str(tmp_path)]
    repeats = {"times": 2, "items": 3}
    plan = runs.plan(**changes, include_tasks=include, generation_config=True, repeats=repeats)
    assert [planned.cell.model.name for planned in plan.cells] == ["warm", "cold", "warm"]
    [failure] = plan.failures
    assert (failure["model"], failure["kind"]) == ("cold", "not_answerable")
    assert "every answer would be the same" in failure["message"]


def test_repeats_with_until_or_in_decoding_are_refused(runs: Runs) -> None:
    with pytest.raises(ValueError, match="rounds of `until` ask for one answer"):
        asked(runs, {"times": 2, "items": 3}, until={"error": 0.1})
    with pytest.raises(ValueError, match="repeats is no setting of decoding"):
        runs.plan(tasks=[TASK], decoding={"repeats": 3})


def test_task_without_repeats_beside_those_of_the_run_is_asked_once(runs: Runs) -> None:
    entries = [TASK, {"task": "mini_choice", "repeats": None}]
    plan = runs.plan(**{**SAMPLED, "tasks": entries}, repeats={"times": 2, "items": 3})
    assert {planned.cell.spec.task for planned in several(plan)} == {TASK}
    assert len(plan.cells) == 3 * len(MODELS)


# ---- a lake


class CountedLake(Lake):
    """A lake that counts its listings and readings."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.calls: Counter[str] = Counter()

    def names(self, *args: Any, **keywords: Any) -> Any:
        self.calls["names"] += 1
        return super().names(*args, **keywords)

    def read(self, *args: Any, **keywords: Any) -> Any:
        self.calls["read"] += 1
        return super().read(*args, **keywords)


@pytest.mark.slow
def test_run_that_was_killed_goes_on_and_a_larger_share_asks_the_difference_alone(runs: Runs) -> None:
    """Planning asks the lake for nothing more than without repeats but lists of other parts that were asked."""

    def plan(share: float | None, limit: int = 20) -> Plan:
        runs.lake = CountedLake(runs.lake.root)
        return asked(runs, share and {"times": 3, "share": share}, limit=limit, models=["stub/a"])

    def calls_of(plan: Plan) -> Counter[str]:
        assert plan.cells[0].items_todo
        assert isinstance(runs.lake, CountedLake)
        return runs.lake.calls

    runs.collect(plan(0.2), shards=8, size=3)  # seven shards of all items, and one of two with repeats
    again = plan(0.2)
    assert (again.items_todo, again.cells[0].items_todo) == (1, 0)
    assert calls_of(plan(0.2, limit=21)) - calls_of(plan(None, limit=21)) == {"read": 1}
    runs.collect(again)
    larger = plan(0.4)
    assert runs.collect(larger) == 4
    assert plan(0.4).items_todo == plan(0.2).items_todo == plan(None).items_todo == 0
    assert runs.stored_items() == Counter(
        {(p.cell.cell_id, i): 1 for p in larger.cells for i in (items_of(p) if p.cell.spec.repeats else range(20))}
    )
    with connect(runs.lake, only=["records", "coverage"]) as con:
        rows = con.execute(
            "SELECT repeat, count(*) FROM records WHERE filter = 'strict-match' GROUP BY repeat ORDER BY repeat"
        ).fetchall()
        covered = con.execute("SELECT planned, asked, left_out, missing FROM coverage ORDER BY ALL").fetchall()
    assert rows == [(0, 28), (1, 8), (2, 8), (3, 8)]
    assert covered == [(20, 8, 12, 0), (20, 20, 0, 0)]


@pytest.mark.slow
def test_group_has_its_value_of_the_cells_that_ask_once(tmp_path: Path, tasks: Path) -> None:
    from collectors.judging.judges import Judges
    from collectors.runs.aggregates import Aggregator

    folder = tmp_path / "groups"
    folder.mkdir()
    metrics = [{"metric": "exact_match", "filter_list": ["strict-match"]}]
    group = {"group": "sums", "task": [TASK], "aggregate_metric_list": metrics}
    (folder / "sums.yaml").write_text(yaml.safe_dump(group))
    runs = Runs(tmp_path / "lake", tasks)
    changes: dict[str, Any] = {**SAMPLED, "tasks": ["sums"], "include_tasks": [str(tasks), str(folder)]}
    plan = runs.plan(**changes, limit=6, models=["stub/a"], repeats={"times": 2, "share": 1.0})
    runs.collect(plan, size=6)
    judges = Judges(list(plan.config.include_tasks))
    Aggregator(plan, runs.lake, judges).complete([])
    judges.close()
    with connect(runs.lake, only=["aggregates"]) as con:
        members = con.execute("SELECT DISTINCT members FROM aggregates WHERE is_group").fetchall()
    assert members == [([plan.cells[0].cell.cell_id],)]
    assert not plan.cells[0].cell.spec.repeats


def test_estimate_names_what_repeats_add(runs: Runs) -> None:
    plan = asked(runs, {"times": 10, "share": 0.1})
    estimator = Estimator(plan, runs.lake)
    added = estimator.of_repeats()
    assert added is not None
    once = Estimator(asked(runs, None), runs.lake)
    assert (added.cells, added.items) == (2, 2 * 4)
    assert added.tokens == pytest.approx(estimator.run().total.tokens - once.run().total.tokens)
    each = {planned.cell.spec.repeats is None: estimator._tokens(planned).generated for planned in plan.cells}
    assert each[False] == 10 * each[True]
    assert once.of_repeats() is None
    assert [dataclasses.astuple(row) for row in estimator.of_shares([0.1])] == [
        dataclasses.astuple(row) for row in once.of_shares([0.1])
    ]
    assert "without repeats" in shares_shown(plan, runs.lake, estimator)[1]
