"""A source's counts of one answer's tokens, as columns of a record.

Owns the rule for sources that count cached input or reasoning outside of their counts of input and output: the total
that they state decides. Knows nothing of formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collectors.importers.sources import Sink
from collectors.importers.suspicions import ODD_TOTAL
from collectors.importers.values import whole

#: Inspect's names, which Every Eval Ever has, too.
COUNTS = (
    *("input_tokens", "output_tokens", "total_tokens"),
    *("input_tokens_cache_read", "input_tokens_cache_write", "reasoning_tokens"),
)


@dataclass(frozen=True)
class Usage:
    """RECORD's columns, all None where they are unknown. `is_odd`: the counts do not add up to the total."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    is_odd: bool = False

    @classmethod
    def of(cls, counts: Any, names: Sequence[str] = COUNTS) -> Usage:
        """Reads `names`, in the order of COUNTS.

        Input stands without the tokens that a cache gave and took (Anthropic), or with them (OpenAI); output stands
        without reasoning (Gemini), or with it. Whichever adds up to the total is right. Without a total only counts
        that have no such parts are clear.
        """
        if not isinstance(counts, Mapping):
            return cls()
        given, output, total, read, write, thought = (whole(counts.get(name)) for name in names)
        if not any((given, output, total, read, write)):
            return cls()  # a call without usage is written as zeros
        if given is None or output is None:
            prompt = None if read or write else given
            return cls(prompt, None if thought else output, None if prompt is None else read)
        pairs = {(p, c) for p in (given, _sum(given, read, write)) for c in (output, _sum(output, thought))}
        pairs = {(p, c) for p, c in pairs if p >= (read or 0) and (not total or p + c == total)}
        if len(pairs) != 1:
            return cls(is_odd=True)
        [(prompt, completion)] = pairs
        return cls(prompt, completion, read)

    def columns(self) -> dict[str, int | None]:
        names = ("prompt_tokens", "completion_tokens", "cached_tokens")
        return {name: getattr(self, name) for name in names}

    def suspect(self, staging: Sink, number: int, run: str, model: str, task: str) -> None:
        if self.is_odd:
            staging.suspect(file=number, run=run, model=model, task=task, kind=ODD_TOTAL)


def _sum(*counts: int | None) -> int:
    return sum(count or 0 for count in counts)


def difference(counts: Any, others: list[Any]) -> dict[str, int | None]:
    """`counts` without those of `others`."""
    mine, parts = (counts if isinstance(counts, Mapping) else {}), [o for o in others if isinstance(o, Mapping)]
    left = {}
    for name in COUNTS:
        count, less = whole(mine.get(name)), sum(whole(part.get(name)) or 0 for part in parts)
        left[name] = count - less if count is not None else None
    return left
