"""Log lines as JSON, for programs that read them: one object per line, in the driver and in every worker alike.

Owns the form of a line and which cell it is about. Knows nothing of who logs, or of Ray: its LoggingConfig would add a
second handler to the driver's, with other keys, and know nothing of cells.

Keys: time (UTC), level, logger, message, host, pid; run, cell, model and task where they are known; exception, where
there is one, with its traceback.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.cell import Cell

#: Libraries whose lines below an error are about themselves: a hub that is out of reach is twelve per data set.
CHATTY = ("lm_eval", "lm-eval", "datasets", "huggingface_hub", "httpx2", "httpcore2", "urllib3", "filelock", "fsspec")

_ABOUT: ContextVar[Cell | None] = ContextVar("about", default=None)


@contextmanager
def about(cell: Cell) -> Iterator[None]:
    """Lines logged within are about `cell`: in this thread, and in others that run in a copy of its context."""
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
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


def log_as_json(run: str | None = None) -> None:
    """From here on this process logs in JSON, to standard error; `run` once it is known."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(run))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
