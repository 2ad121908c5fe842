"""Counts of a lake's texts by one tokenizer. With the real vocabulary: tests/verify.py, on RouterBench's costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from collectors.importers.files import find_files
from collectors.importers.ingest import ingest
from collectors.importers.registry import FORMATS
from collectors.importers.sources import ImportSource
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.token_counts import VIEWS, tokens_of, write_counts
from pipelines.tokens import main
from tests.helpers.importing import write_lines
from tests.helpers.lake_builder import BuiltCell, LakeBuilder


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def counted(lake: Lake, out: Path, tasks: Sequence[str] | None = None) -> tuple[tuple[int, int, int], list[tuple]]:
    known = ask(lake, lambda con, _: write_counts(con, words, "words", out, tasks), only=VIEWS)
    rows = pq.read_table(out).to_pylist()
    assert {row["tokenizer"] for row in rows} <= {"words"}
    return known, [(row["model"], row["item"], row["question_tokens"], row["response_tokens"]) for row in rows]


def test_counts_are_of_the_texts_that_are_kept_and_null_without_one(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    cell, other = BuiltCell(model="a"), BuiltCell(model="b", task="exam", items_digest="i1")
    lake.run(cell, other)
    lake.items("quiz", "i0", 3, prompt=["what is it", "['one two', 'three']", None])
    lake.items("exam", "i1", 1, prompt=["x"])
    first = cell.record(0, score=1.0, responses=["a b", "c d e"])  # two repeats
    single = cell.record(0, score=1.0, responses=["a b"], repeat=1)
    again = cell.record(0, score=1.0, filter="another")
    choices = cell.record(1, score=1.0, loglikelihoods=[-1.0, -2.0])
    lake.shard(cell, [first, single, again, choices, cell.record(2, score=0.0, responses=[""])])
    lake.shard(other, [other.record(0, score=1.0, responses=["y z"])])
    known, rows = counted(lake.lake, tmp_path / "x.parquet", ["quiz"])
    # What looks like a list is a text where RouterBench did not write it.
    assert rows == [("a", 0, 3, 5), ("a", 1, 3, None), ("a", 2, None, 0)]
    assert known == (3, 2, 2)
    assert counted(lake.lake, tmp_path / "x.parquet")[0] == (4, 3, 3)


def test_counts_of_routerbenchs_lists_are_of_their_elements(tmp_path: Path) -> None:
    rows = [
        {"sample_id": "arc.test.1", "prompt": "['a b', 'c']", "eval_name": "arc", "performance": 1.0}
        | {"model_response": "['one two three']", "model_name": "m", "cost": 0.1},
        {"sample_id": "arc.test.2", "prompt": "[no list", "eval_name": "arc", "performance": 0.0}
        | {"model_response": "[1, 2]", "model_name": "m", "cost": 0.1},
    ]
    form = FORMATS["routerbench"]
    path = write_lines(tmp_path / "raw.jsonl", rows)
    lake = Lake(str(tmp_path / "lake"))
    ingest(form.read, find_files([str(path)], form.patterns), ImportSource("routerbench", "routerbench"), lake)
    _, found = counted(lake, tmp_path / "x.parquet")
    assert found == [("m", 0, 3, 3), ("m", 1, 2, 2)]


@pytest.mark.parametrize(
    ("text", "tokens"), [("['a b', 'c']", 3), ("[]", 0), ("['a b', 1]", 3), ("[[[", 1), ("['a b'] c", 3), ("a b", 2)]
)
def test_tokens_of_a_list_of_texts_are_those_of_its_elements(text: str, tokens: int) -> None:
    assert tokens_of([[text], []], [True, True], words) == [tokens, 0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "x.parquet", "--tokenizer", "nonsense"], "no tokenizer 'nonsense': tiktoken has "),
        (["--out", "x.csv"], "name a file that ends in .parquet"),
        (["--out", "nowhere/x.parquet"], "in a folder that exists"),
    ],
)
def test_tokens_command_with_wrong_input_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lake = LakeBuilder(tmp_path / "lake")
    assert main(["--lake", lake.lake.uri, *more]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]
