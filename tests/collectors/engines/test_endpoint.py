"""The engine of endpoints against a server that answers by rule and fails on request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from collectors.endpoints.replies import Counts
from collectors.engines import OF_ENDPOINTS, GenerateRequest, Generation, ModelRef, ScoreRequest, make_engine
from collectors.engines.endpoint import EndpointEngine
from collectors.specs import ModelSpec
from schemas.failures import (
    CONTENT_FILTER,
    ENDPOINT_DOWN,
    OVER_BUDGET,
    REQUEST_REFUSED,
    EngineError,
    ModelError,
    TaskError,
    UnreachableError,
)
from tests.helpers.fake_endpoint import MODEL, PASSING, Fake, Server, answer, tokens

Make = Callable[..., tuple[EndpointEngine, Fake]]
COUNT = 40


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """make(fault, **endpoint) is an engine with a model of a server with that fault, and the server."""
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))
    with ExitStack() as stack:

        def made(fault: str | None = None, fake: Fake | None = None, **endpoint: Any) -> tuple[EndpointEngine, Fake]:
            fake = fake or Fake(fault)
            url = stack.enter_context(Server(fake))
            engine = make_engine(OF_ENDPOINTS)
            assert isinstance(engine, EndpointEngine)
            engine.load(ref(url, **endpoint))
            stack.callback(engine.close)
            return engine, fake

        yield made


def ref(url: str, **endpoint: Any) -> ModelRef:
    settings = {"url": url, "api": "completions", "timeout_seconds": 0.5, **endpoint}
    model = EndpointEngine.pin(ModelSpec.model_validate({"source": MODEL, "endpoint": settings}), "auto", None)
    assert model is not None
    return model


def prompt(i: int) -> str:
    return f"Q{i}: " + "word " * i


def texts(engine: EndpointEngine, count: int = COUNT, owner: str = "c-g0") -> list[Generation]:
    assert engine.model is not None
    requests = [GenerateRequest(list(prompt(i).encode()), 50, ["\n\n"], owner=owner) for i in range(count)]
    return engine.generate(engine.model.key, requests)[1]


def right(i: int, got: Generation) -> bool:
    usage = got.usage
    counted = (usage.prompt_tokens, usage.generated_tokens) == (tokens(prompt(i)), tokens(answer(prompt(i))))
    return got.text == answer(prompt(i)) and counted and got.failure is None


@pytest.mark.parametrize("fault", [None, *(fault for fault in PASSING if fault != "half_stream")])
def test_endpoint_answers_are_right_under_passing_faults(make: Make, fault: str | None) -> None:
    engine, fake = make(fault)
    got = texts(engine)
    assert [i for i, one in enumerate(got) if not right(i, one)] == []
    assert set(fake.paid.values()) == {1}
    statistics = engine.take_statistics("c-g0")
    assert statistics["counts"]["answered"] == COUNT
    assert bool(statistics["faults"]) == bool(fault), "every fault is named"
    assert statistics["answered"] == [{"model": MODEL, "system_fingerprint": "fp_1", "requests": COUNT}]


@pytest.mark.parametrize("fault", [None, "half_stream", "429", "500"])
def test_endpoint_streams_are_joined_and_half_of_one_is_no_answer(make: Make, fault: str | None) -> None:
    engine, _ = make(fault, stream=True)
    got = texts(engine)
    assert [i for i, one in enumerate(got) if not right(i, one)] == []
    assert all((one.usage.first_token or 0) <= (one.usage.finished or 0) for one in got)
    assert bool(engine.take_statistics("c-g0")["faults"]) == bool(fault)


def test_endpoint_concurrency_falls_by_half_and_rises_by_one(make: Make) -> None:
    engine, fake = make("429", fake=Fake("429", every=2, latency_s=0.01), max_concurrency=16)
    texts(engine)
    assert fake.most_at_once <= 16
    assert engine.take_statistics("c-g0")["concurrency_limit"] < 16


def test_endpoint_rates_hold(make: Make) -> None:
    engine, _ = make(requests_per_minute=1200)
    engine._opened._rates._requests.left = 0.0  # type: ignore[union-attr]
    began = time.monotonic()
    texts(engine, 10)
    assert time.monotonic() - began >= 9 * 60 / 1200 * 0.9


# ---- usage


@pytest.mark.parametrize(
    ("fault", "suspicion"),
    [
        ("no_usage", None),
        ("zero_usage", "impossible_usage"),
        ("impossible_usage", "impossible_usage"),
        ("constant_usage", "constant_usage"),
    ],
)
def test_endpoint_usage_is_stated_or_null_and_never_zero(make: Make, fault: str, suspicion: str | None) -> None:
    engine, _ = make(fault)
    got = texts(engine)
    stated = {(one.usage.prompt_tokens, one.usage.generated_tokens) for one in got}
    assert stated == ({(17, 4)} if fault == "constant_usage" else {(None, None)})
    assert [one.text for one in got] == [answer(prompt(i)) for i in range(COUNT)]
    kinds = [one["kind"] for one in engine.take_statistics("c-g0")["suspicions"]]
    assert kinds == ([suspicion] if suspicion else [])


def test_endpoint_usage_of_a_chat_counts_thought_and_cache(make: Make) -> None:
    engine, fake = make(fake=Fake(thought="Let me think about it."), api="chat")
    messages = [{"role": "user", "content": "3+4="}]
    chat = engine.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    request = GenerateRequest(
        engine.tokenizer.encode(chat), 50, ["\n\n"], thinking='{"end": "</think>", "start": "<think>"}', owner="c-g0"
    )
    assert engine.model is not None
    [got] = engine.generate(engine.model.key, [request])[1]
    asked = json.dumps(messages, sort_keys=True)
    assert got.text == f"<think>Let me think about it.</think>{answer(asked)}"
    usage = got.usage
    assert (usage.reasoning_tokens, usage.cached_tokens) == (5, tokens(asked) // 2)
    assert usage.generated_tokens == tokens(answer(asked)) + 5
    [body] = fake.bodies
    assert body["messages"] == messages
    assert "stop" not in body, "stops would act inside the thought"
    assert body["max_completion_tokens"] == 50


# ---- who answers


def test_endpoint_another_model_is_refused(make: Make) -> None:
    engine, _ = make("another_model")
    with pytest.raises(EngineError, match=f"for {MODEL}, cheap-1 answered") as error:
        texts(engine)
    assert error.value.kind == "wrong_model"


def test_endpoint_model_that_changes_inside_a_cell_is_refused(make: Make) -> None:
    engine, _ = make("changing_model")
    with pytest.raises(EngineError, match="changed its model inside a cell"):
        texts(engine)


def test_endpoint_fingerprint_that_changes_is_suspicious(make: Make) -> None:
    engine, _ = make("changing_fingerprint")
    texts(engine)
    statistics = engine.take_statistics("c-g0")
    assert [one["kind"] for one in statistics["suspicions"]] == ["changed_endpoint"]
    assert sum(one["requests"] for one in statistics["answered"]) == COUNT


# ---- outcomes


def test_endpoint_filtered_answers_are_an_outcome_of_their_own(make: Make) -> None:
    engine, _ = make("filtered")
    kinds = {one.failure for one in texts(engine)}
    assert kinds == {None, CONTENT_FILTER}


def test_endpoint_refused_requests_fail_alone_and_all_of_them_the_model(make: Make) -> None:
    engine, _ = make("refused")
    assert {one.failure for one in texts(engine)} == {None, REQUEST_REFUSED}
    engine, _ = make(fake=Fake("refused", every=1))
    with pytest.raises(ModelError, match="refuses every request: status 400"):
        texts(engine)


def test_endpoint_that_is_away_is_waited_for(make: Make) -> None:
    engine = make_engine(OF_ENDPOINTS)
    engine.load(ref("http://127.0.0.1:9/v1", tries=2))
    assert isinstance(engine, EndpointEngine)
    with pytest.raises(UnreachableError, match="does not answer") as error:
        texts(engine, 2)
    assert error.value.kind == ENDPOINT_DOWN
    engine.close()


# ---- keys


def test_endpoint_key_is_sent_and_stands_nowhere(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("FAKE_KEY", "very-secret-value")
    engine, _ = make(fake=Fake(key="very-secret-value"), key="$FAKE_KEY")
    assert right(0, texts(engine, 1)[0])
    monkeypatch.setenv("FAKE_KEY", "wrong-secret-value")
    engine, _ = make(fake=Fake(key="very-secret-value"), key="$FAKE_KEY")
    with pytest.raises(ModelError, match="refuses the key") as error:
        texts(engine, 1, "d-g0")
    everywhere = str(error.value) + caplog.text + repr(engine.model)
    everywhere += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "secret-value" not in everywhere


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "sk-123"}, "should name a variable of the environment"),
        ({"url": "http://user:secret@host/v1"}, "give the key as"),
        ({"url": "ftp://host"}, "should begin with http"),
    ],
)
def test_endpoint_config_faults_are_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSpec.model_validate({"source": MODEL, "endpoint": {"url": "http://127.0.0.1:1/v1", **changes}})


def test_endpoint_without_its_key_fails_alone_when_planned() -> None:
    with pytest.raises(ModelError, match=r"the environment variable \$NOT_THERE_AT_ALL is not set"):
        ref("http://127.0.0.1:1/v1", key="$NOT_THERE_AT_ALL")


def test_endpoint_identity_is_its_address_and_names() -> None:
    one, other = ref("http://127.0.0.1:1/v1"), ref("http://127.0.0.1:2/v1")
    assert one.revision != other.revision
    assert one.revision == ref("http://127.0.0.1:1/v1", max_concurrency=3, timeout_seconds=9.0).revision


# ---- paid once


def test_endpoint_answers_that_were_paid_are_not_asked_again(make: Make) -> None:
    engine, fake = make()
    before = texts(engine)
    engine.close()
    assert before[0].usage.scheduled is not None
    again = make_engine(OF_ENDPOINTS)
    assert isinstance(again, EndpointEngine)
    again.load(engine_ref(engine, fake))
    assert texts(again) == before
    assert fake.requests == COUNT
    assert len(texts(again, owner="c-g1")) == COUNT, "another generation is asked anew"
    assert fake.requests == 2 * COUNT
    again.close()


def engine_ref(engine: EndpointEngine, fake: Fake) -> ModelRef:
    spec = engine._spec
    assert spec is not None
    return ref(spec.url)


def test_endpoint_equal_requests_of_one_cell_are_each_asked(make: Make) -> None:
    engine, fake = make()
    assert engine.model is not None
    requests = [GenerateRequest(list(b"same"), 50, [], owner="c-g0")] * 3
    engine.generate(engine.model.key, requests)
    assert fake.requests == 3


def test_endpoint_budget_is_checked_before_sending(make: Make) -> None:
    engine, fake = make(max_concurrency=4)
    prices = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 10.0}
    each = (50 * 10 + 300) / 1e6  # 50 tokens of an answer, and a prompt of at most 300 bytes
    engine.may_spend(5 * each, prices)
    with pytest.raises(EngineError, match="the budget is spent") as error:
        texts(engine)
    assert error.value.kind == OVER_BUDGET
    spent = engine.take_statistics("c-g0")["usd"]
    assert 0 < spent <= 5 * each
    assert 5 <= fake.requests < COUNT


def test_endpoint_budget_counts_each_reply_that_was_no_answer(make: Make) -> None:
    engine, fake = make("empty_choices", max_concurrency=1)
    most = (50 * 1000 + 300) / 1e6
    engine.may_spend(1.5 * most, {"usd_per_million_completion": 1000.0, "usd_per_million_prompt": 1.0})
    with pytest.raises(EngineError, match="the budget is spent"):
        texts(engine)
    assert 0 < engine._opened.allowance.spent <= 1.5 * most
    assert engine.take_statistics("c-g0")["usd"] == engine._opened.allowance.spent, "the cell's statistics have them"
    assert fake.requests < COUNT


def test_endpoint_costs_take_reasoning_at_its_own_price(make: Make) -> None:
    engine, _ = make()
    prices = {"usd_per_million_prompt": 0.0, "usd_per_million_completion": 2000.0, "usd_per_million_reasoning": 20000.0}
    engine.may_spend(None, prices)
    assert engine._cost(Counts(10, 50, None, None, 49)) == pytest.approx((1 * 2000 + 49 * 20000) / 1e6)


# ---- log-likelihoods


@pytest.fixture
def scoring(make: Make, tiny_models: dict[str, Path]) -> Callable[[str | None], EndpointEngine]:
    return lambda fault: make(fault, tokenizer=str(tiny_models["random"]))[0]


def test_endpoint_scores_are_those_of_the_continuation(scoring: Callable[[str | None], EndpointEngine]) -> None:
    engine = scoring(None)
    assert engine.model is not None
    context, continuation = [5, 6, 7], [8, 9]
    [got] = engine.score(engine.model.key, [ScoreRequest(context, continuation, "c-g0")])[1]
    values = Fake()._logprobs(context + continuation)["token_logprobs"]
    assert got.logprob == pytest.approx(values[3] + values[4])
    assert got.greedy is False
    assert got.usage.prompt_tokens == 5


def test_endpoint_that_ignores_echo_is_refused_before_a_choice_is_asked(
    scoring: Callable[[str | None], EndpointEngine],
) -> None:
    engine = scoring("echo_ignored")
    assert engine.model is not None
    with pytest.raises(TaskError, match="does not give the log-probabilities of prompts") as error:
        engine.score(engine.model.key, [ScoreRequest([5, 6, 7], [8], "c-g0")])
    assert error.value.kind == "not_answerable"
