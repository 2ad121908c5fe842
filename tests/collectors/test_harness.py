"""From items to records: what is sent is what is counted, one bad item never costs another, no cut changes a record."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import lm_eval.utils
import pyarrow as pa
import pytest
import yaml

from collectors.config import TaskSpec
from collectors.engines import Engine, ModelRef, ScoreRequest, Usage, make_engine
from collectors.harness.judge import record_table
from collectors.harness.requests import Requester
from collectors.harness.tasks import BoundTask, load_tasks
from schemas.failures import EMPTY_ANSWER, NAN_LOGPROBS, NOT_JUDGED, PROMPT_TOO_LONG, TaskError
from schemas.records import RECORD
from tests.bos_model import copy_with_bos
from tests.mini_tasks import ITEMS, TASKS, write_tasks
from tests.tiny_models import BOS

ROOT = Path(__file__).parent.parent.parent
STUB = ModelRef("m", "m", "revision-1", None)
Rows = list[dict[str, Any]]

#: Task code that misbehaves. Documents are those of mini_tasks: a, b, answer, choices, gold, text.
CODE = """
def even(doc):
    return doc["a"] % 2 == 0
def raises(doc, results):
    if not even(doc):
        raise RuntimeError("odd")
    return {"exact_match": 1.0}
def pair(doc, results):
    return {"ratio": (doc["a"], 20)}
def ratio(pairs):
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs)
def several(doc, results):
    return {"ratio": [(doc["a"], 20), (doc["b"], 20)]}
def ratio_of_lists(lists):
    return ratio([pair for pairs in lists for pair in pairs])
def of_many(values):
    raise KeyError("one item is too few")
def fraction(doc, results):
    return {"f1": doc["a"] / 20}
def points(doc, results):
    return {"points": doc["a"] * 10}
def other(doc, results):
    return {"other": 1.0} if even(doc) else {"exact_match": 1, "other": 0.0}
def no_number(doc, results):
    return {"exact_match": float("nan") if even(doc) else float("inf"), "fine": [1.0, float("-inf")]}
def nothing(doc, results):
    return None if even(doc) else ["exact_match"]
def odd_keys(doc, results):
    return {"exact_match": 1.0, ("a", "b"): 2}
def filter_raises(resps, docs):
    return [[texts[0] if even(doc) else 1 / 0] for texts, doc in zip(resps, docs)]
def filter_drops(resps, docs):
    return [texts for texts, doc in zip(resps, docs) if even(doc)]
def hostile_but_short(doc):
    return hostile(doc, 10**5)
def no_key(doc):
    return doc["no such key"]
def no_index(doc):
    return doc["answer"][99]
def target(doc):
    return doc["no such key"] if even(doc) else doc["answer"]
def empty(doc):
    return ["" if even(doc) else "b", "a"]
def long(doc):
    return ("x" if even(doc) else "x" * 70_000) + " Q:"
def hostile(doc, size=10**7):
    odd = ["\\x00", "\\U0001f600 e\\u0301 \\u202e", "\\ufffd\\ufeff", "", " ", "y" * size]
    return odd[(doc["a"] + 2 * doc["b"]) % len(odd)] + str(doc["b"])
"""


def metric(name: str, function: str, aggregation: str = "mean") -> dict[str, Any]:
    listed = {"metric": name, "aggregation": aggregation, "higher_is_better": True}
    return {"process_results": f"!function odd.{function}", "metric_list": [listed]}


CHOICE = {**TASKS["mini_choice"], "metric_list": TASKS["mini_mutual"]["metric_list"][1:]}
TEXT = {**TASKS["mini_generate"], "num_fewshot": 0}
TEXT.pop("filter_list")
FILTERS = [
    {"name": name, "filter": [{"function": "custom", "filter_fn": f"!function odd.filter_{name}"}]}
    for name in ("raises", "drops")
] + [{"name": "sound", "filter": [{"function": "take_first"}]}]
ODD: dict[str, dict[str, Any]] = {
    "odd_raises": {**TEXT, **metric("exact_match", "raises")},
    "odd_pair": {**TEXT, **metric("ratio", "pair", "!function odd.ratio")},
    "odd_several": {**TEXT, **metric("ratio", "several", "!function odd.ratio_of_lists")},
    "odd_of_many": {**TEXT, **metric("ratio", "pair", "!function odd.of_many")},
    "odd_fraction": {**TEXT, **metric("f1", "fraction")},
    "odd_points": {**TEXT, **metric("points", "points")},
    "odd_other": {**TEXT, **metric("exact_match", "other")},
    "odd_no_number": {**TEXT, **metric("exact_match", "no_number")},
    "odd_nothing": {**TEXT, **metric("exact_match", "nothing")},
    "odd_keys": {**TEXT, **metric("exact_match", "odd_keys")},
    "odd_filters": {**TEXT, "filter_list": FILTERS},
    "odd_first_key": {**TEXT, "doc_to_text": "!function odd.no_key"},
    "odd_first_index": {**TEXT, "doc_to_text": "!function odd.no_index"},
    "odd_target": {**TEXT, "doc_to_target": "!function odd.target"},
    "odd_long": {**TEXT, "doc_to_text": "!function odd.long"},
    "odd_long_choice": {**CHOICE, "doc_to_text": "!function odd.long"},
    "odd_hostile": {**TEXT, "doc_to_text": "!function odd.hostile"},
    "odd_hostile_choice": {**CHOICE, "doc_to_text": "!function odd.hostile_but_short"},
    "odd_no_context": {**TEXT, "doc_to_text": ""},
    "odd_no_context_choice": {**CHOICE, "doc_to_text": ""},
    "odd_spaces_choice": {**CHOICE, "doc_to_text": "  "},
    "odd_empty_choice": {
        **CHOICE,
        "doc_to_text": "",
        "doc_to_choice": "!function odd.empty",
        "doc_to_target": 1,
        "target_delimiter": "",
    },
    "odd_trailing": {**CHOICE, "doc_to_text": "Q: {{a}}+{{b}}=\nA: ", "target_delimiter": ""},
    "odd_sampled": {**TEXT, "repeats": 3, "filter_list": TASKS["mini_repeats"]["filter_list"]},
    "odd_unsafe": {**TEXT, "unsafe_code": True},
    "odd_unsafe_lacking": {**TEXT, "unsafe_code": True, "doc_to_text": "!function lacking.judge"},
    "odd_lacking": {**TEXT, "doc_to_text": "!function lacking.judge"},
    "odd_image": {**TEXT, "doc_to_image": "a"},
    "odd_stop": {**TEXT, "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 0}},
}


@pytest.fixture(scope="module", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    (folder / "odd.py").write_text(CODE)
    (folder / "lacking.py").write_text("raise FileNotFoundError('no metric code_eval here')")
    mini = yaml.safe_load((folder / "mini_choice.yaml").read_text())
    shared = {k: mini[k] for k in mini if k not in TASKS["mini_choice"]}
    for name, task in ODD.items():
        text = yaml.safe_dump({**shared, **task, "task": name})
        (folder / f"{name}.yaml").write_text(text.replace("'!function ", "!function '"))
    return folder


class OneOf(NamedTuple):
    """A token's part of a ChoiceScores; `usage` on the first only, as one pass answers all of them."""

    logprob: float
    greedy: bool
    usage: Usage | None


class Recorded:
    """An engine that keeps what it was sent and what it answered; of choices, each token by itself."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.log: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def score(self, key: str, requests: Any) -> Any:
        return self._kept(requests, self.engine.score(key, requests))

    def choose(self, key: str, requests: Any) -> Any:
        reply = self.engine.choose(key, requests)
        for request, scores in zip(requests, reply[1], strict=True):
            usages = [scores.usages[0], *[None] * (len(request.tokens) - 1)]
            parts = map(OneOf, scores.logprobs, scores.greedy, usages)
            self.log += [
                (ScoreRequest(request.context, [t]), part) for t, part in zip(request.tokens, parts, strict=True)
            ]
        return reply

    def generate(self, key: str, requests: Any) -> Any:
        return self._kept(requests, self.engine.generate(key, requests))

    def _kept(self, requests: Any, reply: Any) -> Any:
        self.log += zip(requests, reply[1], strict=True)
        return reply


def stub(**options: Any) -> Recorded:
    engine = make_engine("stub", options)
    engine.load(STUB)
    return Recorded(engine)


def bind(tasks: Path, name: str, **prompting: Any) -> BoundTask:
    (task,), failed = load_tasks(TaskSpec(task=name, **prompting), [str(tasks)])
    assert not failed
    return task


def collect(engine: Any, task: BoundTask, cuts: Iterable[range] = (range(ITEMS),), upto: int = ITEMS) -> Rows:
    """Record rows of `task`, asked cut by cut; sorted as one cut would give them."""
    requester = Requester(engine, engine.model.key)
    instances = requester.build(task, upto)
    tables = [record_table(task, requester.ask({i: instances[i] for i in cut}, "cell"), "cell", "m") for cut in cuts]
    assert all(table.schema.equals(RECORD) for table in tables)
    order = [f.name for f in task.task._filters]
    rows: Rows = pa.concat_tables(tables).to_pylist()
    return sorted(rows, key=lambda row: (row["item"], order.index(row["filter"]), row["repeat"]))


def untimed(rows: Rows) -> str:
    """Rows as text, without times; text, because NaN is not equal to itself."""
    return repr([{k: v for k, v in row.items() if k not in ("ttft_s", "latency_s")} for row in rows])


def primary(rows: Rows, name: str | None = None) -> Rows:
    """An item's rows: repeat 0, first filter unless named."""
    return [row for row in rows if row["repeat"] == 0 and row["filter"] == (name or rows[0]["filter"])]


@pytest.fixture(scope="module")
def bos_model(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_with_bos(tiny_models["random"], tmp_path_factory.mktemp("bos") / "random")


@pytest.fixture(scope="module")
def hf(tiny_models: dict[str, Path], bos_model: Path) -> Iterator[Any]:
    """hf(name) is the engine holding the tiny model `good`, or `bos`, which adds a token; one engine for all tests."""
    engine = make_engine("hf")
    folders = {"good": tiny_models["good"], "bos": bos_model}

    def load(name: str) -> Recorded:
        folder = str(folders[name])
        engine.load(ModelRef(name, folder, f"tiny-{name}", folder, "float32"))
        return Recorded(engine)

    yield load
    engine.close()


@pytest.fixture(params=["stub", *(pytest.param(name, marks=pytest.mark.slow) for name in ("good", "bos"))])
def engine(request: pytest.FixtureRequest) -> Recorded:
    return stub() if request.param == "stub" else request.getfixturevalue("hf")(request.param)


# ---- token counts

#: The log then has the items one after the other, whatever is asked in one pass.
ONE_BY_ONE = [range(i, i + 1) for i in range(ITEMS)]


def encode(engine: Any, text: str) -> list[int]:
    return list(engine.tokenizer.encode(text))


def spent(log: list[tuple[Any, Any]]) -> int:
    """Tokens taken in, counted from the requests, and put out; the engine's own count of both has to agree."""
    total = 0
    for request, answer in log:
        if answer.usage is None:
            continue
        sent = request.prompt if hasattr(request, "prompt") else request.context + request.continuation
        if isinstance(answer, OneOf):
            sent = request.context
        assert answer.usage.prompt_tokens == len(sent)
        assert answer.usage.generated_tokens == len(getattr(answer, "token_ids", [0] * answer.usage.generated_tokens))
        total += len(sent) + answer.usage.generated_tokens
    return total


@pytest.mark.parametrize(
    "name", ["mini_choice", "mini_inputs", "odd_trailing", "odd_no_context_choice", "odd_spaces_choice"]
)
def test_tokens_of_choices_are_the_chosen_answers(tasks: Path, engine: Recorded, name: str) -> None:
    rows = primary(collect(engine, bind(tasks, name), ONE_BY_ONE))
    assert len(engine.log) == 4 * ITEMS
    for row in rows:
        log = engine.log[4 * row["item"] :][:4]
        scores = [answer.logprob for _, answer in log]
        chosen = log[scores.index(max(scores))][0]
        assert row["loglikelihoods"] == scores
        assert row["is_greedy"] == [answer.greedy for _, answer in log]
        assert (row["prompt_tokens"], row["completion_tokens"]) == (len(chosen.context), len(chosen.continuation))
        assert row["engine_tokens"] == spent(log)
        assert all(request.context and request.continuation for request, _ in log)


def test_tokens_of_choices_equal_the_tokenizers_own_count(tasks: Path, engine: Recorded) -> None:
    task = bind(tasks, "mini_choice")
    for row in primary(collect(engine, task)):
        doc = task.docs[row["item"]]
        question, choices = f"Q: {doc['a']}+{doc['b']}=\nA:", [f" {choice}" for choice in doc["choices"]]
        chosen = choices[row["loglikelihoods"].index(max(row["loglikelihoods"]))]
        assert row["prompt_tokens"] == len(encode(engine, question))
        assert row["completion_tokens"] == len(encode(engine, question + chosen)) - len(encode(engine, question))


def test_tokens_of_trailing_space_contexts_go_to_the_answer(tasks: Path, engine: Recorded) -> None:
    task = bind(tasks, "odd_trailing")
    for row in primary(collect(engine, task)):
        doc = task.docs[row["item"]]
        assert row["prompt_tokens"] == len(encode(engine, f"Q: {doc['a']}+{doc['b']}=\nA:"))


@pytest.mark.parametrize("name", ["odd_no_context_choice", "odd_spaces_choice"])
def test_tokens_of_an_empty_context_are_one_beginning(tasks: Path, engine: Recorded, name: str) -> None:
    rows = primary(collect(engine, bind(tasks, name), ONE_BY_ONE))
    assert {row["prompt_tokens"] for row in rows} == {1}
    start = engine.tokenizer.bos_token_id
    assert all(request.context == [start] and request.continuation[0] != start for request, _ in engine.log)


def test_tokens_of_likelihoods_and_unconditional_requests(tasks: Path, engine: Recorded) -> None:
    for row in primary(collect(engine, bind(tasks, "mini_likelihood"), ONE_BY_ONE)):
        request = engine.log[row["item"]][0]
        assert (row["prompt_tokens"], row["completion_tokens"]) == (len(request.context), len(request.continuation))
    engine.log.clear()
    for row in primary(collect(engine, bind(tasks, "mini_mutual"), ONE_BY_ONE)):
        log = engine.log[8 * row["item"] :][:8]
        conditional = [answer.logprob for _, answer in log[:4]]
        chosen = log[conditional.index(max(conditional))][0]
        assert (row["prompt_tokens"], row["completion_tokens"]) == (len(chosen.context), len(chosen.continuation))
        assert row["engine_tokens"] == spent(log)


def test_tokens_of_rolling_texts_are_counted_once(tasks: Path, engine: Recorded) -> None:
    task = bind(tasks, "mini_rolling")
    rows = primary(collect(engine, task))
    assert [row["prompt_tokens"] for row in rows] == [len(encode(engine, doc["text"])) for doc in task.docs]
    assert {row["completion_tokens"] for row in rows} == {0}
    assert sum(row["engine_tokens"] for row in rows) == spent(engine.log)


@pytest.mark.parametrize("name", ["mini_generate", "mini_repeats", "odd_no_context"])
def test_tokens_of_texts_are_what_was_sent_and_what_came_back(tasks: Path, engine: Recorded, name: str) -> None:
    task = bind(tasks, name)
    repeats = task.task.config.repeats
    rows = collect(engine, task)
    for row in primary(rows):
        log = engine.log[repeats * row["item"] :][:repeats]
        assert row["prompt_tokens"] == len(log[0][0].prompt) > 0
        assert row["completion_tokens"] == sum(len(answer.token_ids) for _, answer in log)
        assert row["engine_tokens"] == spent(log)
        assert row["finish_reason"] in ("stop", "length")
    if name == "mini_repeats":
        sent = [f"Q: {doc['a']}+{doc['b']}=\nA:" for doc in task.docs]
        assert [row["prompt_tokens"] for row in primary(rows)] == [len(encode(engine, text)) for text in sent]


def test_times_are_within_the_engines_clock(tasks: Path, engine: Recorded) -> None:
    for row in primary(collect(engine, bind(tasks, "mini_generate"))):
        assert 0 <= row["ttft_s"] <= row["latency_s"]


@pytest.mark.parametrize("name", ["mini_choice", "mini_generate", "mini_likelihood"])
@pytest.mark.parametrize("multiturn", [True, False])
def test_chat_template_beginning_of_text_is_sent_once(
    tasks: Path, engine: Recorded, name: str, multiturn: bool
) -> None:
    chat = {"chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": multiturn, "system_prompt": "Add."}
    collect(engine, bind(tasks, name, **chat))
    start = engine.tokenizer.bos_token_id
    for request, _ in engine.log:
        sent = request.prompt if hasattr(request, "prompt") else request.context + request.continuation
        assert sent.count(start) == engine.tokenizer.decode(sent).count(BOS)  # those that the template writes
        assert sent[:2] != [start, start]


@pytest.mark.slow
def test_tokenizer_that_adds_its_beginning_of_text_sends_it_once(tasks: Path, hf: Any) -> None:
    engine = hf("bos")
    # not of rolling texts: there lm-eval itself, whose numbers ours equal, puts one more in front
    for name in ("mini_choice", "mini_generate", "mini_mutual", "mini_likelihood", "odd_no_context"):
        collect(engine, bind(tasks, name))
    for request, _ in engine.log:
        sent = request.prompt if hasattr(request, "prompt") else request.context + request.continuation
        assert sent[0] == engine.tokenizer.bos_token_id
        assert sent[1:2] != sent[:1]


# ---- items that cannot be answered or judged


def failures(rows: Rows) -> dict[int, str]:
    assert all((row["score"] is None) == (row["failure"] is not None) for row in primary(rows))
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
            nothing = ("score", "correct", "metrics", "responses", "loglikelihoods", "engine_tokens", "latency_s")
            assert [row[column] for column in (*nothing, "completion_tokens")] == [None] * 8
            assert row["prompt_tokens"] > 70_000
    assert spent(engine.log) == sum(row["engine_tokens"] or 0 for row in primary(rows))


def test_prompt_fits_to_the_token_but_no_further(tasks: Path) -> None:
    task = bind(tasks, "mini_generate")
    longest = max(row["prompt_tokens"] for row in collect(stub(), task)) + 12
    assert not failures(collect(stub(max_length=longest), task))
    assert set(failures(collect(stub(max_length=longest - 1), task)).values()) == {PROMPT_TOO_LONG}


def test_empty_answers_are_unanswered_yet_judged_as_lm_eval_does(tasks: Path) -> None:
    rows = collect(stub(empty_every=2), bind(tasks, "mini_generate"))
    found = failures(rows)
    assert 0 < len(found) < ITEMS
    assert set(found.values()) == {EMPTY_ANSWER}
    for row in rows:
        assert json.loads(row["metrics"]).keys() == {"exact_match"}
        assert (row["score"] is None) == (row["item"] in found)
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
            assert (row["metrics"], row["correct"]) == (None, None)
            assert row["engine_tokens"] == other["engine_tokens"]
        else:
            assert untimed([row]) == untimed([other])


def test_process_results_that_raises_costs_its_items_only(tasks: Path) -> None:
    task = bind(tasks, "odd_raises")
    rows = collect(stub(), task)
    assert failures(rows) == dict.fromkeys(odd_items(task), NOT_JUDGED)
    assert all(row["responses"] and row["completion_tokens"] for row in rows)


@pytest.mark.parametrize("name", ["odd_nothing", "odd_keys", "odd_no_number", "odd_of_many"])
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


@pytest.mark.parametrize(
    "decoding", [{"max_gen_toks": 0}, {"max_gen_toks": "many"}, {"temperature": "hot"}, {"until": [5]}]
)
def test_generation_setting_that_is_wrong_is_the_tasks_failure(tasks: Path, decoding: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="mini_generate has a wrong generation setting"):
        collect(stub(), bind(tasks, "mini_generate", decoding=decoding))


def test_chat_template_that_the_model_lacks_is_the_tasks_failure(tasks: Path) -> None:
    engine = stub()
    engine.engine.tokenizer.chat_template = None
    with pytest.raises(TaskError, match="wants a chat template and the model has none") as caught:
        collect(engine, bind(tasks, "mini_choice", chat_template=True))
    assert caught.value.kind == "no_chat_template"
    engine.engine.tokenizer.chat_template = {"default": "x", "tool_use": "y"}
    with pytest.raises(TaskError, match="mini_choice cannot build its requests"):
        collect(engine, bind(tasks, "mini_choice", chat_template="poetry"))


def test_tokenizer_without_an_end_token_still_generates(tasks: Path) -> None:
    engine = stub()
    engine.engine.tokenizer.eos_token_id = None
    assert not failures(collect(engine, bind(tasks, "mini_generate")))


# ---- scores


def test_score_of_pairs_and_lists_is_the_metrics_own_aggregation_of_the_item(tasks: Path) -> None:
    task = bind(tasks, "odd_pair")
    assert [row["score"] for row in collect(stub(), task)] == [doc["a"] / 20 for doc in task.docs]
    several = [(doc["a"] + doc["b"]) / 40 for doc in task.docs]
    assert [row["score"] for row in collect(stub(), bind(tasks, "odd_several"))] == several


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


@pytest.mark.slow
def test_repeats_sampled_differ_and_majority_judges_all_of_them(tasks: Path, hf: Any) -> None:
    task = bind(tasks, "odd_sampled", decoding={"temperature": 1.0, "do_sample": True})
    rows = collect(hf("good"), task)
    assert any(len(set(row["responses"])) > 1 for row in primary(rows))
    firsts = {(r["item"], r["repeat"]): json.loads(r["filtered"]) for r in rows if r["filter"] == "first"}
    for row in primary(rows, "majority"):
        votes = [firsts[row["item"], repeat][0] for repeat in (1, 2, 3)]
        assert votes.count(json.loads(row["filtered"])[0]) == max(map(votes.count, votes))


# ---- cuts

CUTS: list[list[range]] = [
    [range(0, 5), range(5, ITEMS)],
    [range(7, ITEMS), range(0, 7)],
    [range(i, i + 1) for i in range(ITEMS)],
]


@pytest.mark.parametrize("name", [*TASKS, "odd_raises", "odd_filters", "odd_long"])
def test_records_do_not_depend_on_how_the_items_are_cut(tasks: Path, name: str) -> None:
    task = bind(tasks, name)
    whole = untimed(collect(stub(nan_every=7, empty_every=5), task))
    for cuts in CUTS:
        assert untimed(collect(stub(nan_every=7, empty_every=5), task, cuts)) == whole


def test_few_shot_draws_do_not_depend_on_limit_or_earlier_builds(tasks: Path) -> None:
    task, engine = bind(tasks, "mini_generate", num_fewshot=3), stub()
    requester = Requester(engine, engine.model.key)  # type: ignore[arg-type]

    def built(upto: int) -> list[Any]:
        return [[instance.args for instance in item] for item in requester.build(task, upto)]

    whole = built(ITEMS)
    assert len({item[0][0].rsplit("\n\n", 1)[0] for item in whole}) > 1, "every item has the same examples"
    assert built(4) == whole[:4]
    assert built(ITEMS) == whole
    other = bind(tasks, "mini_generate", num_fewshot=3, fewshot_seed=99)
    assert [[i.args for i in item] for item in requester.build(other, ITEMS)] != whole


@pytest.mark.slow
def test_sampled_answers_do_not_depend_on_how_the_items_are_cut(tasks: Path, hf: Any) -> None:
    task = bind(tasks, "odd_sampled", decoding={"temperature": 1.0, "do_sample": True})
    whole = untimed(collect(hf("good"), task))
    assert untimed(collect(hf("good"), task, CUTS[1])) == whole


# ---- Jinja

STOCK = """
import hashlib, json, sys
from lm_eval.tasks import TaskManager
loaded = TaskManager(include_path=sys.argv[1], include_defaults=False).load(sys.argv[2:])["tasks"]
hashes = {}
for name, task in loaded.items():
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests()
    hashes[name] = [hashlib.sha256(repr(instance.args).encode()).hexdigest() for instance in task.instances]
json.dump(hashes, sys.stdout)
"""


@pytest.mark.slow
def test_templates_compiled_once_render_what_stock_lm_eval_renders(tasks: Path) -> None:
    import hashlib

    names = [*TASKS, "odd_trailing"]
    command = [sys.executable, "-c", STOCK, str(tasks), *names]
    stock = subprocess.run(command, cwd=tasks, capture_output=True, text=True, timeout=300, check=True)
    engine = stub()
    requester = Requester(engine, engine.model.key)  # type: ignore[arg-type]
    ours = {}
    for name in names:
        instances = [instance for item in requester.build(bind(tasks, name), ITEMS) for instance in item]
        ours[name] = [hashlib.sha256(repr(instance.args).encode()).hexdigest() for instance in instances]
    assert json.loads(stock.stdout.strip().splitlines()[-1]) == ours


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("odd_unsafe", "unsafe_code"),
        ("odd_unsafe_lacking", "unsafe_code"),  # as HumanEval without a hub
        ("odd_lacking", "no_data"),
        ("odd_image", "multimodal"),
    ],
)
def test_task_that_runs_written_code_or_shows_images_is_refused_by_kind(tasks: Path, name: str, kind: str) -> None:
    bound, failed = load_tasks(TaskSpec(task=name), [str(tasks)])
    assert (bound, {task: error.kind for task, error in failed.items()}) == ([], {name: kind})
