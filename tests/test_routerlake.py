"""import routerlake: from Python a lake or version shows what views and commands show, by the readers' install."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import routerlake
from collectors.lake.store import Lake
from collectors.matrix.pool_files import parse_pool
from collectors.metrics.splits import routerbench_split, routereval_split
from collectors.publish.card import Description
from collectors.publish.version import build_version
from pipelines.matrix import main as matrix
from routerlake import ConfigError, Matrix
from tests.helpers.exporting import price
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only

ROOT = Path(__file__).resolve().parent.parent

#: A third is not exact in float32. c lacks a score of maths, and d is of maths alone.
SCORES: dict[str, dict[str, list[float | None]]] = {
    "quiz": {"a": [1, 0, 1, 1, 0, 1] * 2, "b": [0, 1 / 3, 1, 0, 0, 1] * 2, "c": [1, 1, 0, 0, 0, 0] * 2},
    "maths": {"a": [1.0] * 12, "b": [0.0] * 12, "c": [1.0] * 11 + [None], "d": [0.0, 1.0] * 6},
}
USD = {"a": 5.0, "b": 1.0}
KEPT = b"name: ab\ncondition: model IN ('a', 'b')\n"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    builder = LakeBuilder(tmp_path_factory.mktemp("api") / "lake")
    for task, models in SCORES.items():
        texts = [f"{task} {item}?" for item in range(12)]
        columns = {"content_hash": texts, "prompt": texts, "choices": [["x", "y"]] * 12, "target": ['"0"'] * 12}
        builder.items(task, task, 12, **columns)
        for model, scores in models.items():
            cell = BuiltCell(model=model, task=task, items_digest=task, items=12)
            builder.run(cell)
            answered = [(item, score) for item, score in enumerate(scores) if score is not None]
            values: dict[str, Any] = {"responses": ["x"]}
            if (model, task) == ("b", "quiz"):
                values |= {"prompt_tokens": None, "latency_s": None}
            builder.shard(cell, [cell.record(item, score=score, **values) for item, score in answered])
    price(builder, USD)
    return builder.lake


@pytest.fixture(scope="module")
def version(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, kept = tmp_path_factory.mktemp("api-version"), [parse_pool(KEPT, "kept.yaml")]
    return str(build_version(lake, folder, Description("n", "t", "x"), pools=kept).folder)


@pytest.fixture(scope="module")
def pool(lake: Lake) -> Matrix:
    return routerlake.open(lake.uri).pool("quiz")


def by_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert matrix(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("of", "options"), [("lake", {}), ("version", {"questions": "any", "pool": "model <> 'b'"})])
def test_matrix_of_a_lake_or_version_equals_the_view_pool(of: str, options: Any, lake: Lake, version: str) -> None:
    opened = routerlake.open(lake.uri if of == "lake" else version)
    columns = "task, question, candidate, score, prompt_tokens, completion_tokens, cached_tokens, usd, latency_s"
    shown = opened.sql(f"SELECT {columns} FROM pool ORDER BY ALL", **options).fetchall()
    table = opened.matrix(**options).to_arrow()
    rows = [tuple(row.values()) for row in table.to_pylist() if row["score"] is not None]
    assert sorted(rows, key=lambda row: row[:3]) == shown
    assert table.num_rows == (12 * 2 + 12 * 3 if options else 12 * 3 + 11 * 4)


def test_pool_arrays_mark_unknown_values_and_never_as_zero(pool: Matrix) -> None:
    assert (len(pool), pool.candidates, pool.tasks) == (12, ["a", "b", "c"], ["quiz"])
    np.testing.assert_array_equal(pool.scores, np.array([SCORES["quiz"][model] for model in "abc"]).T)
    assert (pool.prompt_tokens[:, 1] == -1).all()
    assert (pool.tokens[:, 1] == -1).all()
    assert pool.tokens[3].tolist() == [10 + 3 + 2, -1, 10 + 3 + 2]
    assert np.isnan(pool.latency_s[:, 1]).all()
    assert pool.latency[0, 0] == 0.5
    assert pool.usd[3, 0] == pytest.approx((13 * 5 + 2 * 50) / 1e6)
    assert np.isnan(pool.usd[:, 1:]).all()  # b has no tokens, c no price
    row = pool.to_arrow().slice(1, 1).to_pylist()[0]
    assert (row["candidate"], row["prompt_tokens"], row["usd"], row["latency_s"]) == ("b", None, None, None)


def test_pool_questions_are_the_rows_with_text_and_gold(pool: Matrix) -> None:
    table = pool.questions
    assert table["question"].to_pylist() == pool.to_arrow()["question"].to_pylist()[::3]
    assert table["prompt"].to_pylist() == [f"quiz {item}?" for item in range(12)] == table["content_hash"].to_pylist()
    assert table.slice(0, 1).select(["task", "choices", "gold", "item"]).to_pylist() == [
        {"task": "quiz", "choices": ["x", "y"], "gold": table["gold"][0].as_py(), "item": 0}
    ]
    assert table["gold"][0].as_py() is not None
    assert pool.cells["candidate"].to_pylist() == pool.candidates


def test_frames_of_pandas_and_polars_are_the_long_form(pool: Matrix) -> None:
    table = pool.to_arrow()
    assert pool.to_polars()["score"].to_list() == table["score"].to_pylist()
    frame = pool.to_pandas()
    assert frame["candidate"].tolist() == table["candidate"].to_pylist()
    assert math.isnan(frame["usd"][1])


def test_sql_of_a_version_reads_views_and_answers_and_a_wrong_query_is_no_damage(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened = routerlake.open(version)
    assert opened.sql("SELECT responses FROM responses LIMIT 1").fetchall() == [(["x"],)]
    shown = opened.sql("SELECT DISTINCT candidate FROM candidates", pool="model = 'a'")
    assert shown.filter("candidate <> 'x'").fetchall() == [("a",)]
    assert opened.pools == ["ab"]
    assert opened.pool("quiz", pool="@ab").candidates == ["a", "b"]
    with pytest.raises(ConfigError, match="to write files"):
        opened.sql("COPY (FROM cells) TO 'cells.csv'")
    with pytest.raises(duckdb.Error, match="nothing"):
        opened.sql("SELECT nothing FROM cells")
    assert caplog.text == ""


# ---- routers


def test_score_of_names_columns_and_a_file_equals_the_command(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = routerlake.open(lake.uri).matrix()
    names = ["a" if row % 2 else "b" for row in range(len(whole))]
    keys = whole.questions.select(["task", "question"]).to_pylist()
    path = tmp_path / "mine.csv"
    lines = [f"{key['task']},{key['question']},{name}" for key, name in zip(keys, names, strict=True)]
    path.write_text("\n".join(["task,question,model", *lines, ""]))
    shown = by_command(capsys, "score", "--choices", str(path), "--lake", lake.uri, "--json")
    assert [row["task"] for row in shown] == ["maths", "quiz", "all", "all"]
    assert whole.score(path) == shown
    assert whole.score({"mine": names}) == shown
    assert whole.score({"mine": [whole.candidates.index(name) for name in names]}) == shown
    [_, quiz, _, _] = whole.score({"mine": np.array(names)}, against="latency")
    assert (quiz["score"], quiz["latency_s"], quiz["untimed"]) == (shown[1]["score"], None, 6)


def test_score_of_a_part_counts_its_questions_alone(pool: Matrix) -> None:
    part = pool.take(range(4))
    [row] = part.score(["a", "b", None, -1])
    assert (row["items"], row["unchosen"], row["left_out"], row["score"]) == (2, 2, 2, pytest.approx((1 + 1 / 3) / 2))
    assert part.take([3, 0]).questions["item"].to_pylist() == [0, 3]
    assert len(part.take([])) == 0
    assert part.score(["a", 1, np.int64(1), "b"])[0]["items"] == 4, "names and columns in one list"


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (["a"], "one for each of the 12 questions"),
        (["a"] * 11 + ["z"], r"choices\[11\]: router chose 'z' on quiz, which is not in the pool"),
        ([3] * 12, r"choices\[0\]: 3 is neither a candidate nor one of the columns 0 to 2"),
        ([True] * 12, "neither a candidate"),
        ([None] * 12, "all are empty"),
        ([["a"], ["a", "b"]] * 6, r"choices\[0\]: \['a'\] is neither a candidate"),
        ([float("inf")] * 12, r"choices\[0\]: inf is neither a candidate"),
        ([1.5] * 12, r"choices\[0\]: 1.5 is neither a candidate"),
        (np.zeros((12, 2)), "not something else"),
        (7, "not something else"),
    ],
)
def test_score_of_wrong_choices_names_the_place(pool: Matrix, choices: list[Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        pool.score(choices)


def keys_of(pool: Matrix) -> list[dict[str, str]]:
    """As in `questions`, without reading texts."""
    keys: list[dict[str, str]] = pool._shown.questions.select(["task", "question"]).to_pylist()
    return keys


def test_split_by_the_rules_of_benchmarks(lake: Lake) -> None:
    whole = routerlake.open(lake.uri).matrix()
    questions = keys_of(whole)
    tasks = [key["task"] for key in questions]
    parts = whole.split()
    assert list(parts) == ["train", "val", "test"]
    expected = {"train": 0, "val": 1, "test": 2}
    for part, place in expected.items():
        items = [tasks.index(task) + routereval_split([tasks.count(task)])[place] for task in ("maths", "quiz")]
        rows = sorted(np.concatenate(items).tolist())
        assert keys_of(parts[part]) == [questions[row] for row in rows]
    bench = whole.split("routerbench", fraction=0.5)
    ids = [key["question"] for key in questions if key["task"] == "quiz"]
    train = {key["question"] for key in keys_of(bench["train"]) if key["task"] == "quiz"}
    assert train == set(routerbench_split(ids, 0.5)[0])
    assert sum(map(len, bench.values())) == len(whole)
    with pytest.raises(ConfigError, match="none of routereval, routerbench"):
        whole.split("mine")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fraction"):
        whole.split(fraction=0.5)


# ---- errors, and reprs


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"same": "dtype,colour"}, "no setting colour"),
        ({"include": "everything"}, "include"),
        ({"prices_on": "yesterday"}, "names no day"),
        ({"pool": "@mine"}, "keeps none"),
        ({"pool": "nothing = 1"}, "the pool's condition"),
    ],
)
def test_pool_of_a_wrong_option_is_one_line(lake: Lake, options: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        routerlake.open(lake.uri).pool("quiz", **options)


def test_pool_of_an_unknown_task_or_option_is_refused(lake: Lake, tmp_path: Path) -> None:
    opened = routerlake.open(lake.uri)
    with pytest.raises(ConfigError, match="no cell"):
        opened.matrix(["quiz", "nothing"])
    with pytest.raises(TypeError, match="colour"):
        opened.pool("quiz", colour="red")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="no lake at"):
        routerlake.open(tmp_path)


def test_costs_of_a_lake_that_has_changed_are_refused(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    builder.items("quiz", "i0", 2)
    builder.planned(BuiltCell(model="a"), [1, 0])
    pool = routerlake.open(builder.lake.uri).pool("quiz")
    builder.planned(BuiltCell(model="b"), [1, 0])
    with pytest.raises(routerlake.StorageError, match="has changed"):
        _ = pool.usd
    assert pool.scores.shape == (2, 1)


def test_repr_escapes_names_from_anywhere(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    builder.items("quiz", "i0", 2)
    builder.planned(BuiltCell(model="<img src=x onerror=y>\x1b[2J"), [1, 0])
    opened = routerlake.open(builder.lake.uri)
    pool = opened.pool("quiz")
    assert "\x1b" not in repr(pool) + pool._repr_html_() + repr(opened) + opened._repr_html_()
    assert "<img" not in pool._repr_html_()
    assert "&lt;img src=x onerror=y&gt;" in pool._repr_html_()
    assert len(repr(pool).splitlines()) <= 12
    assert "2 questions × 1 candidates of quiz (acc, more is better)" in repr(pool)


# ---- the readers' install

#: Megabytes of the packages that a reader installs.
MOST = 350

#: The work of a reader. Arguments: a lake, a version of it, and a file of choices.
USE = """
import contextlib, io, sys
import routerlake
from pipelines.console import command

here, version, choices = sys.argv[1:4]
for uri in (here, version):
    lake = routerlake.open(uri)
    assert lake.sql("SELECT count(*) FROM cells").fetchall() == [(7,)]
    assert lake.sql("SELECT max(started_at) IS NOT NULL FROM runs").fetchall() == [(True,)]
    pool = lake.pool("quiz")
    assert pool.scores[:2].tolist() == [[1, 0, 1], [0, 1 / 3, 1]]
    assert (pool.usd.shape, pool.tokens[0].tolist()) == ((12, 3), [12, -1, 12])
    assert len(pool.questions) == 12 and len(repr(pool)) and len(pool._repr_html_())
    [row] = pool.score(["a"] * 12)
    assert (row["score"], row["best_model"]) == (2 / 3, "a")
    try:
        pool.to_pandas()
    except ModuleNotFoundError as error:
        assert "pip install 'routerlake[pandas]'" in str(error)
try:
    routerlake.open("s3://bucket/lake")
except routerlake.ConfigError as error:
    assert "pip install 'routerlake[s3]'" in str(error), error

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert command.run(list(arguments)) == 0, arguments
    return out.getvalue()

assert "quiz" in run("matrix", "--lake", here, "--sql", "SELECT task, candidate FROM pool")
assert "0.6667" in run("score", "--lake", version, "--choices", choices)
assert "run-000" in run("status", "--lake", here, "--json")
assert "matrix" in run("--help")
try:
    run("plot", "--lake", here, "--out", here + "-pictures")
except ModuleNotFoundError as error:
    from collectors.extras import advice
    assert advice(error) == "matplotlib is not installed: pip install 'routerlake[plot]'"
else:
    raise AssertionError("plot needs matplotlib")
print("read")
"""

#: Raises for every import of a library that is none of sys.argv.pop(1), names with commas between.
BLOCK = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)

allowed = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture
def arguments(lake: Lake, version: str, tmp_path: Path) -> list[str]:
    (tmp_path / "mine.csv").write_text("task,item,model\n" + "".join(f"quiz,{item},a\n" for item in range(12)))
    return [lake.uri, version, str(tmp_path / "mine.csv")]


def libraries_of_readers() -> set[str]:
    """Names that the libraries of the readers' install are imported by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [canonicalize_name(Requirement(line).name) for line in project["dependencies"]]
    for name in wanted:
        for line in importlib.metadata.requires(name) or []:
            one = Requirement(line)
            needed = one.marker is None or one.marker.evaluate({"extra": ""})
            if needed and canonicalize_name(one.name) not in wanted:
                wanted.append(canonicalize_name(one.name))
    owners = importlib.metadata.packages_distributions()
    return {module for module, of in owners.items() if {canonicalize_name(one) for one in of} & set(wanted)}


@pytest.mark.slow
def test_readers_libraries_alone_open_a_lake_and_a_version(arguments: list[str]) -> None:
    allowed = libraries_of_readers() | {"schemas", "collectors", "pipelines", "routerlake", "_duckdb"}
    assert allowed.isdisjoint({"pandas", "ray", "torch", "lm_eval", "matplotlib", "s3fs"})
    command = [sys.executable, "-c", BLOCK + USE, ",".join(sorted(allowed)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "read", done.stderr[-3000:]


@long_only
@pytest.mark.slow
def test_readers_install_is_small_and_reads(arguments: list[str], tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    install = [python, "-m", "pip", "install", "-q", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode and re.search("No matching distribution|connection|resolve", done.stderr, re.I):
        pytest.skip("no package index is reachable here")
    assert done.returncode == 0, done.stderr[-2000:]
    [packages] = (tmp_path / "env/lib").glob("python*/site-packages")
    own = {"pip", "setuptools", "_distutils_hack", "pkg_resources"}
    files = [path for top in packages.iterdir() if top.name.partition("-")[0] not in own for path in tree(top)]
    assert sum(path.stat().st_size for path in files) < MOST * 2**20
    used = subprocess.run([python, "-c", USE, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert used.stdout.strip() == "read", used.stderr[-3000:]
    shown = subprocess.run([tmp_path / "env/bin/routerlake", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("routerlake ")


def tree(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else [top]
