"""Several files of a source read at once, by several processes.

Owns how the processes are started, how they share the work, what they leave for the importing one, and when all that
is worth it. Knows nothing of formats. What is found does not depend on how many processes found it: parts are taken in
the order of the jobs.

A folder holds `work` (what is to be read, pickled), `N.claim` for each job that somebody began, and `N.part` and its
tables for each that is done.
"""

from __future__ import annotations

import contextlib
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
from collectors.importers.sources import FOUND_TABLES, Facts, Found
from schemas.failures import StorageError

#: Bytes of files for which starting another process pays: it takes about a second.
WORTH = 128 * 2**20
#: Most processes: one takes up to 300 MB.
MOST = 16

#: Reads the file of a number, with arguments of its own: a function of a module.
Reader = Callable[..., None]
Job = tuple[int, tuple[Any, ...]]


@dataclass(frozen=True)
class Part:
    """What was found in one file: facts, and tables as files of Arrow's stream format."""

    number: int
    tables: dict[str, Path]
    facts: dict[tuple[str, str, str], Facts]
    format_version: str | None
    rejected: int


class _Apart(Found):
    """What is found in one file, put down in files of a folder."""

    def __init__(self, files: Sequence[SourceFile], path: Path) -> None:
        super().__init__(files)
        self.path = path
        self.tables: dict[str, Path] = {}
        self.writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}

    def put(self, name: str, table: pa.Table) -> None:
        if name not in self.writers:
            self.tables[name] = self.path.with_suffix(f".{name}")
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self.writers[name] = pa.ipc.new_stream(str(self.tables[name]), FOUND_TABLES[name], options=options)
        self.writers[name].write_table(table)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


class _Work:
    """Jobs that several processes share."""

    def __init__(self, folder: Path, read: Reader, files: Sequence[SourceFile], jobs: Sequence[Job]) -> None:
        self.folder, self.read, self.files, self.jobs = folder, read, files, jobs

    def share(self) -> None:
        (self.folder / "work").write_bytes(pickle.dumps((self.read, list(self.files), list(self.jobs))))

    @classmethod
    def of(cls, folder: Path) -> _Work:
        return cls(folder, *pickle.loads((folder / "work").read_bytes()))

    def claim(self, index: int) -> bool:
        try:
            os.close(os.open(self.folder / f"{index}.claim", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def do(self, index: int) -> None:
        number, args = self.jobs[index]
        found = _Apart(self.files, self.folder / str(index))
        with contextlib.closing(found):
            with found.one_file(number):
                self.read(found, number, *args)
            found.flush()
        part = Part(number, found.tables, found.facts, found.format_version[number], found.counts[number].rejected)
        write_whole(self.folder / f"{index}.part", pickle.dumps(part))

    def taken(self, index: int) -> Part | None:
        """The part of a job; None while it is not done."""
        path = self.folder / f"{index}.part"
        if not path.exists():
            return None
        part: Part = pickle.loads(path.read_bytes())
        path.unlink()
        return part


def is_worth(files: Sequence[SourceFile]) -> bool:
    """Whether reading `files` in several processes takes less time than in one."""
    return len(files) > 1 and len(os.sched_getaffinity(0)) > 1 and sum(file.size for file in files) >= WORTH


def read_apart(read: Reader, files: Sequence[SourceFile], jobs: Sequence[Job], folder: Path) -> Iterator[Part]:
    """What `read` finds in each job's file, in their order. This process reads some of them itself.

    Raises StorageError where another one ends before its work.
    """
    work = _Work(folder, read, files, jobs)
    work.share()
    many = min(len(os.sched_getaffinity(0)), len(jobs), MOST)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    start = f"from {__name__} import help_reading; help_reading({str(folder)!r}, {os.getpid()})"
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
                if part := work.taken(index):
                    break
                while ahead < len(jobs) and not work.claim(ahead):
                    ahead += 1
                if ahead < len(jobs):
                    work.do(ahead)
                elif over:
                    raise StorageError("a process that read files ended before its work: is there enough memory?")
                else:
                    time.sleep(0.02)
            yield part


def help_reading(folder: str, parent: int) -> None:
    """Does what nobody has begun, until all is begun or the importing process is gone."""
    work = _Work.of(Path(folder))
    for index in range(len(work.jobs)):
        if os.getppid() != parent:
            return
        if work.claim(index):
            work.do(index)
