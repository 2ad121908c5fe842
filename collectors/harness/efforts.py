"""How a cell's model is asked to think: the settings of its model and task together.

Owns which settings win, and their words in names of candidates. Knows nothing of engines and templates.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collectors.specs import Thinking

#: The markers of a model with thinking_tokens and no others.
DEFAULT_MARKERS = '{"end": "</think>", "start": "<think>"}'
_NAMES = ("chat_template_args", "thinking", "thinking_tokens", "reasoning_effort")


@dataclass(frozen=True)
class Effort:
    """One way of asking. Its attributes are columns of RUN_CELL, null where nothing is set."""

    #: JSON of the chat template's variables.
    chat_template_args: str | None = None
    #: JSON of ThinkingSpec.
    thinking: str | None = None
    #: Most tokens of a thought.
    thinking_tokens: int | None = None
    #: What an endpoint is asked for.
    reasoning_effort: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Those that are set. They are part of the cell's identity."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def words(self) -> str | None:
        """The settings by which a candidate differs from others of its model; None: nothing is set."""
        parts = [f"{name}={_word(value)}" for name, value in json.loads(self.chat_template_args or "{}").items()]
        if self.thinking_tokens is not None:
            parts.append(f"thinking_tokens={self.thinking_tokens}")
        if self.reasoning_effort is not None:
            parts.append(f"effort={self.reasoning_effort}")
        return ", ".join(parts) or ("thinking" if self.thinking else None)


NO_EFFORT = Effort()


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def efforts_of(model: Thinking | None, task: Thinking, *, generates: bool, has_template: bool) -> Iterator[Effort]:
    """The ways to ask a task of a model. A setting of the model wins over the task's, which has the run's.

    Thoughts are for tasks that generate, and the variables of a template for those that use one.
    """
    values = {name: _first(getattr(model, name, None), getattr(task, name)) for name in _NAMES}
    args = _json(values["chat_template_args"]) if has_template else None
    if not generates:
        yield Effort(args) if args else NO_EFFORT
        return
    limits, efforts = values["thinking_tokens"] or [None], values["reasoning_effort"] or [None]
    markers = values["thinking"]
    thinking = DEFAULT_MARKERS if markers is None and limits != [None] else None
    if markers is not None:
        thinking = _json(markers.model_dump(exclude_none=True))
    for tokens, effort in itertools.product(limits, efforts):
        one = Effort(args, thinking, tokens, effort)
        yield NO_EFFORT if one == NO_EFFORT else one  # a plan of a million cells holds one


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _json(value: dict[str, Any] | None) -> str | None:
    return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else None
