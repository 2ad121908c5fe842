"""One sentence on the luck of an oracle, wherever its gap is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collectors.matrix.luck import lines_of, shown_luck
from pipelines import matrix, plot
from schemas.views import PoolChoice
from tests.helpers.lake_builder import LakeBuilder
from tests.schemas.test_heldout_view import HOT, beside, once

ONCE = "quiz: part of the gap is luck: 3 candidates that sample their answers were asked once"


def luck(lake: LakeBuilder) -> list[str]:
    return shown_luck(lake.lake, PoolChoice(), "collected")


def test_luck_is_a_line_without_repeats_and_has_the_heldout_numbers_with_them(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    once(lake, np.ones((3, 40)))
    assert luck(lake) == [f"{ONCE} (repeats in a run's config measure how much)"]
    draws = np.zeros((3, 40, 2))
    draws[0, :, 0] = draws[1, :, 1] = 1
    lake = lake.copied(tmp_path / "drawn")
    beside(lake, "p1", draws, [1, 3, 5], {**HOT, "repeats": 2})
    [line] = luck(lake)
    assert line == (
        f"{ONCE}; on 3 questions with 2 answers of each the oracle has 1.0000 by one answer each, and 0.0000 where it "
        "is scored on other answers than it is chosen by, against 0.5000 of the best single candidate (view "
        "oracle_heldout)"
    )


def test_luck_of_greedy_answers_is_no_line(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    once(lake, np.ones((3, 40)), generation_config='{"temperature": 0.0}')
    assert len(luck(lake)) == 1, "the run's decoding counts"
    assert lines_of({}, {}) == []


def test_luck_of_many_tasks_without_repeats_is_one_line() -> None:
    [line] = lines_of({f"t{number}": 2 for number in range(7)}, {})
    assert line.startswith("t0, t1, t2, t3, t4 and 2 more: part of the gap is luck: candidates that sample")


def test_luck_is_told_by_every_command_that_shows_a_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    scores = np.ones((3, 40))
    scores[0, :5] = 0
    once(lake, scores)
    choices = tmp_path / "mine.csv"
    choices.write_text("item,model\n" + "".join(f"{item},m0\n" for item in range(40)))
    for command, arguments in (
        (matrix.main, ["score", "--choices", str(choices), "--lake", lake.lake.uri]),
        (matrix.main, ["--lake", lake.lake.uri, "--show"]),
        (plot.main, ["--lake", lake.lake.uri, "--out", str(tmp_path / "out"), "--draws", "1"]),
    ):
        assert command(arguments) == 0
        told = capsys.readouterr()
        assert (told.out + told.err).count(ONCE) == 1, arguments
