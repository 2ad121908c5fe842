"""Replies that lie: no usage, text, model or log-probability of them is believed that cannot be true."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest

from collectors.endpoints.replies import BadReplyError, Bounds, Counts, counts_of, parse, prompt_logprobs, serves


def reply(**changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": "7"}, "finish_reason": "stop"}
    return {"model": "m", "choices": [{**choice, **changes}]}


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4", "gpt-4-0613"),
        ("claude-3-5-sonnet", "claude-3-5-sonnet-20241022"),
        ("claude-3-5-sonnet", "claude-3-5-sonnet@20241022"),
        ("gemini-1.5-pro", "gemini-1.5-pro-002"),
        ("org/Model", "model"),
        ("model", "org/model"),
        ("model", None),
    ],
)
def test_serves_the_same_model_and_its_snapshots(asked: str, answered: str | None) -> None:
    assert serves(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4", "gpt-4-32k"),
        ("gpt-4", "gpt-4o"),
        ("llama-3", "meta/llama-3-70b"),
        ("gemma", "gemma-2-9b"),
        ("qwen2.5", "qwen2.5-0.5b-instruct"),
        ("x/llama", "evil/llama"),
        ("fake-1", "fake-1:1b"),
        ("fake-1", "fake-10"),
    ],
)
def test_serves_no_other_model(asked: str, answered: str) -> None:
    assert not serves(asked, answered)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 50}, Counts(5, 50)),
        ({"prompt_tokens": 10**9, "completion_tokens": 1}, None),
        ({"prompt_tokens": 5, "completion_tokens": 400}, None),
        (
            {"prompt_tokens": 5, "completion_tokens": 400, "completion_tokens_details": {"reasoning_tokens": 380}},
            Counts(5, 400, None, None, 380),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 2 * 10**9}, None),
    ],
)
def test_counts_beyond_the_request_are_impossible(usage: dict[str, Any], counts: Counts | None) -> None:
    found = counts_of(usage, Bounds.of(5, 50), has_text=True)
    assert found == counts if counts else (found.impossible and found == Counts(impossible=found.impossible))


def test_parse_of_half_a_character_gives_a_text_that_tables_hold() -> None:
    parsed = parse(reply(message={"content": "a\ud800b \ud83d\ude00", "reasoning_content": "\udc00"}), chat=True)
    assert (parsed.text, parsed.thought) == ("a�b 😀", "�")
    assert pa.array([parsed.text, parsed.thought]).to_pylist() == ["a�b 😀", "�"]


@pytest.mark.parametrize(
    "changes",
    [{"index": 1}, {"finish_reason": {"a": 1}}, {"finish_reason": False}, {"message": {"content": 7}}, {"message": []}],
)
def test_parse_of_no_answer_is_a_bad_reply(changes: dict[str, Any]) -> None:
    with pytest.raises(BadReplyError):
        parse(reply(**changes), chat=True)


@pytest.mark.parametrize(
    ("value", "top"),
    [
        (-1.0, {"a": None}),
        (-1.0, {"a": "x"}),
        (True, {"a": -1.0}),
        (5.0, {"a": 5.0}),
        ("-1", {"a": -1.0}),
        (None, {"a": -1.0}),
        (-1.0, {}),
        (-1.0, None),
        (-1.0, {"a": True}),
    ],
)
def test_prompt_logprobs_that_are_none_are_a_bad_reply(value: Any, top: Any) -> None:
    logprobs = {"token_logprobs": [None, value], "top_logprobs": [None, top]}
    with pytest.raises(BadReplyError):
        prompt_logprobs({"choices": [{"logprobs": logprobs}]}, 2)


def test_prompt_logprobs_of_a_huge_number_are_of_probability_nothing() -> None:
    logprobs = {"token_logprobs": [None, -(10**400)], "top_logprobs": [None, {"a": -0.1}]}
    assert prompt_logprobs({"choices": [{"logprobs": logprobs}]}, 2)[1] == (-math.inf, False)
