"""plot.py: the pictures of a small lake, and messages about pictures that it cannot draw."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.metrics.scaling import scaling
from pipelines.plot import main
from pipelines.publish import main as publish
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only

SCORES: dict[str, list[float | None]] = {
    "a": [1, 0, 1, 1, 0, 1, 1, 0, 1, 1],
    "b": [0, 1, 1, 0, 0, 1, 0, 1, 1, 0],
    "c": [1, 1, None, 0, 0, 0, 1, 1, 0, 0],
    "d": [1, *[None] * 9],
}


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    builder = LakeBuilder(tmp_path / "lake")
    for usd, (model, scores) in enumerate(SCORES.items(), 1):
        cell = BuiltCell(model=model)
        rows = [(item, score) for item, score in enumerate(scores) if score is not None]
        builder.run(cell)
        builder.shard(cell, [cell.record(item, score=score, stated_usd=usd / 1000) for item, score in rows])
        if model in "ab":
            builder.planned(BuiltCell(model=model, task="gsm8k"), [1, 0, 0 if model == "a" else 1])
    return builder


def drawn(lake: LakeBuilder, out: Path, *more: str) -> dict[str, Any]:
    """The numbers on the page, by task."""
    assert main(["--lake", lake.lake.uri, "--out", str(out), *more]) == 0
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', (out / "index.html").read_text())
    assert found is not None
    return {task["task"]: task for task in json.loads(found[1])["tasks"]}


def test_plot_writes_pictures_and_a_page_with_the_computed_numbers(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "pictures"
    tasks = drawn(lake, out)
    assert list(tasks) == ["gsm8k", "quiz", "all tasks"]
    names = {path.name for path in out.iterdir()}
    assert names == {
        "index.html",
        *("gsm8k-pool.png", "gsm8k-latency.png", "quiz-pool.png", "quiz-cost.png"),
        *("all_tasks-pool.png", "all_tasks-latency.png"),
    }
    for name in names - {"index.html"}:
        data = (out / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(data) > 20_000
    quiz = tasks["quiz"]
    scores = np.array([[np.nan if score is None else score for score in SCORES[model]] for model in "abc"]).T
    expected = scaling(scores)
    assert quiz["curves"]["models"] == [1, 2, 3]
    assert quiz["curves"]["r_o(1)"] == expected.oracle.tolist()
    assert quiz["curves"]["r_o(0.5)"] == expected.r_o(0.5).tolist()
    assert (quiz["items"], quiz["items_left_out"]) == (9, 0)
    assert quiz["cost"]["models"]["usd_per_1000"] == pytest.approx([1, 2, 3])
    assert quiz["cost"]["models"]["score"] == pytest.approx([6 / 9, 4 / 9, 4 / 9])
    said = capsys.readouterr().out
    assert "quiz: 3 candidates, 9 questions" in said
    assert "left out: d in quiz, which lacks scores: without it 8 more questions count" in said
    assert "left out: 1 of 13 questions (no score of c 1)" in said
    assert f"→ {out / 'index.html'}" in said


def test_plot_of_tasks_with_other_axes_and_references(lake: LakeBuilder, tmp_path: Path) -> None:
    one = drawn(
        lake, tmp_path / "out", "--task", "quiz", "--against", "latency", "--reference", "quiz=0.7", "--draws", "3"
    )
    assert list(one) == ["quiz"]
    assert (one["quiz"]["cost"]["kind"], one["quiz"]["reference"], one["quiz"]["draws"]) == ("latency_s", 0.7, 3)
    assert drawn(lake, tmp_path / "out", "--task", "gsm8k")["gsm8k"]["reference"] == 0.92
    without = drawn(lake, tmp_path / "none", "--task", "gsm8k", "--against", "usd")["gsm8k"]
    assert (without["cost"], without["no_cost"]) == (None, "no cost is known")
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"index.html", "gsm8k-pool.png"}


@long_only
def test_plot_of_a_published_version_is_that_of_its_lake(lake: LakeBuilder, tmp_path: Path) -> None:
    before = drawn(lake, tmp_path / "before", "--task", "quiz", "--draws", "3")
    assert publish(["--lake", lake.lake.uri, "--to", str(tmp_path / "published"), "--version", "v1"]) == 0
    version = str(tmp_path / "published" / "v1")
    assert drawn(lake, tmp_path / "after", "--task", "quiz", "--draws", "3", "--lake", version) == before


@long_only
def test_plot_of_one_seed_is_the_same_again(lake: LakeBuilder, tmp_path: Path) -> None:
    pages = []
    for name, seed in (("x", "1"), ("y", "1"), ("z", "2")):
        drawn(lake, tmp_path / name, "--seed", seed, "--draws", "3", "--task", "gsm8k")
        pages.append((tmp_path / name / "index.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_plot_draws_what_can_be_drawn_and_names_the_rest(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.planned(BuiltCell(model="a", task="loss", higher_is_better=False), [1])
    assert main(["--lake", lake.lake.uri, "--out", str(tmp_path / "out")]) == 1
    assert "not drawn: loss: less is better for acc" in capsys.readouterr().err
    assert "Not drawn: loss" in (tmp_path / "out" / "index.html").read_text()
    lake.planned(BuiltCell(model="z", task="alone"), [1])
    assert main(["--lake", lake.lake.uri, "--out", str(tmp_path / "out"), "--task", "alone", "gsm8k"]) == 0
    assert "all tasks: not drawn: no candidate is in all of its tasks" in capsys.readouterr().out


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--task", "nothing"], "no collected cell with a score of task nothing"),
        (["--pool", "nonsense = 1"], "the pool's condition"),
        (["--same", "colour"], "no setting colour"),
        (["--pool", "error('mine')"], "the pool's condition: InvalidInputException: Invalid Input Error: mine"),
        (["--pool", "false"], "no collected cell with a score that meets the pool's condition"),
        (["--include", "imported"], "no imported cell"),
        (["--lake", "/nowhere/lake"], "no lake at"),
        (["--task", "quiz", "--questions", "any"], "quiz: no question has a score from all 6 candidates"),
        (["--out", "/dev/null"], "--out /dev/null is not a folder"),
        (["--out", "/dev/null/pictures"], "--out /dev/null/pictures: Not a directory"),
    ],
)
def test_plot_of_wrong_input_is_one_line(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    lake.planned(BuiltCell(model="e"), [None, None, *[1] * 8])
    lake.planned(BuiltCell(model="f"), [1, 1, *[None] * 8])
    assert main(["--lake", lake.lake.uri, "--out", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "wrong", ["--questions=x", "--draws=0", "--draws=1.5", "--seed=-1", "--reference=x", "--x=tokens"]
)
def test_plot_refuses_options_that_mean_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), wrong])
    assert stopped.value.code == 2
    assert wrong.partition("=")[0] in capsys.readouterr().err


def test_plot_of_choices_draws_routers_and_curves(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.items("quiz", "i0", 10)
    path = tmp_path / "mine.csv"
    chosen = {"always a": "aaaaaaaaaa", "knn@1": "ababababab", "knn@2": "bbbbbbbbbb", "few": "aa"}
    rows = [f"{router},quiz,{item},{model}" for router, models in chosen.items() for item, model in enumerate(models)]
    path.write_text("\n".join(["router,task,item,model", *rows]) + "\n")
    cost = drawn(lake, tmp_path / "out", "--choices", str(path), "--pool", "model IN ('a', 'b')")["quiz"]["cost"]
    routers = cost["routers"]
    points = dict(
        zip(
            routers["router"],
            zip(routers["usd_per_1000"], routers["score"], routers["items"], strict=True),
            strict=False,
        )
    )
    of_a, of_b = SCORES["a"], SCORES["b"]
    assert points["always a"] == (pytest.approx(1.0), pytest.approx(np.mean(of_a)), 10)
    assert points["knn@2"] == (pytest.approx(2.0), pytest.approx(np.mean(of_b)), 10)
    mixed = [of_a[item] if item % 2 == 0 else of_b[item] for item in range(10)]
    assert points["knn@1"] == (pytest.approx(1.5), pytest.approx(np.mean(mixed)), 10)
    assert points["few"][2] == 2
    said = capsys.readouterr().out
    assert "router few 0.5000, on 2 of 10 questions" in said
    page = (tmp_path / "out/index.html").read_text()
    assert "knn up to" in page
    assert "best single model" in page


def test_plot_of_a_choice_that_is_not_in_the_pool_says_why(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.items("quiz", "i0", 10)
    path = tmp_path / "mine.csv"
    path.write_text("task,item,model\nquiz,0,d\n")
    assert main(["--lake", lake.lake.uri, "--out", str(tmp_path / "out"), "--choices", str(path)]) == 1
    said = capsys.readouterr().err
    assert "mine chose 'd' on quiz, which is not in the pool; left out: it lacks scores: --questions any keeps" in said
