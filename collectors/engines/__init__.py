"""The engine seam: a protocol for engines that answer token requests.

Owns the types of requests, answers and usage. Engines take and return token ids; the harness tokenises and judges.
Every call names the model that it wants and every reply names the model that answered, so that a restarted or swapped
engine can never answer in another model's name. Knows nothing of tasks, items or storage.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from collectors.engines.gpus import Placement
from schemas.failures import ConfigError, EngineError
from schemas.identity import digest

if TYPE_CHECKING:
    from collectors.specs import EndpointSpec, ModelSpec, Thinking

#: Kinds of request that an engine may answer, by lm-eval's names. score() and choose() answer the first, score() the
#: second, generate() the third.
KINDS = frozenset({"loglikelihood", "loglikelihood_rolling", "generate_until"})


@dataclass(frozen=True)
class ModelRef:
    """One model at one pinned revision, with the place of its files on this machine."""

    name: str
    #: A hub repo, folder or URI, to be read.
    source: str
    #: Commit sha of a hub repo, or the fingerprint of a folder's files.
    revision: str
    #: Local folder with its files; None until they are fetched.
    path: str | None
    dtype: str = "auto"
    quantization: str | None = None
    #: Longest context in tokens, question and answer together; None: the model's own.
    max_length: int | None = None
    #: Context that the planned tasks need beyond max_length, where no config sets one; None: max_length suffices.
    context: int | None = field(default=None, compare=False)
    trust_remote_code: bool = False
    #: Engine options of this model, laid over the run's.
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    #: The engine's settings that may change answers (Engine.overrides), as JSON; None: it has none.
    overrides: str | None = None
    #: Engine.group as the planning machine computes it: a hint for the order of work.
    group: str | None = field(default=None, compare=False)
    #: Whether a folder, a store or the hub holds its files. Without them the engine made up the revision (Engine.pin).
    has_files: bool = field(default=True, compare=False)
    #: The dtype in which its GPU memory is counted; None: `dtype`.
    memory_dtype: str | None = field(default=None, compare=False)
    #: Whether a catalog put the model's row into the lake's models/ already.
    has_row: bool = field(default=False, compare=False)
    #: GPU memory that the config gives it, GiB; None: worked out from its files.
    memory_gib: float | None = field(default=None, compare=False)
    #: The GPUs of its engine first, then places with more memory (collectors.models.placement); empty: any free place.
    placements: tuple[Placement, ...] = field(default=(), compare=False)
    #: The source as the config has it, with its $NAME; None: as `source`.
    written: str | None = field(default=None, compare=False)
    #: Name of its engine; None: the run's.
    engine: str | None = field(default=None, compare=False)
    #: The server that answers for it; None: an engine loads it.
    endpoint: EndpointSpec | None = field(default=None, compare=False)
    #: How the model is asked to think, where its entry in the config says so.
    thinking: Thinking | None = field(default=None, compare=False)

    @property
    def named_source(self) -> str:
        """The source to store and to show."""
        return self.written or self.source

    @property
    def placement(self) -> Placement | None:
        return self.placements[0] if self.placements else None

    @property
    def longest(self) -> int | None:
        """The context to load it with, tokens; None: its own. Its own is also the limit."""
        return self.context or self.max_length

    @property
    def key(self) -> str:
        """Identity of a loaded model: revision, dtype, quantization and the other settings that decide how it loads."""
        base = f"{self.revision}:{self.dtype}:{self.quantization}"
        if not self.has_files:  # an engine may give all its models one revision
            base += f":{self.source}"
        special = [self.options, self.trust_remote_code, self.longest, self.overrides]
        return f"{base}:{digest(special)}" if any(special) else base


@dataclass(frozen=True)
class ScoreRequest:
    """Asks for log P(continuation | context), in token ids; both hold at least one token."""

    context: list[int]
    continuation: list[int]
    #: Cell and generation that ask, for an engine that keeps paid answers.
    owner: str = ""


@dataclass(frozen=True)
class ChoiceRequest:
    """Asks for log P(token | context) of several next tokens. One pass over the context answers all of them."""

    context: list[int]
    tokens: list[int]
    owner: str = ""


@dataclass(frozen=True)
class GenerateRequest:
    """Asks for text after `prompt` (token ids), up to a stop string, the end token or max_tokens."""

    prompt: list[int]
    max_tokens: int
    stop: list[str]
    #: 0 decodes greedily.
    temperature: float = 0.0
    seed: int | None = None
    #: Other sampling settings by vLLM's names (top_p, top_k, …).
    params: dict[str, Any] = field(default_factory=dict, hash=False)
    #: How to think, for an engine that does so by itself: columns of RUN_CELL. max_tokens holds for the thought, too.
    thinking: str | None = None
    thinking_tokens: int | None = None
    reasoning_effort: str | None = None
    #: Whether the answer's tokens are needed, beside its text.
    needs_ids: bool = False
    #: As of ScoreRequest.
    owner: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens and times of one request, as the engine counted and timed them. None: the engine does not report it."""

    #: Tokens sent: context and continuation of a ScoreRequest, the context of a ChoiceRequest.
    prompt_tokens: int | None
    #: Tokens generated, including those of a stop string.
    generated_tokens: int | None
    #: Prompt tokens read from the prefix cache; they are part of prompt_tokens.
    cached_tokens: int | None = None
    #: "stop" or "length"; None for scores.
    finish_reason: str | None = None
    #: Start of work, first token and end, in seconds on the engine's monotonic clock.
    scheduled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    #: The part of generated_tokens that is a thought.
    reasoning_tokens: int | None = None
    #: Prompt tokens that a host wrote into its cache; they are part of prompt_tokens.
    cache_write_tokens: int | None = None
    #: Whether the request goes on with an answer that another began, so that its prompt is that one's and its answer.
    continues: bool = False

    @property
    def tokens(self) -> int | None:
        """All that were read or generated; None: unknown."""
        counts = self.prompt_tokens, self.generated_tokens
        return None if counts[0] is None or counts[1] is None else counts[0] + counts[1]


@dataclass(frozen=True)
class Score:
    """The answer to a ScoreRequest."""

    #: Natural logarithm, summed over the continuation's tokens.
    logprob: float
    #: Whether each token of the continuation was the likeliest.
    greedy: bool
    usage: Usage
    #: Usage of a first answer that the engine could not use; None: there was none.
    discarded: Usage | None = None
    #: Failure kind of an item whose request alone has no answer; None: answered.
    failure: str | None = None


@dataclass(frozen=True)
class ChoiceScores:
    """The answer to a ChoiceRequest: one entry per token, in its order."""

    #: Natural logarithms.
    logprobs: list[float]
    #: Whether no other token of the vocabulary is likelier.
    greedy: list[bool]
    #: One per pass. An engine that reads only so many tokens off one pass makes several.
    usages: list[Usage]
    #: Whether the engine's first answer lacked tokens, so that each token was asked for alone.
    asked_again: bool = False


@dataclass(frozen=True)
class Generation:
    """The answer to a GenerateRequest."""

    #: Without the stop string that ended it.
    text: str
    #: All generated tokens.
    token_ids: list[int]
    usage: Usage
    #: Failure kind of an item whose request alone has no whole answer; None: answered.
    failure: str | None = None


class Tokenizer(Protocol):
    """The part of transformers' PreTrainedTokenizerBase that the harness uses."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    def encode(self, text: str, **kwargs: Any) -> list[int]: ...
    def decode(self, token_ids: Any, **kwargs: Any) -> str: ...
    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


class Engine(Protocol):
    """Loads one model at a time and answers for it. Raises ModelError for the model's faults, else EngineError.

    Other rooms ask for its traits, the class variables and pin(), and never for its name.
    """

    #: Packages that it imports once it loads a model.
    packages: ClassVar[tuple[str, ...]]
    #: Whether the files of a model are fetched before it is loaded.
    needs_files: ClassVar[bool]
    #: Whether its models are put on the GPUs of a cluster by the memory that they need.
    needs_placement: ClassVar[bool]
    #: The kinds of request that it answers, of KINDS.
    answers: ClassVar[frozenset[str]]
    #: Characters of an English text per token of its models, for estimates.
    characters_per_token: ClassVar[float]
    #: Whether it separates thoughts from answers itself; else the harness asks for them in two steps.
    thinks_by_itself: bool
    #: Whether the harness's tokens are the model's own; else counts come from usage alone.
    counts_tokens: bool
    #: Folder of the loaded model's tokenizer, where it is not the model's own; None: it is, or it has no files.
    tokenizer_folder: str | None

    #: The loaded model; None before the first load.
    model: ModelRef | None
    tokenizer: Tokenizer
    #: Longest context in tokens, prompt and answer together.
    max_length: int
    #: Most tokens of a context and its continuation together that can be scored (lm-eval's backends differ).
    score_length: int
    #: Longest window of a rolling log-likelihood, tokens (lm-eval's backends differ).
    rolling_length: int
    #: Number of tokens that the loaded model has an embedding for; None: any. A tokenizer may have more.
    vocab_size: int | None
    #: Name of the GPU that answers; None on CPUs and before the first load.
    gpu: str | None
    #: Whether the loaded model's weights replaced another's in a live engine.
    swapped: bool

    @classmethod
    def pin(cls, spec: ModelSpec, dtype: str, max_length: int | None) -> ModelRef | None:
        """Pins a model to a revision, with the run's dtype and max_length for a spec that has none.

        None: its files name the revision (collectors.models.pinning). Loads nothing.
        """

    @classmethod
    def refusal(cls, model: ModelRef, kind: str, *, templated: bool, thought: int | None) -> str | None:
        """Why the model cannot be asked requests of a kind, in a few words after the task's name; None: it can.

        `templated`: with a chat template; `thought`: with a limit of thoughts.
        """

    @property
    def overrides(self) -> dict[str, Any]:
        """The engine's own settings that may change answers. They are part of a cell's identity."""

    @property
    def prefix_caching(self) -> bool | None:
        """Whether requests to the loaded model share the work on a common beginning; None: unknown."""

    def group(self, model: ModelRef) -> str | None:
        """Key of the models that can follow each other in a live engine at little cost; None: unknown or alone."""

    def prefetch(self, model: ModelRef) -> None:
        """Makes the files of a fetched model ready to load. Runs in another thread than the requests."""

    def smaller_batch(self, model: ModelRef) -> dict[str, Any] | None:
        """Returns options for a smaller batch, for a model that ran out of memory; None for the smallest batch.

        It stays the same cell, although in bfloat16 answers may depend on the batch: log-likelihoods that differ by up
        to .39, and 1 of 4 texts, were measured. In float32 none of 16 requests differed. Loads nothing.
        """

    def load(self, model: ModelRef) -> str:
        """Loads `model` unless it is loaded already, and returns the key of the model that now answers."""

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        """Returns the key of the model that answered, and answers in order. Raises EngineError for another model."""

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        """As score(), for one-token continuations: the engine reads each context once."""

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        """As score(), for texts."""

    def close(self) -> None:
        """Frees the model's memory. The engine can load again afterwards."""


@runtime_checkable
class Serving(Protocol):
    """What an engine can do besides, if others answer in its place and are paid for it."""

    def may_spend(self, usd: float | None, prices: dict[str, float | None]) -> None:
        """Sets the dollars that the next requests may cost (None: any), and prices by their columns of PRICE."""

    def take_statistics(self, owner: str) -> dict[str, Any]:
        """What was done for a cell and generation since the last call."""


#: Engine name -> "module:class". An engine is one module and one line here. Its module imports the libraries that run
#: a model in functions, so that its traits cost nothing.
ENGINES = {
    "vllm": "collectors.engines.vllm:VllmEngine",
    "hf": "collectors.engines.hf:HfEngine",
    "stub": "collectors.engines.stub:StubEngine",
    "openai": "collectors.engines.endpoint:EndpointEngine",
}
#: The engine of models with an endpoint, whatever the run's.
OF_ENDPOINTS = "openai"


def engine_class(name: str) -> type[Engine]:
    """The class of an engine, with its traits. Raises ConfigError for an unknown name."""
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    module, _, cls = ENGINES[name].partition(":")
    registered: type[Engine] = getattr(importlib.import_module(module), cls)
    return registered


def make_engine(name: str, options: dict[str, Any] | None = None) -> Engine:
    """Makes an engine without loading a model.

    Raises ConfigError for an unknown name or option, or when the engine's library is not installed.
    """
    registered = engine_class(name)
    if missing := next((package for package in registered.packages if importlib.util.find_spec(package) is None), None):
        raise ConfigError(f"engine {name!r} needs the package {missing!r}; pip install 'routerlake[vllm]', or [cpu]")
    return registered(**(options or {}))


def check_key(engine: Engine, key: str) -> None:
    """Raises EngineError when `engine` holds another model than the one that `key` names."""
    loaded = engine.model.key if engine.model else "no model"
    if loaded != key:
        raise EngineError(f"asked for model {key} but the engine holds {loaded}", kind="wrong_model")
