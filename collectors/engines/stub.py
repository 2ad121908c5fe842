"""An engine without a model, for load tests and for trying out a pipeline. It answers at once and fails on request.

Each answer is drawn from a hash of the model, the tokens and, where it is sampled, the seed: a rerun, another batch or
another machine gives the same one, another model a different one. Owns a byte-level tokenizer, a latency that can be
set, and the faults that a fleet has to survive. Knows nothing of tasks; its answers are right only by chance.
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
from typing import TYPE_CHECKING, Any, ClassVar

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
from schemas.identity import digest

if TYPE_CHECKING:
    from collectors.specs import ModelSpec


class StubOptions(EngineOptions):
    """Each `*_after` counts the requests that this engine has answered since it was made."""

    #: Longest context in tokens of one byte; few-shot prompts are 4 to 5 times longer in bytes than in usual tokens.
    max_length: int = 65536
    #: Seconds slept per load.
    load_s: float = 0.0
    #: Seconds slept per request, before its first token.
    latency_s: float = 0.0
    #: Tokens per second, prompt and answer together, slept after the first token; None: no sleep.
    tokens_per_s: float | None = None
    #: Name patterns of models that do not load, or a map from pattern to the kind of the ModelError.
    fail_load: list[str] | dict[str, str] = Field(default_factory=list)
    #: Requests until an EngineError, until the process kills itself, until a request that is never answered.
    fail_after: int | None = None
    crash_after: int | None = None
    hang_after: int | None = None
    #: As in vLLM, without any effect but one: more sequences than `memory_seqs` (None: any number) run out of memory.
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_seqs: int | None = None
    #: A model that was placed on fewer GPUs runs out of memory.
    needs_gpus: float | None = None
    #: A file that the first fail, crash or hang creates; while it exists none happens again.
    fault_once: str | None = None
    #: A file that gets one byte per answered request, which shows whether anything is asked twice.
    count_in: str | None = None
    #: One in this many score requests gets a NaN, one in this many texts is empty; the answer's hash chooses them.
    nan_every: int | None = None
    empty_every: int | None = None


class ByteTokenizer:
    """Takes UTF-8 bytes as token ids, and adds no special token. Any text comes back unchanged."""

    bos_token_id: int | None = 256
    eos_token_id: int | None = 257
    chat_template: Any = "[role] content"
    specials: ClassVar[dict[int, str]] = {256: "<|bos|>", 257: "<|eos|>"}

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Accepts the options of transformers' tokenizers (add_special_tokens, …) and ignores them."""
        return list(text.encode("utf-8", "replace"))

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Returns the text of one id or of several, with special tokens by name unless skip_special_tokens=True."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        names = {} if kwargs.get("skip_special_tokens") else self.specials
        raw = b"".join(bytes([i]) if i < 256 else names.get(i, "").encode() for i in ids)
        return raw.decode("utf-8", "replace")

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Writes a "[role] content" line per message; add_generation_prompt adds an open "[assistant]" line."""
        lines = [f"[{message['role']}] {message['content']}" for message in conversation]
        text = "\n".join(lines) + ("\n[assistant] " if kwargs.get("add_generation_prompt") else "")
        return self.encode(text) if kwargs.get("tokenize", True) else text


class StubEngine(BaseEngine[StubOptions]):
    """Takes the options of StubOptions. Needs no files, so any model loads."""

    NAME = "stub"
    OPTIONS = StubOptions

    needs_files = False
    characters_per_token = 1.0  # its tokens are bytes

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._answered = 0
        self._who = ""
        self.tokenizer = ByteTokenizer()
        self.max_length = self.rolling_length = self._options.max_length
        self.score_length = self.max_length - 1

    @classmethod
    def pin(cls, spec: ModelSpec, dtype: str, max_length: int | None) -> ModelRef:
        """Makes up a revision from the source.

        The dtype begins with "stub-". Every view shows it, and the oracle compares within it: so made-up answers are
        seen to be made up. The run's max_length does not count, because it is in other tokens than bytes.
        """
        dtype = spec.dtype or dtype
        return ModelRef(
            name=spec.label,
            source=spec.place,
            written=spec.source,
            revision=f"stub-{digest(spec.place)}",
            path=None,
            dtype=f"stub-{dtype}",
            quantization=spec.quantization,
            max_length=spec.max_length,
            options=spec.engine,
            has_files=False,
            memory_dtype=dtype,
        )

    @property
    def overrides(self) -> dict[str, Any]:
        """The options that take answers away."""
        options = self._options.model_dump(include={"max_length", "nan_every", "empty_every"})
        return {name: value for name, value in options.items() if value != StubOptions.model_fields[name].default}

    def smaller_batch(self, model: ModelRef) -> dict[str, Any] | None:
        options = self._read({**self._given, **model.options}, model)
        return smaller(options.max_num_seqs, options.max_num_batched_tokens)

    def _open(self, model: ModelRef) -> None:
        options = self._options
        self._who = f"{model.revision}:{model.dtype}:{model.quantization}"
        kinds = options.fail_load if isinstance(options.fail_load, dict) else dict.fromkeys(options.fail_load, "")
        for pattern, kind in kinds.items():
            if fnmatch.fnmatchcase(model.name, pattern):
                raise ModelError(f"model {model.name!r} does not load (fail_load: {pattern!r})", kind=kind or None)
        if model.placement and model.placement.gpus < (options.needs_gpus or 0):
            raise EngineError(f"the stub engine needs {options.needs_gpus:g} GPUs (needs_gpus)", OUT_OF_MEMORY)
        _sleep(options.load_s)
        self.max_length = self.rolling_length = min(model.longest or options.max_length, options.max_length)
        self.score_length = self.max_length - 1

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
        # Up to 8 nats a token, about as many as an untrained model gives English text.
        logprob = -len(continuation) * 8.0 * (drawn % 10**9) / 10**9
        return float("nan") if _chosen(drawn, self._options.nan_every) else logprob, drawn % 4 == 0

    def _generate(self, request: GenerateRequest) -> Generation:
        sampled = [request.seed % 2**32] if request.temperature and request.seed is not None else []
        drawn = _draw(self._who, request.prompt, sampled)
        text = f" Counted to {drawn % 97}.\nThe answer is {drawn % 13}.\n#### {drawn % 13}\n\nQ: What is next?\n\n"
        if _chosen(drawn, self._options.empty_every):
            text = ""
        text, ids, reason = _cut(text, request)
        return Generation(text, ids, self._use(len(request.prompt), len(ids), reason))

    def _use(self, prompt: int, generated: int, reason: str | None) -> Usage:
        """Spends the time and raises the faults that the options ask for."""
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
            raise EngineError(f"the stub engine fails after {answered} requests (fail_after)")
        threading.Event().wait()


def _draw(model: str, *parts: list[int]) -> int:
    """Hashes the model and token ids to a number of 64 bits."""
    hashed = hashlib.blake2b(model.encode(), digest_size=8)
    for part in parts:
        hashed.update(b"|" + array("I", part).tobytes())
    return int.from_bytes(hashed.digest(), "big")


def _chosen(drawn: int, every: int | None) -> bool:
    return every is not None and (drawn >> 32) % every == 0


def _cut(text: str, request: GenerateRequest) -> tuple[str, list[int], str]:
    """Ends a text at the first stop string, at max_tokens or with an end token. Returns text, token ids and reason."""
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
        os.write(descriptor, b".")  # appended in one step, so several processes can share the file
    finally:
        os.close(descriptor)


def _sleep(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)
