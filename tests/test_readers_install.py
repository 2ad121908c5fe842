"""What `pip install routerlake` brings suffices to read lakes and versions; the rest is named where it is missing."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from collectors.publish.card import Description
from collectors.publish.version import build_version
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only

ROOT = Path(__file__).resolve().parent.parent
#: Megabytes of the packages that a reader installs.
MOST = 350

#: Arguments: folder of a lake, of a version, and a file of choices.
USE = """
import contextlib, io, sys
import routerlake
from pipelines.console import command

here, version, choices = sys.argv[1:4]
for uri in (here, version):
    lake = routerlake.open(uri)
    assert lake.sql("SELECT count(*) FROM cells").fetchall() == [(2,)]
    assert lake.sql("SELECT max(started_at) IS NOT NULL FROM runs").fetchall() == [(True,)]
    pool = lake.matrix()
    assert pool.scores.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert (pool.usd.shape, pool.tokens.tolist()) == ((3, 2), [[12, 12], [13, 13], [14, 14]])
    assert len(pool.questions) == 3 and len(repr(pool)) and len(pool._repr_html_())
    [row] = pool.score(["a", "b", "a"])
    assert (row["score"], row["best_score"]) == (1.0, 2 / 3)
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
assert "1.0000" in run("score", "--lake", version, "--choices", choices)
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


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("readers")
    builder = LakeBuilder(folder / "lake")
    builder.items("quiz", "i0", 3)
    for model, scores in (("a", [1, 0, 1]), ("b", [0, 1, 1])):
        cell = BuiltCell(model=model, items=3)
        builder.run(cell)
        builder.shard(cell, [cell.record(item, score=score) for item, score in enumerate(scores)])
    version = build_version(builder.lake, folder / "version", Description("n", "t", "x")).folder
    (folder / "mine.csv").write_text("item,model\n0,a\n1,b\n2,a\n")
    return [builder.lake.uri, str(version), str(folder / "mine.csv")]


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
