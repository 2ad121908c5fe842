"""Model-SAT's capability texts, read back by the rules of its description."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from collectors.exporters.formats.modelsat import core_items, training_groups
from collectors.exporters.grid import Grid, Options
from collectors.exporters.registry import FORMATS, export
from schemas.failures import ConfigError
from tests.helpers.exporting import build, grids

MODELS = ("org/a", "b", "c", "d")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Grid]:
    """Grids of 52 tasks, each with scores of its own, by way of a lake with one."""
    random = np.random.default_rng(0)
    tasks = []
    folder = tmp_path_factory.mktemp("lakes")
    lake = build(folder / "lake", {model: [0.0] * 30 for model in MODELS})
    [grid] = grids(lake, "modelsat")
    for number in range(52):
        scores = (random.random((30, 4)) < random.random(4)).astype(float)
        numbers = {**grid.numbers, "score": scores}
        tasks.append(Grid(**{**vars(grid), "task": f"task{number:02}", "numbers": numbers}))
    return tasks


def write_keywords(path: Path, tasks: list[str]) -> Path:
    path.write_text(yaml.safe_dump({task: f"About {task}, and more" for task in tasks}))
    return path


def test_modelsat_texts_read_back_are_accuracies_on_the_items_named(tmp_path: Path, many: list[Grid]) -> None:
    keywords = write_keywords(tmp_path / "k.yaml", [grid.task for grid in many])
    _, notes = export(FORMATS["modelsat"], many, tmp_path / "out", options=Options(keywords=keywords))
    assert notes == ["2 other tasks are not in the texts"]
    core: dict[str, list[int]] = json.loads((tmp_path / "out/core_items.json").read_text())
    assert (len(core), {len(set(items)) for items in core.values()}) == (50, {20})
    rows: list[dict[str, Any]] = json.loads((tmp_path / "out/1_model_reprs.json").read_text())
    assert [row["model_repr_id"] for row in rows] == sorted(MODELS)
    orders = set()
    for column, row in enumerate(rows):
        said_of = re.findall(r'accuracy (\d+\.\d)% on the task of "About (task\d\d), and more"', row["capability"])
        parts = ", ".join(f'accuracy {p}% on the task of "About {task}, and more"' for p, task in said_of)
        assert row["capability"] == f"The model achieves {parts}."
        by_task = {grid.task: grid.scores for grid in many}
        assert {task: float(p) for p, task in said_of} == {
            task: pytest.approx(100 * by_task[task][items, column].mean()) for task, items in core.items()
        }
        assert all(float(p) % 5 == 0 for p, _ in said_of)
        orders.add(tuple(task for _, task in said_of))
    assert len(orders) == len(rows)


def test_modelsat_interactions_and_groups_are_what_its_dataset_joins(tmp_path: Path, many: list[Grid]) -> None:
    keywords = write_keywords(tmp_path / "k.yaml", [grid.task for grid in many])
    export(FORMATS["modelsat"], many, tmp_path / "out", options=Options(keywords=keywords))
    reprs = {row["model_repr_id"]: row["capability"] for row in load(tmp_path / "out/1_model_reprs.json")}
    right, wrong = defaultdict(set), defaultdict(set)
    by_task = {grid.task: grid for grid in many}
    for one in load(tmp_path / "out/2_interactions.json"):  # RecDataset._init_pos_neg_samples
        grid = by_task[one["dataset_name"]]
        texts = {item["id"]: item["instruction"] for item in load(tmp_path / f"out/data/{grid.task}.json")}
        column = grid.models.index(one["model_repr_id"])
        scores = grid.scores[:, column]
        assert one["correct_query_indices"] == [str(row) for row in np.flatnonzero(scores == 1)]
        assert one["incorrect_query_indices"] == [str(row) for row in np.flatnonzero(scores == 0)]
        right[reprs[one["model_repr_id"]]] |= {texts[name] for name in one["correct_query_indices"]}
        wrong[reprs[one["model_repr_id"]]] |= {texts[name] for name in one["incorrect_query_indices"]}
    groups = load(tmp_path / "out/capit.json")
    assert {group["model_repr"] for group in groups} == set(reprs.values())
    for group in groups:
        assert len(group["data_repr"]["pos"]) == 1
        assert len(group["data_repr"]["neg"]) == 31
        assert set(group["data_repr"]["pos"]) <= right[group["model_repr"]]
        assert set(group["data_repr"]["neg"]) <= wrong[group["model_repr"]]


def test_modelsat_groups_of_models_without_a_wrong_answer_are_named() -> None:
    grid = Grid(
        task="t", items_digest="i", metric="acc", models=["always", "half"], cells=[None, None],
        items=[{"item": n, "prompt": None if n == 3 else f"q{n}"} for n in range(4)],
        numbers={}, failures=np.empty((4, 2), object), asked=np.ones((4, 2), bool), responses=np.empty((0, 0), object),
        own_items=np.zeros((4, 2), np.int64),
    )  # fmt: skip
    right = {"t": np.array([[True, True], [True, False], [True, True], [True, False]])}
    groups, notes = training_groups([grid], right, ["A", "H"], np.random.RandomState(0))
    assert [(group["model_repr"], group["data_repr"]) for group in groups] == [
        ("H", {"pos": ["q0"], "neg": ["q1"]}),
        ("H", {"pos": ["q2"], "neg": ["q1"]}),
    ]
    assert notes == [
        "1 items have no text in the lake and are in no training group",
        "no training group for always: always right, or never",
    ]


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_modelsat_core_items_are_those_that_half_of_the_models_get_right() -> None:
    scores = np.zeros((40, 4))
    scores[5:20, :2] = 1
    scores[20:40, :1] = 1
    chosen = core_items(scores, np.random.RandomState(0))
    assert set(range(5, 20)) <= set(chosen.tolist())
    assert len(chosen) == 20
    assert not set(chosen.tolist()) & set(range(5))


def test_modelsat_of_too_few_tasks_or_without_keywords_is_refused(tmp_path: Path, many: list[Grid]) -> None:
    form = FORMATS["modelsat"]
    with pytest.raises(ConfigError, match="needs --keywords"):
        export(form, many, tmp_path / "out")
    few = Options(keywords=write_keywords(tmp_path / "k.yaml", [grid.task for grid in many[:49]]))
    with pytest.raises(ConfigError, match="of 52 tasks 49 have keywords and 20 items or more, 50 are needed"):
        export(form, many, tmp_path / "out", options=few)
    for text, message in (
        ("- a", "not a mapping"),
        ("a: 1", "not a mapping"),
        ("a: 'x\"y'", "hold a quote"),
        ("a: [", "k.yaml:"),
    ):
        (tmp_path / "k.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            export(form, many, tmp_path / "out", options=few)
    assert not (tmp_path / "out").exists()
