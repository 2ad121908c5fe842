"""Reads question, choices and context from documents of many shapes, so that equal items of two sources can be joined.

Owns the keys of these texts in data sets. Knows nothing of who reads the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.identity import content_hash

#: Keys of a document's question; the first with a text counts.
QUESTION = (
    "question",
    "query",
    "problem",
    "question_stem",
    "goal",
    "sentence",
    "ctx",
    "instruction",
    "prompt",
    "input",
)
#: Keys of a text that the question refers to.
CONTEXT = ("passage", "context", "support", "story", "article")
#: Keys of the answers to choose from: a list of texts, or a mapping with a list `text`.
CHOICES = ("choices", "options", "endings", "answers")
#: Keys of documents with one key per choice.
CHOICE_KEYS = (("option1", "option2"), ("sol1", "sol2"), ("choice1", "choice2"), ("A", "B", "C", "D"))


def document_hash(doc: Any, choices: list[str] | None = None) -> str | None:
    """Returns schemas.identity.content_hash of a document; None without a question under a key of QUESTION.

    `choices` are its document_choices, for a caller who has them.
    """
    question = document_question(doc)
    if question is None:
        return None
    return content_hash(question, choices or document_choices(doc) or (), _text(doc, CONTEXT) or "")


def document_question(doc: Any) -> str | None:
    """Returns the text of a document's question; None without one under a key of QUESTION."""
    return _text(doc, QUESTION) if isinstance(doc, Mapping) else None


def document_choices(doc: Mapping[str, Any]) -> list[str] | None:
    """Returns the choices of a document; None without any."""
    for key in CHOICES:
        value = doc.get(key)
        if isinstance(value, Mapping):
            value = value.get("text")
        if isinstance(value, list) and len(value) > 1 and all(isinstance(choice, str) for choice in value):
            return list(value)
    for keys in CHOICE_KEYS:
        values = [doc.get(key) for key in keys]
        if all(isinstance(value, str) for value in values):
            return [str(value) for value in values]
    return None


def _text(doc: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = doc.get(key)
        if isinstance(value, Mapping) and isinstance(value.get("stem"), str):  # commonsense_qa, openbookqa
            value = value["stem"]
        if isinstance(value, str) and value.strip():
            return value
    return None
