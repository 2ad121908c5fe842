"""Reads the replies of OpenAI's protocol: text, thought, usage, and who answered.

Owns the two forms of a reply (chat, completions) and what of a usage can be true. Knows nothing of sending.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

#: Names that hosts give to the text of a thought.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
FILTERED = "content_filter"
#: Tokens that a host may add to a prompt unseen (its own instructions), and to an answer (end markers).
HIDDEN, SLACK = 2**15, 16
#: What a host adds to the name of a model for one of its dated or numbered snapshots.
_SNAPSHOT = re.compile(r"[-@:](?:\d{3,4}|\d{6}|\d{8}|\d{4}-\d\d-\d\d)")


class BadReplyError(ValueError):
    """A reply without an answer in it: cut, empty or of another kind. The request is sent again."""


@dataclass(frozen=True)
class Counts:
    """Tokens by the host's own count. None: not stated, or it cannot be true."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    #: Why stated counts were left out; None: they were not.
    impossible: str | None = None


@dataclass(frozen=True)
class Bounds:
    """The most tokens that a request can have taken."""

    prompt: int
    #: Without those of a thought, which some hosts do not count against the limit.
    completion: int

    @classmethod
    def of(cls, prompt_bytes: int, limit: int) -> Bounds:
        """Of a prompt of so many bytes, as a token is at least a byte, and an answer of at most `limit` tokens."""
        return cls(prompt_bytes + HIDDEN, limit + SLACK)


@dataclass(frozen=True)
class Parsed:
    """One reply."""

    text: str
    #: None: none was stated.
    thought: str | None
    #: stop, length, content_filter, or a word of the host's own.
    finish: str | None
    counts: Counts
    #: The tokens of the answer; None: not asked for, or not stated.
    token_ids: list[int] | None = None


def parse(reply: Any, bounds: Bounds | None = None, *, chat: bool) -> Parsed:
    """Raises BadReplyError for a reply without an answer."""
    if not isinstance(reply, dict):
        raise BadReplyError("the reply is no JSON object")
    choices = reply.get("choices")
    listed = choices if isinstance(choices, list) else []
    choice = next((one for one in listed if isinstance(one, dict) and one.get("index", 0) == 0), None)
    if choice is None:
        raise BadReplyError("the reply has no choices")
    message = choice.get("message") if chat else choice
    if not isinstance(message, dict):
        raise BadReplyError("the reply has no message")
    text = message.get("content") if chat else message.get("text")
    if text is None:
        text = message.get("refusal")
    thought = next((message[name] for name in _THOUGHTS if isinstance(message.get(name), str)), None)
    finish = choice.get("finish_reason")
    if text is None and thought is None and finish not in (FILTERED, "length", "stop"):
        raise BadReplyError("the reply has no text")
    if not isinstance(finish, str):
        raise BadReplyError("the reply ends without a finish_reason")
    if not isinstance(text, str | None):
        raise BadReplyError("the reply's text is no text")
    ids = choice.get("token_ids")
    whole = _whole(text or "")
    counts = counts_of(reply.get("usage"), bounds, has_text=bool(whole or thought))
    is_ids = isinstance(ids, list) and all(type(one) is int for one in ids)
    return Parsed(
        whole, None if thought is None else _whole(thought), _whole(finish)[:100], counts, ids if is_ids else None
    )


def _whole(text: str) -> str:
    """The text with U+FFFD for halves of characters, which JSON can write and no table can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def answered_by(reply: dict[str, Any]) -> dict[str, str]:
    """Who answered: model, system_fingerprint, provider, as far as the reply names them."""
    names = ("model", "system_fingerprint", "provider")
    return {name: _whole(reply[name][:200]) for name in names if isinstance(reply.get(name), str) and reply[name]}


def counts_of(usage: Any, bounds: Bounds | None = None, *, has_text: bool) -> Counts:
    """The counts of a usage; none of them where they contradict each other, the request or an answer with text."""
    if not isinstance(usage, dict):
        return Counts()
    of_prompt, of_completion = _part(usage, "prompt_tokens_details"), _part(usage, "completion_tokens_details")
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    cached, written = _count(of_prompt, "cached_tokens"), _count(of_prompt, "cache_write_tokens")
    cached = _count(usage, "cache_read_input_tokens") if cached is None else cached
    written = _count(usage, "cache_creation_input_tokens") if written is None else written
    reasoning, total = _count(of_completion, "reasoning_tokens"), _count(usage, "total_tokens")
    wrong = None
    if prompt == 0 or (completion == 0 and has_text):
        wrong = "0 tokens for a text"
    elif (prompt is None) != (completion is None):
        wrong = "one of two counts"
    elif (cached or 0) + (written or 0) > (prompt or 0):
        wrong = f"{cached or 0} cached and {written or 0} written of {prompt} prompt tokens"
    elif (reasoning or 0) > (completion or 0):
        wrong = f"{reasoning} tokens of a thought in {completion}"
    elif bounds and (prompt or 0) > bounds.prompt:
        wrong = f"{prompt} tokens of a prompt of {bounds.prompt - HIDDEN} bytes"
    elif bounds and (completion or 0) - (reasoning or 0) > bounds.completion:
        wrong = f"{(completion or 0) - (reasoning or 0)} tokens of an answer of at most {bounds.completion - SLACK}"
    elif total and prompt is not None and completion is not None and total < prompt + completion:
        wrong = f"{prompt} and {completion} tokens are {total}"
    return Counts(impossible=wrong) if wrong else Counts(prompt, completion, cached, written, reasoning)


def _part(usage: dict[str, Any], name: str) -> dict[str, Any]:
    part = usage.get(name)
    return part if isinstance(part, dict) else {}


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if type(value) is int and 0 <= value < 2**31 else None


def serves(asked: str, answered: str | None) -> bool:
    """Whether a reply's model is the one asked for: the same, or a dated snapshot of it."""
    if answered is None:
        return True
    one, other = asked.lower(), answered.lower()
    if "/" not in one or "/" not in other:  # some hosts leave out the organisation, and none changes it
        one, other = one.rsplit("/", 1)[-1], other.rsplit("/", 1)[-1]
    return one == other or (other.startswith(one) and bool(_SNAPSHOT.fullmatch(other.removeprefix(one))))


def prompt_logprobs(reply: Any, tokens: int) -> list[tuple[float | None, bool]]:
    """For each of `tokens` prompt tokens its log-probability (null for the first) and whether it was the likeliest.

    Raises BadReplyError where the reply has not one for each: servers that ignore `echo` return those of generated
    tokens alone.
    """
    try:
        logprobs = reply["choices"][0]["logprobs"]
        values, tops = logprobs["token_logprobs"], logprobs["top_logprobs"]
    except (KeyError, IndexError, TypeError) as error:
        raise BadReplyError("the reply has no log-probabilities") from error
    if not isinstance(values, list) or not isinstance(tops, list) or len(values) < tokens or len(tops) < tokens:
        count = len(values) if isinstance(values, list) else 0
        raise BadReplyError(f"the reply has {count} log-probabilities for {tokens} tokens of the prompt")
    if values[0] is not None:
        raise BadReplyError("the first token of the prompt has a log-probability, though nothing stands before it")
    found: list[tuple[float | None, bool]] = [(None, False)]
    for value, top in zip(values[1:tokens], tops[1:tokens], strict=True):
        if not isinstance(top, dict) or not top:
            raise BadReplyError("a log-probability of the prompt is missing")
        own, best = _logprob(value), max(map(_logprob, top.values()))
        found.append((own, own >= best))
    return found


def _logprob(value: Any) -> float:
    """Raises BadReplyError unless it can be the logarithm of a probability. NaN passes: it is an item's outcome."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value > 1e-3:
        raise BadReplyError("a log-probability of the prompt is missing or above 0")
    return -math.inf if value < -1e300 else float(value)
