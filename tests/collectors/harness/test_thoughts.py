"""Thoughts are no answers."""

from __future__ import annotations

import json

import pytest
from lm_eval.models.utils import postprocess_generated_text

from collectors.harness.thoughts import Markers, answer_of, ending_of, split

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


@pytest.mark.parametrize(
    ("prompt", "begun", "ending"),
    [
        ("user: 1+1=\nassistant: <think>\n", "", (True, False)),
        ("user: 1+1=\nassistant: <think>\n\n</think>\n\n", "", (False, True)),
        ("1+1=<think>2</think>2\n3+4=", "", (False, False)),
        ("user: what does the tag <think> mean?\nassistant:", "", (False, False)),
        ("user: 1+1=\nassistant: <think>\nLet me see.", "Let me see.", (True, False)),
        ("user: 1+1=\nassistant: <think>\n\n</think>\n\nThe sum is", "The sum is ", (False, True)),
        ("user: 1+1=\nassistant: <think>\nLet me see.", "<think>\nLet me see.", (True, False)),
        ("1+1=\n<think>Two.</think> The sum is", "<think>Two.</think> The sum is", (False, True)),
        ("user: what does <think> mean?\nassistant: It means", "It means", (False, False)),
    ],
)
def test_ending_of_looks_at_the_end_of_the_prompt(prompt: str, begun: str, ending: tuple[bool, bool]) -> None:
    assert ending_of(prompt, MARKERS, begun) == ending


def test_answer_of_reads_the_markers_of_the_cell() -> None:
    text = "[THINK]long[/THINK] 7"
    assert answer_of(text, json.dumps({"start": "[THINK]", "end": "[/THINK]"})) == "7"
    assert answer_of(text, None) == text
