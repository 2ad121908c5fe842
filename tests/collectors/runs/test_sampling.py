"""Sampled cells: a probe set is asked first, the rest later, each item once, under the identity of the whole cell."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.forecasts.adaptive import expected_errors
from collectors.forecasts.choice import choose_items
from collectors.forecasts.smoothing import learn
from collectors.lake import layout
from collectors.lake.item_sets import ItemSets
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.runs.adapting import Rounds, next_round, tables_of
from collectors.runs.collector import Collector
from collectors.runs.estimate import Estimator
from collectors.runs.learned import answered
from collectors.runs.sampling import chosen, stratified
from collectors.runs.watching import RunWatch
from collectors.specs import SampleSpec
from pipelines.console.estimate_shown import shares_shown
from pipelines.fleet.sharing import Sharing
from pipelines.fleet.workqueue import WorkQueue
from schemas.failures import StorageError
from schemas.identity import ShardName
from tests.helpers.mini_tasks import own_caches, write_tasks
from tests.helpers.own_runs import ITEMS, MODELS, NAMES, Runs

__all__ = ["own_caches"]  # fixtures


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), items=ITEMS)


@pytest.fixture
def runs(tmp_path: Path, tasks: Path) -> Runs:
    return Runs(tmp_path / "lake", tasks)


@pytest.mark.parametrize("folded", [False, True])
def test_a_tenth_then_all_asks_each_item_once_and_has_the_records_of_a_full_run(
    runs: Runs, tmp_path: Path, folded: bool
) -> None:
    from collectors.lake.compaction import compact

    full = Runs(tmp_path / "full", runs.tasks)
    assert full.collect(full.plan()) == len(MODELS) * ITEMS
    tenth = runs.plan(sample={"share": 0.1})
    assert [planned.cell.cell_id for planned in tenth.cells] == [p.cell.cell_id for p in full.plan().cells]
    assert runs.collect(tenth) == len(MODELS) * 4
    assert runs.plan(sample={"share": 0.1}).items_todo == 0
    if folded:
        compact(runs.lake)
    assert runs.collect(runs.plan()) == len(MODELS) * 36
    if not folded:
        assert set(runs.stored_items().values()) == {1}
    assert runs.records().equals(full.records())
    assert runs.plan().items_todo == 0
    assert len([n for n in runs.lake.names(layout.ITEM_SETS) if "schema" not in n]) == 2, "one list of each run"


def test_sampled_run_that_was_killed_goes_on_with_what_is_left_by_the_same_list(runs: Runs) -> None:
    first = runs.plan(sample={"items": 12})
    runs.collect(first, shards=3)
    again = runs.plan(sample={"items": 12})
    assert again.items_todo == len(MODELS) * 12 - sum(runs.stored_items().values())
    assert {planned.cell.item_set for planned in again.cells} == {planned.sample for planned in first.cells}
    runs.collect(again)
    whole = runs.plan()
    runs.collect(whole, shards=3)  # killed again, in the rest
    rest = runs.plan()
    assert {planned.cell.item_set for planned in rest.cells if planned.todo} <= {p.cell.item_set for p in whole.cells}
    runs.collect(rest)
    assert runs.stored_items() == Counter({(p.cell.cell_id, i): 1 for p in whole.cells for i in range(ITEMS)})


def test_every_model_and_later_run_is_asked_the_same_probe_set(runs: Runs) -> None:
    plan = runs.plan(sample={"items": 7})
    assert len({planned.sample for planned in plan.cells}) == 1
    plan.write(runs.lake)
    later = runs.plan(sample={"items": 7}, models=["stub/later"])
    assert later.cells[0].sample == plan.cells[0].sample
    assert not later.probe_sets
    with connect(runs.lake, only=["probe_sets"]) as con:
        assert con.execute("SELECT items, planned_items, rule, models FROM probe_sets").fetchall() == [
            (7, ITEMS, "stratified", 0)
        ]
    [name] = [name for name in runs.lake.names(layout.PROBE_SETS) if "schema" not in name]
    Path(runs.lake.root, name).write_bytes(b"PAR1 no more")
    with pytest.raises(StorageError, match=name):
        runs.plan(sample={"items": 7})


def test_task_may_have_a_sample_of_its_own_and_a_share_of_one_asks_all(runs: Runs) -> None:
    entries = [
        {"task": "mini_choice", "sample": {"items": 3}},
        "mini_generate",
        {"task": "mini_likelihood", "sample": None},
    ]
    plan = runs.plan(models=["stub/a"], tasks=entries, sample={"share": 1.0})
    assert {planned.cell.spec.task: (planned.wanted, planned.sample != "") for planned in plan.cells} == {
        "mini_choice": (3, True),
        "mini_generate": (ITEMS, False),
        "mini_likelihood": (ITEMS, False),
    }
    assert all(planned.cell.item_set == "" for planned in plan.cells if not planned.sample)


def test_sample_of_limited_items_and_a_later_full_run_ask_only_the_rest(runs: Runs) -> None:
    assert runs.collect(runs.plan(limit=10)) == 2 * 10
    sampled = runs.plan(sample={"share": 0.5})
    inside = sum(1 for item in sampled.item_sets.of(sampled.cells[0].sample) if item < 10)  # type: ignore[union-attr]
    assert runs.collect(sampled) == 2 * (20 - inside)
    with connect(runs.lake, only=["coverage"]) as con:
        assert con.execute(
            "SELECT DISTINCT planned, attempted, missing, asked + left_out FROM coverage"
        ).fetchall() == [(ITEMS, 30 - inside, 0, ITEMS)]
    assert runs.collect(runs.plan()) == 2 * (10 + inside)
    assert set(runs.stored_items().values()) == {1}


def test_status_of_a_sampled_run_counts_the_items_that_it_means_to_ask(runs: Runs) -> None:
    runs.collect(runs.plan(limit=10))
    plan = runs.plan(sample={"items": 12})
    open_items = plan.items_todo
    asked = runs.collect(plan, shards=2)
    watch = RunWatch(runs.lake, plan.run_id)
    status = watch.look(10)
    watch.close()
    assert (status.items, status.items_open) == (24, open_items - asked)
    runs.collect(runs.plan(sample={"items": 12}))
    watch = RunWatch(runs.lake, plan.run_id)
    status = watch.look(10)
    watch.close()
    assert (status.items_open, status.cells_done) == (0, 2)


def test_two_runs_at_once_with_other_lists_leave_each_other_what_is_done(runs: Runs) -> None:
    whole, sampled = runs.plan(models=["stub/a"]), runs.plan(models=["stub/a"], sample={"items": 12})
    for plan in (whole, sampled):
        plan.write(runs.lake)
    worker = Collector(sampled.run_id, runs.lake.uri, "stub", {}, list(sampled.config.include_tasks))
    worker.collect(sampled.cells[0].cell, 0, 11)
    worker._judges.close()
    elsewhere: list[int] = []
    queue = WorkQueue(whole.cells, whole.config.fleet)
    sharing = Sharing(runs.lake, whole.run_id, None, queue, lambda _, items: elsewhere.append(items))
    jobs = []
    while job := sharing.next(lambda: queue.take(None, Counter())):
        jobs.append((job.first, job.last))
    sharing.close()
    left = sorted(item for first, last in jobs for item in range(first, last + 1))
    listed = sampled.item_sets.of(sampled.cells[0].sample)  # type: ignore[union-attr]
    assert (left, sum(elsewhere)) == (sorted(set(range(ITEMS)) - set(listed)), 12)


# ---- what complete models teach


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tasks: Path) -> Runs:
    """A lake with all answers of as many models as a forecast needs."""
    runs = Runs(tmp_path_factory.mktemp("taught") / "lake", tasks)
    runs.collect(runs.plan(models=[f"org-{number}/{name}" for number, name in enumerate(NAMES)]), size=ITEMS)
    return runs


def test_probe_set_of_a_task_with_complete_models_is_chosen_by_their_answers(taught: Runs) -> None:
    plan = taught.plan(models=["stub/new"], sample={"items": 6})
    [row] = plan.probe_sets.values()
    assert (row["rule"], row["models"], row["items"]) == ("greedy", len(NAMES), 6)
    read = answered(taught.lake, tables_of(plan))
    assert (read.complete, read.answers.shape[1]) == (len(NAMES), ITEMS)
    assert list(plan.item_sets.of(row["item_set"])) == sorted(  # type: ignore[union-attr]
        choose_items(read.answers, 6, seed=0).tolist()
    )


def test_rounds_until_an_error_ask_each_item_once_and_end_where_it_is_reached(taught: Runs) -> None:
    models = ["stub/new-a", "stub/new-b"]
    plan = taught.plan(models=models, until={"error": 0.02})
    assert {planned.wanted for planned in plan.cells} == {1}, "a fortieth of 40 items"
    asked = taught.collect(plan)
    rounds = 0
    while wanted := next_round(plan, taught.lake, 0.02):
        plan = taught.plan(models=models, until={"error": 0.02}, wanted=wanted)
        assert plan.items_todo
        asked += taught.collect(plan)
        rounds += 1
    mine = {planned.cell.cell_id for planned in plan.cells}
    assert rounds > 1
    assert Counter({key: count for key, count in taught.stored_items().items() if key[0] in mine}).total() == asked
    read = answered(taught.lake, tables_of(plan))
    whole = np.flatnonzero(read.is_complete)
    learned = learn(read.answers[whole], read.labels, names=[read.names[row] for row in whole])
    rows = [row for key, row in read.rows.items() if key[0] in models]
    assert all(expected_errors(learned, read.answers[rows]) <= 0.02)
    assert 0 < asked < 2 * ITEMS
    with connect(taught.lake, only=["coverage"]) as con:
        assert con.execute("SELECT sum(missing) FROM coverage").fetchall() == [(0,)]


def test_rounds_of_a_loaded_model_go_on_from_reports_alone_and_after_a_kill_from_the_lake(taught: Runs) -> None:
    models = ["stub/here-a", "stub/here-b"]
    plan = taught.plan(models=models, until={"error": 0.02})
    rounds = Rounds.of(plan, taught.lake)
    assert rounds
    plan.write(taught.lake)
    open_cells, asked, counts = {cell.cell.model.name: [cell] for cell in plan.cells}, 0, Counter[str]()
    while open_cells["stub/here-a"]:
        cells = open_cells["stub/here-a"]
        for planned in cells:
            if planned.cell.item_set:
                rounds.sets.write(planned.cell.item_set)
        for report in taught.reports(plan, cells):
            rounds.saw(cells[0].cell, report.scores)
            asked += report.items
        counts["rounds"] += 1
        open_cells["stub/here-a"] = rounds.more(cells[0].cell.model, ())
    read = answered(taught.lake, tables_of(plan))
    learned = learn(read.answers[read.is_complete], read.labels, names=read.names[: read.complete])
    [row] = [row for key, row in read.rows.items() if key[0] == "stub/here-a"]
    assert counts["rounds"] > 2
    assert expected_errors(learned, read.answers[[row]])[0] <= 0.02
    # The run is killed before a shard of the other model: what is left is in the lake.
    again = taught.plan(models=models, until={"error": 0.02})
    assert [planned.cell.model.name for planned in again.cells if planned.todo] == ["stub/here-b"]
    taught.collect(again)
    wanted = next_round(again, taught.lake, 0.02)
    assert wanted
    later = taught.plan(models=models, until={"error": 0.02}, wanted=wanted)
    assert [planned.cell.model.name for planned in later.cells if planned.todo] == ["stub/here-b"]
    mine = {planned.cell.cell_id for planned in plan.cells}
    assert {count for key, count in taught.stored_items().items() if key[0] in mine} == {1}


def test_rounds_leave_cells_that_failed_and_end_where_nothing_is_left(taught: Runs) -> None:
    plan = taught.plan(models=["stub/none"], until={"error": 1e-9})
    rounds = Rounds.of(plan, taught.lake)
    assert rounds
    [planned] = plan.cells
    assert rounds.more(planned.cell.model, {planned.cell.cell_id}) == []
    rounds.saw(planned.cell, dict.fromkeys(range(ITEMS), 1.0))
    assert rounds.more(planned.cell.model, ()) == []


def test_until_without_complete_models_asks_the_share_whose_sample_is_good_enough_for_any(runs: Runs) -> None:
    plan = runs.plan(until={"error": 0.1})
    size = plan.cells[0].wanted
    # E|error| of a sample of n of N items that half get right, without replacement: sqrt(2/pi) * 0.5 * sqrt((1-n/N)/n).
    worst = [math.sqrt(2 / math.pi) * 0.5 * math.sqrt((ITEMS - n) / (ITEMS - 1) / n) for n in (size, size - 1)]
    assert worst[0] <= 0.1 < worst[1]
    runs.collect(plan)
    assert next_round(plan, runs.lake, 0.1) is None
    assert Rounds.of(plan, runs.lake) is None


def test_dry_run_says_what_shares_cost_and_how_wrong_they_may_be(runs: Runs, taught: Runs) -> None:
    runs.collect(runs.plan(models=["stub/a"], sample={"items": 4}))
    plan = runs.plan(models=["stub/a", "stub/b"])
    lines = shares_shown(plan, runs.lake, Estimator(plan, runs.lake))
    shares = [line.split()[:2] for line in lines if "points" in line]
    assert shares == [["5%", "2"], ["10%", "4"], ["25%", "16"], ["100%", "76"]], "four items of one are there"
    assert "no forecast: it needs 20 complete models" in lines[-1]
    plan = taught.plan(models=["stub/b"])
    lines = shares_shown(plan, taught.lake, Estimator(plan, taught.lake))
    assert f"by {len(NAMES)} complete models" in lines[-1]
    assert [line.split()[4] for line in lines if "points" in line][-1] == "0.0"


# ---- choices


def test_stratified_sample_takes_each_stratum_by_its_share() -> None:
    strata = [list(range(0, 60)), list(range(60, 90)), list(range(90, 100))]
    for seed in map(str, range(20)):
        listed = stratified(strata, 10, seed)
        assert listed == sorted(set(listed))
        assert len(listed) == 10
        assert [sum(item in stratum for item in listed) for stratum in strata] == [6, 3, 1]
    assert stratified(strata, 10, "a") == stratified(strata, 10, "a") != stratified(strata, 10, "b")


@pytest.mark.parametrize(("spec", "items", "size"), [
    ({"share": 0.1}, 1000, 100), ({"share": 0.1}, 7, 1), ({"share": 0.3}, 10, 3), ({"items": 20}, 5, 5),
    ({"share": 0.101}, 1000, 101),
])  # fmt: skip
def test_sample_size_is_rounded_up_and_never_more_than_all(spec: dict[str, Any], items: int, size: int) -> None:
    assert SampleSpec.model_validate(spec).size(items) == size


def open_items(lake: Lake, done: Sequence[ShardName], sample: list[int] | None, sets: ItemSets) -> list[int]:
    found = chosen(sets, done, 30, None if sample is None else sets.add(sample))
    listed = sets.of(found.item_set) if found.item_set else range(30)
    return [listed[place] for first, last in found.todo for place in range(first, last + 1)]


@pytest.mark.parametrize("seed", range(30))
def test_open_items_are_those_of_the_sample_that_no_shard_holds(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    sets = ItemSets(Lake(str(tmp_path)))
    done, held = [], set[int]()
    for _ in range(dice.randrange(4)):
        listed = sorted(dice.sample(range(30), dice.randint(1, 12)))
        first = dice.choice(listed)
        items = [item for item in listed if first <= item <= first + 9]
        sparse = dice.random() < 0.6
        held |= set(items) if sparse else set(range(items[0], items[-1] + 1))
        done.append(ShardName("0" * 16, 0, items[0], items[-1], sets.add(listed) if sparse else ""))
    sample = sorted(dice.sample(range(30), dice.randint(1, 20))) if dice.random() < 0.6 else None
    assert open_items(Lake(str(tmp_path)), done, sample, sets) == sorted(set(sample or range(30)) - held)
