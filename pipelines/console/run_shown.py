"""Formats the status of a run as text, tables and JSON: progress, rate, failures, cost, and seconds by stage.

Owns the choice of numbers and their format. Knows nothing of lakes: its input is a RunStatus.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from collectors.runs.record import RunEnd
from collectors.runs.shard_statistics import EndpointPace, ShardTotals
from collectors.runs.stages import summary
from collectors.runs.status import FailureKind, RunStatus
from pipelines.console.progress import duration, short
from pipelines.console.tables import MOST_CELLS, headed, number

#: Models in the table of slow models.
MOST_SLOW = 5
#: Outcome of a run that left cells open (schemas.records.RUN_END) -> words.
ENDED = {
    "finished": "ended",
    "unknown": "ended",
    "budget": "ended by a budget",
    "stopped": "stopped",
    "error": "ended by an error",
}


#: Kind of an endpoint's fault -> words.
FAULTS = {
    "too_many": "times 429",
    "overloaded": "times 503",
    "server_error": "server errors",
    "timeout": "timeouts",
    "connection": "lost connections",
    "bad_reply": "replies without an answer",
    "refused": "refused",
}


def line(status: RunStatus) -> str:
    """The run in one line, for output without a terminal."""
    return (
        f"run {status.run_id} cells {status.cells_done}/{status.cells} failed {status.cells_failed} "
        f"items {status.items_done}/{status.items} items/s {rate(status)} eta {eta(status)} {state(status)}"
    )


def shown(status: RunStatus) -> Iterator[RenderableType]:
    """The run as lines and tables."""
    plain = (text for text in lines(status))
    for text in plain:
        yield Text(text)
    if status.failures:
        yield Text("\nfailures of this run, with the last one of each kind as example")
        yield failures_table(status.failures)
    if slow := status.work.slowest(MOST_SLOW):
        yield Text("\nslowest models, against the mean of all models on as many items of the same tasks")
        table = headed("<model", "× mean", "items", "engine s", "load s", "tokens/s")
        for model, slowness in slow:
            values = (model.engine_seconds, model.load_seconds, model.tokens_per_second)
            speeds = (number(value, ",.1f") for value in values)
            table.add_row(model.model, f"{slowness:.2f}", f"{model.items:,}", *speeds)
        yield table


def lines(status: RunStatus) -> list[str]:
    """The run in sentences, the most important first."""
    work, before = status.work, status.items_before
    items = f"items: {status.items_done:,} of {status.items:,} done"
    parts = ((before, "before"), (status.items_after, "after"))
    if others := ", ".join(f"{count:,} of them {when} this run" for count, when in parts if count):
        items += f" ({others})"
    if status.items_failed:
        items += f", {status.items_failed:,} of failed cells"
    quarantined = f"; {status.cells_quarantined:,} more in quarantine" if status.cells_quarantined else ""
    sentences = [
        f"run {status.run_id} in {status.lake}: {status.models:,} models × {status.tasks:,} tasks, engine "
        f"{status.engine or 'unknown'}, started {clock(status.started)}, "
        f"{duration(status.looked - status.started)} ago",
        f"cells: {status.cells:,} planned, {status.cells_done:,} done, {status.cells_failed:,} failed, "
        f"{status.cells_open:,} open{quarantined}",
        items,
        f"rate: {rate(status)} items/s over its last {duration(status.rate_seconds)}; eta {eta(status)}",
        f"last shard: {last(status)}; {state(status)}",
        f"shards of the lake: {status.shards_folded:,} folded, {status.shards_open:,} open",
        f"cost so far: {cost(work)}",
        f"tokens through the engines: {tokens(work)}",
    ]
    sentences += [endpoint(name, pace) for name, pace in sorted(work.endpoints.items())]
    if work.stages:
        sentences.append(f"workers' time: {summary(work.stages)}")
    if work.unread:
        sentences.append(
            f"cost, tokens, time and models cover {work.shards:,} shards; {work.unread:,} more were not opened "
            "(--footers N opens more)"
        )
    sentences += [f"skipped: {name}: {reason}" for name, reason in status.damaged.items()]
    return sentences


def endpoint(model: str, pace: EndpointPace) -> str:
    """A sentence about the endpoint of a model: its rate, and what went wrong."""
    counts = pace.counts
    per_second = counts["answered"] / pace.seconds if pace.seconds else 0.0
    faults = {kind: count for kind, count in sorted(counts.items()) if kind not in ("sent", "answered")}
    wrong = ", ".join(f"{count:,} {FAULTS.get(kind, kind)}" for kind, count in faults.items()) or "no fault"
    suspicious = f"; suspicious: {', '.join(sorted(pace.suspicions))}" if pace.suspicions else ""
    paid = f", {pace.usd:.4g} USD" if pace.usd else ""
    return (
        f"endpoint of {model}: {counts['answered']:,} of {counts['sent']:,} requests answered, {short(per_second)}/s"
        f"{paid}; {wrong}{suspicious}"
    )


def state(status: RunStatus) -> str:
    """A phrase for the state of the run: at work, ended, stuck or complete."""
    if status.complete:
        now = "complete" if not status.cells_failed else "complete except for failed cells"
        return f"{_ended(status.end)}; now {now}" if status.end and status.items_after else now
    left = f"{status.cells_open:,} cells are open"
    if status.end:
        return f"{_ended(status.end)}; {left}: run the same collect command to continue"
    if status.lost:
        return (
            f"nothing was heard of it for {duration(status.silent)} and {left}: its driver or cluster is gone. Run the "
            "same collect command to continue"
        )
    if status.paused:
        return f"paused, and {left}: --resume goes on"
    if status.stuck:
        return (
            f"nothing was committed for {duration(status.quiet)} and {left}: killed or stuck? Run the same collect "
            "command to continue"
        )
    return "at work" if status.last_commit and status.last_commit >= status.started else "nothing committed yet"


def _ended(end: RunEnd) -> str:
    """A phrase for the end of the run, with its time and message."""
    at = "" if end.ended is None else f" at {clock(end.ended)}"
    return f"{ENDED.get(end.outcome, end.outcome)}{at}" + (f": {end.message}" if end.message else "")


def rate(status: RunStatus) -> str:
    if status.rate is None:
        return "?"
    return short(status.rate) if status.rate >= 10 else f"{status.rate:.2g}"


def eta(status: RunStatus) -> str:
    if status.complete:
        return "0s"
    if status.over:
        return "none"
    return "?" if status.eta is None else duration(status.eta)


def last(status: RunStatus) -> str:
    if status.last_commit is None:
        return "none" if not status.items_done else "time unknown to the store"
    return f"{clock(status.last_commit)}, {duration(max(0.0, status.looked - status.last_commit))} ago"


def cost(work: ShardTotals) -> str:
    """The cost so far. Unpriced shards are named: they are neither free nor left out."""
    unpriced = sum(work.unpriced.values())
    names = ", ".join(f"{shards:,} on {name or 'CPUs'}" for name, shards in work.unpriced.most_common(3))
    if work.usd is not None:
        return f"${work.usd:,.2f} for {work.priced:,} shards" + (f"; unpriced: {names}" if unpriced else "")
    if unpriced:
        return f"unknown, no price for any of {unpriced:,} shards: {names}"
    return "unknown until a shard reports it"


def tokens(work: ShardTotals) -> str:
    if not work.shards:
        return "unknown until a shard reports them"
    if work.engine_tokens is None:
        return "unknown: some shards do not report them"
    has_share = work.cached_tokens is not None and work.engine_tokens
    share = work.cached_tokens / work.engine_tokens if has_share else 0.0  # type: ignore[operator]
    cached = f", {share:.1%} of them cached" if has_share else ""
    return f"{work.engine_tokens:,}{cached}"


def failures_table(failures: Sequence[FailureKind]) -> RenderableType:
    table = headed("<kind", "times", "cells", "<example", "<message")
    for one in failures[:MOST_CELLS]:
        table.add_row(one.kind, f"{one.times:,}", f"{one.cells:,}", example(one), one.message)
    return table


def example(one: FailureKind) -> str:
    """The model and task of the last failure of a kind."""
    return " on ".join(filter(None, (one.model, one.task)))


def clock(seconds: float) -> str:
    """Seconds since the epoch as a date and time in UTC."""
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def as_json(status: RunStatus) -> dict[str, Any]:
    """The fields of RunStatus and its derived values, ready for JSON. An unknown value is None."""
    value = dataclasses.asdict(status)
    slowness = status.work.slowness()
    value["work"]["models"] = [
        {
            **{name: value for name, value in dataclasses.asdict(model).items() if name != "by_task"},
            "tokens_per_second": model.tokens_per_second,
            "slowness": slowness.get(model.model),
        }
        for _, model in sorted(status.work.models.items())
    ]
    value["work"]["unpriced"] = {name or "cpu": shards for name, shards in status.work.unpriced.items()}
    return value | {
        "items_open": status.items_open,
        "complete": status.complete,
        "over": status.over,
        "stuck": status.stuck,
        "quiet_s": status.quiet,
        "last_heard": status.last_heard,
        "lost": status.lost,
        "paused": status.paused,
        "eta_s": status.eta,
    }
