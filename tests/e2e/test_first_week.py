"""The notebook of a first week, cell by cell, as a person would run it from the repository's root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.thorough import long_only

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "pipelines" / "notebooks" / "first_week.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_notebook_has_ten_cells_and_no_outputs() -> None:
    assert len(code_cells()) == 10
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)


@long_only
@pytest.mark.slow
def test_notebook_runs_from_import_to_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path))
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(code_cells(), 1):
        exec(compile(cell, f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert sorted(names["pool"].candidates) == ["hosted-large", "stub/large", "stub/small"]
    assert len(names["pool"]) == 60
    assert names["figures"][-1]["weighted_by"] == "tasks"
    assert "all, by question" in said
    assert {"index.html", "all_tasks-cost.png"} <= set(names["pictures"])
