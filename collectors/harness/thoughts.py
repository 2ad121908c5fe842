"""Splits a generated text into its thought and its answer.

Owns the rule, which collecting and judging again share. A stored response of a cell with markers begins with the start
marker if the model began a thought, even where the chat template had written that marker into the prompt.
"""

from __future__ import annotations

import json
from typing import NamedTuple


class Markers(NamedTuple):
    """The texts around a thought."""

    start: str
    end: str


class Split(NamedTuple):
    """A generated text in two."""

    #: With its markers; "" where the model did not think.
    thought: str
    #: What is judged; "" while the thought has not ended.
    answer: str
    #: Whether a thought was begun and its end marker never came.
    is_open: bool


def markers_of(thinking: str | None) -> Markers | None:
    """The markers of a cell, from its column `thinking`."""
    if thinking is None:
        return None
    settings = json.loads(thinking)
    return Markers(settings["start"], settings["end"])


class Ending(NamedTuple):
    """Where a prompt ends: inside a thought, behind one, or (neither) where one may begin."""

    is_open: bool
    is_closed: bool


def ending_of(prompt: str, markers: Markers, begun: str = "") -> Ending:
    """Looks at the end of a prompt alone, as a question may name a marker, too.

    `begun` is what the task wrote there as the beginning of the answer (gen_prefix), behind what the template wrote.
    """
    start, end = markers.start.strip(), markers.end.strip()
    head, written = prompt.rstrip(), begun.strip()
    if written and head.endswith(written):
        opened, closed = written.rfind(start), written.rfind(end)
        if opened != closed:  # one of the two stands there
            return Ending(opened > closed, closed > opened)
        head = head.removesuffix(written).rstrip()
    return Ending(head.endswith(start), head.endswith(end))


def begins_thought(text: str, markers: Markers) -> bool:
    """Whether a text or one of its lines begins with the start marker: elsewhere an answer names it."""
    return any(line.lstrip().startswith(markers.start.strip()) for line in text.splitlines())


def split(text: str, markers: Markers | None) -> Split:
    """The answer is what follows the last end marker, without the white space at its beginning, as in lm-eval.

    A thought without its end has no answer. lm-eval judges it as if it were the answer.
    """
    if markers is None:
        return Split("", text, False)
    thought, end, answer = text.rpartition(markers.end)
    if end:
        return Split(thought + end, answer.lstrip(), False)
    if begins_thought(text, markers):
        return Split(text, "", True)
    return Split("", text.lstrip(), False)


def answer_of(text: str, thinking: str | None) -> str:
    """The answer in a stored response. `thinking` is the column of its cell."""
    return split(text, markers_of(thinking)).answer
