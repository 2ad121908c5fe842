"""Rows of lm-eval's samples files, one at a time: fields, documents and answers.

Owns how a row is decoded and how its fields become columns. Does not know the run that wrote it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from collectors.importers.json_values import decoded, is_whole, members
from collectors.importers.sources import as_json
from schemas.content import document_choices, document_hash

#: Columns of RAW_VERDICT that a row's answers and its counts fill.
ANSWERS = ("responses", "filtered", "loglikelihoods", "is_greedy")
USAGE = ("prompt_tokens", "completion_tokens", "latency_s")
NO_ANSWERS = (None,) * len(ANSWERS)

#: Fields that stay undecoded until one is asked for: most of a row is prompts that nothing needs.
_LARGE = ("doc", "arguments")
#: Fields that nothing needs.
_UNUSED = ("prompt_hash", "target_hash")


class Fields:
    """Decodes the rows of one file: most have the same fields, and a type made of those is decoded fastest."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        #: Names of the fields that are decoded.
        self.small: tuple[str, ...] = ()
        #: Their places in a row.
        self.places: tuple[int, ...] = ()
        self.decoder: msgspec.json.Decoder[Any] | None = None
        #: A row as json.dumps writes it: what stands around its values, and room for each.
        self.pieces: list[bytes] = []

    def of(self, data: bytes) -> dict[str, Any]:
        """The fields of a row; those of _LARGE may be msgspec.Raw. Raises BadFile."""
        if self.decoder:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if values := self._usual(self.decoder, data):
                    return values
        values = fields_of(data)
        if self.decoder is None:
            self.names = tuple(values)
            self.small = tuple(name for name in values if name not in (*_LARGE, *_UNUSED))
            self.places = tuple(self.names.index(name) for name in self.small)
            self.decoder = msgspec.json.Decoder(_struct_of(self.names))
            for name in self.names:
                self.pieces += [b", " + msgspec.json.encode(name) + b": ", b""]
            self.pieces = [b"{" + self.pieces[0][2:], *self.pieces[1:], b"}\n"]
        return values

    def _usual(self, decoder: msgspec.json.Decoder[Any], data: bytes) -> dict[str, Any] | None:
        """The fields of a row that has those of the first row, each once; None for another one."""
        if not data.isascii():
            data.decode()  # values that are passed over, too
        texts = msgspec.structs.astuple(decoder.decode(data))
        self.pieces[1::2] = texts
        # A row written as json.dumps does is made of nothing else. To see that takes a tenth of the time of `is_whole`.
        if b"".join(self.pieces) != data and not is_whole(data, self.names, texts):
            return None
        values = b"[" + b",".join([texts[place] for place in self.places]) + b"]"
        small = decoded(values) if b"{" in values else _VALUE.decode(values)
        row = dict(zip(self.names, texts, strict=True))
        row.update(zip(self.small, small, strict=True))
        return row


def _struct_of(names: Sequence[str]) -> Any:
    """The type of rows with these fields. A row that lacks one, or has another, is an error of decoding."""
    fields = [(f"f{n}", msgspec.Raw) for n in range(len(names))]
    renamed = dict(zip((name for name, _ in fields), names, strict=True))
    return msgspec.defstruct("Row", fields, rename=renamed, forbid_unknown_fields=True, gc=False)


def fields_of(data: bytes) -> dict[str, Any]:
    """Every field of a row. Raises BadFile."""
    return {name: text if name in _LARGE else value_of(text) for name, text in members(data).items()}


_VALUE = msgspec.json.Decoder()


def value_of(field: Any) -> Any:
    """A field, decoded. Raises BadFile."""
    return decoded(bytes(field)) if type(field) is msgspec.Raw else field


def json_of(field: Any) -> bytes:
    return bytes(field) if type(field) is msgspec.Raw else as_json(field).encode()


class _Documents:
    """Columns of items by the JSON of their documents: files of one task hold the same documents."""

    def __init__(self, limit: int) -> None:
        """Keeps the columns of up to `limit` bytes of JSON."""
        self.limit, self.bytes = limit, 0
        self.columns_by_text: dict[bytes, _OfDocument] = {}

    def columns(self, text: bytes) -> _OfDocument:
        if text not in self.columns_by_text:
            if self.bytes + len(text) > self.limit:
                self.columns_by_text.clear()
                self.bytes = 0
            self.columns_by_text[text] = _read_document(text)
            self.bytes += len(text)
        return self.columns_by_text[text]


documents = _Documents(64 * 2**20)


#: content_hash, choices, subject and doc of an item.
_OfDocument = tuple[str | None, list[str] | None, str | None, str | None]


def _read_document(text: bytes) -> _OfDocument:
    doc = decoded(text)
    if not isinstance(doc, dict):
        return None, None, None, as_json(doc)
    choices = document_choices(doc)
    subject = next((str(doc[k]) for k in ("subject", "category", "topic") if doc.get(k)), None)
    return document_hash(doc, choices), choices, subject, as_json(doc)


def hash_of(doc: Any) -> str:
    """As lm-eval hashes a document since 0.4.3 (lm_eval.evaluator.evaluate)."""
    return hashlib.sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode()).hexdigest()


def first_prompt(arguments: Any) -> str | None:
    if isinstance(arguments, dict):
        first = arguments.get("gen_args_0")
        prompt = first.get("arg_0") if isinstance(first, dict) else None
    else:
        first = arguments[0] if isinstance(arguments, list) and arguments else None
        prompt = first[0] if isinstance(first, list) and first else None
    return prompt if isinstance(prompt, str) else None


def seconds_of(values: dict[str, Any]) -> float | None:
    """The latency, which one fork states."""
    latency = values.get("latency_ms")
    return latency / 1000 if isinstance(latency, int | float) and not isinstance(latency, bool) else None


def answers_of(values: dict[str, Any], output_type: str | None) -> tuple[Any, ...]:
    """RECORD's columns of ANSWERS: texts, or log-likelihoods and whether each was the greedy continuation."""
    requests = values.get("resps")
    if output_type != "generate_until" and (usual := _usual_choices(requests)):
        return usual
    answers: list[list[Any]] = [one for one in requests if isinstance(one, list)] if isinstance(requests, list) else []
    if output_type == "generate_until" or (
        answers and all(isinstance(x, str) and number_in(x) is None for a in answers for x in a)
    ):
        texts = [text for answer in answers for text in answer if isinstance(text, str)]
        filtered = values.get("filtered_resps")
        return texts or None, as_json(filtered) if filtered is not None else None, None, None
    pairs = [answer[0] if answer and isinstance(answer[0], list) else answer for answer in answers]
    scores = [number_in(pair[0]) if pair else None for pair in pairs]
    greedy = [_FLAGS.get(str(pair[1])) if len(pair) > 1 else None for pair in pairs]
    known = scores if scores and None not in scores else None
    return None, None, known, greedy if greedy and None not in greedy else None


def _usual_choices(requests: Any) -> tuple[Any, ...] | None:
    """`answers_of` for one pair of texts a choice, as lm-eval writes them; None for all else. A third of its time."""
    try:
        scores, greedy = [], []
        for [pair] in requests:
            score, flag = pair
            if type(pair) is not list:
                return None
            scores.append(number := float(score))
            greedy.append(_FLAGS[flag])
            if not -math.inf < number < math.inf:
                return None
    except (TypeError, ValueError, KeyError):
        return None
    return (None, None, scores, greedy) if scores else None


def number_in(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


#: How lm-eval writes whether a continuation was the greedy one.
_FLAGS = {"True": True, "False": False}
