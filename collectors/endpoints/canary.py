"""Proves that an endpoint's log-probabilities are those of a prompt's own tokens.

Owns the prompts and the proof. Some servers take `echo` and return those of generated tokens: multiple choice then
comes out as chance.
"""

from __future__ import annotations

from typing import Any

from collectors.endpoints.client import Request
from collectors.endpoints.replies import BadReplyError, counts_of, prompt_logprobs

#: Log-probabilities of the same tokens that differ by no more than this are equal (other batches, half precision).
TOLERANCE = 0.05
_TEXTS = ("The quick brown fox jumps over the lazy dog.", "1 2 3 4 5 6 7 8 9", "import os; print(os.sep)")
#: Most tokens of a prompt.
_MOST = 8


def prompts(tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Three prompts, each with another one that differs in its last token."""
    tokens = [list(tokenizer.encode(text))[:_MOST] for text in _TEXTS]
    others = [*tokens[1:], tokens[0]]
    pairs = []
    for prompt, other in zip(tokens, others, strict=True):
        last = next(token for token in other if token != prompt[-1])
        pairs.append((prompt, [*prompt[:-1], last]))
    return pairs


def fault(prompt: list[int], one: Request, other: Request) -> str | None:
    """Why the replies about a prompt and its other are no proof; None: they are one."""
    if one.failure or other.failure:
        return one.message or other.message or "it refuses to"
    try:
        here, there = (prompt_logprobs(request.reply, len(prompt)) for request in (one, other))
    except BadReplyError as error:
        return str(error)
    stated = counts_of(one.reply.get("usage"), has_text=True).prompt
    if stated is not None and stated != len(prompt):
        return f"{stated} tokens counted for {len(prompt)}"
    for (mine, _), (theirs, _) in zip(here[1:-1], there[1:-1], strict=True):
        if abs((mine or 0.0) - (theirs or 0.0)) > TOLERANCE:
            return "the same beginning has two values"
    if here[-1][0] == there[-1][0]:
        return "another last token has the same value"
    return None
