"""Runs of pipelines/collect.py for the end-to-end tests, and the rows that they left in a lake.

Owns the configs that the tests run, how a run is started, and the two ways to read records back: from the plain shard
files and through the `records` view. Knows nothing of how a cluster is started (see conftest.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from collectors.lake.reading import connect
from collectors.lake.store import Lake
from pipelines.collect import main
from schemas.records import RECORD
from schemas.views import named_in

ROOT = Path(__file__).parent.parent.parent
#: collect.py as a person starts it.
COLLECT = [sys.executable, "pipelines/collect.py"]
DATA = ROOT / "pipelines" / "configs" / "demo_data"
CHOICE, TEXT = "mmlu_world_religions_continuation", "gsm8k"
#: Items of each task in demo_data, and rows of an item: gsm8k's answers are read by two filters.
ITEMS, ROWS = 50, {CHOICE: 1, TEXT: 2}

#: A busy machine with two cores is ten times slower than a quiet one; past this something hangs.
PATIENCE = 480.0
_ORDER = [(name, "ascending") for name in ("cell_id", "item", "filter", "repeat")]
#: Columns of a record that are the same on every run: all but the two that are measured times.
_ANSWERS = ("responses", "loglikelihoods", "is_greedy", "filtered")
SAME = [name for name in RECORD.names if name not in ("ttft_s", "latency_s")]


@dataclass(frozen=True)
class Run:
    """What a finished run gave back."""

    code: int
    out: str
    err: str


def config(folder: Path, **changes: Any) -> Path:
    """Writes a config of two stub models on two tasks, with `changes` laid over its top-level keys (None: left out)."""
    keys: dict[str, Any] = {
        "models": ["stub/alpha", "stub/beta"],
        "tasks": [CHOICE, TEXT],
        "datasets": str(DATA),
        "lake": str(folder / "lake"),
        "engine": {"name": "stub"},
    }
    keys = {name: value for name, value in {**keys, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"run-{len(list(folder.glob('run-*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


def collect_here(capsys: Any, path: Path, *flags: str) -> Run:
    """collect.py's main in this process: spares the seconds of importing everything anew."""
    capsys.readouterr()
    code = main(["--config", str(path), *flags])
    return Run(code, *capsys.readouterr())


class Started(subprocess.Popen[bytes]):
    """A process that writes into files: a pipe that nobody reads holds 64 KB, then its writer stands still."""

    def __init__(self, command: list[str], cwd: Path, env: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="started-"))
        with (self._folder / "out").open("wb") as out, (self._folder / "err").open("wb") as err:
            super().__init__(command, cwd=cwd, env=env, stdout=out, stderr=err)

    def texts(self) -> tuple[str, str]:
        """What it wrote; the files go."""
        texts = (self._folder / "out").read_text(encoding="utf-8"), (self._folder / "err").read_text(encoding="utf-8")
        shutil.rmtree(self._folder)
        return texts


def start(command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None) -> Started:
    """Starts a process whose output can be read at its end; `env` is laid over this process's own."""
    return Started(command, cwd, {**os.environ, **(env or {})})


def start_collect(path: Path, *flags: str, env: dict[str, str] | None = None) -> Started:
    """collect.py as a person starts it."""
    return start([*COLLECT, "--config", str(path), *flags], env=env)


def finish(process: Started) -> Run:
    """Waits for the end; a run that outlasts PATIENCE is killed with its whole tree and fails the test."""
    try:
        code = process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        process.wait()
        out, err = process.texts()
        raise AssertionError(f"{process.args!r} still ran after {PATIENCE} s\n{out[-2000:]}\n{err[-4000:]}") from None
    return Run(code, *process.texts())


def kill_tree(pid: int) -> None:
    for process in [*tree(pid), psutil.Process(pid)] if psutil.pid_exists(pid) else []:
        kill(process)


def tree(pid: int) -> list[psutil.Process]:
    """Everything that process `pid` started, and what those started."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def command_line(process: psutil.Process) -> list[str]:
    """The words that it was started with; none of one that has ended, also while nobody has waited for it."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is one, too
        return []


def is_worker(process: psutil.Process) -> bool:
    """Whether it is an actor of the run: Ray renames the process."""
    return "".join(command_line(process)[:1]).startswith("ray::Worker")


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; psutil recognises a reused pid, and a zombie does not run."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(what: str, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true value of `holds()`; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)  # between two looks; never for a fixed time
    return value


# ---- the rows of a lake


def shard_files(lake: Path) -> dict[str, bytes]:
    """Path below the lake -> content of every committed shard."""
    files = (f for f in lake.glob("shards/task=*/*.parquet") if not f.name.startswith("."))
    return {str(file.relative_to(lake)): file.read_bytes() for file in sorted(files)}


def shard_metadata(lake: Path) -> list[dict[str, Any]]:
    """What the runs wrote beside their records, a row per shard of the `shards` view."""
    return query(lake, "SELECT cell_id, generation, first_item, last_item, run_id, requests FROM shards ORDER BY ALL")


def stored_records(lake: Path) -> pa.Table:
    """Every record of every shard file, all columns that are the same on every run, in order."""
    tables = [pq.read_table(pa.BufferReader(data)).select(SAME) for data in shard_files(lake).values()]
    return pa.concat_tables(tables).replace_schema_metadata(None).combine_chunks().sort_by(_ORDER)


def viewed_records(lake: Path) -> pa.Table:
    """The `records` view with the answers from `responses`, columns and order as in `stored_records`."""
    columns = [f"{'answers' if name in _ANSWERS else 'records'}.{name}" for name in SAME]
    sql = (
        f"SELECT {', '.join(columns)} FROM records LEFT JOIN responses AS answers USING (cell_id, item, filter, repeat)"
    )
    with connect(Lake(str(lake)), only=named_in(sql)) as con:
        return con.sql(sql).to_arrow_table().sort_by(_ORDER)


def query(lake: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of `sql` over the lake's views."""
    with connect(Lake(str(lake)), only=named_in(sql)) as con:
        cursor = con.execute(sql)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def failures(lake: Path) -> list[dict[str, Any]]:
    return query(lake, "SELECT kind, model, task, message FROM failures WHERE level != 'item' ORDER BY ALL")


def of_model(table: pa.Table, model: str) -> pa.Table:
    return table.filter(pc.equal(table["model"], model))


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Compares row by row, and names the first difference: two whole tables would not help."""
    assert found.schema.names == expected.schema.names
    assert found.num_rows == expected.num_rows
    for name in expected.schema.names:
        pairs = zip(found[name].to_pylist(), expected[name].to_pylist(), strict=True)
        differs = [(i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]]
        assert not differs, f"column {name}, row {differs[0][0]}: {differs[0][1]} ({len(differs)} rows differ)"
