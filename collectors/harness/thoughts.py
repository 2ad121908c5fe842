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


def opens_thought(prompt: str, markers: Markers) -> bool:
    """Whether a prompt ends with the start marker, as some chat templates write it. A question may name it, too."""
    return prompt.rstrip().endswith(markers.start.strip())


def split(text: str, markers: Markers | None) -> Split:
    """The answer is what follows the last end marker, without the white space at its beginning, as in lm-eval.

    A thought begins at the beginning of the text or of a line: elsewhere an answer names the marker. One without its
    end has no answer. lm-eval judges such a thought as if it were the answer.
    """
    if markers is None:
        return Split("", text, False)
    thought, end, answer = text.rpartition(markers.end)
    if end:
        return Split(thought + end, answer.lstrip(), False)
    if any(line.lstrip().startswith(markers.start.strip()) for line in text.splitlines()):
        return Split(text, "", True)
    return Split("", text.lstrip(), False)


def answer_of(text: str, thinking: str | None) -> str:
    """The answer in a stored response. `thinking` is the column of its cell."""
    return split(text, markers_of(thinking)).answer
