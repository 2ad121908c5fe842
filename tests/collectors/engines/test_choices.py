"""Choices in one pass: the requests for an item, the answers of engines, and that neither order nor batch nor cache
changes an answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.engines import ChoiceRequest, Engine, ModelRef, ScoreRequest, make_engine
from collectors.harness.judge import judge_here, record_table
from collectors.harness.loading import load_tasks
from collectors.harness.requests import Asked, Requester
from collectors.harness.tasks import BoundTask
from collectors.specs import TaskSpec
from tests.helpers.mini_tasks import ITEMS, write_tasks
from tests.helpers.thorough import long_only, often

ROOT = Path(__file__).parents[3]
REAL = sorted(folder for folder in (ROOT / ".cache/models").glob("*") if (folder / "config.json").exists())


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def bind(tasks: Path, name: str, **prompting: Any) -> BoundTask:
    (task,), failed = load_tasks(TaskSpec(task=name, **prompting), [str(tasks)])
    assert not failed
    return task


def reference(folder: Path, **fields: Any) -> ModelRef:
    return ModelRef(folder.name, str(folder), f"revision-{folder.name}", str(folder), "float32", **fields)


@pytest.fixture(scope="module")
def vllm() -> Iterator[Engine]:
    """One engine for all tests here; each test loads its model."""
    engine = make_engine("vllm")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def hf() -> Iterator[Engine]:
    engine = make_engine("hf")
    yield engine
    engine.close()


# ---- requests


class Counting:
    """An engine that counts its requests by kind."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.scored: list[ScoreRequest] = []
        self.chosen: list[ChoiceRequest] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def score(self, key: str, requests: Any) -> Any:
        self.scored += requests
        return self.engine.score(key, requests)

    def choose(self, key: str, requests: Any) -> Any:
        self.chosen += requests
        return self.engine.choose(key, requests)


def stub(**options: Any) -> Counting:
    engine = make_engine("stub", options)
    engine.load(ModelRef("m", "m", "revision-1", None))
    return Counting(engine)


def ask(engine: Any, task: BoundTask, cuts: list[range] | None = None) -> list[Asked]:
    requester = Requester(engine, engine.model.key)
    items = requester.build(task, ITEMS)
    return [one for cut in cuts or [range(ITEMS)] for one in requester.ask({i: items[i] for i in cut}, "cell")]


def letters(tasks: Path, **changes: Any) -> BoundTask:
    """mini_letters without the space before a letter, which is a byte token more for the stub."""
    task = bind(tasks, "mini_letters")
    task.task.config.target_delimiter = ""
    for name, value in changes.items():
        setattr(task.task.config, name, value)
    return task


def test_choices_of_one_token_are_one_request_of_the_context(tasks: Path) -> None:
    engine, task = stub(), letters(tasks)
    rows = record_table(task, ask(engine, task), "cell", "m", judge_here).to_pylist()
    assert (len(engine.chosen), len(engine.scored)) == (ITEMS, 0)
    for request, row in zip(engine.chosen, rows, strict=True):
        assert bytes(request.tokens) == b"ABCD"
        assert (row["prompt_tokens"], row["completion_tokens"]) == (len(request.context), 1)
        assert (row["engine_tokens"], row["cached_tokens"]) == (len(request.context) + 1, 0)
        assert row["latency_s"] >= 0


def test_choices_of_one_token_score_as_one_request_each_would(tasks: Path) -> None:
    engine, task = stub(), letters(tasks)
    for request, asked in zip(engine.chosen, ask(engine, task), strict=False):
        one_by_one = engine.score(engine.model.key, [ScoreRequest(request.context, [t]) for t in request.tokens])[1]
        assert [a.response for (a,) in asked.answers] == [(s.logprob, s.greedy) for s in one_by_one]


def test_an_item_with_a_longer_choice_is_asked_choice_by_choice(tasks: Path) -> None:
    engine = stub()
    asked = ask(engine, letters(tasks, doc_to_choice=["A", "BB", "C", "D"]))
    assert (len(engine.chosen), len(engine.scored)) == (0, 4 * ITEMS)
    assert {len(answer.usages) for one in asked for (answer,) in one.answers} == {1}


def test_an_empty_choice_leaves_the_others_asked_and_the_item_unjudged(tasks: Path) -> None:
    engine, task = stub(), letters(tasks, doc_to_choice=["A", "", "C", "D"])
    rows = record_table(task, ask(engine, task), "cell", "m", judge_here).to_pylist()
    assert {bytes(request.tokens) for request in engine.chosen} == {b"ACD"}
    assert {row["failure"] for row in rows} == {"not_judged"}


def test_requests_without_context_are_an_item_s_own_pass(tasks: Path) -> None:
    """Gives all items the same context, because the tokens of an item must not depend on its neighbours in a shard."""
    engine = stub()
    task = letters(tasks, doc_to_text="", num_fewshot=0)
    whole = record_table(task, ask(engine, task), "cell", "m", judge_here).to_pylist()
    cut = record_table(task, ask(engine, task, [range(5), range(5, ITEMS)]), "cell", "m", judge_here).to_pylist()
    assert [row["engine_tokens"] for row in whole] == [2] * ITEMS == [row["engine_tokens"] for row in cut]


def test_context_that_is_too_long_by_a_token_fails_its_items_only(tasks: Path) -> None:
    task = letters(tasks)
    lengths = [len(one.answers[0][0].usages) and one.answers[0][0].prompt_tokens for one in ask(stub(), task)]
    engine = stub(max_length=max(lengths) + 1)
    rows = record_table(task, ask(engine, task), "cell", "m", judge_here).to_pylist()
    too_long = [row["item"] for row in rows if row["failure"] == "prompt_too_long"]
    assert too_long == [item for item, length in enumerate(lengths) if length == max(lengths)]
    assert len(engine.chosen) == ITEMS - len(too_long)
    assert all((row["engine_tokens"] is None) == (row["item"] in too_long) for row in rows)


def test_repeats_are_a_pass_each_and_their_tokens_add_up(tasks: Path) -> None:
    engine, task = stub(), letters(tasks, repeats=2)
    rows = record_table(task, ask(engine, task), "cell", "m", judge_here).to_pylist()
    assert len(engine.chosen) == 2 * ITEMS
    for item in range(ITEMS):
        both, first, second = (row for row in rows if row["item"] == item)
        assert both["engine_tokens"] == first["engine_tokens"] + second["engine_tokens"]


# ---- what engines answer


def choices(engine: Engine) -> list[ChoiceRequest]:
    """Few and many tokens beside each other, twice the same, contexts of one token, of some and of many."""
    encode = engine.tokenizer.encode
    texts = ["Q:", "Q: 2+3=\nA: 5\n\nQ: 4+9=\nA:", "Q: 2+3=\nA: 5\n\n" * 30 + "Q: 4+9=\nA:"]
    digits = [encode(str(digit))[-1] for digit in range(10)]
    asked = [ChoiceRequest(encode(text), tokens) for text in texts for tokens in (digits, digits[3:5], digits[4:5])]
    return [*asked, ChoiceRequest(encode(texts[1]), list(range(300))), ChoiceRequest(encode(texts[1]), [7, 0, 7])]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["good", pytest.param("random", marks=long_only)])
@pytest.mark.parametrize("kind", ["vllm", "hf"])
def test_choose_equals_a_forward_pass_for_each_token(
    request: pytest.FixtureRequest, hf: Engine, tiny_models: dict[str, Path], kind: str, name: str
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    key, oracle = engine.load(reference(tiny_models[name])), hf.load(reference(tiny_models[name]))
    asked = choices(engine)
    for one, scores in zip(asked, engine.choose(key, asked)[1], strict=True):
        plain = hf.score(oracle, [ScoreRequest(one.context, [token]) for token in one.tokens])[1]
        assert scores.logprobs == pytest.approx([score.logprob for score in plain], abs=1e-4)
        assert scores.greedy == [score.greedy for score in plain]
        assert {usage.prompt_tokens for usage in scores.usages} == {len(one.context)}
        assert len(scores.usages) == (3 if kind == "vllm" and len(one.tokens) == 300 else 1)


@pytest.mark.slow
def test_choose_falls_back_visibly_where_vllm_tells_no_given_tokens(
    vllm: Engine, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = vllm.load(reference(tiny_models["good"]))
    from vllm import SamplingParams

    asked = choices(vllm)
    sound = vllm.choose(key, asked)[1]
    plain = SamplingParams(temperature=0, max_tokens=1)
    monkeypatch.setattr("collectors.engines.vllm._choosing", lambda tokens: plain)
    for scores, expected, request in zip(vllm.choose(key, asked)[1], sound, asked, strict=True):
        assert scores.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert (scores.greedy, scores.asked_again) == (expected.greedy, True)
        assert len(scores.usages) >= 1 + len(request.tokens)  # discarded tokens were spent, too
    assert "asked one by one" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("prefix_caching", [True, pytest.param(False, marks=long_only)])
def test_choose_and_score_equal_whatever_order_batch_and_cache(
    vllm: Engine, tiny_models: dict[str, Path], prefix_caching: bool
) -> None:
    key = vllm.load(reference(tiny_models["good"], options={"enable_prefix_caching": prefix_caching}))
    assert vllm.prefix_caching is prefix_caching
    encode = vllm.tokenizer.encode
    asked: list[Any] = choices(vllm)
    # contexts that share examples, choices that begin alike for less and for more than a block
    for i in range(often(12, few=4)):
        context = encode("Q: 2+3=\nA: 5\n\n" * 40 + f"Q: {i}+9=\nA:")
        alike = [encode(" 1" * length + ending) for length in (1, 9, 140) for ending in (" 2", " 3 4", " none")]
        asked += [ScoreRequest(context, choice) for choice in alike]
    draw, seen = random.Random(4), []
    for batch in (len(asked), 1, 7, 50):
        order = draw.sample(range(len(asked)), len(asked))
        found: dict[int, Any] = {}
        for at in range(0, len(asked), batch):
            for kind, method in ((ScoreRequest, vllm.score), (ChoiceRequest, vllm.choose)):
                part = [i for i in order[at : at + batch] if isinstance(asked[i], kind)]
                found |= zip(part, method(key, [asked[i] for i in part])[1], strict=True)  # type: ignore[arg-type]
        seen.append([found[i] for i in range(len(asked))])
    for answers in seen[1:]:
        assert [answer.greedy for answer in answers] == [answer.greedy for answer in seen[0]]
        for ours, first in zip(answers, seen[0], strict=True):
            both = (getattr(one, "logprobs", None) or one.logprob for one in (ours, first))
            assert next(both) == pytest.approx(next(both), abs=1e-4)
    again = [answer for answer in seen[0] if getattr(answer, "discarded", None)]
    assert bool(again) == prefix_caching
    for answer in again:
        assert answer.discarded.prompt_tokens == answer.usage.prompt_tokens
        assert answer.discarded.cached_tokens > answer.usage.cached_tokens == 0


CUT = ["mini_letters", "mini_alike", "mini_mutual"]


@pytest.fixture(scope="module")
def verdicts(vllm: Any, tasks: Path, tiny_models: dict[str, Path]) -> dict[str, list[list[Any]]]:
    """Task -> its verdicts as a whole, in three cuts and item by item, each with an empty cache."""
    bound, model = {name: bind(tasks, name) for name in CUT}, reference(tiny_models["good"])
    found: dict[str, list[list[Any]]] = {name: [] for name in CUT}

    def asked(cuts: list[range]) -> dict[str, list[Asked]]:
        vllm.load(model)
        answers = {}
        for name, task in bound.items():
            assert vllm._llm.reset_prefix_cache()
            answers[name] = ask(vllm, task, cuts)
        return answers

    for cuts in ([range(ITEMS)], [range(3), range(3, 11), range(11, ITEMS)], [range(i, i + 1) for i in range(ITEMS)]):
        whole = asked(cuts)
        if len(cuts) == 3:  # an engine that died between two shards
            vllm.close()
            for name, rest in asked([range(6, ITEMS)]).items():
                whole[name][6:] = rest
        for name, task in bound.items():
            rows = record_table(task, whole[name], "cell", "m", judge_here).to_pylist()
            found[name].append([(row["score"], row["metrics"], row["is_greedy"]) for row in rows])
            likelihoods = [value for row in rows for value in row["loglikelihoods"]]
            found[name][-1].append(pytest.approx(likelihoods, abs=1e-4) if len(cuts) == 1 else likelihoods)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CUT)
def test_verdicts_do_not_depend_on_cuts_or_a_restart_halfway(verdicts: dict[str, list[list[Any]]], name: str) -> None:
    whole, cut, single = verdicts[name]
    assert cut == whole
    assert single == whole


@long_only
@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="no real models: make models")
def test_real_model_one_pass_and_a_request_for_each_choice_agree(vllm: Engine, hf: Engine) -> None:
    folder = REAL[0]
    key, oracle = vllm.load(reference(folder, max_length=2048)), hf.load(reference(folder, max_length=2048))
    encode = vllm.tokenizer.encode
    tokens = [encode(f"Answer: {letter}")[-1] for letter in "ABCDEFGHIJ"]
    facts = "The following are questions about biology.\n\nWhat do cells need?\nA. water\nB. sand\nAnswer: A\n\n"
    contexts = [encode(facts * n + "Which is alive?\nA. a stone\nB. a cat\nAnswer:") for n in (0, 1, 8)]
    asked = [ChoiceRequest(context, tokens) for context in contexts]
    one_by_one = [ScoreRequest(context, [token]) for context in contexts for token in tokens]
    whole = vllm.choose(key, asked)[1]
    for scores in (vllm.score(key, one_by_one)[1], hf.score(oracle, one_by_one)[1]):
        assert [p for one in whole for p in one.logprobs] == pytest.approx([s.logprob for s in scores], abs=1e-4)
        assert [g for one in whole for g in one.greedy] == [score.greedy for score in scores]
