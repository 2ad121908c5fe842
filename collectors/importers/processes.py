"""Several files of a source read at once, by several processes.

Owns how the processes start, how they share the jobs, which files they leave for the importing process, and when all
that pays. Knows nothing of formats. Results are taken in the order of the jobs, so the number of processes changes
nothing in the rows.

A folder holds `jobs` (what to read, pickled), `N.claim` for each job that a process began, and `N.result` and its
tables for each that is done.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.atomic import write_whole
from collectors.importers.files import SourceFile
from collectors.importers.raw_tables import RAW_TABLES
from collectors.importers.sources import CellDescription, Sink
from schemas.failures import StorageError

#: Another process pays from this many bytes of files on: it takes about a second to start.
WORTH = 128 * 2**20
#: Most processes: one takes up to 300 MB.
MOST = 16
#: Objects after which Python looks for unreachable ones, while files are read: by default 700, a fifth of the time.
_COLLECTED = 100_000

#: A function of a module: takes a sink, the number of a file, and the job's own arguments.
Reader = Callable[..., None]
Job = tuple[int, tuple[Any, ...]]


@dataclass(frozen=True)
class JobResult:
    """The rows of one file: descriptions of cells, and tables as files in Arrow's stream format."""

    number: int
    tables: dict[str, Path]
    descriptions: dict[tuple[str, str, str], CellDescription]
    format_version: str | None
    rejected: int
    is_describing: bool
    folded: int


class _FileSink(Sink):
    """Stores the rows of one file in files of a folder."""

    def __init__(self, files: Sequence[SourceFile], path: Path) -> None:
        super().__init__(files)
        self.path = path
        self.tables: dict[str, Path] = {}
        self.writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}

    def put(self, name: str, table: pa.Table) -> None:
        if name not in self.writers:
            self.tables[name] = self.path.with_suffix(f".{name}")
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self.writers[name] = pa.ipc.new_stream(str(self.tables[name]), RAW_TABLES[name], options=options)
        self.writers[name].write_table(table)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


class _SharedJobs:
    """The jobs that several processes share, in a folder."""

    def __init__(self, folder: Path, read: Reader, files: Sequence[SourceFile], jobs: Sequence[Job]) -> None:
        self.folder, self.read, self.files, self.jobs = folder, read, files, jobs
        #: Keys of texts that this process has stored: files of one task have the same.
        self.seen_texts: set[str] = set()

    def share(self) -> None:
        (self.folder / "jobs").write_bytes(pickle.dumps((self.read, list(self.files), list(self.jobs))))

    @classmethod
    def of(cls, folder: Path) -> _SharedJobs:
        return cls(folder, *pickle.loads((folder / "jobs").read_bytes()))

    def claim(self, index: int) -> bool:
        try:
            os.close(os.open(self.folder / f"{index}.claim", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def do(self, index: int) -> None:
        number, args = self.jobs[index]
        sink = _FileSink(self.files, self.folder / str(index))
        sink.seen_texts = self.seen_texts
        with contextlib.closing(sink), few_collections():
            with sink.one_file(number):
                self.read(sink, number, *args)
            sink.flush()
        count = sink.counts[number]
        of_file = sink.format_version[number], count.rejected, number in sink.describing, count.folded
        result = JobResult(number, sink.tables, sink.descriptions, *of_file)
        write_whole(self.folder / f"{index}.result", pickle.dumps(result))

    def taken(self, index: int) -> JobResult | None:
        """The result of a job; None while it is not done."""
        path = self.folder / f"{index}.result"
        if not path.exists():
            return None
        result: JobResult = pickle.loads(path.read_bytes())
        path.unlink()
        return result


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Rows that are read hold no cycles, and wait in blocks: Python looks for them rarely, and at no older object."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECTED, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def is_worth(files: Sequence[SourceFile]) -> bool:
    """Whether reading `files` in several processes takes less time than in one."""
    return len(files) > 1 and len(os.sched_getaffinity(0)) > 1 and sum(file.size for file in files) >= WORTH


def read_apart(read: Reader, files: Sequence[SourceFile], jobs: Sequence[Job], folder: Path) -> Iterator[JobResult]:
    """Yields the result of each job, in their order. This process reads some of the files itself.

    Raises StorageError when another process ends before its job.
    """
    shared = _SharedJobs(folder, read, files, jobs)
    shared.share()
    many = min(len(os.sched_getaffinity(0)), len(jobs), MOST)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    start = f"from {__name__} import help_reading; help_reading({str(folder)!r}, {os.getpid()})"
    start = f"from collectors.extras import leave_pandas; leave_pandas(); {start}"
    with contextlib.ExitStack() as stack:
        helpers = []
        for _ in range(many - 1):
            command = [sys.executable, "-P", "-c", start]
            helper = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
            helpers.append(helper)
            stack.callback(helper.wait)
            stack.callback(helper.kill)
        ahead = 0
        for index in range(len(jobs)):
            while True:
                over = all(helper.poll() is not None for helper in helpers)
                if result := shared.taken(index):
                    break
                while ahead < len(jobs) and not shared.claim(ahead):
                    ahead += 1
                if ahead < len(jobs):
                    shared.do(ahead)
                elif over:
                    raise StorageError("a process that read files ended too early: is there enough memory?")
                else:
                    time.sleep(0.02)
            yield result


def help_reading(folder: str, parent: int) -> None:
    """Does jobs that no process began, until all are begun or the importing process is gone."""
    shared = _SharedJobs.of(Path(folder))
    for index in range(len(shared.jobs)):
        if os.getppid() != parent:
            return
        if shared.claim(index):
            shared.do(index)
