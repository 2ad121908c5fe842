"""matrix.py score: routers judged by files of their choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.matrix import main
from tests.helpers.importing import write_lines
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.routed import lake, scored, two_tasks

__all__ = ["lake"]  # a fixture


def test_score_of_choices_is_what_is_counted_here(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,c\n1,b\n2,b\n3,c\n5,b\n")
    [row] = scored(lake, path, capsys)
    # Item 2 lacks a verdict of c, item 4 a choice: 0, 1, 3 and 5 are left.
    assert (row["router"], row["items"], row["left_out"], row["unchosen"]) == ("mine", 4, 2, 1)
    assert (row["score"], row["best_model"], row["best_score"], row["oracle_score"]) == (0.75, "a", 0.75, 1.0)
    assert (row["v_b"], row["gap_closed"]) == (1.0, 0.0)
    assert row["random_score"] == pytest.approx(np.mean([[1, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]]))
    assert row["choice_entropy"] == pytest.approx(1.0)
    tokens = np.array([10, 11, 13, 15])
    assert row["usd"] == pytest.approx((tokens * [2, 1, 2, 1]).mean() / 1e6)
    assert row["best_usd"] == pytest.approx(tokens.mean() * 5 / 1e6)
    assert row["oracle_usd"] == pytest.approx((tokens * [2, 1, 5, 1]).mean() / 1e6)


def test_score_against_latency_takes_seconds_for_the_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    seconds = {"fast": [1.0, 1.0, 2.0, 0.0], "slow": [5.0, 3.0, 4.0, 4.0]}
    scores = {"fast": [1, 0, 0, 0], "slow": [1, 1, 1, 0]}
    for model in seconds:
        cell = BuiltCell(model=model)
        lake.run(cell)
        timed = zip(scores[model], seconds[model], strict=True)
        lake.shard(cell, [cell.record(i, score=score, latency_s=s) for i, (score, s) in enumerate(timed)])
    lake.items("quiz", "i0", 4)
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,fast\n1,slow\n2,fast\n3,fast\n")
    [row] = scored(lake, path, capsys, "--against", "latency")
    assert (row["latency_s"], row["untimed"], row["best_latency_s"]) == (1.5, 0, 4.0)
    assert row["oracle_latency_s"] == (1 + 3 + 4 + 0) / 4
    # Points (1, 0.25) and (4, 0.75): the hull between them, the area under it; left of it counts as 0.
    assert (row["score"], row["hull_score"]) == (0.5, pytest.approx(0.25 + 0.5 / 6))
    assert (row["aiq_paper"], row["aiq_code"]) == (pytest.approx(0.5), pytest.approx(1.5 / 4))
    [row] = scored(lake, path, capsys)
    assert (row["usd"], row["unpriced"], row["hull_score"], row["aiq_paper"]) == (None, 4, None, None)
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, "--against", "latency"]) == 0
    assert "latency s" in capsys.readouterr().out


@pytest.mark.parametrize(("chosen", "hull"), [("bb", 0.5), ("cc", 0.8), ("ba", None)])
def test_score_of_the_hull_is_none_below_the_cheapest_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: str, hull: float | None
) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    for model, scores, seconds in (("a", (1, 1), (0.7, 0.1)), ("b", (1, 0), (0.1, 0.2)), ("c", (0, 0), (0.2, 0.4))):
        cell = BuiltCell(model=model)
        lake.run(cell)
        lake.shard(cell, [cell.record(i, score=scores[i], latency_s=seconds[i]) for i in range(2)])
    lake.items("quiz", "i0", 2)
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n" + "".join(f"{i},{model}\n" for i, model in enumerate(chosen)))
    [row] = scored(lake, path, capsys, "--against", "latency")
    assert row["hull_score"] == (None if hull is None else pytest.approx(hull))


def test_score_reads_every_form_of_a_file_and_several_routers(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"router": router, "task": "quiz", "item_hash": f"hash-{item}", "model": model}
        for router, model in (("always a", "a"), ("always b", "b"))
        for item in range(6)
    ]
    jsonl = write_lines(tmp_path / "x.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = scored(lake, jsonl, capsys)
    assert found == scored(lake, tmp_path / "x.parquet", capsys)
    assert [(row["router"], row["score"], row["v_b"]) for row in found] == [
        ("always a", pytest.approx(0.6), 1.0),
        ("always b", pytest.approx(0.4), pytest.approx(2 / 3)),
    ]
    pool = scored(lake, jsonl, capsys, "--pool", "model <> 'c'")
    assert [(row["models"], row["items"]) for row in pool] == [(2, 6), (2, 6)]
    assert main(["score", "--choices", str(jsonl), "--lake", lake.lake.uri, "--questions", "any"]) == 0
    said = capsys.readouterr().out
    assert "always a" in said
    assert "2 items without a score from some model, most of always a on quiz (1)" in said


def test_score_of_a_file_reads_that_file_and_all_of_it(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine1.csv").write_text("item,model\n0,a\n")
    path = tmp_path / "mine[1].csv"  # a pattern that the other file fits
    # Quotes, a line end within them and a comma first come far behind the lines that the guess is from.
    path.write_text("item,model,why\n" + "1,b,\n" * 30_000 + '"3","c","a ""b"",\nc"\n')
    [row] = scored(lake, path, capsys)
    assert (row["items"], row["score"]) == (2, 0.5)


def test_score_passes_over_a_damaged_table_of_items(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lake/items/task=quiz/i1.parquet").write_bytes(b"PAR1 and no more")
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,a\n")
    assert [row["items"] for row in scored(lake, path, capsys)] == [1]


def test_score_without_a_price_of_a_choice_has_no_cost(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.planned(BuiltCell(model="unheard-of"), [1, 1, 1, 1, 1, 1])
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,unheard-of\n1,a\n")
    [row] = scored(lake, path, capsys)
    assert (row["usd"], row["unpriced"]) == (None, 1)
    # Items 0 and 1: c and the other are always right, and the first by name is the best.
    assert (row["best_model"], row["best_usd"]) == ("c", pytest.approx(21e-6))


@pytest.mark.parametrize(
    ("lines", "more", "said"),
    [
        (
            "item,model\n0,b\n\n1,nobody\n",
            [],
            "line 4: mine chose 'nobody' on quiz, which is not in the pool; it has a, b",
        ),
        (
            "item,model\n0,org/A\n",
            [],
            "line 2: mine chose 'org/A' on quiz, which is not in the pool; did you mean a?",
        ),
        ("item,model\n0,a\n99,a\n", [], "line 3: item '99' is not among the 6 of task quiz, counted from 0"),
        ("item_hash,model\nhash-0,a\nhash-9,a\n", [], "line 3: no cell has an item with the item_hash 'hash-9'"),
        ("item,task,model\n0,quit,a\n", [], "line 2: the pool has no cell of task 'quit'; did you mean quiz?"),
        ('item,model,why\n0,a,"two\nlines"\n0,b,\n', [], "line 4: mine chose b for item 0 of quiz, and a in line 2"),
        ("item\n0\n", [], "it needs a column model"),
        ("item,model\n", [], "it has no rows"),
        ("item,model\n0,a\n# 1,b\n2,a\n", [], "line 3: item '# 1' is not among the 6"),
        ("item,model\n0,\n", [], "line 2: model is empty"),
        ("item,model\n0,a\n,b\n", [], "line 3: item is empty"),
        ("item,model\n0,a\n", ["--pool", "nonsense = 1"], "the pool's condition"),
        ("item,model\n0,a\n", ["--pool", "false"], "the pool has no candidate with a score"),
        ("item,model\n2,a\n", ["--pool", "model <> 'b'", "--questions", "any"], "no item"),
    ],
)
def test_score_of_what_cannot_be_judged_is_one_line(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, more: list[str], said: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(lines)
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.few(1)
@pytest.mark.parametrize("changed", [{"prompting": "p1"}, {"metric": "acc_norm"}, {"dtype": "bfloat16"}])
def test_score_of_several_cells_of_a_model_takes_one_and_says_so(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,a\n1,b\n")
    before = scored(lake, path, capsys)
    lake.planned(BuiltCell(model="a", **changed), [1, 1])
    options = ["--lake", lake.lake.uri, "--json", "--questions", "any"]
    assert main(["score", "--choices", str(path), *options]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == before
    assert ("1 of 3 candidates were chosen among several cells" in said.err) == ("metric" not in changed)
    [(column, value)] = changed.items()
    condition = f"model <> 'a' OR {column} = '{value}'"
    if "metric" in changed:  # a is compared by another metric than the others
        assert main(["score", "--choices", str(path), *options, "--pool", condition]) == 2
        assert "mine chose 'a' on quiz, which is not in the pool" in capsys.readouterr().err
    else:
        [row] = scored(lake, path, capsys, "--pool", condition)
        assert (row["models"], row["items"]) == (3, 2)


def test_score_of_a_position_in_two_tables_asks_for_the_question(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.planned(BuiltCell(model="d", items_digest="i1"), [1] * 6)
    lake.items("quiz", "i1", 6, content_hash=[f"c{n}" for n in range(6)])
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,a\n")
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, "--questions", "any"]) == 2
    assert "item 0 is another question in each of 2 item tables of quiz" in capsys.readouterr().err
    [(question,)] = lake.rows("SELECT question FROM questions WHERE items_digest = 'i0' AND item = 0")
    path.write_text(f"question,model\n{question},a\n")
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, "--questions", "any"]) == 2
    assert "no item" in capsys.readouterr().err  # d was asked other questions than the others
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, "--pool", "items_digest = 'i0'"]) == 0


def test_score_names_the_place_in_every_kind_of_file(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"item": 0, "model": "a"}, {"item": 77, "model": "a"}]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "x.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    for name, place in (("x.json", "entry 2"), ("x.jsonl", "line 3"), ("x.parquet", "row 2")):
        assert main(["score", "--choices", str(tmp_path / name), "--lake", lake.lake.uri]) == 2
        assert f"{name}, {place}: item '77' is not among the 6" in capsys.readouterr().err


def test_score_of_positions_that_several_tasks_have_asks_for_the_task(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.planned(BuiltCell(model="a", task="exam", items_digest="i9"), [1, 1])
    lake.items("exam", "i9", 2)
    lake.items("nobody-asked", "i8", 2)
    path = tmp_path / "mine.csv"
    path.write_text("item,model\n0,a\n")
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri]) == 2
    assert "line 2: item 0 is in 2 tasks (exam, quiz): add a column task" in capsys.readouterr().err
    path.write_text("item,task,model\n0,exam,a\n1,quiz,b\n")
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri, "--json"]) == 0
    said = capsys.readouterr()
    assert [row["task"] for row in json.loads(said.out)] == ["exam", "quiz"]
    assert "matrix: mine has no row over all tasks: " in said.err
    assert "line 3: mine chose 'b' on quiz, which is not in the pool" in said.err


def test_score_tells_the_entropy_of_choices_and_of_probabilities_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = two_tasks(tmp_path / "lake")
    sure, even = {"a": 1.0}, {"a": 3, "b": 3}
    rows = [
        {"task": task, "item": item, "model": "a", "probabilities": sure if task == "x" else even}
        for task, count in (("x", 3), ("y", 2))
        for item in range(count)
    ]
    found = {}
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        path = tmp_path / name
        if name == "p.parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif name == "p.jsonl":
            write_lines(path, rows)
        else:
            texts = [json.dumps(row["probabilities"]).replace('"', '""') for row in rows]
            path.write_text(
                "task,item,model,probabilities\n"
                + "".join(f'{row["task"]},{row["item"]},a,"{text}"\n' for row, text in zip(rows, texts, strict=True))
            )
        found[name] = [(row["choice_entropy"], row["selection_entropy"]) for row in scored(lake, path, capsys)]
    # x is sure of a, y tosses a coin; both choose a alone.
    assert found["p.csv"] == found["p.jsonl"] == found["p.parquet"]
    assert found["p.csv"] == [(0, 0), (0, 1), (0, pytest.approx(2 / 5)), (0, 0.5)]


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ('{"a": 0.5, "nobody": 0.5}', "line 2: probabilities: 'nobody' is not in the pool"),
        ('{"a": -1}', "line 2: probabilities: a value is no number from 0 on"),
        ('{"a": 0}', "line 2: probabilities: none is above 0"),
        ('{"b": 1}', "line 2: probabilities: 'a' was chosen and has none"),
        ("[1]", "line 2: probabilities: no mapping"),
        ("0.5", "line 2: probabilities: no mapping"),
        ('{"a": 0.5, "a": 0.5}', "line 2: probabilities: 'a' stands twice in one object"),
        ('{"a"', "line 2: probabilities: not JSON"),
    ],
)
def test_score_of_impossible_probabilities_is_one_line(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], probabilities: str, said: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('item,model,probabilities\n0,a,"' + probabilities.replace('"', '""') + '"\n')
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_score_of_a_choice_that_stands_twice_with_other_probabilities_is_refused(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.jsonl"
    write_lines(path, [{"item": 0, "model": "a", "probabilities": {"a": one, "b": 1 - one}} for one in (0.9, 0.6)])
    assert main(["score", "--choices", str(path), "--lake", lake.lake.uri]) == 2
    assert "line 2: mine states other probabilities for item 0 of quiz than in line 1" in capsys.readouterr().err


def test_score_with_probabilities_of_some_items_has_no_entropy_of_them(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('item,model,probabilities\n0,a,"{""a"": 1}"\n1,a,\n')
    [row] = scored(lake, path, capsys)
    assert (row["items"], row["selection_entropy"]) == (2, None)
