"""What a run does about shards that failed: again, with less at once, or no more, and whom it blames."""

from __future__ import annotations

import dataclasses

import pytest

from collectors.engines import make_engine
from collectors.engines.gpus import Placement
from collectors.models.placement import next_placement
from pipelines.fleet.faults import MAX_NODE_DEATHS, Again, Faults, GiveUp
from pipelines.fleet.workqueue import Job
from schemas.failures import JUDGE_DIED, EngineError, ModelError, TaskError
from tests.helpers.planned_work import planned

DIED = EngineError("gone", "engine_died")
STARVED = EngineError("CUDA out of memory", "out_of_memory")


@pytest.fixture
def faults() -> Faults:
    return Faults(make_engine("stub"))


def job(model: str = "a", tries: int = 0) -> Job:
    return Job(planned(model, "t", (0, 9)), 0, 9, tries)


def test_second_death_of_an_engine_gives_its_model_up(faults: Faults) -> None:
    assert isinstance(faults.died(job(), DIED, begun=0.0, now=1.0), Again)
    assert isinstance(faults.died(job("b"), DIED, begun=0.0, now=1.5), Again)
    verdict = faults.died(job(), DIED, begun=2.0, now=3.0)
    assert isinstance(verdict, GiveUp)
    assert (verdict.whole_model, getattr(verdict.error, "kind", None)) == (True, "engine_died")


def test_deaths_with_a_commit_between_or_at_one_moment_count_once(faults: Faults) -> None:
    assert isinstance(faults.died(job(), DIED, begun=0.0, now=5.0), Again)
    assert isinstance(faults.died(job(), DIED, begun=1.0, now=5.1), Again)  # was at work when the first died
    faults.recovered(job().planned.cell.model)
    assert isinstance(faults.died(job(), DIED, begun=6.0, now=7.0), Again)


def test_nodes_that_go_are_not_the_models_fault_until_too_many_do(faults: Faults) -> None:
    verdicts = [faults.node_died(job(tries=1), DIED) for _ in range(MAX_NODE_DEATHS)]
    assert all(isinstance(v, Again) and v.job.tries == 0 for v in verdicts[:-1])  # the queue counts one more
    assert isinstance(verdicts[-1], GiveUp)
    assert isinstance(faults.died(job(), DIED, begun=0.0, now=1.0), Again)


@pytest.mark.parametrize(
    ("error", "tries", "expected"),
    [
        (EngineError("odd"), 0, None),
        (EngineError("odd"), 1, False),
        (TaskError("odd"), 0, False),
        (ModelError("odd"), 0, True),
        (ValueError("odd"), 0, None),
    ],
)
def test_broken_shard_is_tried_once_more_unless_its_task_or_model_is_to_blame(
    faults: Faults, error: Exception, tries: int, expected: bool | None
) -> None:
    verdict = faults.broke(job(tries=tries), error, job().planned.cell.model)
    assert (verdict.whole_model if isinstance(verdict, GiveUp) else None) is expected


def test_error_of_two_cells_without_a_commit_between_gives_their_model_up(faults: Faults) -> None:
    first, second = job(tries=1), Job(planned("a", "u", (0, 9)), 0, 9)
    model, error = first.planned.cell.model, EngineError("no kernel for this head size")

    def whole(one: Job, error: Exception) -> bool | None:
        verdict = faults.broke(one, error, model)
        return verdict.whole_model if isinstance(verdict, GiveUp) else None

    assert whole(first, error) is False
    assert whole(second, EngineError("another")) is None
    assert whole(second, RuntimeError("no kernel for this head size")) is None, "maybe of the task's judge"
    assert whole(job("b"), error) is None, "another model's cell"
    assert whole(job(tries=1), error) is False, "another shard of the same cell"
    died = EngineError("task t: the judging process ended twice", JUDGE_DIED)
    assert [whole(one, died) for one in (first, second)] == [False, None], "no fault of the engine"
    assert whole(second, error) is True
    faults.recovered(model)
    assert whole(second, error) is None


def starve(faults: Faults, times: int) -> list[Again | GiveUp]:
    model = job().planned.cell.model
    return [faults.broke(job(tries=1), STARVED, faults.fitted(model)) for _ in range(times)]


def test_out_of_memory_quarters_the_batch_to_a_bound_then_gives_the_model_up(faults: Faults) -> None:
    model, seen = job().planned.cell.model, []
    for _ in range(2):
        [verdict] = starve(faults, 1)
        assert isinstance(verdict, Again)
        seen.append(faults.fitted(model).options)
    assert seen == [
        {"max_num_seqs": 64, "max_num_batched_tokens": 2048},
        {"max_num_seqs": 16, "max_num_batched_tokens": 512},
    ]
    assert faults.fitted(model).key != model.key  # an engine that holds it opens it anew
    [last] = starve(faults, 1)
    assert isinstance(last, GiveUp)
    assert last.whole_model
    assert "the batch as configured; max_num_seqs 64, max_num_batched_tokens 2048; max_num_seqs 16" in str(last.error)
    assert faults.fitted(job("b").planned.cell.model).options == {}


def test_out_of_memory_with_a_batch_that_was_made_smaller_since_is_no_step(faults: Faults) -> None:
    model = job().planned.cell.model
    for _ in range(3):  # three workers began it before the first came back
        assert isinstance(faults.broke(job(), STARVED, model), Again)
    assert faults.fitted(model).options["max_num_seqs"] == 64


def test_out_of_memory_with_the_smallest_batch_takes_the_next_placement_with_the_configured_one() -> None:
    cell = planned("a", "t", (0, 9))
    places = tuple(Placement("L4", n, n, "bfloat16", 22.0 * n) for n in (1, 2))
    model = dataclasses.replace(cell.cell.model, placements=places)
    cell.cell = dataclasses.replace(cell.cell, model=model)
    faults, seen = Faults(make_engine("stub", {"max_num_seqs": 64}), next_placement), []
    while isinstance(verdict := faults.broke(Job(cell, 0, 9), STARVED, faults.fitted(model)), Again):
        now = faults.fitted(model)
        seen.append((str(now.placement), now.options.get("max_num_seqs")))
    assert seen == [("1 × L4", 16), ("2 × L4", None), ("2 × L4", 16)]
    assert verdict.whole_model
    assert "2 × L4, the batch as configured" in str(verdict.error)
    # One that was begun on the smaller place does not count against the larger.
    faults = Faults(make_engine("stub", {"max_num_seqs": 16}), next_placement)
    for _ in range(3):
        assert isinstance(faults.broke(Job(cell, 0, 9), STARVED, model), Again)
