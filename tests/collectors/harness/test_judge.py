"""What becomes of answers: one bad item never costs another, scores are the metrics' own, no cut changes a record."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import lm_eval.utils
import pytest

from collectors.harness.loading import load_tasks
from collectors.harness.requests import Requester
from collectors.harness.tasks import BoundTask
from collectors.specs import TaskSpec
from schemas.failures import EMPTY_ANSWER, NAN_LOGPROBS, NOT_JUDGED, PROMPT_TOO_LONG, UNKNOWN_TOKEN
from schemas.verdicts import EMPTY, OF_OURS, OUTCOME_OF_FAILURE
from tests.helpers.asked import CUTS, Rows, bind, collect, primary, spent, stub, tasks, untimed
from tests.helpers.mini_tasks import ITEMS, TASKS, own_caches

__all__ = ["own_caches", "tasks"]  # fixtures


# ---- items that cannot be answered or judged


def failures(rows: Rows) -> dict[int, str]:
    """Item -> failure kind. An item has no score only by our fault, or where all items of the task have none."""
    is_set_level = all(row["score"] is None for row in primary(rows))
    for row in primary(rows):
        assert row["outcome"] == (OUTCOME_OF_FAILURE[row["failure"]] if row["failure"] else row["outcome"])
        assert is_set_level or (row["score"] is None) == (row["outcome"] in OF_OURS)
    return {row["item"]: row["failure"] for row in primary(rows) if row["failure"]}


def odd_items(task: BoundTask) -> set[int]:
    odd = {i for i, doc in enumerate(task.docs) if doc["a"] % 2}
    assert 0 < len(odd) < ITEMS
    return odd


@pytest.mark.parametrize("name", ["odd_long", "odd_long_choice"])
def test_prompt_too_long_is_that_items_failure_only(tasks: Path, name: str) -> None:
    task, engine = bind(tasks, name), stub()
    rows = collect(engine, task)
    assert failures(rows) == dict.fromkeys(odd_items(task), PROMPT_TOO_LONG)
    for row in primary(rows):
        if row["failure"]:
            nothing = ("metrics", "responses", "loglikelihoods", "engine_tokens", "latency_s", "completion_tokens")
            assert [row[column] for column in nothing] == [None] * 6
            assert (row["outcome"], row["score"], row["correct"]) == ("overlong", 0.0, False)
            assert row["prompt_tokens"] > 70_000
    assert spent(engine.log) == sum(row["engine_tokens"] or 0 for row in primary(rows))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["odd_hostile", "odd_hostile_choice"])
def test_token_beyond_the_embeddings_is_that_items_failure_only(tasks: Path, name: str) -> None:
    task, engine = bind(tasks, name), stub(max_length=2**24)
    whole = collect(engine, task)
    requester = Requester(engine, engine.model.key)
    instances = requester.build(task, ITEMS)
    largest = {i: max(max(c + t) for c, t in requester.encode(instances[i])) for i in range(ITEMS)}
    engine.engine.vocab_size = sorted(largest.values())[ITEMS // 2]
    beyond = {i for i, token in largest.items() if token >= engine.vocab_size}
    assert 0 < len(beyond) < ITEMS
    rows = collect(engine, task)
    assert failures(rows) == dict.fromkeys(beyond, UNKNOWN_TOKEN)
    answered = [row["item"] not in beyond for row in rows]
    assert untimed(list(itertools.compress(rows, answered))) == untimed(list(itertools.compress(whole, answered)))


def test_prompt_fits_to_the_token_but_no_further_and_the_answer_has_the_rest(tasks: Path) -> None:
    task = bind(tasks, "mini_generate")
    longest = max(row["prompt_tokens"] for row in collect(stub(), task))
    for room in (12, 11, 1):
        engine = stub(max_length=longest + room)
        assert PROMPT_TOO_LONG not in failures(collect(engine, task)).values()
        limits = {len(request.prompt): request.max_tokens for request, _ in engine.log}
        assert limits[longest] == room
        assert max(limits.values()) <= 12
    rows = primary(collect(stub(max_length=longest), task))
    too_long = {row["item"] for row in rows if row["prompt_tokens"] == longest}
    assert {item for item, kind in failures(rows).items() if kind == PROMPT_TOO_LONG} == too_long
    assert {(row["outcome"], row["score"]) for row in rows if row["item"] in too_long} == {("overlong", 0.0)}


@pytest.mark.parametrize("name", ["mini_generate", "mini_alike", "mini_rolling"])
def test_context_of_a_cell_in_an_engine_with_a_longer_one_is_its_own(tasks: Path, name: str) -> None:
    task, engines = bind(tasks, name), (stub(max_length=100), stub())
    short, longer = (Requester(engine, engine.model.key) for engine in engines)
    instances = dict(enumerate(longer.build(task, ITEMS)))
    one, other = short.ask(instances, "cell"), longer.ask(instances, "cell", context=100)
    for here, there in zip(one, other, strict=True):
        responses = [[[answer.response for answer in answers] for answers in side.answers] for side in (here, there)]
        assert responses[0] == responses[1]
        assert here.failure == there.failure


@pytest.mark.parametrize("limit", [2030, 2047, 2048, 4096, 32768])
def test_answers_as_long_as_the_context_get_the_room_that_is_left(tasks: Path, limit: int) -> None:
    rows = collect(stub(max_length=2048), bind(tasks, "mini_generate", decoding={"max_gen_toks": limit}))
    assert not failures(rows)


def test_answer_at_its_limit_is_truncated_and_scored_as_it_is(tasks: Path) -> None:
    rows = primary(collect(stub(), bind(tasks, "mini_generate", decoding={"max_gen_toks": 2})))
    assert "truncated" in {row["outcome"] for row in rows} <= {"truncated", "empty"}
    assert all({"exact_match": row["score"]} == json.loads(row["metrics"]) for row in rows)


def test_empty_answers_are_marked_and_scored_as_lm_eval_judges_them(tasks: Path) -> None:
    rows = collect(stub(empty_every=2), bind(tasks, "mini_generate"))
    found = failures(rows)
    assert 0 < len(found) < ITEMS
    assert set(found.values()) == {EMPTY_ANSWER}
    for row in rows:
        assert {"exact_match": row["score"]} == json.loads(row["metrics"])
        assert (row["outcome"] == EMPTY) == (row["item"] in found)
    assert {tuple(row["responses"]) for row in primary(rows) if row["failure"]} == {("",)}


@pytest.mark.parametrize("name", ["mini_choice", "mini_likelihood", "mini_rolling"])
def test_nan_log_probabilities_cost_their_items_only(tasks: Path, name: str) -> None:
    task = bind(tasks, name)
    sound, rows = primary(collect(stub(), task)), primary(collect(stub(nan_every=5), task))
    found = failures(rows)
    assert 0 < len(found) < ITEMS
    assert set(found.values()) == {NAN_LOGPROBS}
    for row, other in zip(rows, sound, strict=True):
        assert (row["item"] in found) == any(math.isnan(value) for value in row["loglikelihoods"])
        if row["item"] in found:
            assert (row["metrics"], row["outcome"]) == (None, "nan")
            assert row["score"] == (None if name == "mini_rolling" else 0.0)
            assert row["engine_tokens"] == other["engine_tokens"]
        else:
            assert untimed([row]) == untimed([other])


def test_process_results_that_raises_costs_its_items_only(tasks: Path) -> None:
    task = bind(tasks, "odd_raises")
    rows = collect(stub(), task)
    assert failures(rows) == dict.fromkeys(odd_items(task), NOT_JUDGED)
    assert all(row["responses"] and row["completion_tokens"] for row in rows)


@pytest.mark.parametrize("name", ["odd_nothing", "odd_keys", "odd_no_number"])
def test_process_results_without_a_usable_result_is_not_judged(tasks: Path, name: str) -> None:
    assert failures(collect(stub(), bind(tasks, name))) == dict.fromkeys(range(ITEMS), NOT_JUDGED)


def test_metrics_that_are_no_finite_numbers_are_null_in_valid_json(tasks: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for row in collect(stub(), bind(tasks, "odd_no_number")):
        metrics = json.loads(row["metrics"], parse_constant=refuse)
        assert metrics == {"exact_match": None, "fine": [1.0, None]}


def test_primary_metric_missing_for_an_item_is_unknown_not_another_metric(tasks: Path) -> None:
    task = bind(tasks, "odd_other")
    rows = collect(stub(), task)
    assert {row["item"]: row["score"] for row in rows if not row["failure"]} == dict.fromkeys(odd_items(task), 1.0)


def test_filter_that_raises_or_drops_costs_no_other_item_nor_filter(tasks: Path) -> None:
    task = bind(tasks, "odd_filters")
    rows = collect(stub(), task)
    for name in ("raises", "drops"):
        assert {row["item"] for row in primary(rows, name) if row["failure"]} == odd_items(task)
    assert all(row["score"] is not None for row in primary(rows, "sound"))
    assert all(row["responses"] for row in primary(rows, "raises"))


def test_empty_choice_of_an_empty_question_is_not_judged(tasks: Path) -> None:
    task = bind(tasks, "odd_empty_choice")
    rows = collect(stub(), task)
    assert failures(rows) == dict.fromkeys(set(range(ITEMS)) - odd_items(task), NOT_JUDGED)


def test_target_that_cannot_be_read_leaves_the_item_table_whole(tasks: Path) -> None:
    task = bind(tasks, "odd_target")
    table = task.item_table().to_pylist()
    assert {row["item"] for row in table if row["target"] is None} == set(range(ITEMS)) - odd_items(task)
    assert len(table) == ITEMS


def test_task_code_that_raises_while_loading_is_the_tasks_failure_and_no_empty_task(tasks: Path) -> None:
    for name in ("odd_first_key", "odd_first_index"):
        bound, failed = load_tasks(TaskSpec(task=name), [str(tasks)])
        assert (bound, list(failed), failed[name].kind) == ([], [name], "bad_task")
        assert f"task {name} cannot be loaded" in str(failed[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["odd_hostile", "odd_hostile_choice"])
def test_hostile_prompts_are_asked_counted_and_stored(tasks: Path, name: str) -> None:
    task, engine = bind(tasks, name), stub(max_length=2**24)
    rows = primary(collect(engine, task))
    assert not failures(rows)
    assert max(row["prompt_tokens"] for row in rows) > (10**7 if name == "odd_hostile" else 10**5)
    sent = [engine.tokenizer.decode(getattr(r, "prompt", None) or r.context + r.continuation) for r, _ in engine.log]
    assert any("\x00" in text for text in sent)
    assert any("\U0001f600" in text for text in sent)
    assert all(row["prompt"] is not None for row in task.item_table().to_pylist())


def test_tokenizer_without_an_end_token_still_generates(tasks: Path) -> None:
    engine = stub()
    engine.engine.tokenizer.eos_token_id = None
    assert not failures(collect(engine, bind(tasks, "mini_generate")))


# ---- scores


@pytest.mark.parametrize("name", ["odd_pair", "odd_several", "odd_of_many", "mini_rolling", "mini_text"])
def test_metric_of_a_whole_set_gives_its_items_no_score_and_no_failure(tasks: Path, name: str) -> None:
    rows = collect(stub(), bind(tasks, name))
    assert {(row["score"], row["correct"], row["failure"]) for row in rows} == {(None, None, None)}
    assert {row["outcome"] for row in rows} <= {"ok", "truncated"}
    assert all(json.loads(row["metrics"]) for row in rows)


def test_score_of_a_perplexity_task_is_its_first_metric_with_a_mean(tasks: Path) -> None:
    task = bind(tasks, "mini_likelihood")
    assert (task.settings.metric, task.settings.stated["metric"]) == ("acc", "perplexity")
    for row in collect(stub(), task):
        assert row["score"] == json.loads(row["metrics"])["acc"]
    stated = bind(tasks, "mini_likelihood", metric="perplexity")
    assert stated.settings.prompting == task.settings.prompting  # the cells of schema 6 keep their ids
    assert {row["score"] for row in collect(stub(), stated)} == {None}
    assert {stated.settings.aggregation, task.settings.aggregation} == {"perplexity", "mean"}


def test_score_of_brier_is_that_of_each_pair(tasks: Path) -> None:
    rows = collect(stub(), bind(tasks, "mini_choice", metric="brier_score"))
    for row in rows:
        [[gold, chances]] = [json.loads(row["metrics"])["brier_score"]]
        assert row["score"] == pytest.approx(sum((p - (i == gold)) ** 2 for i, p in enumerate(chances)))


def test_correct_is_a_threshold_on_fractions_and_unknown_for_other_metrics(tasks: Path) -> None:
    rows = collect(stub(), bind(tasks, "odd_fraction"))
    assert [row["correct"] for row in rows] == [row["score"] >= 0.5 for row in rows]
    assert len({row["correct"] for row in rows}) == 2
    for name in ("odd_points", "odd_pair", "mini_rolling", "mini_text"):
        assert {row["correct"] for row in primary(collect(stub(), bind(tasks, name)))} == {None}, name


def test_score_of_the_named_metric_and_not_the_first(tasks: Path) -> None:
    for row in collect(stub(), bind(tasks, "mini_choice", metric="acc_norm")):
        assert row["score"] == json.loads(row["metrics"])["acc_norm"]


def test_item_hash_is_lm_evals_doc_hash(tasks: Path) -> None:
    task = bind(tasks, "mini_choice")
    for row in collect(stub(), task):
        text = json.dumps(
            task.docs[row["item"]], indent=2, default=lm_eval.utils.handle_non_serializable, ensure_ascii=False
        )
        assert row["item_hash"] == lm_eval.utils.hash_string(text)


# ---- repeats


def test_repeats_are_judged_together_and_alone_and_their_tokens_add_up(tasks: Path) -> None:
    rows = collect(stub(), bind(tasks, "mini_repeats"))
    assert len(rows) == ITEMS * 3 * 4
    for item in range(ITEMS):
        whole, *alone = [row for row in rows if row["item"] == item and row["filter"] == "first"]
        assert [row["repeat"] for row in (whole, *alone)] == [0, 1, 2, 3]
        assert whole["responses"] == [text for row in alone for text in row["responses"]]
        for column in ("completion_tokens", "engine_tokens", "cached_tokens"):
            assert whole[column] == sum(row[column] for row in alone)
        assert {row["prompt_tokens"] for row in (whole, *alone)} == {whole["prompt_tokens"]}
        assert all(row["score"] is not None for row in alone)
    assert {row["responses"] is None for row in rows if row["filter"] != "first"} == {True}


@pytest.mark.parametrize("name", [*TASKS, "odd_raises", "odd_filters", "odd_long"])
def test_records_do_not_depend_on_how_the_items_are_cut(tasks: Path, name: str) -> None:
    task = bind(tasks, name)
    whole = untimed(collect(stub(nan_every=7, empty_every=5), task))
    for cuts in CUTS:
        assert untimed(collect(stub(nan_every=7, empty_every=5), task, cuts)) == whole
