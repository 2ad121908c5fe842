"""The order of work: shards are cut, handed out, retried and dropped without losing or doubling an item."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collectors.engines import ModelRef
from collectors.runs.config import FleetSpec
from collectors.runs.work import ShardReport
from pipelines.console.progress import Progress
from pipelines.fleet.workqueue import Job, WorkQueue
from schemas.identity import MAX_SHARD_ITEMS
from tests.helpers.planned_work import held, planned


def report(items: int, seconds: float) -> ShardReport:
    facts: dict[str, Any] = dict.fromkeys(ShardReport.__dataclass_fields__, 0)
    return ShardReport(**{**facts, "items": items, "engine_seconds": seconds, "stages": {}, "committed": True})


def drain(queue: WorkQueue, seconds_per_item: float = 0.0) -> list[Job]:
    jobs = []
    while job := queue.take(None, Counter()):
        jobs.append(job)
        if seconds_per_item:
            items = job.last - job.first + 1
            queue.learn(job, report(items, items * seconds_per_item))
    return jobs


@given(
    gaps=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    first=st.integers(1, 100),
    pace=st.sampled_from([0.0, 0.001, 0.5, 30.0, 1000.0]),
)
def test_queue_taken_until_empty_hands_out_each_item_once(gaps: list[int], first: int, pace: float) -> None:
    position, todo = 0, []
    for size in gaps:
        todo.append((position, position + size - 1))
        position += size + 3
    cell = planned("a", "t", *todo)
    jobs = drain(WorkQueue([cell], FleetSpec(first_shard_items=first)), pace)
    handed = [item for job in jobs for item in range(job.first, job.last + 1)]
    assert sorted(handed) == [item for a, b in todo for item in range(a, b + 1)]
    assert all(job.last - job.first < MAX_SHARD_ITEMS for job in jobs)


def test_queue_after_a_measured_shard_cuts_a_minute_of_work() -> None:
    queue = WorkQueue([planned("a", "t", (0, 99_999))], FleetSpec(first_shard_items=10, shard_seconds=60))
    first = queue.take(None, Counter())
    assert first is not None
    queue.learn(first, report(10, 5.0))
    second = queue.take(held("a"), Counter())
    assert second is not None
    assert (second.first, second.last) == (10, 129)  # 0.5 s an item


def test_queue_with_a_held_model_stays_with_it_then_takes_the_least_served() -> None:
    cells = [planned("a", "t", (0, 9)), planned("b", "t", (0, 9)), planned("b", "u", (0, 9)), planned("c", "t", (0, 9))]
    queue = WorkQueue(cells, FleetSpec())
    taken = [queue.take(held("c"), Counter({"b:auto:None": 1})) for _ in range(4)]
    assert [job.planned.cell.model.name for job in taken if job] == ["c", "a", "b", "b"]


def test_queue_with_a_held_group_goes_on_in_it_unless_others_work_there() -> None:
    groups = {"a": "x", "b": "y", "c": None, "d": "x", "e": "x"}
    cells = [planned(name, "t", (0, 9 + at), group=group) for at, (name, group) in enumerate(groups.items())]
    queue, busy, order = WorkQueue(cells, FleetSpec()), Counter({"e:auto:None": 1}), []
    now = held("a", "x")
    while (job := queue.take(now, busy)) is not None:
        expected = queue.upcoming(now := job.planned.cell.model, busy)
        order.append((now.name, expected.name if expected else None))
    assert order == [("a", "d"), ("d", "c"), ("c", "b"), ("b", "e"), ("e", None)]


def test_queue_upcoming_is_nobody_while_the_own_model_has_shards() -> None:
    queue = WorkQueue([planned("a", "t", (0, 99)), planned("b", "t", (0, 9))], FleetSpec(first_shard_items=50))
    assert queue.take(held("a"), Counter())
    assert queue.upcoming(held("a"), Counter()) is None
    assert queue.take(held("a"), Counter())
    following = queue.upcoming(held("a"), Counter())
    assert following is not None
    assert following.name == "b"


def test_queue_begins_with_the_model_that_has_the_most_work_by_items_and_size() -> None:
    cells = [planned("small", "t", (0, 99)), planned("large", "t", (0, 49)), planned("unknown", "t", (0, 9))]
    sizes = {"small:auto:None": 10**9, "large:auto:None": 7 * 10**9}
    busy: Counter[str] = Counter()
    queue, order = WorkQueue(cells, FleetSpec(first_shard_items=100), sizes), []
    while job := queue.take(None, busy):
        order.append(job.planned.cell.model.name)
        busy[job.planned.cell.model.key] += 1
    assert order == ["large", "small", "unknown"]


@given(
    seconds=st.lists(st.floats(0.01, 10.0), min_size=1, max_size=12),
    workers=st.integers(1, 5),
    load=st.floats(0.0, 5.0),
)
def test_queue_of_models_of_any_size_leaves_no_worker_alone_with_the_last(
    seconds: list[float], workers: int, load: float
) -> None:
    """Simulated: one worker's makespan is the sum; several share it but for a shard and a load each."""
    cells = [planned(f"m{at}", "t", (0, 499)) for at in range(len(seconds))]
    pace = {cell.cell.model.key: s for cell, s in zip(cells, seconds, strict=True)}
    sizes = {key: int(1000 * s) for key, s in pace.items()}
    queue = WorkQueue(cells, FleetSpec(first_shard_items=4, shard_seconds=60), sizes)
    held_by: list[ModelRef | None] = [None] * workers
    total, loads, end = 500 * sum(seconds), 0, 0.0
    events, running = [(0.0, worker) for worker in range(workers)], dict[int, Job]()
    while events:
        now, worker = heapq.heappop(events)
        if worker in running:
            done, end = running.pop(worker), now
            items = done.last - done.first + 1
            queue.learn(done, report(items, items * pace[done.planned.cell.model.key]))
        job = queue.take(held_by[worker], Counter(j.planned.cell.model.key for j in running.values()))
        if job is None:
            continue  # nothing is left to take, and in a quiet run nothing comes back
        model = job.planned.cell.model
        seconds_taken = load * (held_by[worker] != model) + (job.last - job.first + 1) * pace[model.key]
        loads += held_by[worker] != model
        held_by[worker], running[worker] = model, job
        heapq.heappush(events, (now + seconds_taken, worker))
    assert not queue
    longest_shard = max(60.0, 4 * max(seconds))
    assert end <= (total + loads * load) / workers + longest_shard + load


def test_queue_retry_comes_first_and_dropped_cells_never_come() -> None:
    a, b = planned("a", "t", (0, 99)), planned("b", "t", (0, 99))
    queue = WorkQueue([a, b], FleetSpec(first_shard_items=10))
    job = queue.take(held("a"), Counter())
    assert job is not None
    queue.retry(job)
    again = queue.take(held("a"), Counter())
    assert again is not None
    assert (again.first, again.last, again.tries) == (job.first, job.last, 1)
    queue.retry(again)
    queue.drop(a)
    assert {j.planned.cell.model.name for j in drain(queue)} == {"b"}


def test_progress_line_before_anything_is_done_has_no_eta() -> None:
    progress = Progress(cells=9000, items=100_000)
    assert "eta ?" in progress.line()
    progress.items_done, progress.cells_done, progress.engine_tokens = 50_000, 412, 5
    assert "cells 412/9000 failed 0 items 50000/100000" in progress.line()
    assert "eta ?" not in progress.line()


def test_progress_line_tells_the_cached_share_where_engines_do() -> None:
    progress = Progress(cells=1, items=10, items_done=5, engine_tokens=400, cached_tokens=100)
    assert "(25% cached)" in progress.line()
    progress.cached_tokens = None
    assert "cached" not in progress.line()


def test_queue_reopened_cell_is_the_next_of_its_worker_and_hands_out_its_new_items() -> None:
    cells = [planned("a", "t", (0, 3)), planned("b", "t", (0, 3))]
    queue = WorkQueue(cells, FleetSpec(first_shard_items=4))
    first = queue.take(None, Counter())
    assert first is not None
    model = first.planned.cell.model
    assert not queue.has(model)
    first.planned.todo = [(7, 8)]
    queue.reopen(first.planned)
    assert queue.has(model)
    again, other = queue.take(model, Counter()), queue.take(model, Counter())
    assert again is not None
    assert other is not None
    assert (again.planned is first.planned, again.first, again.last) == (True, 7, 8)
    assert other.planned is cells[1]
    assert not queue
