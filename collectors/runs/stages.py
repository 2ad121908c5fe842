"""Times the named stages of a shard.

Owns the names of the stages, their seconds, and the trace that a browser's trace viewer opens. Knows nothing of the
work in a stage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from collectors.engines import Usage

#: Stage -> meaning of its seconds. All but `prefill` and `idle` are work of one thread.
STAGES = {
    "tasks": "loading the task's definition and items",
    "fetch": "getting the model's files to this machine",
    "load": "loading the model into a new engine, or swapping its weights into a live one",
    "build": "building and tokenising requests, or reading kept ones",
    "engine": "answering requests, with the engine's own bookkeeping",
    "prefill": "the part of engine in which some request's prompt was being read; the rest only generated",
    "judge": "lm-eval's filters and metrics",
    "write": "writing the records of the previous shard, because a shard is written before its own time is known",
    "idle": "waiting of the engine between the previous shard and this one; 0 after a load",
}


class Span(NamedTuple):
    """One run of a stage; start and end in seconds since the epoch."""

    stage: str
    start: float
    end: float


class Stages:
    """The stages of one shard."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.spans: list[Span] = []
        #: Seconds since the epoch when the monotonic clock stood at 0.
        self._epoch = time.time() - time.monotonic()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, start, time.monotonic())

    def add(self, stage: str, start: float, end: float) -> None:
        """Adds a span; `start` and `end` are seconds of the monotonic clock."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + end - start
        self.spans.append(Span(stage, start + self._epoch, end + self._epoch))

    def wall(self) -> float:
        """Seconds from the first start to the last end of any stage but `idle`."""
        work = [span for span in self.spans if span.stage != "idle"]
        return max((s.end for s in work), default=0.0) - min((s.start for s in work), default=0.0)


def in_prefill(usages: Iterable[Usage]) -> float | None:
    """Seconds while at least one request was between its scheduling and its first token; None if none was timed."""
    timed = [(u.scheduled, u.first_token) for u in usages]
    spans = sorted((start, end) for start, end in timed if start is not None and end is not None)
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total if spans else None


def summary(seconds: Mapping[str, float]) -> str:
    """Writes the stages of a run in one line, the longest first."""
    names = [name for name in STAGES if seconds.get(name, 0.0) >= 0.05 and name != "prefill"]
    prefill = f" ({seconds.get('prefill', 0.0):.1f} of it prefill)"
    order = sorted(names, key=lambda name: -seconds[name])
    return ", ".join(f"{name} {seconds[name]:.1f} s{prefill if name == 'engine' else ''}" for name in order)


class Trace:
    """Writes spans of a run as Chrome's trace events, for chrome://tracing and ui.perfetto.dev.

    Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (complete events, "X").
    """

    #: Stages in the engine's thread; the others are in the worker's main one.
    _ENGINE = ("fetch", "load", "engine", "idle")

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._workers: dict[str, int] = {}

    def add(self, worker: str, spans: Iterable[Span], **about: Any) -> None:
        """Adds the stages of one shard. The viewer shows `about` with each of them."""
        pid = self._workers.setdefault(worker, len(self._workers) + 1)
        for stage, start, end in spans:
            lane = 1 if stage in self._ENGINE else 2
            event = {"name": stage, "ph": "X", "pid": pid, "tid": lane, "ts": start * 1e6, "dur": (end - start) * 1e6}
            self._events.append(event | {"args": about})

    def to_json(self) -> bytes:
        """Returns the content of the trace file."""
        names = [_name("process_name", pid, 0, worker) for worker, pid in self._workers.items()]
        for pid in self._workers.values():
            names += [_name("thread_name", pid, 1, "engine"), _name("thread_name", pid, 2, "requests and records")]
        return json.dumps({"traceEvents": names + self._events, "displayTimeUnit": "ms"}).encode()


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
