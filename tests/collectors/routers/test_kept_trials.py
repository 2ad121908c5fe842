"""Trials that a board kept: damaged ones and those of other code are run again, and never end it in a traceback."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
import types
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.routers.boards import Job, Trial, in_processes, run_trials
from collectors.routers.registry import RouterSpec, router_of
from collectors.routers.sources import Sources, loaded_since
from collectors.routers.trial import Fold
from tests.helpers.routed_worlds import world

OWN = """
import numpy as np
{}

class Own:
    def fit(self, *_):
        pass

    def route(self, queries, candidates):
        from {} import CHOICE
        return [CHOICE] * len(queries)
"""


#: A library that makes a module of a text, as torch does.
MAKES = """
import importlib.abc, importlib.util, sys

class Loader(importlib.abc.InspectLoader):
    def get_source(self, name):
        return ""

spec = importlib.util.spec_from_loader("written_1", Loader(), origin="text")
sys.modules["written_1"] = importlib.util.module_from_spec(spec)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))


def trials_of(routers: list[RouterSpec], folder: Path, runner: Any, path: Path | None = None) -> list[Trial]:
    folds = [Fold(np.arange(120), np.arange(120, 240), 0)]
    return run_trials(world(), routers, folds, folder, runner, path=[str(path)] if path else [])


# ---- code


@pytest.mark.slow
def test_trial_of_a_router_whose_code_changed_anywhere_is_run_again(tmp_path: Path) -> None:
    """A module beside its own, one of its package, and one below a folder without a file of its own."""
    code = tmp_path / "code"
    (code / "packed_mine" / "deep").mkdir(parents=True)
    (code / "beside_mine.py").write_text(OWN.format("", "helper_mine"))
    (code / "packed_mine" / "__init__.py").write_text(OWN.format("", ".impl"))
    (code / "packed_mine" / "deep" / "inner.py").write_text(OWN.format("from .. import impl", "helper_mine"))
    factories = ["beside_mine:Own", "packed_mine:Own", "packed_mine.deep.inner:Own"]
    routers = [replace(router_of(one, "none", str(code)), name=one[-14:]) for one in factories]
    routers.append(router_of("cheapest"))

    def write(choice: str) -> None:
        for helper in ("helper_mine.py", "packed_mine/impl.py"):
            (code / helper).write_text(f"CHOICE = {choice}")

    def board() -> list[tuple[bool, int | str]]:
        trials = trials_of(routers, tmp_path / "trials", in_processes(1), code)
        return [(one.is_kept, one.message or int(one.made["chosen"][0])) for one in trials]

    write("2")
    assert board() == [(False, 2)] * 3 + [(False, 0)]
    assert board() == [(True, 2)] * 3 + [(True, 0)]
    write("'nobody'")
    wrong = "query 0: it chose 'nobody', which is no candidate"
    assert board() == [(False, wrong)] * 3 + [(True, 0)]
    assert board() == [(True, wrong)] * 3 + [(True, 0)]
    write("1  # a failure is of code, too")
    assert board() == [(False, 1)] * 3 + [(True, 0)]


def test_note_of_sources_has_files_of_modules_and_versions_of_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name for name in sys.modules if not name.startswith(("psutil", "xml.dom"))}
    (tmp_path / "site-packages" / "theirs_1").mkdir(parents=True)
    (tmp_path / "site-packages" / "theirs_1" / "__init__.py").write_text(MAKES)
    (tmp_path / "mine_1.py").write_text("import theirs_1, psutil, xml.dom")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    __import__("mine_1")
    note = loaded_since(before, "mine_1:Own", time.time())
    assert note is not None
    assert loaded_since(before, "mine_1:Own", 0.0) is None, "who wrote it since, and what, is not known"
    assert sorted(note) == ["mine_1", "psutil", "theirs_1"]
    assert note["psutil"].startswith("version ")
    folders = [str(tmp_path)]
    assert Sources(folders).other(note) is None
    (tmp_path / "site-packages" / "theirs_1" / "__init__.py").write_text("a = 2")
    assert Sources(folders).other(note) == "theirs_1"
    assert loaded_since(before, "theirs_1:Own", time.time()) != note
    monkeypatch.setitem(sys.modules, "made_1", types.ModuleType("made_1"))
    assert loaded_since(before, "mine_1:Own", time.time()) is None, "nobody can tell what made it"


# ---- files


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a trial of `cheapest`."""
    folder = tmp_path_factory.mktemp("good")
    trials_of([router_of("cheapest")], folder, in_processes(1))
    [path] = folder.glob("*.npz")
    return path.read_bytes()


def _changed(data: bytes, **arrays: Any) -> bytes:
    made, new = dict(np.load(io.BytesIO(data))) | arrays, io.BytesIO()
    np.savez(new, **{name: values for name, values in made.items() if values is not None})
    return new.getvalue()


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _column(column: int) -> Any:
    return np.full(120, column)


DAMAGED = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "cut": lambda data: data[:-1],
    "flipped": lambda data: _flipped(data, len(data) // 2),
    "flipped end": lambda data: _flipped(data, len(data) - 10),
    "text": lambda data: b"hello",
    "an array": lambda data: data[data.index(b"\x93NUMPY") :],
    "no chosen": lambda data: _changed(data, chosen=None),
    "no sources": lambda data: _changed(data, sources=None),
    "odd sources": lambda data: _changed(data, sources=np.array("[1]")),
    "more": lambda data: _changed(data, more=np.zeros(3)),
    "short": lambda data: _changed(data, chosen=np.zeros(3, int)),
    "floats": lambda data: _changed(data, chosen=np.zeros(120)),
    "beyond": lambda data: _changed(data, chosen=_column(3)),
    "below": lambda data: _changed(data, chosen=_column(-2)),
    "objects": lambda data: _changed(data, chosen=np.array([{}] * 120, object)),
}
#: The same of a failure.
FAILURES = {
    "no JSON": b"{",
    "a list": b"[]",
    "empty": b"",
    "nothing": b"{}",
    "no failure": b'{"failed": null, "message": null}',
    "unknown": b'{"failed": "bored", "message": "x"}',
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [*DAMAGED, *(f"failure: {name}" for name in FAILURES), "folder"])
def test_damaged_trial_is_said_in_a_line_and_runs_again(
    tmp_path: Path, good: bytes, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran = []

    def runner(jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
        for job in jobs:
            ran.append(job.spec.name)
            if job.out.is_dir():
                os.rmdir(job.out)
            job.out.write_bytes(good)
            yield job, {}

    routers = [router_of("cheapest")]
    [first] = trials_of(routers, tmp_path, runner)
    [path] = tmp_path.glob("*.npz")
    if case in DAMAGED:
        path.write_bytes(DAMAGED[case](good))
    else:
        path.unlink()
        if case == "folder":
            path.mkdir()
        else:
            path.with_suffix(".failed.json").write_bytes(FAILURES[case.removeprefix("failure: ")])
    with caplog.at_level(logging.WARNING):
        [again] = trials_of(routers, tmp_path, runner)
    assert (again.failed, again.is_kept, len(ran)) == (None, False, 2)
    assert np.array_equal(first.made["chosen"], again.made["chosen"])
    [said] = [record.getMessage() for record in caplog.records]
    assert "is damaged, and runs again" in said
    assert "\n" not in said
    caplog.clear()
    [kept] = trials_of(routers, tmp_path, runner)
    assert (kept.is_kept, len(ran), caplog.records) == (True, 2, [])


def test_trial_that_leaves_a_damaged_file_costs_its_own_row(tmp_path: Path) -> None:
    def runner(jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
        for job in jobs:
            job.out.write_bytes(b"PK")
            yield job, {}

    [trial] = trials_of([router_of("cheapest")], tmp_path, runner)
    assert trial.failed == "died"
    assert trial.message.startswith("what it left is no trial: ")
    assert json.loads(next(tmp_path.glob("*.failed.json")).read_text())["failed"] == "died"
