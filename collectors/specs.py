"""The parts of a config: one model, one task, one class of GPUs. collectors.runs.config has the whole config."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import reprlib
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from schemas.texts import holds_keys

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
_HUB_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


def _json_only(value: dict[str, Any]) -> dict[str, Any]:
    """Refuses dates, NaN and cycles, which YAML can write: settings are hashed and stored as JSON."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"has a value that JSON cannot hold: {error}") from None
    return value


Settings = Annotated[dict[str, Any], AfterValidator(_json_only)]


class Strict(BaseModel):
    """Base of all parts of a config: unknown keys are errors."""

    # strict, so that `limit: true` does not count as 1, nor `system_prompt: 5` as a text
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


#: Arguments of apply_chat_template that the harness sets itself.
_RESERVED_ARGS = frozenset(
    [
        "conversation",
        "messages",
        "chat_template",
        "tokenize",
        "add_generation_prompt",
        "continue_final_message",
        "tools",
    ]
)


class ThinkingSpec(Strict):
    """The markers around a thought. The answer is what follows the end marker, and it alone is judged."""

    #: Text before a thought.
    start: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "<think>"
    #: Text behind it.
    end: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "</think>"
    #: Text that is written when a thought has used up thinking_tokens. It ends with the end marker, and white space.
    #: null: a line feed, the end marker and an empty line.
    closing: str | None = None

    @model_validator(mode="after")
    def _closes(self) -> ThinkingSpec:
        if self.start == self.end:
            raise ValueError("start and end are the same text")
        if self.closing is not None and not self.closing.rstrip().endswith(self.end):
            raise ValueError(f"closing should end with {self.end!r}")
        return self


class Thinking(Strict):
    """How a model is asked to think. Lists make a cell, and a candidate of the pool, for each value."""

    #: Variables of the chat template, such as {enable_thinking: false}.
    chat_template_args: Settings | None = None
    #: Markers of thoughts; true: <think> and </think>. Stops of the task then act on the answer alone.
    thinking: ThinkingSpec | None = None
    #: Most tokens of a thought, beside the answer's own limit; 0: none. null: the answer's limit holds for both.
    thinking_tokens: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = Field(None, min_length=1)
    #: What an endpoint is asked for, such as [low, high]; null: its default.
    reasoning_effort: list[Name] | None = Field(None, min_length=1)

    @field_validator("thinking", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return ThinkingSpec() if value is True else None if value is False else value

    @field_validator("thinking_tokens", "reasoning_effort", mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list) else [value]

    @field_validator("thinking_tokens", "reasoning_effort")
    @classmethod
    def _once(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(values) > len(set(values)):
            raise ValueError("has a value twice")
        return values

    @field_validator("chat_template_args")
    @classmethod
    def _free_names(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and (taken := sorted(value.keys() & _RESERVED_ARGS)):
            raise ValueError(f"{', '.join(taken)} may not be set here")
        return value


class Prompting(Thinking):
    """The form of the questions, and the decoding of answers. Set for the whole run, or per task."""

    #: Few-shot examples; null: the task's own number. A task that fixes 0 keeps 0, as in lm-eval.
    num_fewshot: int | None = Field(None, ge=0, le=1000)
    #: Seed of the choice of few-shot examples, lm-eval's own by default.
    fewshot_seed: int = Field(1234, ge=0, lt=2**31)
    #: true: the model's chat template; a name: the model's template of that name.
    chat_template: bool | str = False
    #: Few-shot examples as chat turns; only with a chat template. lm-eval's default.
    fewshot_as_multiturn: bool = True
    #: System prompt; null: none.
    system_prompt: str | None = None
    #: Date that chat templates write where they write today's, such as 2026-01-31. null: the date of the newest run in
    #: the lake that asked the same cell, else the day on which the run is planned.
    chat_date: str | None = None
    #: Generation settings laid over the task's own (temperature, top_p, max_gen_toks, until, …).
    decoding: Settings = {}
    #: A prompt beyond the context: fail gives the item the outcome overlong, and score 0; truncate cuts its beginning
    #: off, as lm-eval's backends do.
    overlong: Literal["fail", "truncate"] = "fail"
    #: Whether answers are decoded with the settings of the model's generation_config.json that the task leaves open.
    #: false: its end tokens alone count, as in lm-eval's vLLM backend.
    generation_config: bool = False

    @field_validator("decoding")
    @classmethod
    def _decodes(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "repeats" in value:
            raise ValueError("repeats is no setting of decoding: it is a key of its own, of the run or a task")
        return value

    @field_validator("chat_date", mode="before")
    @classmethod
    def _iso_date(cls, value: Any) -> Any:
        """YAML reads 2026-01-31 as a date."""
        if type(value) is dt.date:
            return value.isoformat()
        try:
            return None if value is None else dt.date.fromisoformat(value).isoformat()
        except (TypeError, ValueError):
            raise ValueError(f"should be a date such as 2026-01-31 (got {reprlib.repr(value)})") from None

    @field_validator("chat_template", mode="before")
    @classmethod
    def _switch_or_name(cls, value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, str) and value not in ("", "true", "false")):
            return value
        raise ValueError(f"should be true, false or the name of a template (got {reprlib.repr(value)})")


class SampleSpec(Strict):
    """How many items of each task to ask, in place of all: the task's probe set, the same items for every model."""

    #: Share of a task's items, such as 0.1.
    share: float | None = Field(None, gt=0, le=1)
    #: Number of items.
    items: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_size(self) -> SampleSpec:
        if (self.share is None) == (self.items is None):
            raise ValueError("should have share or items, one of them")
        return self

    def size(self, items: int) -> int:
        """The number of items of a task with so many."""
        wanted = self.items if self.share is None else math.ceil(round(self.share * items, 6))
        return max(1, min(items, wanted or 1))


class RepeatsSpec(Strict):
    """How often to ask a part of each task's items, in a cell beside the one that has one answer for each."""

    #: Answers to each of these items.
    times: int = Field(ge=2, le=1000)
    #: Share of a task's items, such as 0.05: the same ones for every model, in every lake. A larger one keeps them.
    share: float | None = Field(None, gt=0, le=1)
    #: Number of items, chosen in the same way.
    items: int | None = Field(None, ge=1)
    #: Content hashes of the items (content_hash in the view items).
    ids: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]] | None = Field(
        None, min_length=1, max_length=10_000
    )

    @model_validator(mode="after")
    def _one_part(self) -> RepeatsSpec:
        if sum(one is not None for one in (self.share, self.items, self.ids)) != 1:
            raise ValueError("should have share, items or ids, one of them")
        return self

    def size(self, items: int) -> int:
        """The number of items of a task with so many, where `ids` does not name them."""
        return SampleSpec(share=self.share, items=self.items).size(items)


class UntilSpec(Strict):
    """When a run has asked enough: it asks a probe set first, and then what lowers the expected error most."""

    #: Expected absolute error of each model's mean over the tasks, on the scale of the scores (0 to 1).
    error: float = Field(gt=0, lt=1)


class TaskSpec(Prompting):
    """One lm-eval task or group. Unset prompting keys come from the run."""

    #: Name of a task or group of lm-eval or of include_tasks, or the path of a task's YAML file.
    task: Name
    #: Primary metric; null: the task's first.
    metric: str | None = None
    #: Filter of the primary metric; null: the task's first.
    filter: str | None = None
    #: Most items to ask; null: all.
    limit: int | None = Field(None, ge=1)
    #: The part of them to ask, such as {share: 0.1} or {items: 20}; null: all.
    sample: SampleSpec | None = None
    #: Several answers to a part of them, such as {times: 10, share: 0.05}; null: none.
    repeats: RepeatsSpec | None = None
    #: sandbox: a task that runs the answers, such as humaneval, runs them in a sandbox. null: such a task is refused.
    code: Literal["sandbox"] | None = None


_KEY_NAME = re.compile(r"\$(?:\w+|\{\w+\})")


class EndpointSpec(Strict):
    """A server that speaks OpenAI's protocol, such as `vllm serve` or a host's. It answers in place of an engine."""

    #: Up to the version, such as https://api.openai.com/v1; $NAME and ${NAME} come from the environment.
    url: Name
    #: completions takes any prompt. chat takes messages, and applies the template itself.
    api: Literal["completions", "chat"] = "chat"
    #: The variable of the environment that holds the key, such as $OPENAI_API_KEY; null: no key.
    key: str | None = None
    #: Folder or hub repo of the model's tokenizer, for completions: log-likelihoods, chat templates and limits of
    #: thoughts need the tokens.
    tokenizer: Name | None = None
    #: The name that replies give the model, where it is not the one asked for.
    answers_as: Name | None = None
    #: Most requests at once; fewer after refusals.
    max_concurrency: int = Field(16, ge=1, le=4096)
    #: Most requests in a minute; null: no limit.
    requests_per_minute: float | None = Field(None, gt=0)
    #: Most tokens in a minute, of prompts and answers together; null: no limit.
    tokens_per_minute: float | None = Field(None, gt=0)
    #: Seconds to wait for a reply, or for the next piece of one that is streamed.
    timeout_seconds: float = Field(600, gt=0)
    #: Tries of a request before the endpoint counts as away.
    tries: int = Field(8, ge=1, le=1000)
    #: Whether replies come in pieces, which gives the time of the first token.
    stream: bool = False
    #: Field of the answer's limit; null: max_tokens, or max_completion_tokens of a chat.
    limit_field: Name | None = None
    #: Field of a chat that takes thinking_tokens, such as thinking_token_budget or thinking.budget_tokens.
    budget_field: Name | None = None
    #: Fields that are not sent, such as [temperature].
    omit: list[Name] = []
    #: Other fields that are sent.
    extra_body: Settings = {}

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        place = in_environment(value)
        if not re.match(r"https?://[^/]", place):
            raise ValueError("should begin with http:// or https://")
        if holds_keys(place):
            raise ValueError("holds a user, query or token: give the key as `key: $NAME`")
        return value.rstrip("/")

    @field_validator("key")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None and not _KEY_NAME.fullmatch(value):
            raise ValueError("should name a variable of the environment, such as $OPENAI_API_KEY")
        return value

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that may change an answer, beside those that are part of the revision."""
        names = ("limit_field", "budget_field", "omit", "extra_body")
        changed: dict[str, Any] = {name: getattr(self, name) for name in names}
        return {f"endpoint.{name}": value for name, value in changed.items() if value}

    @property
    def place(self) -> str:
        """The URL with $NAME from the environment."""
        return in_environment(self.url)


class ModelOptions(Thinking):
    """Settings of a model. null: the run's own setting, and the task's of thinking."""

    #: Type of the weights while they are used; null: the run's.
    dtype: Dtype | None = None
    #: Name of the engine's quantization; null: what the model's config states.
    quantization: str | None = None
    #: Longest context in tokens, question and answer together; null: the run's.
    max_length: int | None = Field(None, ge=1, lt=2**31)
    #: Whether the model's own Python code may run, on the machines that load it.
    trust_remote_code: bool = False
    #: GPU memory that one engine of it needs in all, GiB; null: computed from the model's files.
    memory_gib: float | None = Field(None, gt=0, le=1e9)
    #: Engine options of this model, laid over the run's.
    engine: Settings = {}


class ModelSpec(ModelOptions):
    """One model: a hub repo (org/name) at a revision, a local folder, or a folder at any fsspec URI."""

    #: Hub repo, folder or URI. $NAME and ${NAME} come from the environment where the model is read, and stay as they
    #: are where it is named.
    source: Name
    #: Name in the lake; null: the hub repo's id, or the last element of a path or URI.
    name: Name | None = None
    #: Hub branch, tag or commit; resolved to a commit before anything starts. Of an endpoint: the host's.
    revision: str | None = None
    #: The server that answers for it; `source` is its name there.
    endpoint: EndpointSpec | None = None

    @field_validator("source", "name")
    @classmethod
    def _without_keys(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and holds_keys(in_environment(value) if info.field_name == "source" else value):
            raise ValueError("holds a user, query or token: give keys by the environment variables of the store")
        return value

    @property
    def place(self) -> str:
        """The source with $NAME and ${NAME} from the environment. It is neither stored nor shown: `source` is."""
        return in_environment(self.source)

    @property
    def label(self) -> str:
        place = self.place
        if self.endpoint:
            return self.name or place
        is_path = "://" in place or is_folder(place)
        return self.name or (place.rstrip("/").rsplit("/", 1)[-1] if is_path else place)


class CatalogSpec(ModelOptions):
    """Models that catalog.py wrote into the lake, at the revisions that it recorded. The hub is not asked for them."""

    #: A condition in SQL over columns of the view models, such as "parameters < 15e9 AND downloads >= 1000".
    catalog: Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
    #: Reasons for skipping (the view's column skipped) that do not keep a model out.
    also: list[Literal["copy", "quantized", "remote_code", "unknown_architecture"]] = []
    #: Most models to take, by downloads; null: all.
    most: int | None = Field(None, ge=1)


def is_folder(source: str) -> bool:
    """Whether `source` means a local folder: it exists as one, or is written like a path."""
    expanded = os.path.expanduser(source)
    return os.path.isdir(expanded) or source[0] in "./~\\" or not _HUB_REPO.match(source)


class GpuSpec(Strict):
    """GPUs of one class for models."""

    #: Ray's name of the class: X if the nodes have the resource accelerator_type:X.
    name: Name
    #: Memory of one GPU, GiB; null: the built-in figure of the class (collectors/engines/gpus.py).
    memory_gib: float | None = Field(None, gt=0, le=1e9)
    #: GPUs of one node; one engine gets at most as many.
    per_node: int = Field(1, ge=1)


def in_environment(value: str) -> str:
    """Replaces $NAME and ${NAME} from the environment. Raises ValueError for a name that is not set.

    Such a name would otherwise become the name of a folder.
    """
    for plain, braced in re.findall(r"\$(?:(\w+)|\{([^}]*)\})", value):
        if (name := plain or braced) not in os.environ:
            raise ValueError(f"the environment variable {name} is not set")
    if not (expanded := os.path.expandvars(value).strip()):
        raise ValueError("is empty")
    return expanded
