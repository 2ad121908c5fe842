"""An engine without a model, for load tests and for trying out a pipeline: answers at once, fails on request.

Owns a deterministic answer for every request (a hash of the model and the tokens, so that a rerun, another batch
or another machine gives the same one and another model gives another), a byte-level tokenizer, settable latency, and
the faults that a fleet has to survive. Knows nothing of tasks; its answers are right only by chance.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import signal
import threading
import time
from array import array
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from collectors.engines import (
    ChoiceRequest,
    ChoiceScores,
    GenerateRequest,
    Generation,
    ModelRef,
    Score,
    ScoreRequest,
    Usage,
    check_key,
)
from collectors.engines.base import BaseEngine, EngineOptions
from collectors.engines.memory import DEFAULT_SEQUENCES, smaller
from schemas.failures import OUT_OF_MEMORY, EngineError, ModelError


class StubOptions(EngineOptions):
    """Every `*_after` counts the requests that this engine has answered since it was made."""

    #: Longest context in byte tokens; few-shot prompts are 4 to 5 times longer in bytes than in usual tokens.
    max_length: int = 65536
    #: Seconds slept per load.
    load_s: float = 0.0
    #: Seconds slept per request, before its first token.
    latency_s: float = 0.0
    #: Tokens, prompt and answer together, that take one more second; None: no time.
    tokens_per_s: float | None = None
    #: Name patterns of models that do not load, or a map from pattern to the kind of the ModelError.
    fail_load: list[str] | dict[str, str] = Field(default_factory=list)
    #: Requests until an EngineError, until SIGKILL of the own process, until a request that is never answered.
    fail_after: int | None = None
    crash_after: int | None = None
    hang_after: int | None = None
    #: As vLLM's. Nothing comes of them but that more sequences than `memory_seqs` (None: any number) are out of memory.
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_seqs: int | None = None
    #: GPUs on fewer of which a model that is put somewhere is out of memory.
    needs_gpus: float | None = None
    #: A file that the first of these three faults creates; while it exists none happens again.
    fault_once: str | None = None
    #: A file that gets a byte for each request that was answered: what is asked twice is seen there.
    count_in: str | None = None
    #: One of this many score requests gets a NaN, one of this many texts is empty (chosen by the answer's hash).
    nan_every: int | None = None
    empty_every: int | None = None


class ByteTokenizer:
    """UTF-8 bytes as token ids, then bos and eos. Any text comes back as it was; no special token is ever added."""

    bos_token_id: int | None = 256
    eos_token_id: int | None = 257
    chat_template: Any = "[role] content"
    specials: ClassVar[dict[int, str]] = {256: "<|bos|>", 257: "<|eos|>"}

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Options of transformers' tokenizers (add_special_tokens, …) are accepted and change nothing."""
        return list(text.encode("utf-8", "replace"))

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Text of one id or a sequence of ids; special tokens by name, or left out with skip_special_tokens=True."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        names = {} if kwargs.get("skip_special_tokens") else self.specials
        raw = b"".join(bytes([i]) if i < 256 else names.get(i, "").encode() for i in ids)
        return raw.decode("utf-8", "replace")

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """One "[role] content" line per message; with add_generation_prompt an open "[assistant]" at the end."""
        lines = [f"[{message['role']}] {message['content']}" for message in conversation]
        text = "\n".join(lines) + ("\n[assistant] " if kwargs.get("add_generation_prompt") else "")
        return self.encode(text) if kwargs.get("tokenize", True) else text


class StubEngine(BaseEngine[StubOptions]):
    """See StubOptions for what it takes. Needs no files: any model loads."""

    NAME = "stub"
    OPTIONS = StubOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._answered = 0
        self._who = ""
        self.tokenizer = ByteTokenizer()
        self.max_length = self.rolling_length = self._options.max_length

    @property
    def overrides(self) -> dict[str, Any]:
        """What takes answers away."""
        given = self._options.model_dump(include={"max_length", "nan_every", "empty_every"})
        return {name: value for name, value in given.items() if value != StubOptions.model_fields[name].default}

    def smaller_batch(self, model: ModelRef) -> dict[str, Any] | None:
        options = self._read({**self._given, **model.options}, model)
        return smaller(options.max_num_seqs, options.max_num_batched_tokens)

    def _open(self, model: ModelRef) -> None:
        options = self._options
        self._who = f"{model.revision}:{model.dtype}:{model.quantization}"
        kinds = options.fail_load if isinstance(options.fail_load, dict) else dict.fromkeys(options.fail_load, "")
        for pattern, kind in kinds.items():
            if fnmatch.fnmatchcase(model.name, pattern):
                raise ModelError(
                    f"model {model.name!r} was told not to load (fail_load: {pattern!r})", kind=kind or None
                )
        if model.placement and model.placement.gpus < (options.needs_gpus or 0):
            raise EngineError(f"the stub engine needs {options.needs_gpus:g} GPUs (needs_gpus)", OUT_OF_MEMORY)
        _sleep(options.load_s)
        self.max_length = self.rolling_length = min(model.max_length or options.max_length, options.max_length)

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        check_key(self, key)
        return key, [self._score(request) for request in requests]

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        check_key(self, key)
        return key, [self._choose(request) for request in requests]

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        check_key(self, key)
        return key, [self._generate(request) for request in requests]

    def _score(self, request: ScoreRequest) -> Score:
        logprob, greedy = self._drawn(request.context, request.continuation)
        return Score(logprob, greedy, self._use(len(request.context) + len(request.continuation), 1, None))

    def _choose(self, request: ChoiceRequest) -> ChoiceScores:
        drawn = [self._drawn(request.context, [token]) for token in request.tokens]
        usage = self._use(len(request.context), 1, None)
        return ChoiceScores([logprob for logprob, _ in drawn], [greedy for _, greedy in drawn], [usage])

    def _drawn(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        drawn = _draw(self._who, context, continuation)
        # Up to 8 nats a token, about what an untrained model gives to English text.
        logprob = -len(continuation) * 8.0 * (drawn % 10**9) / 10**9
        return float("nan") if _chosen(drawn, self._options.nan_every) else logprob, drawn % 4 == 0

    def _generate(self, request: GenerateRequest) -> Generation:
        drawn = _draw(self._who, request.prompt, [])
        text = f" Counted to {drawn % 97}.\nThe answer is {drawn % 13}.\n#### {drawn % 13}\n\nQ: What is next?\n\n"
        if _chosen(drawn, self._options.empty_every):
            text = ""
        text, ids, reason = _cut(text, request)
        return Generation(text, ids, self._use(len(request.prompt), len(ids), reason))

    def _use(self, prompt: int, generated: int, reason: str | None) -> Usage:
        """Takes the time and has the faults that the options ask for."""
        self._fault()
        self._answered += 1
        if self._options.count_in:
            _append(self._options.count_in)
        scheduled = time.monotonic()
        _sleep(self._options.latency_s)
        first = time.monotonic()
        if self._options.tokens_per_s:
            _sleep((prompt + generated) / self._options.tokens_per_s)
        return Usage(prompt, generated, 0, reason, scheduled, first, time.monotonic())

    def _fault(self) -> None:
        options = self._options
        sequences = options.max_num_seqs or DEFAULT_SEQUENCES
        if options.memory_seqs is not None and sequences > options.memory_seqs:
            self.close()
            message = f"the stub engine has no memory for {sequences} sequences (memory_seqs)"
            raise EngineError(message, OUT_OF_MEMORY)
        due = [
            after is not None and self._answered >= after
            for after in (options.fail_after, options.crash_after, options.hang_after)
        ]
        if not any(due) or (options.fault_once and not _create(options.fault_once)):
            return
        fail, crash, _ = due
        if crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if fail:
            answered, self._answered = self._answered, 0
            self.close()
            raise EngineError(f"the stub engine was told to fail after {answered} requests (fail_after)")
        threading.Event().wait()


def _draw(model: str, *parts: list[int]) -> int:
    """64 bits from the model and token ids."""
    hashed = hashlib.blake2b(model.encode(), digest_size=8)
    for part in parts:
        hashed.update(b"|" + array("I", part).tobytes())
    return int.from_bytes(hashed.digest(), "big")


def _chosen(drawn: int, every: int | None) -> bool:
    return every is not None and (drawn >> 32) % every == 0


def _cut(text: str, request: GenerateRequest) -> tuple[str, list[int], str]:
    """Text, token ids and why they end: at the first stop string, at max_tokens, or by an end token."""
    ends = [(at, at + len(stop)) for stop in request.stop if stop and (at := text.find(stop)) >= 0]
    start, end = min(ends, default=(len(text), len(text)))
    ids = list(text[:end].encode()) + ([] if ends else [257])
    if len(ids) > request.max_tokens:
        ids = ids[: request.max_tokens]
        return bytes(ids).decode("utf-8", "replace"), ids, "length"
    return text[:start], ids, "stop"


def _create(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _append(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, b".")  # of several processes, none lost
    finally:
        os.close(descriptor)


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
