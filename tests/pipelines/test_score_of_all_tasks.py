"""matrix.py score: rows over all tasks, what was left out, and hints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.matrix import main
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.routed import lake, scored, two_tasks

__all__ = ["lake"]  # a fixture


def test_score_over_all_tasks_counts_each_item_once_with_the_models_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("task,item,model\nx,0,a\nx,1,a\nx,2,a\ny,0,b\ny,1,b\n")
    found = scored(two_tasks(tmp_path / "lake"), path, capsys)
    rows = [(row["task"], row["weighted_by"], row["items"], row["models"]) for row in found]
    assert rows == [("x", None, 3, 2), ("y", None, 2, 3), ("all", "questions", 5, 2), ("all", "tasks", 5, 2)]
    whole = found[-2]
    # Items of a: 1 0 1 0 0, of b: 0 1 0 1 1; chosen 1 0 1 1 1.
    assert (whole["score"], whole["best_model"], whole["best_score"], whole["oracle_score"]) == (0.8, "b", 0.6, 1.0)
    assert (whole["v_b"], whole["gap_closed"]) == (pytest.approx(0.8 / 0.6), pytest.approx(0.5))
    assert whole["random_score"] == 0.5
    assert whole["choice_entropy"] == pytest.approx(-(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4)))
    assert (whole["metric"], whole["selection_entropy"]) == ("acc", None)
    assert main(["score", "--choices", str(path), "--lake", str(tmp_path / "lake")]) == 0
    said = capsys.readouterr().out
    assert "all, by question" in said
    assert "all, by task" in said
    assert max(map(len, said.splitlines())) <= 100


def test_score_by_task_counts_each_task_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("task,item,model\nx,0,a\nx,1,a\nx,2,a\ny,0,b\ny,1,b\n")
    whole = scored(two_tasks(tmp_path / "lake"), path, capsys)[-1]
    # x: a 2/3, b 1/3, chosen 2/3, oracle 1; y: a 0, b 1, chosen 1, oracle 1.
    assert (whole["best_model"], whole["oracle_score"], whole["random_score"]) == ("b", 1.0, 0.5)
    assert (whole["score"], whole["best_score"]) == (pytest.approx(5 / 6), pytest.approx(2 / 3))
    assert (whole["v_b"], whole["gap_closed"]) == (pytest.approx(5 / 4), pytest.approx(0.5))
    assert whole["choice_entropy"] == pytest.approx(1.0)


def test_score_says_left_out_once(lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        (tmp_path / "mine.csv").write_text(
            "router,item,model\n" + "".join(f"r{one},{item},b\n" for one in range(3) for item in range(number, 4))
        )
    options = ["--lake", lake.lake.uri, "--questions", "any"]
    assert main(["score", "--choices", str(tmp_path / "mine.csv"), *options]) == 0
    said = capsys.readouterr()
    [line] = [line for line in said.out.splitlines() if "left out" in line]
    assert line.startswith("left out: ")
    assert "most of r0 on quiz" in line


def test_score_of_a_task_that_only_imports_have_names_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = two_tasks(tmp_path / "lake")
    builder.run(BuiltCell(model="b", task="riddles"), imported_from="web")
    path = tmp_path / "mine.csv"
    for task, hint in (("riddles", "add --include imported, or all"), ("xx", "the pool has no cell of task 'xx'")):
        path.write_text(f"task,item,model\n{task},0,b\n")
        assert main(["score", "--choices", str(path), "--lake", builder.lake.uri]) == 2
        assert hint in capsys.readouterr().err


def test_score_says_why_a_chosen_model_is_not_in_the_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    for model, dtype in (("a", "float32"), ("b", "float32"), ("c", "bfloat16")):
        builder.planned(BuiltCell(model=model, dtype=dtype), [1.0, 0.0])
    path = tmp_path / "mine.csv"
    path.write_text("task,item,model\nquiz,0,c\n")
    for options, why in (
        (["--same", "dtype"], "not in the pool; left out: --same: dtype bfloat16"),
        (["--pool", "model = 'x'", "--include", "all"], "the pool has no candidate with a score: see --pool"),
    ):
        assert main(["score", "--choices", str(path), "--lake", builder.lake.uri, *options]) == 2
        assert why in capsys.readouterr().err


def test_score_leaves_out_a_task_whose_metric_is_better_where_it_is_less(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.planned(BuiltCell(model="a", task="perplexity", items_digest="i1", higher_is_better=False), [3.0, 4.0])
    path = tmp_path / "mine.csv"
    path.write_text("task,item,model\nquiz,0,a\nquiz,1,a\nperplexity,0,a\n")
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, "--json", "--questions", "any"]) == 0
    shown = capsys.readouterr()
    assert [(row["task"], row["items"]) for row in json.loads(shown.out)] == [("quiz", 2)]
    assert "left out: perplexity: less is better for acc" in shown.err
    path.write_text("task,item,model\nperplexity,0,a\n")
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri]) == 2
    assert "perplexity: less is better for acc" in capsys.readouterr().err
