"""Progress of a run by its lake, checked against the committed shards and against the views."""

from __future__ import annotations

import datetime as dt
import io
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from collectors.lake.compaction import compact
from collectors.lake.layout import SPEND, shard_name
from collectors.lake.pruning import prune
from collectors.lake.spend import Accounts, Spent
from collectors.runs.record import RunEnd
from collectors.runs.signals import PAUSE, send
from collectors.runs.status import QUIET_SECONDS, SILENT_SECONDS, RunStatus
from collectors.runs.watching import RunWatch
from pipelines.console.run_shown import state
from schemas.failures import ConfigError, StorageError
from schemas.identity import ShardName
from schemas.records import GPU_PRICE, RUN_CELL
from tests.helpers.filled_lakes import NOW
from tests.helpers.lake_builder import FOREIGN, BuiltCell, LakeBuilder, rows
from tests.helpers.object_store import BUCKET, ObjectStore

A, B, C, D = (BuiltCell(model=f"model-{letter}", items=10) for letter in "abcd")
#: When the builder's first run begins.
STARTED = dt.datetime(2026, 1, 2, tzinfo=dt.UTC).timestamp()
ALL = 1000


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "the [lake]")  # brackets are a pattern to DuckDB


def facts(run: str, seconds: float, gpu: str | None = None, **changes: Any) -> dict[str, Any]:
    stages = {"engine": seconds, "load": 1.0, "judge": 0.5}
    return {
        "run_id": run,
        "host": "h",
        "gpu": gpu,
        "engine": "stub",
        "engine_seconds": seconds,
        "load_seconds": 1.0,
        "engine_tokens": 100,
        "cached_tokens": 10,
        "stages": stages,
        **changes,
    }


def commit(lake: LakeBuilder, cell: BuiltCell, first: int, last: int, at: float, **about: Any) -> Path:
    """A shard that was made `at` seconds after the run began."""
    generation = about.pop("generation", 0)
    shard = [cell.record(item, score=1.0) for item in range(first, last + 1)]
    name = lake.shard(cell, shard, generation=generation, metadata=about or None)
    path = Path(lake.lake.root) / shard_name(cell.task, name)
    os.utime(path, (STARTED + at, STARTED + at))
    return path


def half_done(lake: LakeBuilder) -> str:
    """A whole cell, one with six of its ten items, one that failed after two, and one that nobody touched."""
    run = lake.run(A, B, C, D)
    commit(lake, A, 0, 3, -500, **facts("another", 9.0, "H100"))
    commit(lake, A, 4, 9, 100, **facts(run, 2.0, "H100"))
    commit(lake, B, 0, 3, 1500, **facts(run, 3.0, "H100", gpus=2))
    commit(lake, B, 4, 5, 1900, **facts(run, 5.0, "L4"))
    commit(lake, C, 0, 1, 200, **facts(run, 4.0, engine_tokens=50))
    lake.failure(run, "engine_died", "its process died", model="model-c", task="quiz", cell_id=C.cell_id)
    lake.failure(run, "no_weights", "model-x has none", model="model-x")
    lake.failure("run-9999", "gated", "of another run", model="model-y")
    price = {"accelerator": "H100", "provider": "p", "usd_per_gpu_hour": 7.2, "valid_from": dt.date(2026, 1, 1)}
    price |= {"source": "s", "added_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
    lake._create("gpu_prices/one.parquet", [price], GPU_PRICE)
    return run


def look(lake: LakeBuilder, after: float = 2000, most: int = ALL, run: str | None = None) -> RunStatus:
    with closing(RunWatch(lake.lake, run, clock=lambda: STARTED + after)) as watched:
        return watched.look(most)


def test_run_status_of_half_a_run_counts_cells_and_items(lake: LakeBuilder) -> None:
    half_done(lake)
    status = look(lake)
    assert (status.cells, status.cells_done, status.cells_failed, status.cells_open) == (4, 1, 1, 2)
    assert (status.items, status.items_done, status.items_failed, status.items_open) == (40, 18, 8, 14)
    assert status.items_before == 4
    assert (status.models, status.tasks, status.engine, status.started) == (4, 1, "stub", STARTED)
    coverage = lake.rows("SELECT sum(planned), sum(attempted) FROM coverage")
    assert coverage == [(status.items, status.items_done)]
    assert not status.complete


def test_run_status_whole_cell_without_a_verdict_has_failed(lake: LakeBuilder) -> None:
    run = half_done(lake)
    lake.failure(run, "nothing_answered", "none of its 10 items", model="model-a", task="quiz", cell_id=A.cell_id)
    status = look(lake)
    assert (status.cells, status.cells_done, status.cells_failed, status.cells_open) == (4, 0, 2, 2)
    assert (status.items, status.items_done, status.items_failed, status.items_open) == (40, 18, 8, 14)
    assert "nothing_answered" in {failure.kind for failure in status.failures}


def test_run_status_rate_and_end_are_of_the_last_minutes(lake: LakeBuilder) -> None:
    half_done(lake)
    status = look(lake, after=2000)
    assert status.rate == pytest.approx(6 / 600)  # those at 1,500 and 1,900 s
    assert status.eta == pytest.approx(14 / (6 / 600))
    assert status.last_commit == STARTED + 1900
    assert look(lake, after=250).rate_seconds == 250
    assert sum(bar.items for bar in status.history) == 18 - 4
    assert status.history[0].start == STARTED
    assert status.history[-1].start + status.history[-1].seconds >= STARTED + 1900


def test_run_status_without_commits_for_long_is_stuck_unless_complete(lake: LakeBuilder) -> None:
    run = half_done(lake)
    assert not look(lake, after=1900 + QUIET_SECONDS - 1).stuck
    late = look(lake, after=1900 + QUIET_SECONDS + 1)
    assert late.stuck
    assert (late.rate, late.eta) == (0.0, None)
    commit(lake, B, 6, 9, 2000, **facts(run, 1.0))
    commit(lake, D, 0, 9, 2100, **facts(run, 1.0))
    done = look(lake, after=10**6)
    assert done.complete
    assert not done.stuck
    assert done.rate == pytest.approx((4 + 2 + 4 + 10) / 600)  # of its last minutes, whenever it is asked


def test_run_status_of_a_run_that_is_not_heard_of_is_lost_whatever_it_committed(lake: LakeBuilder) -> None:
    run = half_done(lake)
    assert not look(lake, after=1900 + SILENT_SECONDS + 1).lost  # an older program wrote no account
    accounts = Accounts(lake.lake, "lake", run)
    accounts.write(Spent())
    [name] = lake.lake.names(SPEND)
    os.utime(f"{lake.lake.root}/{name}", (STARTED + 1950, STARTED + 1950))
    assert not look(lake, after=1950 + SILENT_SECONDS - 1).lost
    late = look(lake, after=1950 + SILENT_SECONDS + 1)
    assert late.lost
    assert not late.stuck
    assert late.silent == SILENT_SECONDS + 1
    assert state(late).startswith("nothing was heard of it for 5.0m and 2 cells are open")


def test_run_status_of_a_paused_run_says_so(lake: LakeBuilder) -> None:
    run = half_done(lake)
    send(lake.lake, run, PAUSE)
    assert state(look(lake, after=2000)) == "paused, and 2 cells are open: --resume goes on"


def test_run_status_of_a_run_without_shards_is_stuck_after_a_while(lake: LakeBuilder) -> None:
    lake.run(A)
    assert not look(lake, after=10).stuck
    late = look(lake, after=10 + QUIET_SECONDS)
    assert late.stuck
    assert (late.last_commit, late.items_done, late.history, late.work.shards) == (None, 0, [], 0)


def test_run_status_failures_are_of_this_run_and_what_is_open(lake: LakeBuilder) -> None:
    half_done(lake)
    found = [(one.kind, one.times, one.cells, one.model) for one in look(lake).failures]
    assert found == [("engine_died", 1, 1, "model-c"), ("no_weights", 1, 0, "model-x")]
    commit(lake, C, 2, 9, 1950)
    assert [one.kind for one in look(lake).failures] == ["no_weights"]


def test_run_status_work_is_what_the_views_say(lake: LakeBuilder) -> None:
    run = half_done(lake)
    work = look(lake).work
    con = lake.views()
    [(usd, unpriced)] = rows(
        con, f"SELECT sum(usd), count(*) - count(usd) FROM collection_costs WHERE run_id = '{run}'"
    )
    assert work.usd == pytest.approx(usd)
    assert work.usd == pytest.approx(((2 + 1) + 2 * (3 + 1)) * 7.2 / 3600)
    assert (work.priced, sum(work.unpriced.values()), dict(work.unpriced)) == (2, unpriced, {"L4": 1, "": 1})
    stages = dict(rows(con, f"SELECT stage, sum(seconds) FROM profile WHERE run_id = '{run}' GROUP BY stage"))
    assert work.stages == stages
    assert (work.shards, work.unread, work.engine_tokens, work.cached_tokens) == (4, 0, 350, 40)
    assert [(model.model, model.items, model.tokens_per_second) for model, _ in work.slowest(2)] == [
        ("model-c", 2, 12.5),
        ("model-b", 6, 25.0),
    ]


def test_run_status_unknown_tokens_and_costs_are_none(lake: LakeBuilder) -> None:
    run = lake.run(A)
    commit(lake, A, 0, 3, 10, **facts(run, 2.0, cached_tokens=None, engine_tokens=None))
    work = look(lake).work
    assert (work.engine_tokens, work.cached_tokens, work.usd) == (None, None, None)
    assert work.models["model-a"].tokens_per_second is None


def test_run_status_names_the_class_of_a_gpu_that_does_not_tell_its_name(lake: LakeBuilder) -> None:
    run = lake.run(A)
    commit(lake, A, 0, 3, 10, **facts(run, 2.0, gpu_class="L4"))
    assert dict(look(lake).work.unpriced) == {"L4": 1}


def test_run_status_slowness_is_against_other_models_on_the_same_tasks(lake: LakeBuilder) -> None:
    """Long tasks make no model slow: by seconds per item the fast model on the long task would be the slowest."""
    long = [BuiltCell(model=f"model-{letter}", task="long") for letter in "ab"]
    run = lake.run(A, B, *long)
    commit(lake, A, 0, 9, 10, **facts(run, 20.0))
    commit(lake, B, 0, 9, 10, **facts(run, 10.0))
    commit(lake, long[0], 0, 1, 10, **facts(run, 40.0))
    commit(lake, long[1], 0, 9, 10, **facts(run, 100.0))
    slowness = look(lake).work.slowness()
    # 1.5 s an item of the short task, 140 / 12 s of the long one
    assert slowness["model-a"] == pytest.approx(60 / (10 * 1.5 + 2 * 140 / 12))
    assert slowness["model-b"] == pytest.approx(110 / (10 * 1.5 + 10 * 140 / 12))
    assert slowness["model-a"] > 1 > slowness["model-b"]


def test_run_status_of_a_sampled_run_counts_items_and_not_the_bounds_of_its_lists(lake: LakeBuilder) -> None:
    listed = [0, 4, 9]
    run = lake.run(A, sampled_items=3, item_set=lake.item_set(listed))
    lake.shard(A, [A.record(i, score=1.0) for i in listed], listed=listed, metadata=facts(run, 2.0, items=3))
    assert look(lake).work.models["model-a"].items == 3


def test_run_status_opens_each_footer_once_and_so_many_a_look(lake: LakeBuilder) -> None:
    half_done(lake)
    with closing(RunWatch(lake.lake, clock=lambda: STARTED + 2000)) as watched:
        first = watched.look(1)
        # of the run's four and the other's none was made by it before it began
        assert (first.work.shards, first.work.unread, first.work.engine_seconds) == (1, 3, 5.0)
        newest = max(Path(lake.lake.root).glob("shards/task=*/*.parquet"), key=lambda path: path.stat().st_mtime)
        newest.write_bytes(b"no longer Parquet")
        os.utime(newest, (STARTED + 1900, STARTED + 1900))
        second = watched.look(ALL)
        assert (second.work.shards, second.work.unread, second.work.engine_seconds) == (4, 0, 14.0)
        assert second.damaged == {}
        assert first.work.shards == 1  # earlier counts stay


def test_run_status_passes_over_damaged_shards_and_names_them(lake: LakeBuilder) -> None:
    half_done(lake)
    shard = next(Path(lake.lake.root).glob(f"shards/task=*/{B.cell_id}-g0-0000000-*.parquet"))
    os.truncate(shard, 20)
    os.utime(shard, (STARTED + 1500, STARTED + 1500))
    status = look(lake)
    assert list(status.damaged) == [str(shard.relative_to(lake.lake.root))]
    assert (status.items_done, status.work.shards) == (18, 3)  # it counts as collected, as it does to a plan
    assert not [name for name in lake.lake.names("failures") if "damaged" in name]  # whoever watches writes nothing


@pytest.mark.parametrize("pruned", [False, True])
def test_run_status_after_compaction_knows_what_it_knew(lake: LakeBuilder, pruned: bool) -> None:
    run = half_done(lake)
    before = look(lake)
    with closing(RunWatch(lake.lake, clock=lambda: STARTED + 2000)) as watched:
        watched.look(2)
        compact(lake.lake)
        if pruned:
            prune(lake.lake, NOW)
        commit(lake, D, 0, 4, 1950, **facts(run, 1.0))
        for status in (watched.look(ALL), look(lake)):
            assert (status.items_done, status.work.shards, status.work.unread) == (before.items_done + 5, 5, 0)
            assert status.work.engine_seconds == before.work.engine_seconds + 1
            assert status.work.usd == pytest.approx(before.work.usd)


def test_run_status_ranges_that_overlap_count_once(lake: LakeBuilder) -> None:
    run = lake.run(A, planned=8)
    for first, last in ((0, 3), (2, 5), (3, 4), (0, 1), (7, 9)):
        commit(lake, A, first, last, 10, **facts(run, 1.0))
    status = look(lake)
    assert (status.items, status.items_done) == (8, 7)
    commit(lake, A, 6, 9, 10, **facts(run, 1.0))
    assert look(lake).complete


def test_run_status_of_a_forced_generation_counts_that_generation_only(lake: LakeBuilder) -> None:
    run = lake.run(A)
    commit(lake, A, 0, 9, 10)
    table = lake.lake.read(f"runs/{run}.parquet")
    assert table  # the builder's runs have no generation: any counts
    assert look(lake).complete
    forced = pq.read_table(io.BytesIO(table), schema=RUN_CELL)
    lake.lake.create_table("runs/run-0002.parquet", forced, {"run": {"generation": 1}})
    assert look(lake, run="run-0002").items_done == 0
    commit(lake, A, 0, 4, 20, generation=1)
    assert look(lake, run="run-0002").items_done == 5


def test_run_status_takes_the_newest_run_unless_told(lake: LakeBuilder) -> None:
    runs = [lake.run(A), lake.run(A, B)]
    assert look(lake).run_id == runs[1]
    assert look(lake, run=runs[0]).cells == 1


def test_run_status_of_a_run_that_ended_early_is_over_and_not_stuck(lake: LakeBuilder) -> None:
    run = half_done(lake)
    with closing(RunWatch(lake.lake, run, clock=lambda: STARTED + 10**6)) as watched:
        assert watched.look(0).stuck
        ended = dt.datetime.fromtimestamp(STARTED + 1950, dt.UTC)
        lake.end(run, "budget", ended, "budget.cells: 1 of 1 cells are finished")
        status = watched.look(0)
    assert (status.over, status.complete, status.stuck) == (True, False, False)
    assert status.end == RunEnd(STARTED + 1950, "budget", "budget.cells: 1 of 1 cells are finished")
    assert status.eta is None
    assert status.rate == pytest.approx(6 / 600)  # up to its last shard


def test_run_status_of_a_run_that_ended_tells_what_others_did_since(lake: LakeBuilder) -> None:
    run = half_done(lake)
    lake.end(run, "stopped", dt.datetime.fromtimestamp(STARTED + 1700, dt.UTC), "by SIGTERM")
    status = look(lake, after=10**6)
    assert (status.items_done, status.items_before, status.items_after) == (18, 4, 2)
    assert status.last_commit == STARTED + 1500
    assert status.rate == pytest.approx(4 / 600)  # up to its own last shard
    assert sum(bar.items for bar in status.history) == 12


def test_run_status_passes_over_a_damaged_end(lake: LakeBuilder) -> None:
    run = half_done(lake)
    lake.lake.create(f"run_ends/{run}.parquet", b"?")
    status = look(lake)
    assert list(status.damaged) == [f"run_ends/{run}.parquet"]
    assert status.over  # it ended, whatever its end was
    assert status.end == RunEnd(None, "unknown", "the record of its end is damaged")


def test_run_status_counts_the_cells_in_quarantine(lake: LakeBuilder) -> None:
    table = pq.read_table(io.BytesIO(lake.lake.read(f"runs/{lake.run(A)}.parquet")), schema=RUN_CELL)
    lake.lake.create_table("runs/run-0002.parquet", table, {"run": {"generation": None, "quarantined": 3}})
    assert look(lake, run="run-0002").cells_quarantined == 3
    assert look(lake, run="run-0001").cells_quarantined == 0


def test_run_status_passes_over_shards_of_which_the_making_cannot_be_read(lake: LakeBuilder) -> None:
    run = lake.run(A)
    path = commit(lake, A, 0, 9, 10)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"shard": "?"}), path)
    status = RunWatch(lake.lake, run).look(ALL)
    assert [reason for reason in status.damaged.values() if "not JSON" in reason]


def test_run_status_with_a_damaged_price_table_is_one_line(lake: LakeBuilder) -> None:
    run = lake.run(A)
    lake.shard(A, [A.record(item, score=1.0) for item in range(10)], metadata=facts(run, 2.0))
    lake.lake.create("gpu_prices/x.parquet", b"?")
    with pytest.raises(StorageError, match=r"gpu_prices/x\.parquet"):
        RunWatch(lake.lake, run).look(ALL)


def refusals() -> Iterator[Any]:
    yield "no run yet", lambda lake: None, None, ConfigError
    yield "no run 'x' in .*; the newest are run-0001; --list", lambda lake: lake.run(A), "x", ConfigError
    yield "is damaged", lambda lake: lake.lake.create("runs/run-0001.parquet", b"?"), None, StorageError
    yield "cell_id is not a run's", lambda lake: lake.lake.create("runs/r.parquet", FOREIGN), None, StorageError


@pytest.mark.parametrize(("message", "fill", "run", "kind"), list(refusals()))
def test_run_status_what_cannot_be_told_is_one_line(
    lake: LakeBuilder, message: str, fill: Any, run: str | None, kind: type[Exception]
) -> None:
    fill(lake)
    with pytest.raises(kind, match=message) as caught:
        RunWatch(lake.lake, run)
    assert "\n" not in str(caught.value)


def test_listing_says_when_objects_were_made(lake: LakeBuilder) -> None:
    lake.run(A)
    path = commit(lake, A, 0, 3, 10)
    listed = lake.lake.listing("shards")
    assert list(listed) == lake.lake.names("shards")
    assert listed[str(path.relative_to(lake.lake.root))] == STARTED + 10
    assert ShardName.parse(str(path)) in map(ShardName.parse, listed)
    assert lake.lake.listing("nothing") == {}


@pytest.mark.slow
def test_run_status_of_a_lake_in_an_object_store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    lake = LakeBuilder(f"s3://{BUCKET}/status/lake")
    run = lake.run(A, B)
    lake.shard(A, [A.record(item, score=1.0) for item in range(10)], metadata=facts(run, 2.0))
    lake.failure(run, "engine_died", "its process died", model="model-b", task="quiz", cell_id=B.cell_id)
    before = time.time()
    status = RunWatch(lake.lake).look(ALL)
    assert (status.cells_done, status.cells_failed, status.work.engine_seconds) == (1, 1, 2.0)
    assert [one.message for one in status.failures] == ["its process died"]
    assert status.last_commit is not None
    assert abs(status.last_commit - before) < 30
