"""Reads the replies of OpenAI's protocol: text, thought, usage, and who answered.

Owns the two forms of a reply (chat, completions) and what of a usage can be true. Knows nothing of sending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Names that hosts give to the text of a thought.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
FILTERED = "content_filter"


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
class Parsed:
    """One reply."""

    text: str
    #: None: none was stated.
    thought: str | None
    #: stop, length, content_filter, or a word of the host's own.
    finish: str | None
    counts: Counts
    #: Who answered: model, system_fingerprint, provider.
    answered: dict[str, str]
    #: The tokens of the answer; None: not asked for, or not stated.
    token_ids: list[int] | None = None


def parse(reply: Any, *, chat: bool) -> Parsed:
    """Raises BadReplyError for a reply without an answer."""
    if not isinstance(reply, dict):
        raise BadReplyError("the reply is no JSON object")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadReplyError("the reply has no choices")
    choice = choices[0]
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
    if finish is None:
        raise BadReplyError("the reply ends without a finish_reason")
    if not isinstance(text, str | None):
        raise BadReplyError("the reply's text is no text")
    ids = choice.get("token_ids")
    whole = text or ""
    counts = counts_of(reply.get("usage"), has_text=bool(whole or thought))
    is_ids = isinstance(ids, list) and all(isinstance(one, int) for one in ids)
    return Parsed(whole, thought, str(finish), counts, answered_by(reply), ids if is_ids else None)


def answered_by(reply: dict[str, Any]) -> dict[str, str]:
    names = ("model", "system_fingerprint", "provider")
    return {name: str(reply[name])[:200] for name in names if isinstance(reply.get(name), str) and reply[name]}


def counts_of(usage: Any, *, has_text: bool) -> Counts:
    """The counts of a usage. Those that contradict each other, or an answer that has text, are left out whole."""
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
    one, other = one.rsplit("/", 1)[-1], other.rsplit("/", 1)[-1]
    rest = other.removeprefix(one)
    return one == other or (other.startswith(one) and rest[0] in "-@:" and rest[1:2].isdecimal())


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
        if not isinstance(value, int | float) or not isinstance(top, dict) or not top:
            raise BadReplyError("a log-probability of the prompt is missing")
        found.append((float(value), float(value) >= max(float(one) for one in top.values())))
    return found
