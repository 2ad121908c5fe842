"""The answers of a lake as an array: tasks that cannot be foretold are left out in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.forecasts.lake_answers import read_answers
from pipelines import forecast
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

MODELS, ITEMS = 24, 30


def asked(lake: LakeBuilder, every: int, task: str = "quiz", *, higher_is_better: bool = True) -> None:
    """A task of which all models were asked the same items: the first of each `every`."""
    cells = [BuiltCell(f"lab{model}", task, items=ITEMS, higher_is_better=higher_is_better) for model in range(MODELS)]
    lake.run(*cells)
    for model, cell in enumerate(cells):
        lake.scores(cell, [None if item % every else float((model * item) % 3 > 0) for item in range(ITEMS)])


@pytest.mark.parametrize(("every", "blank"), [(2, 15), (10, 27)])
def test_read_answers_of_models_that_were_all_asked_one_part_leaves_the_task_out(
    every: int, blank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    asked(lake, every)
    line = f"quiz: {blank} of 30 items have no score of any model"
    assert forecast.main(["--lake", str(tmp_path / "lake")]) == 2
    assert f"has no task to foretell: {line}; collect some models whole first" in capsys.readouterr().err
    asked(lake, 1, "whole")
    answers = read_answers(lake.lake)
    assert [block.task for block in answers.blocks] == ["whole"]
    assert answers.left_out == [line]
    assert answers.answers.shape == (MODELS, ITEMS)


def test_read_answers_keeps_a_task_with_one_item_in_a_hundred_that_nobody_answered(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    lake.planned(BuiltCell(), [1.0] * 99 + [None])
    answers = read_answers(lake.lake)
    assert (answers.answers.shape, answers.left_out) == ((1, 100), [])


def test_read_answers_of_a_metric_that_is_better_the_lower_keeps_its_direction(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    asked(lake, 1)
    asked(lake, 1, "speech", higher_is_better=False)
    blocks = read_answers(lake.lake).blocks
    assert {block.task: block.higher_is_better for block in blocks} == {"quiz": True, "speech": False}
