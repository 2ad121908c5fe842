"""The configurations in pipelines/configs: that they load, ask what their sources asked, and plan on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from lm_eval.api.group import Group
from lm_eval.api.registry import get_filter
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._yaml_loader import load_yaml

from collectors.harness import index
from collectors.harness.loading import use_datasets
from collectors.lake.store import Lake
from collectors.runs.collector import Collector
from collectors.runs.config import RunConfig, load_config
from collectors.runs.plan import Plan
from collectors.runs.planning import make_plan
from pipelines.collect import print_plan
from tests.helpers.importing import SHARED
from tests.helpers.runs import query
from tests.helpers.thorough import LONG, long_only

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "pipelines" / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
#: A prepared data sets cache of whole benchmarks. HellaSwag, GPQA, MuSR, MATH, IFEval and MMLU-Pro are not in it.
DATA = SHARED / "hf_datasets"
MMLU = 14_042
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in configs are relative to the repository's root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))


def config(name: str, **overrides: Any) -> RunConfig:
    return load_config(str(CONFIGS / f"{name}.yaml"), overrides)


# ---- against lm-eval's task files alone


class _Unbuilt(TaskFactory):
    """Walks groups as lm-eval does and keeps the settings of each task, whose data is not read."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, dict[str, Any]] = {}

    def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Any:
        self.settings[entry.name] = {**load_yaml(entry.yaml_path, resolve_func=False), **(overrides or {})}
        return Group(name=entry.name)


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    own = str(CONFIGS / "routing_lessons_tasks")
    if LONG:
        return TaskManager(include_path=own)
    with pytest.MonkeyPatch.context() as patch:  # its index is lm-eval's own: tests/collectors/harness/test_index.py
        patch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))
        return index.manager((own,), True)


def settings_of(manager: TaskManager, task: str) -> dict[str, dict[str, Any]]:
    """Task name -> lm-eval's settings, for a task or all tasks of a group."""
    manager._factory = factory = _Unbuilt()
    manager.load([task])
    return factory.settings


def settings_of_all(manager: TaskManager, name: str) -> dict[str, dict[str, Any]]:
    return {k: v for spec in config(name).task_specs() for k, v in settings_of(manager, spec.task).items()}


def missing_examples(settings: dict[str, Any], wanted: int) -> str | None:
    """Why a task cannot show `wanted` few-shot examples, or None."""
    if settings.get("num_fewshot") == 0:
        return "its own number is 0, which no config changes"
    samples = settings.get("fewshot_config", {}).get("samples")
    if isinstance(samples, list):
        return None if len(samples) >= wanted else f"it has {len(samples)}"
    splits = (settings.get(f"{split}_split") for split in ("fewshot", "training", "validation"))
    return None if any(splits) else "it has no split to draw from"


def test_configs_are_the_demo_and_five_of_published_data_sets() -> None:
    assert NAMES == ["demo", "model_sat", "routerbench", "routerbench_hosted", "routereval", "routing_lessons"]


@long_only
def test_index_that_is_kept_on_this_machine_is_lm_evals(manager: TaskManager) -> None:
    ours = index.manager((), True).task_index
    theirs = {name: one for name, one in manager.task_index.items() if name in ours}
    assert {name: (one.kind, one.yaml_path, one.tags) for name, one in ours.items()} == {
        name: (one.kind, one.yaml_path, one.tags) for name, one in theirs.items()
    }
    assert all(
        "routing_lessons" in str(manager.task_index[name].yaml_path) for name in manager.task_index - ours.keys()
    )


@pytest.mark.parametrize("name", NAMES)
def test_config_loads_and_its_tasks_are_lm_evals(manager: TaskManager, name: str) -> None:
    loaded = config(name)
    assert {spec.task for spec in loaded.tasks} <= manager.task_index.keys()
    assert all(Path(folder).is_dir() for folder in loaded.include_tasks)
    assert {model.revision for model in loaded.models} == (
        {None} if name in ("demo", "routerbench_hosted") else {"main"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_config_metrics_filters_and_examples_are_there_in_every_task(manager: TaskManager, name: str) -> None:
    for spec in config(name).task_specs():
        for task, settings in settings_of(manager, spec.task).items():
            metrics = [metric["metric"] for metric in settings.get("metric_list", [])]
            filters = [step["name"] for step in settings.get("filter_list", [{"name": "none"}])]
            assert spec.metric is None or spec.metric in metrics, task
            assert spec.filter is None or spec.filter in filters, task
            if spec.num_fewshot:
                assert missing_examples(settings, spec.num_fewshot) is None, task


def test_routereval_tasks_of_the_second_leaderboard_are_its_sub_scenarios(manager: TaskManager) -> None:
    """RouterEval's utils.py lists 24 of BBH, 3 of GPQA, 7 of MATH, 3 of MuSR, IFEval and MMLU-Pro."""
    tasks = settings_of_all(manager, "routereval")
    second = [name for name in tasks if name.startswith("leaderboard_")]
    counts = {key: sum(name.startswith(f"leaderboard_{key}_") for name in second) for key in ("bbh", "gpqa", "musr")}
    assert counts == {"bbh": 24, "gpqa": 3, "musr": 3}
    assert sum(name.endswith("_hard") for name in second) == 7
    assert len(second) == 24 + 3 + 3 + 7 + 2
    assert len(tasks) == len(second) + 57 + 5
    shots = {name: settings.get("num_fewshot") for name, settings in tasks.items() if name in second}
    assert shots["leaderboard_bbh_snarks"] == 3
    assert shots["leaderboard_math_algebra_hard"] == 4
    assert shots["leaderboard_mmlu_pro"] == 5
    assert shots["leaderboard_gpqa_main"] == shots["leaderboard_ifeval"] == 0


def test_routerbench_tasks_are_61_of_its_64(manager: TaskManager) -> None:
    assert len(settings_of_all(manager, "routerbench")) == 61


def test_model_sat_tasks_are_mmlu_without_every_eighth_subject(manager: TaskManager) -> None:
    subjects = sorted(settings_of(manager, "mmlu"))
    loaded = config("model_sat")
    assert [task.task for task in loaded.tasks] == [name for i, name in enumerate(subjects, 1) if i % 8]
    assert (len(loaded.tasks), loaded.limit) == (50, 20)


@pytest.mark.parametrize(
    ("text", "digits", "number"),
    [
        ("So he pays $18.", "18", "18"),
        ("3 + 4 = 7 apples", "7", "7"),
        ("The answer is 1,200.", "200", "1,200"),
        ("It comes to $12.00", "00", "12"),
        ("That is -12.50 dollars", "50", "-12.5"),
        ("It is 0.05 of 100", "100", "100"),
        ("I do not know", "[invalid]", "[invalid]"),
    ],
)
def test_routing_lessons_gsm8k_filters_read_the_last_number(text: str, digits: str, number: str) -> None:
    """The first as the paper's notebook reads it, the second whole."""
    steps = [
        f["filter"][0]
        for f in yaml.safe_load((CONFIGS / "routing_lessons_tasks/gsm8k.yaml").read_text())["filter_list"]
    ]
    read = []
    for step in steps:
        regex = get_filter(step.pop("function"))(**step)
        read.append(next(iter(regex.apply([[text]], [{}])))[0])
    assert read == [digits, number]


# ---- against the benchmarks themselves


def planned(name: str, lake: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The config's plan for one model of the stub engine, on the shared data."""
    for key in ("HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # use_datasets sets them
        monkeypatch.setattr(datasets.config, key, getattr(datasets.config, key))
    use_datasets(str(DATA))  # works on a copy
    overrides = {"models": ["stub/alpha"], "engine": "stub", "lake": str(lake)}
    return make_plan(config(name, **overrides), Lake(str(lake)))


def items(plan: Plan) -> dict[str, int]:
    return {cell.row["task"]: cell.cell.items for cell in plan.cells}


def without_mmlu(counts: dict[str, int]) -> dict[str, int]:
    return {task: count for task, count in counts.items() if not task.startswith(("mmlu_", "leaderboard_bbh_"))}


@needs_data
@pytest.mark.slow
def test_routereval_plan_on_real_data_has_every_item_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], manager: TaskManager
) -> None:
    plan = planned("routereval", tmp_path / "lake", monkeypatch)
    counts = items(plan)
    # The shared WinoGrande gave 50 of its 1,267 items to the few-shot pool.
    expected = {"arc_challenge": 1172, "truthfulqa_mc2": 817, "winogrande": 1217, "gsm8k": 1319}
    assert without_mmlu(counts) == expected
    assert sum(count for task, count in counts.items() if task.startswith("mmlu_")) == MMLU
    assert sum(count for task, count in counts.items() if task.startswith("leaderboard_bbh_")) == 5761
    facts = {cell.row["task"]: cell.row for cell in plan.cells}
    asked = {task: tuple(facts[task][key] for key in ("num_fewshot", "metric", "filter")) for task in expected}
    assert asked == {
        "arc_challenge": (25, "acc_norm", "none"),
        "truthfulqa_mc2": (0, "acc", "none"),
        "winogrande": (5, "acc", "none"),
        "gsm8k": (5, "exact_match", "strict-match"),
    }
    missing = set(settings_of_all(manager, "routereval")) - set(counts)
    assert {row["task"] for row in plan.failures} == missing
    capsys.readouterr()
    print_plan(plan, Lake(str(tmp_path / "lake")), most_failures=None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  cannot be planned: ")]
    assert sorted(line.split(": ")[1] for line in lines) == sorted(missing)


@needs_data
@pytest.mark.slow
def test_routerbench_plan_on_real_data_has_every_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("routerbench", tmp_path / "lake", monkeypatch)
    counts = items(plan)
    assert without_mmlu(counts) == {"arc_challenge": 1172, "winogrande": 1217, "gsm8k": 1319}
    assert sum(counts.values()) - sum(without_mmlu(counts).values()) == MMLU
    assert {row["task"] for row in plan.failures} == {"hellaswag"}
    assert {cell.row["num_fewshot"] for cell in plan.cells} == {5}


@needs_data
@pytest.mark.slow
def test_model_sat_plan_on_real_data_is_50_tasks_of_20_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("model_sat", tmp_path / "lake", monkeypatch)
    assert not plan.failures
    assert list(items(plan).values()) == [20] * 50
    assert {cell.row["num_fewshot"] for cell in plan.cells} == {5}


@long_only
@needs_data
@pytest.mark.slow
def test_routing_lessons_on_real_data_asks_ten_times_and_takes_the_majority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("routing_lessons", tmp_path / "lake", monkeypatch)
    assert not plan.failures
    counts = items(plan)
    assert counts.pop("gsm8k_cot") == 1319
    assert (len(counts), sum(counts.values())) == (57, MMLU)
    assert {cell.requests_per_item for cell in plan.cells} == {10}
    settings = [yaml.safe_load(cell.row["decoding"]) for cell in plan.cells]
    assert all(
        decoding | {"temperature": 0.7, "max_gen_toks": 750, "do_sample": True} == decoding for decoding in settings
    )

    lake = Lake(str(tmp_path / "lake"))
    lake.open_for_writing()
    plan.write(lake)
    include = [str(ROOT / folder) for folder in plan.config.include_tasks]
    collector = Collector(plan.run_id, str(tmp_path / "lake"), "stub", {}, include)
    for task in ("gsm8k_cot", "mmlu_flan_cot_fewshot_virology"):
        collector.collect(next(cell.cell for cell in plan.cells if cell.row["task"] == task), 0, 2)
    rows = query(
        tmp_path / "lake",
        "SELECT task, filter, count(*) AS rows, count(score) AS scored, max(repeat) AS repeats FROM records "
        "GROUP BY ALL ORDER BY ALL",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("gsm8k_cot", "maj@10", 33, 33, 10),
        ("gsm8k_cot", "maj@10-number", 33, 33, 10),
        ("mmlu_flan_cot_fewshot_virology", "maj@10", 33, 33, 10),
    ]
