"""What a person sees while a fleet works, with and without a terminal."""

from __future__ import annotations

import io
import logging
import sys
import time
from typing import Any

import pytest

from collectors.engines import ModelRef
from collectors.runs.listeners import AtWork, Listener, Workers
from collectors.runs.work import Cell, ShardReport
from collectors.specs import TaskSpec
from pipelines.console import progress as module
from pipelines.console.progress import MOST_WORKERS, Progress, beating
from tests.helpers.runs import wait_until


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def cell(model: str = "org/[red]model", task: str = "gsm8k") -> Cell:
    ref = ModelRef(model, model, "r0", None, "float32", None, None)
    return Cell("0123456789abcdef", ref, TaskSpec(task=task), task, "p0", 0, 100)


def report(tokens: int = 100, cached: int | None = 25, committed: bool = True) -> ShardReport:
    facts: dict[str, Any] = dict.fromkeys(ShardReport.__dataclass_fields__, 0)
    told = {"engine_tokens": tokens, "cached_tokens": cached, "committed": committed, "host": "h", "stages": {}}
    return ShardReport(**{**facts, **told})


def test_beating_prints_at_once_and_goes_on_while_the_work_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []

    def has(text: str) -> bool:
        printed.append(capsys.readouterr().err)
        return text in "".join(printed)

    with beating("the tasks load", "records done", seconds=0.01) as progress:
        assert has("the tasks load\n")
        wait_until("a second line", lambda: has("the tasks load: 0s\n"))
        progress(1500, 40_000)
        wait_until("the counts", lambda: has("1,500 of 40,000 records done\n"))
    assert capsys.readouterr().out == ""


def test_progress_counts_what_it_is_told() -> None:
    progress = Progress(cells=3, items=300)
    listener: Listener = progress
    listener.on_done(cell(), report(), 60, last=False)
    listener.on_done(cell(), report(committed=False), 40, last=True)
    listener.on_failed(cell(), "engine_died", "gone", 100)
    assert "cells 1/3 failed 1 items 100/200" in progress.line()
    assert "(25% cached)" in progress.line()
    assert (progress.shards, progress.dropped_shards) == (1, 1)
    listener.on_done(cell(), report(cached=None), 1, last=False)
    listener.on_done(cell(), report(), 1, last=False)
    assert "cached" not in progress.line()


def test_progress_on_a_terminal_shows_workers_and_last_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(module, "DRAW_SECONDS", 0.0)
    working = [AtWork(f"org/[red]model-{n}", "gsm8k", 60.0 * n) for n in range(MOST_WORKERS + 1)]
    working.append(AtWork("org/away", "mmlu", 90000.0, "storage"))
    with Progress(cells=3, items=300) as progress:
        for number in range(4):
            progress.on_failed(cell(), "engine_died", f"failure {number}", 1)
        progress.on_tick(lambda: Workers(working, 5, 9))
        shown = screen.getvalue()
    assert "cells 0/3 failed 4 items 0/296" in shown
    assert "5 engines starting" in shown
    assert "1.0d  org/away  mmlu  waits: storage" in shown
    slowest = MOST_WORKERS
    assert f"{slowest:.1f}m  org/[red]model-{slowest}  gsm8k" in shown
    assert "… and 2 more at work" in shown
    assert "model-1 " not in shown
    assert "failed: org/[red]model on gsm8k: failure 3" in shown
    assert "failure 0" not in shown


def test_progress_without_a_terminal_is_a_line_every_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)

    def unasked() -> Workers:
        raise AssertionError("without a terminal nobody asks what each worker does")

    with Progress(cells=3, items=300) as progress:
        progress.on_tick(unasked)
        assert caplog.messages == []
        monkeypatch.setattr(progress, "_last_line", time.monotonic() - module.LINE_SECONDS)
        progress.on_tick(unasked)
        progress.on_tick(unasked)
        assert len(caplog.messages) == 1
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("cells 0/3 failed 0 items 0/300")
