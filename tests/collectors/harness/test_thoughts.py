"""Thoughts are no answers."""

from __future__ import annotations

import json

import pytest
from lm_eval.models.utils import postprocess_generated_text

from collectors.harness.thoughts import Markers, answer_of, opens_thought, split

MARKERS = Markers("<think>", "</think>")


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nIs it 8?\n\nNo.\n</think>\n\n7",
        "Is it 8?</think>7",
        "<think>\n\n</think>\n\n7",
        "7 with no thought",
        "\n\n7",
        "<think>a</think>b</think>c",
    ],
)
def test_split_whole_answer_equals_lm_evals(text: str) -> None:
    assert split(text, MARKERS).answer == postprocess_generated_text(text, None, "</think>")
    assert not split(text, MARKERS).is_open


def test_split_open_thought_is_no_answer() -> None:
    assert split("<think>\nIs it 8?", MARKERS) == ("<think>\nIs it 8?", "", True)
    assert split("<think>\nIs it 8?", None).answer == "<think>\nIs it 8?"


def test_opens_thought_looks_at_the_end_of_the_prompt() -> None:
    assert opens_thought("user: 1+1=\nassistant: <think>\n", MARKERS)
    assert not opens_thought("1+1=<think>2</think>2\n3+4=", MARKERS)
    assert not opens_thought("3+4=", MARKERS)
    assert not opens_thought("user: what does the tag <think> mean?\nassistant:", MARKERS)


def test_answer_of_reads_the_markers_of_the_cell() -> None:
    text = "[THINK]long[/THINK] 7"
    assert answer_of(text, json.dumps({"start": "[THINK]", "end": "[/THINK]"})) == "7"
    assert answer_of(text, None) == text
