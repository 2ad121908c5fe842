"""A task under another definition, or in several files, is announced by the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.forgetting import Wish, plan_forgetting
from collectors.lake.store import Lake
from collectors.runs.collector import Collector
from collectors.runs.plan import Plan
from tests.helpers.mini_tasks import own_caches
from tests.helpers.planned_cells import configured, planned

__all__ = ["own_caches"]

ITEMS = [{"question": f"What is {n} + {n}?", "choices": ["no", str(2 * n)], "gold": 1} for n in range(12)]


def written(folder: Path, items: list[dict[str, Any]], text: str = "{{question}}", metric: str = "acc") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "mine.yaml").write_text(
        f"task: mine\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/items.jsonl}}}}\n"
        f"test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{text}'\n"
        f"doc_to_choice: '{{{{choices}}}}'\ndoc_to_target: gold\nmetric_list: [{{metric: {metric}}}]\n"
    )
    return folder


def plan_of(folder: Path, lake: Path, models: Sequence[str] = ("stub/a",), **config: Any) -> Plan:
    keys = {"models": list(models), "tasks": ["mine"], "engine": {"name": "stub"}, **config}
    return planned(configured(folder, models[0], **keys), lake)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return collected(tmp_path, ITEMS)


def collected(tmp_path: Path, items: list[dict[str, Any]], text: str = "{{question}}") -> Path:
    store = Lake(str(tmp_path / "lake")).open_for_writing()
    plan = plan_of(written(tmp_path / "before", items, text), tmp_path / "lake")
    plan.write(store)
    worker = Collector(plan.run_id, store.uri, "stub", {}, plan.config.include_tasks)
    [cell] = plan.cells
    worker.collect(cell.cell, 0, 11)
    worker.engine.close()
    return tmp_path / "lake"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"items": [{**ITEMS[0], "gold": 0}, *ITEMS[1:]]}, "Different: 1 of 12 right answers."),
        ({"items": [*ITEMS[2:], {**ITEMS[0], "question": "What is 1?"}]}, "1 new items, 2 items that are gone."),
        ({"text": "Q: {{question}}"}, "Different: 12 of 12 texts (doc_to_text). All items are asked anew"),
        ({"items": [*reversed(ITEMS)]}, "Different: the order of its items."),
        ({"metric": "acc_norm"}, "Different: metric. All items are asked anew; judge.py judges their answers again"),
    ],
)
def test_plan_names_another_definition_of_a_task(
    tmp_path: Path, lake: Path, change: dict[str, Any], differs: str
) -> None:
    plan = plan_of(written(tmp_path / "after", **{"items": ITEMS, **change}), lake)
    [note] = plan.notes
    assert note.startswith("task mine: the lake has 1 cells under another definition, of ")
    assert differs in note
    assert ("judge.py" in note) == ("metric" in change), "another question has other answers"
    wish = Wish(definition=note.split("--definition ")[1].split()[0])
    assert plan_forgetting(Lake(str(lake)), wish).cells == 1, "the line names what forget.py takes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"items": [*ITEMS[:5], {**ITEMS[5], "gold": 0}, *ITEMS[6:]]}, "Different: 1 of 12 right answers."),
        ({"items": ITEMS[1:]}, "Different: 1 items that are gone."),
        ({"text": "{{frage}}?"}, "Different: 12 of 12 texts (doc_to_text)."),
    ],
)
def test_plan_names_another_definition_of_documents_of_an_unknown_shape(
    tmp_path: Path, change: dict[str, Any], differs: str
) -> None:
    def shaped(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"frage": item["question"], **{k: v for k, v in item.items() if k != "question"}} for item in items]

    lake = collected(tmp_path, shaped(ITEMS), "{{frage}}")
    after = written(tmp_path / "after", shaped(change.get("items", ITEMS)), change.get("text", "{{frage}}"))
    [note] = plan_of(after, lake).notes
    assert differs in note


@pytest.mark.slow
def test_plan_of_the_same_definition_names_nothing(tmp_path: Path, lake: Path) -> None:
    assert plan_of(tmp_path / "before", lake).notes == []


@pytest.mark.slow
def test_plan_names_the_settings_in_which_cells_of_the_same_models_differ(tmp_path: Path, lake: Path) -> None:
    folder = tmp_path / "before"
    assert plan_of(folder, lake, ["stub/b"], dtype="bfloat16").notes == [], "the lake has nothing of that model"
    [note] = plan_of(folder, lake, ["stub/a", "stub/b"], dtype="bfloat16", system_prompt="Short.").notes
    assert note.startswith("task mine: the lake has 1 cells of these models with other settings. ")
    assert "Different: dtype, system_prompt." in note
    assert plan_of(folder, lake, ["stub/a", "stub/b"]).notes == []


@pytest.mark.slow
def test_plan_names_the_file_that_is_taken_of_several(tmp_path: Path) -> None:
    folder = written(tmp_path / "own", ITEMS)
    (folder / "again.yaml").write_text((folder / "mine.yaml").read_text())
    [note] = plan_of(folder, tmp_path / "none").notes
    assert note.startswith("task mine stands in several files: own/")
    folder = written(tmp_path / "hiding", ITEMS)  # another one: an index of a folder is kept
    (folder / "mine.yaml").write_text((folder / "mine.yaml").read_text().replace("task: mine", "task: gsm8k"))
    plan = planned(configured(folder, "stub/a", tasks=["gsm8k"], engine={"name": "stub"}), tmp_path / "none")
    assert plan.notes == ["task gsm8k stands in several files: hiding/mine.yaml is taken, not lm-eval's own"]
