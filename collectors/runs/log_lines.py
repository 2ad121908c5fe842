"""Writes log lines as JSON for programs that read them: one object per line, in the driver and in every worker.

Owns the form of a line, and the cell that it is about. Knows nothing of Ray, whose LoggingConfig would add a second
handler to the driver, with other keys and without cells.

Keys: time (UTC), level, logger, message, host and pid; run, cell, model and task if they are known; exception, with its
traceback, if there is one.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from collectors.runs.work import Cell

#: Libraries whose lines below an error are of no use: a hub that is out of reach gives twelve per data set.
CHATTY = ("lm_eval", "lm-eval", "datasets", "huggingface_hub", "httpx2", "httpcore2", "urllib3", "filelock", "fsspec")

_ABOUT: ContextVar[Cell | None] = ContextVar("about", default=None)


@contextmanager
def about(cell: Cell) -> Iterator[None]:
    """Marks the lines logged inside as being about `cell`, in this thread and in those with a copy of its context."""
    token = _ABOUT.set(cell)
    try:
        yield
    finally:
        _ABOUT.reset(token)


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, run: str | None = None) -> None:
        super().__init__()
        self.run = run

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "host": platform.node(),
            "pid": record.process,
        }
        if self.run:
            line["run"] = self.run
        if cell := _ABOUT.get():
            line |= {"cell": cell.cell_id, "model": cell.model.name, "task": cell.spec.task}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def quieten() -> None:
    """Lets the chatty libraries log errors only."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


def log_as_json(run: str | None = None) -> None:
    """Makes this process log in JSON to standard error. Call it again with `run` once the run has an id."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(run))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
