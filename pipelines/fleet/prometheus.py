"""Counters and gauges of a run for Prometheus. Ray exports them at the metrics endpoint of the driver's node.

Owns the names, meanings and tags of the metrics. METRICS lists them all, and infra/grafana/routerlake.json queries no
other. Ray prefixes each name with `ray_`. No tag names a model, because 8,500 models would become 8,500 series: look up
slow models with status.py or in the view `throughput`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.util.metrics

from collectors.runs.listeners import Workers
from collectors.runs.stages import STAGES
from collectors.runs.work import Cell, ShardReport
from schemas.failures import KINDS

#: Seconds between two looks at the workers. Ray exports every 10 s and forgets a gauge that was not set for 20 s, so
#: each look sets all gauges.
TICK_SECONDS = 2.0


@dataclass(frozen=True)
class MetricSpec:
    """One metric. A counter only grows within a run; a gauge has the value of the moment."""

    kind: str
    description: str
    tags: tuple[str, ...] = ()


#: Name -> kind, description and tags. Every metric also has the tag `run`.
METRICS = {
    "routerlake_shards_total": MetricSpec(
        "counter",
        "shards that workers answered; outcome: committed, or dropped because another worker was faster",
        ("host", "outcome"),
    ),
    "routerlake_items_total": MetricSpec("counter", "items whose records are in the lake", ("host",)),
    "routerlake_engine_tokens_total": MetricSpec(
        "counter", "tokens that engines processed, cached included", ("host",)
    ),
    "routerlake_cached_tokens_total": MetricSpec(
        "counter", "of these, read from prefix caches; engines that do not report them add nothing", ("host",)
    ),
    "routerlake_stage_seconds_total": MetricSpec(
        "counter",
        "seconds of workers by stage (collectors.runs.stages.STAGES); idle: the engine had nothing to do",
        ("host", "stage"),
    ),
    "routerlake_failures_total": MetricSpec("counter", "cells given up, by kind (schemas.failures)", ("kind",)),
    "routerlake_cells": MetricSpec("gauge", "planned cells by state: done, failed, open", ("state",)),
    "routerlake_items_open": MetricSpec("gauge", "items that are left to collect"),
    "routerlake_workers": MetricSpec(
        "gauge", "engine processes by state: working, waiting (for the store or the hub), starting", ("state",)
    ),
    "routerlake_longest_wait_seconds": MetricSpec("gauge", "how long the slowest shard in hand has been awaited"),
    "routerlake_gpus": MetricSpec("gauge", "GPUs that the run may use by state: working, idle", ("state",)),
    "routerlake_usd": MetricSpec(
        "gauge", "dollars for GPUs with a price: spent by this run, by all runs of its budget, and the limit", ("of",)
    ),
}

_KINDS = {"counter": ray.util.metrics.Counter, "gauge": ray.util.metrics.Gauge}


class Metrics:
    """A listener that counts for Prometheus. `cells` and `items` are the numbers to collect in the run `run`."""

    def __init__(self, run: str, cells: int, items: int) -> None:
        self._run = {"run": run}
        self._cells = {"done": 0, "failed": 0, "open": cells}
        self._items = items
        self._last = 0.0
        self._metrics: dict[str, Any] = {
            name: _KINDS[spec.kind](name, spec.description, ("run", *spec.tags)) for name, spec in METRICS.items()
        }
        self._start_at_zero()
        self._show()

    def _start_at_zero(self) -> None:
        """Makes the counters' series at 0: an alert on an increase does not see the first value of a new series."""
        host = {"host": platform.node()}
        zeros: list[tuple[str, dict[str, str]]] = [("routerlake_failures_total", {"kind": kind}) for kind in KINDS]
        zeros += [("routerlake_shards_total", {**host, "outcome": outcome}) for outcome in ("committed", "dropped")]
        zeros += [("routerlake_stage_seconds_total", {**host, "stage": stage}) for stage in STAGES]
        for name in ("routerlake_items_total", "routerlake_engine_tokens_total", "routerlake_cached_tokens_total"):
            zeros.append((name, host))
        for name, tags in zeros:
            self._metrics[name]._record(0, {**self._run, **tags})  # inc() refuses 0

    def on_done(self, cell: Cell, report: ShardReport, items: int, *, last: bool) -> None:
        host = {"host": report.host}
        self._add("routerlake_shards_total", 1, **host, outcome="committed" if report.committed else "dropped")
        self._add("routerlake_items_total", items, **host)
        self._add("routerlake_engine_tokens_total", report.engine_tokens, **host)
        self._add("routerlake_cached_tokens_total", report.cached_tokens or 0, **host)
        for stage, seconds in report.stages.items():
            self._add("routerlake_stage_seconds_total", seconds, **host, stage=stage)
        self._items -= items
        if last:
            self._cells["done"] += 1
            self._cells["open"] -= 1
        self._show()

    def on_done_elsewhere(self, cell: Cell, items: int, *, last: bool) -> None:
        self._items -= items
        self._cells["done"] += last
        self._cells["open"] -= last
        self._show()

    def on_more(self, items: int, *, is_new: bool) -> None:
        self._items += items
        self._cells["open"] += 1
        self._cells["done"] -= not is_new
        self._show()

    def on_failed(self, cell: Cell, kind: str, message: str, items: int) -> None:
        self._add("routerlake_failures_total", 1, kind=kind)
        self._items -= items
        self._cells["failed"] += 1
        self._cells["open"] -= 1
        self._show()

    def on_tick(self, workers: Callable[[], Workers]) -> None:
        if time.monotonic() - self._last < TICK_SECONDS:
            return
        self._last = time.monotonic()
        self._show()
        now = workers()
        working = [one for one in now.working if one.waits_for is None]
        self._set("routerlake_workers", len(working), state="working")
        self._set("routerlake_workers", len(now.working) - len(working), state="waiting")
        self._set("routerlake_workers", now.starting, state="starting")
        self._set("routerlake_longest_wait_seconds", max((one.seconds for one in now.working), default=0.0))
        busy = sum(one.gpus for one in working)
        self._set("routerlake_gpus", busy, state="working")
        self._set("routerlake_gpus", max(0.0, now.gpus - busy), state="idle")
        for of, usd in now.usd.items():
            self._set("routerlake_usd", usd, of=of)

    def _show(self) -> None:
        for state, cells in self._cells.items():
            self._set("routerlake_cells", cells, state=state)
        self._set("routerlake_items_open", self._items)

    def _add(self, name: str, value: float, **tags: str) -> None:
        if value > 0:  # Ray refuses to add 0 to a counter
            self._metrics[name].inc(value, {**self._run, **tags})

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._metrics[name].set(value, {**self._run, **tags})
