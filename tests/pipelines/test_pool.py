"""One pool: every command shows the same candidates, questions and numbers.

The lake is the one that a person meets first: two models of other dtypes and promptings, the answers of a hosted model
in a CSV, and a checkpoint that could not be run and was replaced under its name.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.pools import load_matrix
from pipelines.matrix import main as matrix
from pipelines.publish import main as publish
from schemas.failures import ConfigError
from tests.helpers.importing import imported
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.pool_readers import assert_every_reader_shows, sql

QUESTIONS = [f"What is {number} + {number}?" for number in range(12)]
CHOICES = [["right", f"wrong {number}"] for number in range(12)]
#: Model -> right on these questions.
RIGHT = {"alpha": {0, 1, 2}, "beta": {2, 3, 4, 5}, "hosted": set(range(6, 12))}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pool")
    lake = LakeBuilder(folder / "lake")
    lake.items(
        "mine",
        "i0",
        12,
        prompt=QUESTIONS,
        choices=CHOICES,
        target=['"0"'] * 12,
        content_hash=_hashes(folder),
    )
    for model, settings in (("alpha", {"prompting": "p0"}), ("beta", {"prompting": "p1", "dtype": "bfloat16"})):
        cell = BuiltCell(model=model, task="mine", items=12, **settings)
        lake.planned(cell, [float(item in RIGHT[model]) for item in range(12)])
    # Its first checkpoint never answered.
    lake.run(BuiltCell(model="beta", task="mine", items=12, prompting="p0", dtype="float16"))
    imported("table", _hosted(folder), folder / "lake", name="csv", options=_COLUMNS)
    return lake.lake.uri


_COLUMNS = {name: name for name in ("model", "task", "key", "score", "prompt", "choices", "target")}


def _hosted(folder: Path) -> Path:
    path = folder / "hosted.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for item in reversed(range(12)):  # in another order than the lake's
            score = int(item in RIGHT["hosted"])
            writer.writerow(["hosted", "mine", f"q{item}", score, QUESTIONS[item], json.dumps(CHOICES[item]), "right"])
    return path


def _hashes(folder: Path) -> list[str]:
    """What an import of the same questions computes."""
    imported("table", _hosted(folder), folder / "alone", options=_COLUMNS)
    rows = ask(
        Lake(str(folder / "alone")),
        lambda con, _: con.execute("SELECT source_key, content_hash FROM items").fetchall(),
        only=["items"],
    )
    by_key = dict(rows)
    return [by_key[f"q{item}"] for item in range(12)]


def test_pool_of_a_lake_and_its_version_is_one_for_every_reader(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    means = {model: len(right) / 12 for model, right in RIGHT.items()}
    assert_every_reader_shows(uri, means, 12, tmp_path, capsys, "mine; collected (2), imported (1)")
    for place in (uri, str(tmp_path / "1")):
        [row] = sql(place, "FROM oracle", capsys)
        assert (row["imported"], row["dtypes"], row["best_model"], row["oracle_score"]) == (1, 2, "hosted", 1.0)


def test_same_setting_leaves_out_the_candidates_that_differ(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = sql(uri, "SELECT candidates, best_model FROM oracle", capsys, "--same", "imported_from")
    assert row == {"candidates": 2, "best_model": "beta"}
    assert matrix(["--lake", uri, "--sql", "FROM oracle", "--same", "colour"]) == 2
    assert "no setting colour" in capsys.readouterr().err


def test_show_puts_candidates_of_several_settings_side_by_side(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        matrix(["--lake", uri, "--include", "all", "--show", "--pool", "model <> 'nobody'", "--out", "x.duckdb"]) == 0
    )
    shown = capsys.readouterr().out
    lines = shown[shown.index("mine: the pool, 3 candidates side by side") :].splitlines()
    # The best first; each on the questions in their order.
    assert [line.split() for line in lines[4:7]] == [
        ["hosted", "imported", *"00000011"],
        ["beta", "bfloat16", "0-shot", *"00111100"],
        ["alpha", "float32", "0-shot", *"11100000"],
    ]
    assert "--pool 'model <> '\"'\"'nobody'\"'\"'' --include all --sql" in shown


def test_condition_that_no_cell_meets_is_reported(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix(["--lake", uri, "--pool", "model = 'gpt'", "--sql", "FROM oracle"]) == 0
    assert "no cell meets the pool's condition" in capsys.readouterr().err


def test_pool_written_down_and_published_gives_the_same_digits_by_its_name(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("name: small\ncondition: model <> 'alpha'\ninclude: all\ntasks: [mine]\n")
    here = ["--lake", uri, "--to", str(tmp_path / "out"), "--include", "all", "--version", "1", "--pools", str(small)]
    assert publish(here) == 0
    shutil.move(tmp_path / "out/1", tmp_path / "elsewhere")
    path = tmp_path / "router.csv"
    path.write_text("source_key,model\nq2,beta\nq3,hosted\nq7,hosted\n")
    rows = []
    for place, pool in ((uri, str(small)), (str(tmp_path / "elsewhere"), "@small")):
        capsys.readouterr()
        assert matrix(["score", "--choices", str(path), "--lake", place, "--pool", pool, "--json"]) == 0
        text = capsys.readouterr()
        rows.append(json.loads(text.out))
        assert re.search(r"pool small \([0-9a-f]{16}\) of ", text.err)
    assert rows[0] == rows[1]
    assert (rows[0][0]["models"], rows[0][0]["items"], rows[0][0]["score"]) == (2, 3, pytest.approx(2 / 3))
    assert "`small`" in (tmp_path / "elsewhere/README.md").read_text()
    for pool, message in (
        ("", "--pool is empty"),
        ("@large", "keeps small"),
        ("small", "--pool @small is the pool that the version keeps"),
    ):
        assert matrix(["--lake", str(tmp_path / "elsewhere"), "--pool", pool, "--sql", "FROM oracle"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the keys name, condition"),
        ("name: ../x\n", "name: expected letters"),
        ("name: a\ncolour: red\n", "no key 'colour'"),
        ("name: a\nsame: [colour]\n", "no setting colour"),
        ("name: a\nsame: dtype\n", "same: expected a list"),
        ("name: a\nquestions: some\n", "questions: 'some' is neither every nor any"),
        ("name: a\nprices: {on: soon}\n", "prices: expected on: a day"),
        ("name: a\ncondition: 'nonsense = 1'\n", "the pool's condition"),
        ('name: a\ncondition: "false) OR (true"\n', "the pool's condition"),
        ("name: [a\n", "this is not YAML"),
        ("!!python/object/apply:os.system ['true']\n", "this is not YAML"),
        ("name: a\ninclude: none\n", "include: expected collected"),
        ("name: a\nquestions: any\nquestions: every\n", "a key stands twice"),
    ],
)
def test_pool_file_that_is_wrong_is_refused_with_its_key(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert matrix(["--lake", uri, "--pool", str(path), "--sql", "FROM oracle"]) == 2
    assert message in capsys.readouterr().err


def test_pool_file_beside_the_same_options_is_fine_and_beside_others_refused(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "both.yaml"
    file.write_text("name: both\ninclude: all\nquestions: any\n")
    query = ["--lake", uri, "--pool", str(file), "--sql", "SELECT count(DISTINCT candidate) AS n FROM candidates"]
    assert matrix([*query, "--include", "all", "--questions", "any"]) == 0
    assert capsys.readouterr().out.split() == ["n", "3"]
    assert matrix([*query, "--include", "imported"]) == 2
    assert "--include belongs into the file of the pool both" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"no collected cell with a score of task mine2; did you mean mine\?"):
        load_matrix(Lake(uri), ["mine2"])
    file.write_text("name: both\ntasks: [mien]\n")
    assert matrix(query) == 0
    assert "no cell meets the pool's condition, (true) AND task IN ('mien'): its views" in capsys.readouterr().err
