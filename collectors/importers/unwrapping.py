"""What a known format adds to a question, taken off, so that one question of several sources has one content hash.

Owns the wrappers of lighteval's and HELM's prompts. Nothing is guessed: a text of another shape stays as it is, and an
option that is cut wrongly joins nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from string import ascii_uppercase

#: lighteval's and the leaderboard's instruction before a question with letters (lighteval/tasks/default_prompts.py).
_INSTRUCTION = re.compile(r"The following are multiple choice questions \(with answers\) about [^\n]*\.\n+")
#: A list of one text, as Python writes it.
_LIST = re.compile(r"""\[\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*,?\s*\]""", re.DOTALL)


def asked_of(
    query: str, choices: Sequence[str] | None, task: str, *, are_options: bool = True
) -> tuple[str, list[str] | None]:
    """The question and choices in a prompt of lighteval, without instruction, `Question:`, letters and `Answer:`.

    Not `are_options`: the choices are right answers, unless the prompt lists them as options.
    """
    choices = [choice.strip() for choice in choices or ()]
    if len(choices) < 2:  # the answer itself
        choices = []
    text = _INSTRUCTION.sub("", query, count=1) if query.startswith("The following are") else query
    text = re.sub(r"\n?Answer: ?$", "", text)
    listed = _listed_options(text, len(choices))
    if listed and (choices == listed[1] or choices[: len(listed[1])] == list(ascii_uppercase[: len(listed[1])])):
        text, choices = listed
    elif not are_options:
        choices = []
    text = text.removeprefix("Question: ")
    if text == query and "winogrande" in task and len(choices) == 2:
        return _sentence(query, choices)
    return text, choices or None


def _listed_options(text: str, most: int) -> tuple[str, list[str]] | None:
    """A text that ends with lines `A. …`, `B. …` as the text before them and their content."""
    starts: list[int] = []
    place = text.rfind("\nA. ")
    while place >= 0 and len(starts) < most:
        starts.append(place)
        place = text.find(f"\n{ascii_uppercase[len(starts)]}. ", place + 1) if len(starts) < 26 else -1
    if len(starts) < 2:
        return None
    ends = [*starts[1:], len(text)]
    return text[: starts[0]], [text[start + 4 : end].strip() for start, end in zip(starts, ends, strict=True)]


def _sentence(query: str, choices: list[str]) -> tuple[str, list[str]]:
    """lighteval's winogrande: the sentence up to the gap, and each option with the sentence's end."""
    first, second = (choice.split(" ") for choice in choices)
    many = 0
    while many < min(len(first), len(second)) - 1 and first[-1 - many] == second[-1 - many]:
        many += 1
    if not many:
        return query, choices
    end = " ".join(first[-many:])
    gap = "_ " if end[0].isalnum() else "_"
    return f"{query}{gap}{end}", [" ".join(words[:-many]) for words in (first, second)]


def passage_and_question(text: str) -> tuple[str, str]:
    """HELM's PassageQuestionInput (scenarios/scenario.py), apart; another text is a question alone."""
    passage, mark, question = text.rpartition("\nQuestion: ")
    return (passage, question) if mark else ("", text)


def text_of_list(text: str | None) -> str | None:
    """RouterBench's prompts: the text of a Python list of one text, as that text. Another text stays as it is."""
    match = _LIST.fullmatch(text) if text and text.startswith("[") else None
    if not match:
        return text
    if "\\" not in match[1]:
        return match[1][1:-1]
    try:
        return str(ast.literal_eval(match[1]))  # one literal, in which nothing can nest
    except (ValueError, SyntaxError):
        return text


def list_of_text(text: str | None) -> str | None:
    """The opposite of text_of_list. A text that is written as a list stays as it is."""
    return text if text is None or (text.startswith("[") and text.endswith("]")) else str([text])
