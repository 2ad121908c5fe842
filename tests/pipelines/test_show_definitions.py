"""matrix.py --show tells an older definition of a task from the newest, and counts no forgotten cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.lake.forgetting import Wish, plan_forgetting, write_retraction
from pipelines.matrix import main
from tests.helpers.lake_builder import BuiltCell, LakeBuilder


@pytest.mark.slow
def test_matrix_show_names_the_older_definition_of_a_task_and_no_forgotten_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    show = ["--lake", str(tmp_path / "lake"), "--show"]
    old, new = (BuiltCell(items_digest=f"i{n}", prompting=f"p{n}") for n in (1, 2))
    lake.planned(old, [1.0, 0.0])
    lake.planned(new, [1.0, 1.0])
    assert main(show) == 0
    out = capsys.readouterr().out
    told = "another definition of quiz is newer, of 2026-01-03 00:00 UTC; forget.py --definition p1 hides this one"
    assert out.count("another definition") == 1
    assert told in out[out.index("prompting p1") :].split("prompting p2")[0]
    write_retraction(lake.lake, plan_forgetting(lake.lake, Wish(definition="p1")), "a wrong label")
    assert main(show) == 0
    out = capsys.readouterr().out
    assert "another definition" not in out
    assert "no row in runs/" not in out
