"""RouterArena's predictions, read back by what its check and its scorer ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.metrics.routerarena import arena_score
from pipelines.export import main
from schemas.failures import ConfigError
from tests.helpers.exporting import PROMPTS, USD, answers, build, exported, price
from tests.helpers.importing import imported, rows

SCORES = {"org/a": [1, 0, 1, 0], "b": [1, 1, 0, 0]}


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_routerarena_each_model_is_a_router_that_always_chooses_it(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("arc", "quiz"), responses=["x", " ", "y", "z"]))
    assert exported(lake, "routerarena", tmp_path / "out") == []
    assert sorted(path.name for path in (tmp_path / "out/predictions").iterdir()) == ["b.json", "org_a.json"]
    known = {(task, item, model): (score, usd) for task, item, model, score, usd in answers(lake)}
    for name, model in (("b", "b"), ("org_a", "org/a")):
        config = load(tmp_path / f"out/config/{name}.json")
        assert config["pipeline_params"]["models"] == ["b", "org/a"]
        entries = load(tmp_path / f"out/predictions/{name}.json")
        regular = [entry for entry in entries if not entry["for_optimality"]]
        assert [entry["prompt"] for entry in regular] == PROMPTS[:4] * 2
        assert {entry["prediction"] for entry in regular} == {model}
        assert [entry["global index"] for entry in regular] == [f"{t}_{i}" for t in ("arc", "quiz") for i in range(4)]
        for entry in entries:
            task, item = entry["global index"].rsplit("_", 1)
            assert (entry["accuracy"], entry["cost"]) == known[task, int(item), entry["prediction"]]
            result = entry["generated_result"]
            assert {"generated_answer", "success", "token_usage"} <= result.keys()
            assert result["success"] is bool(result["generated_answer"].strip())
            usage = result["token_usage"]
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert len(entries) == 2 * len(regular)
    cost = sum(entry["cost"] for entry in regular) / len(regular)
    assert arena_score(0.5, cost * 1000) > 0
    assert regular[0]["cost"] == pytest.approx((10 + 2 * 10) * USD["org/a"] / 1e6)


def test_routerarena_predictions_of_a_router_are_its_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = price(build(tmp_path / "lake", SCORES))
    choices = tmp_path / "mine.csv"
    choices.write_text("item,model\n0,b\n1,org/a\n3,b\n")
    words = ["--format", "routerarena", "--lake", lake.lake.uri, "--choices", str(choices)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "1 items without a choice are left out" in capsys.readouterr().out
    entries = load(tmp_path / "out/predictions/mine.json")
    chosen = [(entry["global index"], entry["prediction"]) for entry in entries if not entry["for_optimality"]]
    assert chosen == [("quiz_0", "b"), ("quiz_1", "org/a"), ("quiz_3", "b")]
    assert main([*words, "--out", str(tmp_path / "other"), "--pool", "model = 'b'"]) == 2
    assert "mine chose 'org/a', which is not among the models that are written" in capsys.readouterr().err


def test_routerarena_gaps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 of 4 answers have no known cost"):
        exported(build(tmp_path / "lake", {"a": [1, 0], "b": [1, 0]}), "routerarena", tmp_path / "out")


def test_routerarena_read_back_is_the_lake_once(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("arc", "quiz"), responses=["x", " ", "y", "z"]))
    exported(lake, "routerarena", tmp_path / "out")
    report = imported("routerarena", tmp_path / "out", tmp_path / "second")
    assert (report.rejects, report.total.records, report.total.folded) == ([], 16, 16)
    columns = "task, item, model, score, failure, prompt_tokens, completion_tokens"
    assert rows(tmp_path / "second", f"SELECT {columns} FROM matrix ORDER BY ALL") == sorted(answers(lake, columns))
    usd = "SELECT task, item, model, stated_usd FROM records ORDER BY ALL"
    assert rows(tmp_path / "second", usd) == sorted(answers(lake, "task, item, model, usd"))
    texts = "SELECT item, responses FROM responses WHERE task = 'arc' AND model = 'b' ORDER BY item"
    assert rows(tmp_path / "second", texts) == [(0, ["x"]), (2, ["y"]), (3, ["z"])]
