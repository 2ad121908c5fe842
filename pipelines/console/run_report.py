"""The contents of a run's HTML report.

Owns the choice of numbers and their labels. Knows nothing of HTML (collectors.pictures.run_page) or of lakes.
"""

from __future__ import annotations

from collectors.pictures.run_page import Bars, RunPage, Share, Table, run_page
from collectors.runs.stages import STAGES
from collectors.runs.status import RunStatus
from pipelines.console.progress import duration
from pipelines.console.run_shown import clock, cost, example, lines, state

#: Most rows in the tables of slow models and of failures.
MOST_MODELS, MOST_KINDS = 50, 50


def report(status: RunStatus) -> str:
    """The page as HTML."""
    title = f"Run {status.run_id}"
    sentences = [f"As of {clock(status.looked)}.", *lines(status)]
    alarm = state(status) if status.stuck or status.lost or (status.end and not status.complete) else ""
    tables = [_failures(status), _cost(status), _models(status), _stages(status)]
    return run_page(RunPage(title, sentences, alarm, _progress(status), _bars(status), tables))


def _progress(status: RunStatus) -> list[Share]:
    def share(what: str, done: int, failed: int, of: int) -> Share:
        label = f"{what}: {done:,} of {of:,} done, {failed:,} failed, {of - done - failed:,} open"
        return Share(label, 100 * done / max(of, 1), 100 * failed / max(of, 1))

    return [
        share("Cells", status.cells_done, status.cells_failed, status.cells),
        share("Items", status.items_done, status.items_failed, status.items),
    ]


def _bars(status: RunStatus) -> Bars | None:
    if not status.history:
        return None
    rates = [bar.items / bar.seconds for bar in status.history]
    texts = [f"{clock(bar.start)}: {bar.items:,} items" for bar in status.history]
    last = status.history[-1]
    ends = clock(status.history[0].start), clock(last.start + last.seconds)
    return Bars(rates, texts, duration(last.seconds), *ends)


def _failures(status: RunStatus) -> Table:
    rows = [
        (one.kind, f"{one.times:,}", f"{one.cells:,}", example(one), one.message)
        for one in status.failures[:MOST_KINDS]
    ]
    heads = ("kind", "times", "cells", "the last one", "message")
    return Table("Failures by kind", heads, rows, frozenset({0, 3, 4}))


def _cost(status: RunStatus) -> Table:
    work = status.work
    rows = [("priced", f"{work.priced:,}", f"{work.usd:,.2f}")] if work.usd is not None else []
    rows += [(f"{name or 'CPUs'}, unpriced", f"{n:,}", "unknown") for name, n in work.unpriced.most_common()]
    return Table("Cost so far", ("accelerators", "shards", "USD"), rows, note=cost(work))


def _models(status: RunStatus) -> Table:
    rows = []
    for model, slowness in status.work.slowest(MOST_MODELS):
        speed = model.tokens_per_second
        seconds = (f"{number:,.1f}" for number in (model.engine_seconds, model.load_seconds))
        tokens = "unknown" if speed is None else f"{speed:,.1f}"
        rows.append((model.model, f"{slowness:.2f}", f"{model.items:,}", *seconds, tokens))
    heads = ("model", "× mean", "items", "engine s", "load s", "tokens/s")
    count = len(status.work.models)
    mean = "engine seconds against the mean of all models on as many items of the same tasks"
    note = f"{len(rows):,} of {count:,} models; × mean: {mean}." if count else ""
    return Table("Slowest models", heads, rows, note=note)


def _stages(status: RunStatus) -> Table:
    seconds = status.work.stages
    order = sorted((stage for stage in seconds if stage in STAGES), key=lambda stage: -seconds[stage])
    most = max(seconds.values(), default=0.0) or 1.0
    rows = [(stage, f"{seconds[stage]:,.1f}", STAGES[stage]) for stage in order]
    note = "Seconds of all workers; the stages of one worker overlap." if rows else ""
    shares = [100 * seconds[stage] / most for stage in order]
    return Table("Where the time went", ("stage", "seconds", "of"), rows, frozenset({0, 2}), note, shares)
