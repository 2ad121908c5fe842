"""The runs of a lake: their plans and their ends."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.runs.plan import Plan
from collectors.runs.record import RunEnd, list_runs, read_end, read_run, recorded, run_ids
from schemas.failures import StorageError
from schemas.records import RUN_END
from tests.helpers.lake_builder import FOREIGN, BuiltCell, LakeBuilder, rows

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


HOSTILE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "started after all time": lambda row: {**row, "started_at": 9 * 10**17},
    "started never": lambda row: {**row, "started_at": None},
    "planned nothing": lambda row: {**row, "planned_items": None},
    "planned less": lambda row: {**row, "planned_items": -5},
}


@pytest.mark.parametrize("name", [*HOSTILE, "a cell twice", "endless JSON"])
def test_run_that_says_what_cannot_be_is_damaged(lake: LakeBuilder, name: str) -> None:
    run = lake.run(A)
    path = Path(lake.lake.root, "runs", f"{run}.parquet")
    table = pq.read_table(path)
    nullable = pa.schema([field.with_nullable(True) for field in table.schema])
    row = table.to_pylist()[0]
    rows = [row, row] if name == "a cell twice" else [HOSTILE.get(name, dict)(row)]
    damaged = pa.Table.from_pylist(rows, nullable)
    if name == "endless JSON":
        damaged = damaged.replace_schema_metadata({"run": "[" * 100_000})
    pq.write_table(damaged, path)
    with pytest.raises(StorageError, match="is damaged") as caught:
        read_run(lake.lake, run)
    assert "\n" not in str(caught.value)
    assert list_runs(lake.lake) == []


def test_run_end_after_all_time_is_damaged(lake: LakeBuilder) -> None:
    run = lake.run(A)
    row = {"run_id": run, "ended_at": 9 * 10**18, "outcome": "finished", "message": None}
    lake.lake.create_table(f"run_ends/{run}.parquet", pa.Table.from_pylist([row], RUN_END))
    with pytest.raises(StorageError, match="is damaged"):
        read_end(lake.lake, run)


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
        (KeyboardInterrupt(), "stopped", "by Ctrl-C"),
        (SystemExit(143), "stopped", "by SIGTERM"),
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
    assert "the end of the run is not in the lake: cannot write: the disk is full" in caplog.text
