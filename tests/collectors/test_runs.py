"""The runs of a lake: which there are, what they were asked for, how they ended."""

from __future__ import annotations

import datetime as dt
import logging
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from collectors.lake import Lake
from collectors.planning import Plan
from collectors.runs import RunEnd, list_runs, read_end, recorded, run_ids
from schemas.failures import StorageError
from tests.lake_builder import FOREIGN, BuiltCell, LakeBuilder, rows

A, B = BuiltCell(model="model-a", items=10), BuiltCell(model="model-b", items=10)


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


def test_runs_are_told_newest_first_without_imports(lake: LakeBuilder) -> None:
    runs = [lake.run(A), lake.run(A, B)]
    lake.lake.create("runs/import-0123456789abcdef.parquet", b"whatever")
    assert run_ids(lake.lake) == runs
    found = [(run["run_id"], run["cells"], run["items"], run["outcome"]) for run in list_runs(lake.lake)]
    assert found == [(runs[1], 2, 20, None), (runs[0], 1, 10, None)]


def test_list_of_runs_passes_over_a_damaged_one(lake: LakeBuilder) -> None:
    run = lake.run(A)
    lake.lake.create("runs/damaged.parquet", b"?")
    lake.lake.create("runs/foreign.parquet", FOREIGN)
    assert [row["run_id"] for row in list_runs(lake.lake)] == [run]


def test_list_of_runs_says_how_they_ended(lake: LakeBuilder, caplog: pytest.LogCaptureFixture) -> None:
    first, second = lake.run(A), lake.run(B)
    lake.end(first, "stopped", dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "why")
    lake.lake.create(f"run_ends/{second}.parquet", FOREIGN)
    found = [(run["outcome"], run["ended_at"], run["message"]) for run in list_runs(lake.lake)]
    assert found == [(None, None, None), ("stopped", "2026-01-02T03:00:00+00:00", "why")]
    assert f"run_ends/{second}.parquet" in caplog.text


def planned(lake: LakeBuilder, cells: Any = (A,)) -> Plan:
    """A plan, as far as its writing goes."""

    def write(_: Lake) -> None:
        if cells:
            lake.run(*cells)

    return cast(Plan, SimpleNamespace(run_id="run-0001", cells=cells, write=write))


class Unlisted(Exception):
    """What no rule of ours knows."""


@pytest.mark.parametrize(
    ("raised", "outcome", "message"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "stopped", None),
        (SystemExit(143), "stopped", None),
        (StorageError("the store\nis gone"), "error", "the store is gone"),
        (Unlisted("?"), "error", "Unlisted: ?"),
    ],
)
def test_run_end_says_what_was_raised(
    lake: LakeBuilder, raised: BaseException | None, outcome: str, message: str | None
) -> None:
    before = time.time()
    with pytest.raises(type(raised)) if raised else nullcontext(), recorded(planned(lake), lake.lake):
        if raised:
            raise raised
    end = read_end(lake.lake, "run-0001")
    assert end == RunEnd(pytest.approx(before, abs=10), outcome, message)  # type: ignore[arg-type]
    [(told, at)] = rows(lake.views(), "SELECT outcome, ended_at > started_at FROM runs")
    assert (told, at) == (outcome, True)


def test_run_end_is_what_the_run_says_of_itself(lake: LakeBuilder) -> None:
    with recorded(planned(lake), lake.lake) as ending:
        assert read_end(lake.lake, "run-0001") is None
        ending.outcome, ending.message = "budget", "budget.usd: 2 of 1 USD are spent"
    end = read_end(lake.lake, "run-0001")
    assert end is not None
    assert (end.outcome, end.message) == ("budget", "budget.usd: 2 of 1 USD are spent")


def test_run_without_cells_leaves_no_end(lake: LakeBuilder) -> None:
    with recorded(planned(lake, ()), lake.lake):
        pass
    assert read_end(lake.lake, "run-0001") is None


def test_run_end_that_cannot_be_written_does_not_hide_what_went_wrong(
    lake: LakeBuilder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> bool:
        raise StorageError("cannot write: the disk is full")

    plan = planned(lake)
    lake.run(A)
    monkeypatch.setattr(lake.lake, "create", refuse)
    monkeypatch.setattr(plan, "write", lambda _: None)
    caplog.set_level(logging.WARNING)
    with pytest.raises(Unlisted), recorded(plan, lake.lake):
        raise Unlisted
    assert "how the run ended is not in the lake: cannot write: the disk is full" in caplog.text
