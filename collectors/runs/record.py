"""The runs of a lake: their plans and their ends.

Owns the objects of runs/ and run_ends/ outside of views, which read them, too. Knows nothing of the records that a run
collected (status.py).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.layout import RUNS, end_name, is_import, run_id_of, run_name
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.store import Lake
from schemas.failures import ConfigError, StorageError, one_line
from schemas.records import RUN_CELL, RUN_END
from schemas.versions import with_columns

if TYPE_CHECKING:  # only for its type
    from collectors.runs.plan import Plan

logger = logging.getLogger(__name__)

#: Most runs in a message.
MOST_NAMED = 5

#: Errors from reading a damaged object: of pyarrow, of its JSON, and of times beyond Python's range.
_DAMAGED = (OSError, ValueError, OverflowError, RecursionError)

#: The columns to read of a run's file. The others repeat values of the config for every cell.
_COLUMNS = ["cell_id", "model", "task", "planned_items", "generation", "started_at", "engine", "imported_from"]
#: These, and two that runs of an older schema version lack.
_READ = pa.schema([RUN_CELL.field(name) for name in (*_COLUMNS, "sampled_items", "item_set")])


@dataclass(frozen=True)
class RunEnd:
    """The end of a run: a row of schemas.records.RUN_END."""

    #: Seconds since the epoch; None if the row is damaged.
    ended: float | None
    outcome: str
    message: str | None


@dataclass
class Ending:
    """The end to record for a run that is under way."""

    outcome: str = "finished"
    message: str | None = None


@contextlib.contextmanager
def recorded(plan: Plan, lake: Lake) -> Iterator[Ending]:
    """Writes the plan, and after the block the end of the run: the yielded Ending, or the error of the block."""
    plan.write(lake)
    ending = Ending()
    try:
        yield ending
    except (KeyboardInterrupt, SystemExit) as error:
        ending = Ending("stopped", "by Ctrl-C" if isinstance(error, KeyboardInterrupt) else "by SIGTERM")
        raise
    except BaseException as error:
        ending = Ending("error", one_line(error))
        raise
    finally:
        if plan.cells:  # an empty plan writes no run into the lake
            _write_end(plan.run_id, lake, ending)


def _write_end(run_id: str, lake: Lake, ending: Ending) -> None:
    row = {"run_id": run_id, "ended_at": dt.datetime.now(dt.UTC), "outcome": ending.outcome, "message": ending.message}
    try:
        lake.create_table(end_name(run_id), pa.Table.from_pylist([row], schema=RUN_END))
    except StorageError as error:  # the records are in the lake anyway
        logger.warning("the end of the run is not in the lake: %s", error)


def read_end(lake: Lake, run_id: str) -> RunEnd | None:
    """The end of a run; None while it is at work, or if it was killed. Raises StorageError for a damaged object."""
    name = end_name(run_id)
    try:
        rows = pq.read_table(io.BytesIO(lake.read(name)), page_checksum_verification=True).to_pylist()
        [row] = rows
        outcome, message = (value and " ".join(value.split()) for value in (row["outcome"], row["message"]))
        return RunEnd(row["ended_at"].timestamp(), outcome, message)
    except FileNotFoundError:
        return None
    except (*_DAMAGED, KeyError, AttributeError) as error:
        raise StorageError(f"{name} in {lake.uri} is damaged: {one_line(error)}") from error


def run_ids(lake: Lake) -> list[str]:
    """The ids of a lake's runs, the oldest first, without imports. Raises ConfigError for a published version."""
    if lake.is_published():
        raise ConfigError(f"{lake.uri} is a published version, which has no runs of its own: name a lake")
    made, forgotten = lake.listing(RUNS), read_retracted(lake).runs
    ids = [run_id for name in made if (run_id := run_id_of(name)) and not is_import(run_id) and run_id not in forgotten]
    return sorted(ids, key=lambda run_id: _order(run_id, made.get(run_name(run_id))))


#: Seconds by which the clocks of a run's machine and of the store may differ.
_SLACK = 60.0


def chosen_run(lake: Lake, run_id: str | None) -> str:
    """`run_id` itself, or the newest run for None. Raises ConfigError if the lake does not have it."""
    runs = run_ids(lake)
    if not runs:
        raise ConfigError(f"the lake {lake.uri} holds no run yet: start one with pipelines/collect.py")
    if run_id is None:
        return _newest_with_cells(lake, runs)
    if run_id not in runs:
        newest = ", ".join(reversed(runs[-MOST_NAMED:]))
        raise ConfigError(f"no run {run_id!r} in {lake.uri}; the newest are {newest}; --list shows all")
    return run_id


def _newest_with_cells(lake: Lake, runs: list[str]) -> str:
    """The newest run with a cell that was not forgotten, or the newest one."""
    retracted = read_retracted(lake)
    if retracted.ranges:
        for run_id in reversed(runs):
            with contextlib.suppress(FileNotFoundError):
                if len(read_run(lake, run_id, retracted)[0]):
                    return run_id
    return runs[-1]


def _order(run_id: str, stored: float | None) -> tuple[str, str]:
    """The key of a run among others: its time, by the store's clock where its own was ahead of that.

    An object is not older than its run, so a later id means a wrong clock: such a run would stay the newest for years.
    """
    if stored is None or not run_id[:8].isdecimal():
        return run_id, run_id
    latest = time.strftime("%Y%m%dT%H%M%S~", time.gmtime(stored + _SLACK))
    return min(run_id, latest), run_id


def read_run(lake: Lake, run_id: str, retracted: Retracted | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """A row for each planned cell that was not forgotten, and the metadata of the run's file (Plan.write).

    Raises StorageError for a damaged file and FileNotFoundError for a missing one.
    """
    name = run_name(run_id)
    try:
        file = pq.ParquetFile(io.BytesIO(lake.read(name)), page_checksum_verification=True)
        types = {column.name: column.type for column in file.schema_arrow}
        if wrong := next((name for name in _COLUMNS if types.get(name) != RUN_CELL.field(name).type), None):
            raise ValueError(f"it is foreign: column {wrong} is not a run's")
        metadata = json.loads((file.metadata.metadata or {}).get(b"run", b"{}"))
        if not isinstance(metadata, dict) or not all(isinstance(metadata.get(key), int | None) for key in _METADATA):
            raise ValueError("its metadata is damaged")
        table = with_columns(file.read(_READ.names), _READ)
        if any(table[name].null_count for name in ("cell_id", "planned_items", "started_at")):
            raise ValueError("a column has nulls that must have none")
        if len(table) and (
            min(table["planned_items"].to_pylist()) < 0 or not all(0 <= time < _YEAR_9999 for time in _times(table))
        ):
            raise ValueError("it plans a negative number of items, or its start is not a time")
        if distinct(table["cell_id"]) != len(table):
            raise ValueError("a cell is in it twice")
        return _not_forgotten(table, read_retracted(lake) if retracted is None else retracted), metadata
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise StorageError(f"{name} in {lake.uri} is damaged: {one_line(error)}") from error


def _not_forgotten(table: pa.Table, retracted: Retracted) -> pa.Table:
    if not retracted.ranges:
        return table
    keys = zip(table["cell_id"].to_pylist(), table["generation"].to_pylist(), strict=True)
    return table.filter(pa.array([not retracted.is_cell(cell_id, number or 0) for cell_id, number in keys], pa.bool_()))


# ---- columns in plain Python: pyarrow.compute takes 75 ms to import; to_numpy, and as_py of times, load pandas, 0.4 s

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: In microseconds since 1970.
_YEAR_9999 = int(dt.datetime(9999, 1, 1, tzinfo=dt.UTC).timestamp()) * 10**6


def _times(table: pa.Table) -> list[int]:
    """The column started_at in microseconds since 1970."""
    return [time for chunk in table["started_at"].chunks for time in chunk.view(pa.int64()).to_pylist()]


def started_at(table: pa.Table) -> dt.datetime:
    """When the run began, from its rows."""
    return _EPOCH + dt.timedelta(microseconds=_times(table)[0])


def distinct(column: pa.ChunkedArray) -> int:
    """The number of its values but null."""
    return len(set(column.to_pylist()) - {None})


#: Keys of a run's metadata in its file.
_METADATA = ("generation", "quarantined")


def list_runs(lake: Lake) -> list[dict[str, Any]]:
    """A row for each run, the newest first: its plan in numbers and its end. Times are UTC, as ISO 8601."""
    rows = []
    retracted = read_retracted(lake)
    for run_id in reversed(run_ids(lake)):
        try:
            table, _ = read_run(lake, run_id, retracted)
        except FileNotFoundError:
            continue
        except StorageError as error:  # one damaged run does not hide the others
            logger.warning("%s", error)
            continue
        if len(table):
            rows.append({"run_id": run_id, **_planned(table), **_ended(lake, run_id)})
    return rows


def _planned(table: pa.Table) -> dict[str, Any]:
    return {
        "started_at": started_at(table).isoformat(timespec="seconds"),
        "engine": table["engine"][0].as_py(),
        "cells": len(table),
        "models": distinct(table["model"]),
        "tasks": distinct(table["task"]),
        "items": sum(
            planned if sampled is None else sampled
            for planned, sampled in zip(
                *(table[n].to_pylist() for n in ("planned_items", "sampled_items")), strict=True
            )
        ),
    }


def _ended(lake: Lake, run_id: str) -> dict[str, Any]:
    try:
        end = read_end(lake, run_id)
    except StorageError as error:
        logger.warning("%s", error)
        end = None
    if end is None or end.ended is None:
        return dict.fromkeys(("ended_at", "outcome", "message"))
    at = dt.datetime.fromtimestamp(end.ended, dt.UTC).isoformat(timespec="seconds")
    return {"ended_at": at, "outcome": end.outcome, "message": end.message}
