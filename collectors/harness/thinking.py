"""Asks a model that thinks: first for its thought, then for its answer.

Owns the two steps. The stops of a task act in the second one alone, and a thought that has used up its tokens is closed
by writing its end. So every engine that goes on with any prompt can be asked. Knows nothing of tasks and items.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.models.utils import postprocess_generated_text

from collectors.engines import GenerateRequest, Generation, Usage
from collectors.harness.thoughts import Markers, begins_thought, ending_of, markers_of, split
from schemas.failures import PROMPT_TOO_LONG, UNFINISHED_THOUGHT
from schemas.verdicts import AT_LIMIT

#: So often an answer may stop at white space before it begins; then it is asked without such stops, and cut at them.
MOST_BLANK = 2


@dataclasses.dataclass
class Thought:
    """What a model generated for one request, thought and answer."""

    #: As it is stored (collectors.harness.thoughts).
    text: str
    #: What is judged.
    answer: str
    usages: list[Usage]
    #: The prompt, with an empty thought if one was written there.
    prompt_tokens: int
    #: Thought and answer; None: not counted.
    completion_tokens: int | None
    reasoning_tokens: int | None
    failure: str | None


@dataclasses.dataclass
class _Going:
    """A request under way."""

    request: GenerateRequest
    #: Tokens of the context that the prompt leaves free.
    room: int
    #: Whether the prompt ends inside a thought, or behind one.
    is_open: bool
    is_closed: bool
    #: Text and tokens so far.
    text: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    usages: list[Usage] = dataclasses.field(default_factory=list)
    reasoning: int | None = 0
    #: Most tokens of the step that is next; None: it is done.
    left: int | None = None
    #: Answers that stopped before they began.
    blank: int = 0
    #: Tokens that were written behind a thought that had used up its own.
    written: int = 0


class Thinker:
    """Asks by `generate`, which answers requests in order. One per cell."""

    def __init__(
        self,
        thinking: str,
        tokens: int | None,
        tokenizer: Any,
        generate: Callable[[list[GenerateRequest]], list[Generation]],
    ) -> None:
        """`thinking` is the cell's column, `tokens` its limit of a thought."""
        markers = markers_of(thinking)
        assert markers is not None
        self.markers: Markers = markers
        self.tokens = tokens
        self.closing: str = json.loads(thinking).get("closing") or f"\n{markers.end}\n\n"
        self._tokenizer, self._generate = tokenizer, generate

    def ask(
        self, requests: Sequence[GenerateRequest], rooms: Sequence[int], begun: Sequence[str] | None = None
    ) -> list[Thought]:
        """Asks all requests. `rooms` are the tokens that their prompts leave free, at least 1 each.

        `begun` are the beginnings of answers at the ends of the prompts (gen_prefix); None: there is none.
        """
        begun = begun or [""] * len(requests)
        going = [self._begun(*one) for one in zip(requests, rooms, begun, strict=True)]
        self._think([one for one in going if not one.is_closed])
        answering = [one for one in going if one.left is not None and one.left > 0]
        while answering:
            answering = self._answer(answering)
        return [self._ended(one) for one in going]

    def _begun(self, request: GenerateRequest, room: int, begun: str) -> _Going:
        prompt = self._decode(request.prompt)
        is_open, is_closed = ending_of(prompt, self.markers, begun)
        # Behind the beginning of an answer no empty thought can be written any more.
        one = _Going(request, room, is_open, is_closed or (self.tokens == 0 and bool(begun) and not is_open))
        if self.tokens == 0 and not one.is_closed:
            beginning = "" if is_open else self.markers.start
            line = "" if is_open and prompt.endswith("\n") else "\n"
            written = self._encode(beginning + line + self.closing)
            one.request = dataclasses.replace(request, prompt=request.prompt + written)
            one.room = room - len(written)
            one.is_open, one.is_closed = False, True
        if one.is_closed:
            one.left = min(request.max_tokens, one.room)
        return one

    # ---- the thought

    def _think(self, going: list[_Going]) -> None:
        for one, got in zip(going, self._generate([self._first(one) for one in going]) if going else [], strict=True):
            self._thought(one, got)

    def _first(self, one: _Going) -> GenerateRequest:
        """The request for a thought. Of the task's stops the end token alone counts, as in lm-eval."""
        most = one.request.max_tokens if self.tokens is None else self.tokens
        eos = self._tokenizer.eos_token_id
        end = "" if eos is None else self._decode(eos)
        stops = [self.markers.end, *(stop for stop in one.request.stop if stop == end)]
        return dataclasses.replace(one.request, max_tokens=max(1, min(most, one.room)), stop=stops, needs_ids=True)

    def _thought(self, one: _Going, got: Generation) -> None:
        """Takes the answer to the first request, and decides about a second."""
        whole = self._decode(got.token_ids)
        has_ended = self.markers.end in whole
        one.text, one.tokens = whole if has_ended else got.text, list(got.token_ids)
        one.usages = [got.usage]
        used = got.usage.generated_tokens or len(got.token_ids)
        at_limit = got.usage.finish_reason == AT_LIMIT
        begun = one.text.lstrip()
        has_begun = begins_thought(begun, self.markers) or bool(begun and self.markers.start.startswith(begun))
        thinks = has_ended or one.is_open or has_begun
        one.reasoning = used if thinks else 0
        if thinks and not has_ended and at_limit and self.tokens is not None:
            closing = self._encode(self.closing)
            one.text, one.tokens, used = one.text + self.closing, one.tokens + closing, used + len(closing)
            one.reasoning, one.written, has_ended = used, len(closing), True
        stopped = not thinks and any(stop in one.text for stop in one.request.stop)
        if stopped or not (has_ended or (at_limit and not thinks)):
            reason = "stop" if stopped else got.usage.finish_reason
            one.usages = [dataclasses.replace(got.usage, finish_reason=reason)]
            return
        room = one.room - used
        if self.tokens is None or not thinks:
            one.left = min(one.request.max_tokens - used, room)
        else:
            one.left = min(one.request.max_tokens, room)
        one.usages = [dataclasses.replace(got.usage, finish_reason=None if one.left > 0 else AT_LIMIT)]

    # ---- the answer

    def _answer(self, going: list[_Going]) -> list[_Going]:
        """Takes the answers, and returns the requests that have none yet.

        White space between thought and answer is neither, so a stop that it completed does not count: as in lm-eval.
        """
        again = []
        for one, got in zip(going, self._generate([self._second(one) for one in going]), strict=True):
            usage = dataclasses.replace(got.usage, continues=bool(one.usages))
            if self._is_blank(one, got):
                one.text, one.tokens = one.text + self._decode(got.token_ids), one.tokens + got.token_ids
                one.left, one.blank = (one.left or 0) - len(got.token_ids), one.blank + 1
                again += [one] if one.left > 0 else []
                usage = dataclasses.replace(usage, finish_reason=None if one.left > 0 else AT_LIMIT)
            else:
                one.text += got.text
            one.usages.append(usage)
        return again

    def _second(self, one: _Going) -> GenerateRequest:
        stops = [stop for stop in one.request.stop if stop.strip() or one.blank < MOST_BLANK]
        prompt = one.request.prompt + one.tokens
        return dataclasses.replace(one.request, prompt=prompt, max_tokens=one.left or 1, stop=stops, needs_ids=True)

    def _is_blank(self, one: _Going, got: Generation) -> bool:
        """Whether an answer stopped before it began."""
        so_far = split(one.text + got.text, self.markers).answer
        whole = self._decode(got.token_ids)
        return (
            one.blank < MOST_BLANK
            and not so_far.strip()
            and any(stop in whole for stop in one.request.stop if not stop.strip())
        )

    def _ended(self, one: _Going) -> Thought:
        text = self.markers.start + one.text if one.is_open else one.text
        parts = split(text, self.markers)
        answer = postprocess_generated_text(parts.answer, one.request.stop, None)
        generated = [usage.generated_tokens for usage in one.usages]
        completion = None if None in generated else sum(count or 0 for count in generated) + one.written
        failure = UNFINISHED_THOUGHT if parts.is_open else None if one.usages else PROMPT_TOO_LONG
        stated = one.usages[0].prompt_tokens if one.usages else None
        prompt = len(one.request.prompt) if stated is None else stated
        return Thought(text, answer, one.usages, prompt, completion, one.reasoning, failure)

    def _decode(self, tokens: Any) -> str:
        return str(self._tokenizer.decode(tokens))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))
