"""The runs of a lake: what each was asked for, and how it ended.

Owns the objects of runs/ and run_ends/ as far as a person's questions go; views read them too. Knows nothing of what
was collected since (status.py).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectors.lake.layout import end_name, run_name
from collectors.lake.store import Lake
from schemas.failures import ConfigError, StorageError, one_line
from schemas.records import RUN_CELL, RUN_END, SCHEMA_FILES

if TYPE_CHECKING:  # only for its type
    from collectors.runs.plan import Plan

logger = logging.getLogger(__name__)

#: Runs that a message names.
MOST_NAMED = 5

#: What reading a damaged object raises: pyarrow's errors, those of its JSON, and times that Python does not know.
_DAMAGED = (OSError, ValueError, OverflowError, RecursionError)

#: What is read of a run's file: its other columns repeat the config for every cell.
_COLUMNS = ["cell_id", "model", "task", "planned_items", "started_at", "engine", "imported_from"]


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: a row of schemas.records.RUN_END. `ended`: seconds since the epoch; None: its row is damaged."""

    ended: float | None
    outcome: str
    message: str | None


@dataclass
class Ending:
    """How a run that is under way will be said to have ended."""

    outcome: str = "finished"
    message: str | None = None


@contextlib.contextmanager
def recorded(plan: Plan, lake: Lake) -> Iterator[Ending]:
    """Writes the plan, and when the block is left how the run ended: as the block says, or by what it raises."""
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
        if plan.cells:  # else there is no run in the lake
            _write_end(plan.run_id, lake, ending)


def _write_end(run_id: str, lake: Lake, ending: Ending) -> None:
    row = {"run_id": run_id, "ended_at": dt.datetime.now(dt.UTC), "outcome": ending.outcome, "message": ending.message}
    try:
        lake.create_table(end_name(run_id), pa.Table.from_pylist([row], schema=RUN_END))
    except StorageError as error:  # no reason to take what was collected for lost
        logger.warning("how the run ended is not in the lake: %s", error)


def read_end(lake: Lake, run_id: str) -> RunEnd | None:
    """None while the run is at work, and of one that was killed. Raises StorageError for a damaged object."""
    name = end_name(run_id)
    try:
        rows = pq.read_table(io.BytesIO(lake.read(name))).to_pylist()
        [row] = rows
        outcome, message = (value and " ".join(value.split()) for value in (row["outcome"], row["message"]))
        return RunEnd(row["ended_at"].timestamp(), outcome, message)
    except FileNotFoundError:
        return None
    except (*_DAMAGED, KeyError, AttributeError) as error:
        raise StorageError(f"{name} in {lake.uri} is damaged: {one_line(error)}") from error


def run_ids(lake: Lake) -> list[str]:
    """The runs of a lake, the oldest first; imports are none. Raises ConfigError for a published version."""
    if lake.is_published():
        raise ConfigError(f"{lake.uri} is a published version, which no run collects into: name a lake")
    names = [name for name in lake.names("runs") if name != SCHEMA_FILES["runs"] and name.endswith(".parquet")]
    found = [name.removeprefix("runs/").removesuffix(".parquet") for name in names]
    return [name for name in found if not name.startswith("import-")]


def chosen_run(lake: Lake, run_id: str | None) -> str:
    """`run_id`, or the newest. Raises ConfigError where there is none."""
    runs = run_ids(lake)
    if not runs:
        raise ConfigError(f"the lake {lake.uri} holds no run yet: start one with pipelines/collect.py")
    if run_id is None:
        return runs[-1]
    if run_id not in runs:
        newest = ", ".join(reversed(runs[-MOST_NAMED:]))
        raise ConfigError(f"no run {run_id!r} in {lake.uri}; the newest are {newest}; --list shows all")
    return run_id


def read_run(lake: Lake, run_id: str) -> tuple[pa.Table, dict[str, Any]]:
    """A row per planned cell, and what the run says of itself (Plan.write). Raises StorageError for a damaged one."""
    name = run_name(run_id)
    try:
        file = pq.ParquetFile(io.BytesIO(lake.read(name)))
        types = {column.name: column.type for column in file.schema_arrow}
        if wrong := next((name for name in _COLUMNS if types.get(name) != RUN_CELL.field(name).type), None):
            raise ValueError(f"it is foreign: column {wrong} is not a run's")
        facts = json.loads((file.metadata.metadata or {}).get(b"run", b"{}"))
        if not isinstance(facts, dict) or not all(isinstance(facts.get(key), int | None) for key in _FACTS):
            raise ValueError("what the run says of itself is damaged")
        table = file.read(_COLUMNS)
        if any(table[name].null_count for name in ("cell_id", "planned_items", "started_at")):
            raise ValueError("a column that is never null is")
        if len(table) and (pc.min(table["planned_items"]).as_py() < 0 or not pc.all(_is_time(table)).as_py()):
            raise ValueError("it plans less than no item, or began at no time")
        if pc.count_distinct(table["cell_id"]).as_py() != len(table):
            raise ValueError("a cell is in it twice")
        return table, facts
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        raise StorageError(f"{name} in {lake.uri} is damaged: {one_line(error)}") from error


def _is_time(table: pa.Table) -> pa.ChunkedArray:
    """Whether each run began at a time that Python knows."""
    years = pc.year(table["started_at"])
    return pc.and_(pc.greater_equal(years, 1970), pc.less(years, 9999))


#: What a run says of itself.
_FACTS = ("generation", "quarantined")


def list_runs(lake: Lake) -> list[dict[str, Any]]:
    """A row per run, the newest first: what it was asked for and how it ended. Times are UTC, as ISO 8601."""
    rows = []
    for run_id in reversed(run_ids(lake)):
        try:
            table, _ = read_run(lake, run_id)
        except FileNotFoundError:
            continue
        except StorageError as error:  # of this run; the others are listed
            logger.warning("%s", error)
            continue
        if len(table):
            rows.append({"run_id": run_id, **_planned(table), **_ended(lake, run_id)})
    return rows


def _planned(table: pa.Table) -> dict[str, Any]:
    started: dt.datetime = table["started_at"][0].as_py()
    return {
        "started_at": started.isoformat(timespec="seconds"),
        "engine": table["engine"][0].as_py(),
        "cells": len(table),
        "models": pc.count_distinct(table["model"]).as_py(),
        "tasks": pc.count_distinct(table["task"]).as_py(),
        "items": pc.sum(table["planned_items"]).as_py(),
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
