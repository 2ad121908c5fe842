"""Log lines as JSON: their form, and which cell they are about, in whatever thread."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from collectors.engines import ModelRef
from collectors.runs.log_lines import about, log_as_json
from collectors.runs.work import Cell
from collectors.specs import TaskSpec

CELL = Cell("0123456789abcdef", ModelRef("org/m", "org/m", "r0", None), TaskSpec(task="gsm8k"), "gsm8k", "p0", 0, 100)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """This process logs as it did, afterwards."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.split("\n") if line]


def test_json_line_is_one_object_whatever_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    log_as_json("run-1")  # again, once the run is known: no line comes twice
    logger = logging.getLogger("a.b")
    logger.warning('two\nlines, a "quote", %s', "\u2028 and \ud800")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("it failed")
    first, second = lines(capsys)
    assert first["message"] == 'two\nlines, a "quote", \u2028 and \ud800'
    assert (first["level"], first["logger"], first["run"]) == ("WARNING", "a.b", "run-1")
    assert first["time"].endswith("+00:00")
    assert "cell" not in first
    assert second["exception"].splitlines()[-1] == "ValueError: broken"


def test_json_line_is_about_the_cell_of_its_thread(capsys: pytest.CaptureFixture[str]) -> None:
    log_as_json()
    logger = logging.getLogger("a.b")
    with about(CELL):
        logger.error("mine")
        threads = [
            threading.Thread(target=logger.error, args=("nobody's",)),
            threading.Thread(target=copy_context().run, args=(logger.error, "mine too")),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    logger.error("after")
    found = {line["message"]: (line.get("cell"), line.get("model"), line.get("task")) for line in lines(capsys)}
    mine, nobodys = ("0123456789abcdef", "org/m", "gsm8k"), (None, None, None)
    assert found == {"mine": mine, "nobody's": nobodys, "mine too": mine, "after": nobodys}
