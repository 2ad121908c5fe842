"""The tokens of one sample of Inspect that the judged model took for its answer, without those of judges and monitors.

Owns where a sample states them. Knows nothing of the rest of a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from collectors.importers.usage import Usage, difference

#: Types of spans whose calls judge an answer.
_JUDGING = ("scorer", "scorers", "monitor", "monitors")


def usage_of(sample: Mapping[str, Any], about: Mapping[str, Any]) -> Usage:
    """`sample`: one of a log. `about`: the log's `eval`.

    `model_usage` sums all calls of a model. The judged model may have judged itself, too, which is what graders do
    without a model of their own: those calls are events in the span of a scorer, or have a role.
    """
    model, usage = about.get("model"), sample.get("model_usage")
    counts = usage.get(model) if isinstance(usage, Mapping) else None
    if not isinstance(counts, Mapping):
        return Usage()
    events = [event for event in sample.get("events") or () if isinstance(event, Mapping)]
    if any(event.get("event") == "model" for event in events):
        others = list(_judging_calls(events, model))
    else:
        others = list(_roles(sample, about, model))
    return Usage.of(difference(counts, others) if others else counts)


def _judging_calls(events: list[Mapping[str, Any]], model: Any) -> Iterator[Any]:
    """Usage of the calls of `model` by scorers and monitors, and in any role."""
    spans: dict[Any, bool] = {}
    depth = 0
    for event in events:
        kind = event.get("event")
        is_judging = event.get("type") in _JUDGING
        if kind == "span_begin":
            spans[event.get("id")] = is_judging or spans.get(event.get("parent_id"), False)
        elif kind == "step" and is_judging:  # before 0.3.95 there were no spans
            depth += 1 if event.get("action") == "begin" else -1
        elif kind == "model" and event.get("model") == model and event.get("cache") != "read":
            output = event.get("output")
            if (depth > 0 or spans.get(event.get("span_id")) or event.get("role")) and isinstance(output, Mapping):
                yield output.get("usage")


def _roles(sample: Mapping[str, Any], about: Mapping[str, Any], model: Any) -> Iterator[Any]:
    """Usage of the roles that `model` has beside that of being judged."""
    roles, usage = about.get("model_roles") or {}, sample.get("role_usage") or {}
    for role, counts in usage.items():
        config = roles.get(role)
        named = {one.get("model") for one in (config if isinstance(config, list) else [config]) if one}
        if model in (named or {model}):
            yield counts
