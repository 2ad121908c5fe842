"""Requests of tasks: sent as stock lm-eval sends them, counted as sent, and refused if they cannot be sent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.engines import ModelRef, make_engine
from collectors.harness.loading import load_tasks
from collectors.harness.requests import Requester
from collectors.specs import TaskSpec
from schemas.failures import TaskError
from tests.helpers.asked import CUTS, ONE_BY_ONE, Recorded, bind, collect, primary, spent, stub, tasks, untimed
from tests.helpers.bos_model import copy_with_bos
from tests.helpers.mini_tasks import ITEMS, TASKS, own_caches
from tests.helpers.tiny_models import BOS

__all__ = ["own_caches", "tasks"]  # fixtures


@pytest.fixture(scope="module")
def bos_model(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_with_bos(tiny_models["random"], tmp_path_factory.mktemp("bos") / "random")


@pytest.fixture(scope="module")
def hf(tiny_models: dict[str, Path], bos_model: Path) -> Iterator[Any]:
    """hf(name) is the engine holding the tiny model `good`, or `bos`, which adds a token; each is loaded once."""
    folders = {"good": tiny_models["good"], "bos": bos_model}
    engines: dict[str, Any] = {}

    def load(name: str) -> Recorded:
        if name not in engines:
            engines[name], folder = make_engine("hf"), str(folders[name])
            engines[name].load(ModelRef(name, folder, f"tiny-{name}", folder, "float32"))
        return Recorded(engines[name])

    yield load
    for engine in engines.values():
        engine.close()


@pytest.fixture(params=["stub", *(pytest.param(name, marks=pytest.mark.slow) for name in ("good", "bos"))])
def engine(request: pytest.FixtureRequest) -> Recorded:
    return stub() if request.param == "stub" else request.getfixturevalue("hf")(request.param)


# ---- token counts


def encode(engine: Any, text: str) -> list[int]:
    return list(engine.tokenizer.encode(text))


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


# ---- cuts and repeats


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


@pytest.mark.slow
def test_repeats_sampled_differ_and_majority_judges_all_of_them(tasks: Path, hf: Any) -> None:
    task = bind(tasks, "odd_sampled", decoding={"temperature": 1.0, "do_sample": True})
    rows = collect(hf("good"), task)
    assert any(len(set(row["responses"])) > 1 for row in primary(rows))
    firsts = {(r["item"], r["repeat"]): json.loads(r["filtered"]) for r in rows if r["filter"] == "first"}
    for row in primary(rows, "majority"):
        votes = [firsts[row["item"], repeat][0] for repeat in (1, 2, 3)]
        assert votes.count(json.loads(row["filtered"])[0]) == max(map(votes.count, votes))


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
