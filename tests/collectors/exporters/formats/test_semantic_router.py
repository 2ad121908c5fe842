"""The semantic router's benchmark data, read back by the rules of its load_jsonl, which this file repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.store import Lake
from schemas.failures import ConfigError
from tests.helpers.exporting import answers, build, exported
from tests.helpers.importing import imported, rows

SCORES = {"org/a": [1, 0, 0.5], "b": [1, 1, 0]}


def loaded(path: Path) -> list[dict[str, Any]]:
    """What its loader keeps of each line: query, category, model, quality and milliseconds."""
    records = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            data = json.loads(line)
            assert data["query"]
            assert data["model_name"]
            time = float(data.get("response_time", 0.0)) * 1000
            records.append((data["task_name"], data["model_name"], float(data["performance"]), time))
    return records


def test_semantic_router_loads_each_answer_with_its_quality_and_milliseconds(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", SCORES, tasks=("arc", "quiz"))
    notes = exported(lake, "semantic_router", tmp_path / "out.jsonl")
    expected = [
        (task, model, score, s * 1000) for task, model, score, s in answers(lake, "task, model, score, latency_s")
    ]
    assert sorted(loaded(tmp_path / "out.jsonl")) == sorted(expected)
    assert any("theirs is other" in note for note in notes)


def test_semantic_router_without_times_is_refused_or_has_none(tmp_path: Path) -> None:
    path = tmp_path / "quiz.json"
    path.write_text(json.dumps([{"question": "What?", "scores": {"a": 1.0, "b": 0.0}}]))
    imported("routerdc", path, tmp_path / "lake")
    lake = Lake(str(tmp_path / "lake"))
    with pytest.raises(ConfigError, match="latency"):
        exported(lake, "semantic_router", tmp_path / "out.jsonl")
    exported(lake, "semantic_router", tmp_path / "out.jsonl", accuracy_only=True)
    assert "response_time" not in (tmp_path / "out.jsonl").read_text()
    assert [record[2] for record in loaded(tmp_path / "out.jsonl")] == [1.0, 0.0]
    assert rows(tmp_path / "lake", "SELECT count(*) FROM records") == [(2,)]
