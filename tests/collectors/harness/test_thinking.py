"""Models that think: two steps give the answer that one would, and thoughts are counted and kept apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collectors.engines import GenerateRequest, Generation, Usage
from collectors.engines.stub import ByteTokenizer
from collectors.harness.efforts import efforts_of
from collectors.harness.thinking import Thinker, Thought
from collectors.specs import Prompting, Thinking
from schemas.failures import UNFINISHED_THOUGHT
from schemas.verdicts import AT_LIMIT

MARKERS = json.dumps({"start": "<think>", "end": "</think>"})
THOUGHT = "<think>\nIs it 8?\n\nNo.\n</think>\n\n7"


class Scripted:
    """A model that says `script` after any prompt, and goes on with it where a prompt holds its beginning.

    A token is a byte. Behind a thought that was closed for it, it says `closed`.
    """

    def __init__(self, script: str, prompt: str = "3+4=", closed: str = "\n\n5") -> None:
        self.script, self.prompt, self.closed = script, prompt, closed
        self.tokenizer = ByteTokenizer()
        self.asked: list[GenerateRequest] = []

    def generate(self, requests: list[GenerateRequest]) -> list[Generation]:
        self.asked += requests
        return [self._one(request) for request in requests]

    def _one(self, request: GenerateRequest) -> Generation:
        said = self.tokenizer.decode(request.prompt).removeprefix(self.prompt)
        after = self.tokenizer.decode(request.prompt).rpartition("</think>\n\n")[2]
        rest = self.script.removeprefix(said) if self.script.startswith(said) else self.closed.removeprefix(after)
        ends = [(rest.find(stop), stop) for stop in request.stop if stop in rest]
        end, stop = min(ends, default=(len(rest), ""))
        text, ids = rest[:end], [*(rest[:end] + stop).encode(), *([] if stop else [257])]
        reason = "stop"
        if len(ids) > request.max_tokens:
            ids, reason = ids[: request.max_tokens], AT_LIMIT
            text = bytes(ids).decode()
        return Generation(text, ids, Usage(len(request.prompt), len(ids), 0, reason))


def ask(
    model: Scripted, tokens: int | None = None, limit: int = 60, stop: tuple[str, ...] = ("\n\n",), begun: str = ""
) -> Thought:
    thinker = Thinker(MARKERS, tokens, model.tokenizer, model.generate)
    request = GenerateRequest(list(model.prompt.encode()), limit, list(stop))
    return thinker.ask([request], [1000], [begun])[0]


def test_thinking_stops_of_the_task_act_on_the_answer_alone() -> None:
    got = ask(Scripted(THOUGHT + "\n\nNext question"))
    assert (got.text, got.answer, got.failure) == (THOUGHT, "7", None)  # the first \n\n is between them
    got = ask(Scripted(THOUGHT.replace("\n\n7", "7\n\nNext question")))
    assert (got.answer, got.text) == ("7", THOUGHT.replace("\n\n7", "7"))
    thought = len(THOUGHT.removesuffix("\n\n7"))
    assert (got.reasoning_tokens, got.completion_tokens, got.prompt_tokens) == (thought, thought + 3, 4)


def test_thinking_answer_equals_that_of_one_step() -> None:
    one_step = Scripted(THOUGHT)
    whole = one_step.generate([GenerateRequest(list(b"3+4="), 60, [])])[0]
    got = ask(Scripted(THOUGHT), stop=())
    assert (got.text, got.completion_tokens) == (whole.text, whole.usage.generated_tokens)
    assert [usage.continues for usage in got.usages] == [False, True]


def test_thinking_limit_holds_for_thought_and_answer_without_tokens_of_its_own() -> None:
    thought = len(THOUGHT.removesuffix("\n\n7"))
    assert ask(Scripted(THOUGHT), limit=thought + 3, stop=()).answer == "7"
    cut = ask(Scripted(THOUGHT), limit=thought + 2, stop=())
    assert (cut.answer, cut.usages[-1].finish_reason, cut.failure) == ("", AT_LIMIT, None)
    none_left = ask(Scripted(THOUGHT), limit=thought, stop=())
    assert (none_left.answer, none_left.usages[-1].finish_reason) == ("", AT_LIMIT)


def test_thinking_unfinished_thought_is_no_answer() -> None:
    got = ask(Scripted(THOUGHT), limit=10)
    assert (got.answer, got.failure, got.text, got.reasoning_tokens) == ("", UNFINISHED_THOUGHT, THOUGHT[:10], 10)
    ended = ask(Scripted("<think>\nI give up"))
    assert (ended.answer, ended.failure) == ("", UNFINISHED_THOUGHT)


@pytest.mark.parametrize("tokens", [8, 12])
def test_thinking_tokens_close_the_thought_and_the_answer_has_its_own_limit(tokens: int) -> None:
    model = Scripted(THOUGHT)
    got = ask(model, tokens, limit=4, stop=())
    assert got.text == THOUGHT[:tokens] + "\n</think>\n\n" + "\n\n5"
    assert (got.answer, got.failure, got.usages[0].finish_reason) == ("5", None, None)
    closing = len("\n</think>\n\n")
    assert (got.reasoning_tokens, got.completion_tokens) == (tokens + closing, tokens + closing + 4)
    assert [request.max_tokens for request in model.asked] == [tokens, 4]


def test_thinking_tokens_that_suffice_change_nothing() -> None:
    assert ask(Scripted(THOUGHT), 256, stop=()) == ask(Scripted(THOUGHT), limit=600, stop=())


@pytest.mark.parametrize("prompt", ["3+4=", "3+4=<think>\n", "3+4=<think>"])
def test_thinking_tokens_of_zero_write_an_empty_thought_into_the_prompt(prompt: str) -> None:
    model = Scripted("", prompt, closed="7")
    got = ask(model, 0)
    sent = ByteTokenizer().decode(model.asked[0].prompt)
    assert sent == "3+4=<think>\n\n</think>\n\n"
    assert (got.prompt_tokens, got.reasoning_tokens, len(model.asked)) == (len(sent), 0, 1)
    closed = Scripted("7", "3+4=<think>\n\n</think>\n\n")
    assert (ask(closed, 0).answer, ask(closed, 8).answer, ask(closed).answer) == ("7", "7", "7")
    assert {len(request.prompt) for request in closed.asked} == {len(closed.prompt)}


def test_thinking_thought_that_the_template_opened_is_stored_with_its_marker() -> None:
    got = ask(Scripted("Is it 8?</think>7", "3+4=<think>\n"))
    assert (got.text, got.answer, got.reasoning_tokens) == ("<think>Is it 8?</think>7", "7", 16)
    assert ask(Scripted("Is it 8?", "3+4=<think>\n")).failure == UNFINISHED_THOUGHT


def test_thinking_answer_without_a_thought_is_cut_at_its_stops() -> None:
    got = ask(Scripted("7\n\nNext"))
    assert (got.answer, got.reasoning_tokens, got.usages[0].finish_reason) == ("7", 0, "stop")
    longer = ask(Scripted("It is seven\n\nNext"), 4)
    assert (longer.answer, longer.reasoning_tokens) == ("It is seven", 0)
    assert ask(Scripted("It is seven"), limit=5).usages[-1].finish_reason == AT_LIMIT


def test_thinking_answer_that_names_a_marker_is_no_thought() -> None:
    said = "The tag <think> opens it.\n\nNext"
    got = ask(Scripted(said))
    assert (got.answer, got.failure, got.reasoning_tokens) == ("The tag <think> opens it.", None, 0)
    assert ask(Scripted(said), 22).answer == "The tag <think> opens it.", "no end was written behind the limit"


def test_thinking_goes_on_with_what_the_task_began() -> None:
    open_one = ask(Scripted(" Is it 8?</think>7", "3+4=<think>\nHm."), begun="Hm.")
    assert (open_one.answer, open_one.reasoning_tokens, open_one.failure) == ("7", 17, None)
    assert ask(Scripted(" Is it 8?", "3+4=<think>\nHm."), begun="Hm.").failure == UNFINISHED_THOUGHT
    for prompt in ("3+4=The sum is", "3+4=<think>\n\n</think>\n\nThe sum is"):
        model = Scripted(" 7", prompt)
        assert (ask(model, 0, begun="The sum is").answer, len(model.asked)) == ("7", 1)
        assert ByteTokenizer().decode(model.asked[0].prompt) == prompt, "nothing is written behind the beginning"


# ---- which settings count


def words(model: dict[str, Any], task: dict[str, Any], *, generates: bool = True, template: bool = True) -> list[Any]:
    given = Thinking(**model) if model else None
    found = efforts_of(given, Prompting(**task), generates=generates, has_template=template)
    return [effort.words for effort in found]


def test_efforts_of_lists_make_a_cell_for_each_value() -> None:
    assert words({}, {}) == [None]
    assert words({"thinking_tokens": [0, 256]}, {}) == ["thinking_tokens=0", "thinking_tokens=256"]
    assert words({"reasoning_effort": ["low", "high"]}, {}) == ["effort=low", "effort=high"]
    assert words({"thinking": True}, {}) == ["thinking"]
    assert words({}, {"thinking_tokens": 64, "chat_template_args": {"enable_thinking": True}}) == [
        "enable_thinking=true, thinking_tokens=64"
    ]


def test_efforts_of_the_models_setting_wins() -> None:
    assert words({"thinking_tokens": 0}, {"thinking_tokens": [1, 2]}) == ["thinking_tokens=0"]


def test_efforts_of_choices_have_no_thought_and_prompts_without_template_no_variables() -> None:
    task = {"thinking_tokens": [0, 256], "chat_template_args": {"enable_thinking": False}}
    assert words({}, task, generates=False) == ["enable_thinking=false"]
    assert words({}, {"chat_template_args": {"enable_thinking": False}}, template=False) == [None]
