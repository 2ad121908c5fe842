"""Packs Instances and their token ids into arrays, and restores them.

Owns the arrays: which parts of a request they hold, and their shapes. Knows nothing of where they are kept.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from lm_eval.api.instance import Instance

from collectors.harness.encoding import Encoded, Encoder
from collectors.harness.tasks import BoundTask

_KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")

Arrays = dict[str, np.ndarray[Any, Any]]


class Prepared(Protocol):
    """A task's requests with one tokenizer's ids."""

    def items(self, items: Sequence[int]) -> tuple[dict[int, list[Instance]], dict[int, list[Encoded]]]:
        """Returns, by item, the Instances of `items`, in ascending order, and the token ids of each Instance."""


def pack(task: BoundTask, items: list[list[Instance]]) -> Arrays | None:
    """Packs the texts of the Instances, equal ones once. Returns None if the texts alone would not restore an Instance.

    `starts` has the position of each item's first Instance, and the total at its end. `kind`, `idx`, `first` and
    `second` have one entry per Instance; the last two are numbers of texts, -1 for no text. The second text is the
    continuation, or the generation settings as JSON. `text` holds all texts in UTF-8, `text_ends` where each one ends.
    """
    texts: dict[str, int] = {}
    instances = [instance for group in items for instance in group]
    rows = []
    for instance in instances:
        row = _row(task, instance)
        if row is None:
            return None
        kind, first, second = row
        numbers = [-1 if text is None else texts.setdefault(text, len(texts)) for text in (first, second)]
        rows.append((kind, instance.idx, *numbers))
    table = np.array(rows, dtype=np.int32).reshape(len(rows), 4)
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    arrays: Arrays = {
        "starts": np.cumsum([0, *(len(group) for group in items)], dtype=np.int64),
        "text": np.frombuffer(b"".join(raw), np.uint8),
        "text_ends": np.cumsum([len(text) for text in raw], dtype=np.int64),
    }
    return arrays | {name: table[:, i].copy() for i, name in enumerate(("kind", "idx", "first", "second"))}


def _row(task: BoundTask, instance: Instance) -> tuple[int, str, str | None] | None:
    """Returns kind and texts of an Instance, or None if they, its item and its task would not restore it."""
    arguments, kind = instance.arguments, instance.request_type
    if kind not in _KINDS or not isinstance(arguments, tuple) or not isinstance(instance.doc_id, int):
        return None
    if len(arguments) != (1 if kind.endswith("rolling") else 2) or not isinstance(arguments[0], str):
        return None
    own = (instance.task_name, instance.repeats) == (task.task.config.task, task.task.config.repeats)
    if not own or not _equal(instance.doc, task.docs[instance.doc_id]):
        return None
    if kind == "loglikelihood_rolling":
        return _KINDS.index(kind), arguments[0], None
    second = arguments[1]
    if kind == "loglikelihood":
        return (_KINDS.index(kind), arguments[0], second) if isinstance(second, str) else None
    try:
        text = json.dumps(second)
    except (TypeError, ValueError):
        return None
    return (_KINDS.index(kind), arguments[0], text) if repr(json.loads(text)) == repr(second) else None


def _equal(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except ValueError:  # numpy refuses the truth value of compared arrays
        return False


class Texts:
    """Restores Instances from the arrays of pack()."""

    def __init__(self, task: BoundTask, arrays: Arrays) -> None:
        self.task = task
        self.arrays = arrays
        self.starts = arrays["starts"].tolist()

    def instances(self, items: Sequence[int]) -> dict[int, list[Instance]]:
        config, docs = self.task.task.config, self.task.docs
        rows = {item: self._rows(item) for item in items}
        texts = self._read({number for of_item in rows.values() for row in of_item for number in row[2:]})
        made: dict[int, list[Instance]] = {}
        for item, of_item in rows.items():
            metadata = (config.task, item, config.repeats)
            made[item] = [
                Instance(_KINDS[kind], docs[item], _arguments(kind, texts[one], texts[two]), idx, metadata)
                for kind, idx, one, two in of_item
            ]
        return made

    def _rows(self, item: int) -> list[tuple[int, int, int, int]]:
        begin, end = self.starts[item], self.starts[item + 1]
        columns = [self.arrays[name][begin:end].tolist() for name in ("kind", "idx", "first", "second")]
        return list(zip(*columns, strict=True))

    def _read(self, numbers: set[int]) -> dict[int, str]:
        ends, blob = self.arrays["text_ends"], self.arrays["text"]
        texts = {-1: ""}
        for number in numbers - {-1}:
            begin = ends[number - 1] if number else 0
            texts[number] = blob[begin : ends[number]].tobytes().decode("utf-8", "surrogatepass")
        return texts


def _arguments(kind: int, first: str, second: str) -> tuple[Any, ...]:
    if _KINDS[kind] == "loglikelihood_rolling":
        return (first,)
    return (first, second if _KINDS[kind] == "loglikelihood" else json.loads(second))


def pack_tokens(encoded: Sequence[Encoded]) -> Arrays:
    """Packs token ids. Equal contexts in a row are kept once; `context` has the number of each Instance's context."""
    contexts: list[list[int]] = []
    numbers = []
    for one in encoded:
        if not contexts or contexts[-1] != one.context:
            contexts.append(one.context)
        numbers.append(len(contexts) - 1)
    arrays = {"context": np.array(numbers, np.int64)}
    for name, lists in (("contexts", contexts), ("continuations", [one.continuation for one in encoded])):
        arrays[name] = np.fromiter(itertools.chain.from_iterable(lists), np.int32)
        arrays[f"{name}_starts"] = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return arrays


class Kept:
    """Prepared requests, restored from arrays."""

    def __init__(self, task: BoundTask, texts: Arrays, tokens: Arrays) -> None:
        self._texts = Texts(task, texts)
        self._tokens = tokens

    def items(self, items: Sequence[int]) -> tuple[dict[int, list[Instance]], dict[int, list[Encoded]]]:
        instances = self._texts.instances(items)
        starts = self._texts.starts
        at = [number for item in items for number in range(starts[item], starts[item + 1])]
        numbers = self._tokens["context"][np.asarray(at, np.int64)].tolist()
        contexts = {number: self._ids("contexts", number) for number in set(numbers)}
        encoded = [
            Encoded(contexts[number], self._ids("continuations", i)) for i, number in zip(at, numbers, strict=True)
        ]
        parts = iter(encoded)
        return instances, {item: [next(parts) for _ in group] for item, group in instances.items()}

    def _ids(self, name: str, number: int) -> list[int]:
        starts = self._tokens[f"{name}_starts"]
        ids: list[int] = self._tokens[name][starts[number] : starts[number + 1]].tolist()
        return ids


class Built:
    """Prepared requests that exist in this process only."""

    def __init__(self, instances: list[list[Instance]], encoder: Encoder) -> None:
        self._instances = instances
        self._encoder = encoder

    def items(self, items: Sequence[int]) -> tuple[dict[int, list[Instance]], dict[int, list[Encoded]]]:
        chosen = {item: self._instances[item] for item in items}
        encoded = iter(self._encoder.encode([i for group in chosen.values() for i in group]))
        return chosen, {item: [next(encoded) for _ in group] for item, group in chosen.items()}
