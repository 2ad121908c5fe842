"""The engine seam: what answers token requests, and what it says about each answer.

Owns the request, answer and usage types. Knows nothing of tasks, items or storage. Engines take and return token ids;
tokenisation and judging belong to the harness. Every call names the model that it wants and every reply names the model
that answered, so that a restarted or swapped engine can never answer in another model's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from collectors.gpus import Placement
from schemas.failures import ConfigError, EngineError
from schemas.identity import digest


@dataclass(frozen=True)
class ModelRef:
    """One model at one pinned revision, and where this machine finds its files."""

    name: str
    source: str
    #: Commit sha of a hub repo, or the fingerprint of a folder's files.
    revision: str
    #: Local folder to load from; None until fetched.
    path: str | None
    dtype: str = "auto"
    quantization: str | None = None
    #: Longest context in tokens, question and answer together; None: the model's own.
    max_length: int | None = None
    trust_remote_code: bool = False
    #: Engine options of this model, laid over the run's.
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    #: JSON of the engine's settings that may change answers (Engine.overrides); None: none.
    overrides: str | None = None
    #: Engine.group, as far as the planning machine can tell: a hint for the order of work.
    group: str | None = field(default=None, compare=False)
    #: Whether the lake has the model's row in models/ already, from a catalog.
    has_facts: bool = field(default=False, compare=False)
    #: GPU memory that the config says it needs, GiB.
    memory_gib: float | None = field(default=None, compare=False)
    #: Where its engine runs, then where there is more memory (collectors.placement); empty: wherever there is room.
    placements: tuple[Placement, ...] = field(default=(), compare=False)

    @property
    def placement(self) -> Placement | None:
        return self.placements[0] if self.placements else None

    @property
    def key(self) -> str:
        """What tells loaded models apart: revision, dtype, quantization, and what else decides how they are loaded."""
        base = f"{self.revision}:{self.dtype}:{self.quantization}"
        special = [self.options, self.trust_remote_code, self.max_length, self.overrides]
        return f"{base}:{digest(special)}" if any(special) else base


@dataclass(frozen=True)
class ScoreRequest:
    """log P(continuation | context), in token ids; both hold at least one token."""

    context: list[int]
    continuation: list[int]


@dataclass(frozen=True)
class ChoiceRequest:
    """log P(token | context) of each of several next tokens: one pass over the context answers all of them."""

    context: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class GenerateRequest:
    """Text to generate after `prompt` (token ids), until a stop string, the end token or max_tokens."""

    prompt: list[int]
    max_tokens: int
    stop: list[str]
    #: 0 is greedy; other sampling settings by vLLM's names (top_p, top_k, …).
    temperature: float = 0.0
    seed: int | None = None
    params: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Usage:
    """What one request took, as the engine itself counted and timed it. None: the engine does not tell."""

    #: Tokens sent (context and continuation of a ScoreRequest, the context of a ChoiceRequest).
    prompt_tokens: int
    #: Tokens generated, with the one that completes a stop string.
    generated_tokens: int
    #: Prompt tokens read from the prefix cache.
    cached_tokens: int | None = None
    #: stop or length; None for scores.
    finish_reason: str | None = None
    #: Seconds on the engine's monotonic clock.
    scheduled: float | None = None
    first_token: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class Score:
    logprob: float
    greedy: bool
    usage: Usage
    #: What a first try took of which the engine could not use the answer and asked again; None: there was none.
    discarded: Usage | None = None


@dataclass(frozen=True)
class ChoiceScores:
    """Of each token of a ChoiceRequest, in its order."""

    logprobs: list[float]
    #: Whether no other token of the vocabulary is likelier.
    greedy: list[bool]
    #: One for each pass: an engine that cannot read so many tokens off one makes several.
    usages: list[Usage]
    #: Whether the engine did not answer it in one pass, and was asked token by token.
    asked_again: bool = False


@dataclass(frozen=True)
class Generation:
    text: str
    token_ids: list[int]
    usage: Usage


class Tokenizer(Protocol):
    """What the harness asks of a tokenizer: the part of transformers' PreTrainedTokenizerBase that it uses."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    def encode(self, text: str, **kwargs: Any) -> list[int]: ...
    def decode(self, token_ids: Any, **kwargs: Any) -> str: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


class Engine(Protocol):
    """Loads one model at a time and answers for it. Methods raise ModelError or EngineError."""

    #: The loaded model; None before the first load.
    model: ModelRef | None
    tokenizer: Tokenizer
    #: Longest context in tokens, prompt and answer together.
    max_length: int
    #: Longest window of a rolling log-likelihood, tokens (lm-eval's backends differ).
    rolling_length: int
    #: Name of the GPU that answers; None on CPUs and before the first load.
    gpu: str | None
    #: Whether the loaded model's weights took the place of another's in the live engine.
    swapped: bool

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings that it was made with and that may change what a model answers: part of a cell's identity."""

    @property
    def prefix_caching(self) -> bool | None:
        """Whether requests to the loaded model share the work on what they begin with; None: it does not tell."""

    def group(self, model: ModelRef) -> str | None:
        """Models of one group follow each other in a live engine at little cost; None: unknown, or in none."""

    def prefetch(self, model: ModelRef) -> None:
        """Makes the files of a fetched model ready to load, from another thread than the one that asks."""

    def smaller_batch(self, model: ModelRef) -> dict[str, Any] | None:
        """Options of `model` with which less is asked at once, for one that ran out of memory; None: there are none.

        None of them changes an answer. Nothing is loaded.
        """

    def load(self, model: ModelRef) -> str:
        """Loads `model` unless it is loaded already; returns the key of the model that now answers."""

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        """Answers in order, with the key of the model that answered. Raises EngineError when it is not `key`."""

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        """As score() for continuations of one token, each context taken in once. Raises EngineError alike."""

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        """Texts in order, with the key of the model that answered. Raises EngineError when it is not `key`."""

    def close(self) -> None:
        """Frees the model's memory; the engine can load again afterwards."""


#: Engine name -> "module:class". Modules are imported on first use: each brings gigabytes.
ENGINES = {
    "vllm": "collectors.engines.vllm:VllmEngine",
    "hf": "collectors.engines.hf:HfEngine",
    "stub": "collectors.engines.stub:StubEngine",
}


def make_engine(name: str, options: dict[str, Any] | None = None) -> Engine:
    """A new engine, nothing loaded. Raises ConfigError for an unknown name or option, or a library not installed."""
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    module, _, cls = ENGINES[name].partition(":")
    try:
        engine_class = getattr(importlib.import_module(module), cls)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"engine {name!r} needs the package {error.name!r}; install routerlake[cpu] or [gpu]"
        ) from error
    engine: Engine = engine_class(**(options or {}))
    return engine


def check_key(engine: Engine, key: str) -> None:
    """Raises EngineError when `engine` holds another model than `key` names."""
    loaded = engine.model.key if engine.model else "no model"
    if loaded != key:
        raise EngineError(f"asked for model {key} but the engine holds {loaded}", kind="wrong_model")
