"""A source's counts of one answer's tokens, as columns of a record.

Owns the rule for sources that count cached input or reasoning outside of their counts of input and output: the total
that they state decides; for single answers, and as SQL for tables. Knows nothing of formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collectors.importers.sources import Sink
from collectors.importers.suspicions import ODD_TOTAL
from collectors.importers.values import count_of

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
    def of(cls, counts: Any, names: Sequence[str] = COUNTS, *, rest_is_output: bool = False) -> Usage:
        """Reads `names`, in the order of COUNTS. A count below 0 is unknown.

        Input stands without the tokens that a cache gave and took (Anthropic), or with them (OpenAI); output stands
        without reasoning (Gemini), or with it. Whichever adds up to the total is right. Without a total only counts
        that have no such parts are clear. `rest_is_output`: the source counts no parts, and what its total has beside
        the input is output and reasoning.
        """
        if not isinstance(counts, Mapping):
            return cls()
        given, output, total, read, write, thought = (count_of(counts.get(name)) for name in names)
        if not any((given, output, total, read, write)):
            return cls()  # a call without usage is written as zeros
        if rest_is_output and total is not None and given is not None:
            is_odd = not given or total < given + (output or 0)
            return cls(is_odd=True) if is_odd else cls(given, total - given)
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


def counted(rows: str, *, rest_is_output: bool = False) -> str:
    """An SQL relation of `rows` whose counts are those of Usage, and `is_odd`.

    `rows` has the columns prompt_tokens, completion_tokens, cached_tokens and total, null where a table has none. Here
    `prompt_tokens` are with the cached ones, unless only the sum of all is the total. Counts below 0 stay as they are.
    """
    both = "prompt_tokens + completion_tokens"
    if rest_is_output:
        unused = "coalesce(prompt_tokens, 0) = 0 AND coalesce(completion_tokens, 0) = 0 AND coalesce(total, 0) = 0"
        is_odd = f"NOT ({unused}) AND NOT coalesce(total >= {both} AND prompt_tokens > 0, total IS NULL)"
        prompt, cached = f"CASE WHEN NOT ({unused}) THEN prompt_tokens END", "cached_tokens"
        completion = f"CASE WHEN NOT ({unused}) THEN coalesce(total - prompt_tokens, completion_tokens) END"
    else:
        is_beside = f"coalesce({both} + cached_tokens = total AND cached_tokens > 0, false)"
        is_odd = f"NOT {is_beside} AND coalesce(cached_tokens > prompt_tokens OR {both} <> nullif(total, 0), false)"
        is_odd = f"coalesce(least(prompt_tokens, completion_tokens, cached_tokens) >= 0, false) AND {is_odd}"
        prompt = f"CASE WHEN {is_beside} THEN prompt_tokens + cached_tokens ELSE prompt_tokens END"
        completion, cached = "completion_tokens", "cached_tokens"
    columns = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}
    counts = ", ".join(f"CASE WHEN NOT ({is_odd}) THEN {sql} END AS {name}" for name, sql in columns.items())
    return f"(SELECT * REPLACE ({counts}), {is_odd} AS is_odd FROM {rows})"


def _sum(*counts: int | None) -> int:
    return sum(count or 0 for count in counts)


def difference(counts: Any, others: list[Any]) -> dict[str, int | None]:
    """`counts` without those of `others`."""
    mine, parts = (counts if isinstance(counts, Mapping) else {}), [o for o in others if isinstance(o, Mapping)]
    left = {}
    for name in COUNTS:
        count, less = count_of(mine.get(name)), sum(count_of(part.get(name)) or 0 for part in parts)
        left[name] = count - less if count is not None else None
    return left
