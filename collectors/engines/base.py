"""The common base of all engines: it reads their options and holds one model at a time.

Owns the rule that a model stays loaded while its key is asked for and is closed before another is opened. Subclasses
open and ask models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from collectors.engines import (
    KINDS,
    ChoiceRequest,
    ChoiceScores,
    GenerateRequest,
    Generation,
    ModelRef,
    Score,
    ScoreRequest,
    Tokenizer,
)
from schemas.failures import ConfigError, TaskError

if TYPE_CHECKING:
    from collectors.specs import ModelSpec


class EngineOptions(BaseModel):
    """Base of every engine's options. Unknown names are errors; values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


O = TypeVar("O", bound=EngineOptions)  # noqa: E741


class BaseEngine(Generic[O]):
    """See collectors.engines.Engine for the attributes. Making one is cheap: only `_open` imports libraries."""

    NAME: ClassVar[str]
    OPTIONS: ClassVar[type[EngineOptions]]

    packages: ClassVar[tuple[str, ...]] = ()
    needs_files: ClassVar[bool] = True
    needs_placement: ClassVar[bool] = False
    answers: ClassVar[frozenset[str]] = KINDS
    #: OpenAI's rule of thumb for English text (help.openai.com, "What are tokens and how to count them?").
    characters_per_token: ClassVar[float] = 4.0
    thinks_by_itself: bool = False
    counts_tokens: bool = True
    tokenizer_folder: str | None = None

    def __init__(self, **options: Any) -> None:
        self._given = options
        self._options: O = self._read(options)
        self.model: ModelRef | None = None
        self.tokenizer: Tokenizer
        self.max_length = 0
        self.score_length = 0
        self.rolling_length = 0
        self.vocab_size: int | None = None
        self.gpu: str | None = None
        self.swapped = False

    @classmethod
    def pin(cls, spec: ModelSpec, dtype: str, max_length: int | None) -> ModelRef | None:
        """None, because the model's files name its revision."""
        return None

    @classmethod
    def refusal(cls, model: ModelRef, kind: str, *, templated: bool, thought: int | None) -> str | None:
        if kind in cls.answers:
            return None
        return f"asks by {kind}, and engine {cls.NAME} answers only {', '.join(sorted(cls.answers))}"

    @property
    def overrides(self) -> dict[str, Any]:
        """Empty, because no option changes an answer."""
        return {}

    @property
    def prefix_caching(self) -> bool | None:
        """None, because the base does not know."""
        return None

    def group(self, model: ModelRef) -> str | None:
        """None, because each model is opened anew."""
        return None

    def smaller_batch(self, model: ModelRef) -> dict[str, Any] | None:
        """None, because the engine answers one request at a time."""
        return None

    def prefetch(self, model: ModelRef) -> None:
        """Does nothing: fetching a folder has read its files."""

    def load(self, model: ModelRef) -> str:
        """Loads `model` unless it is loaded already, and returns its key.

        Raises ModelError for a model that cannot answer, ConfigError for wrong options, EngineError when memory runs
        out.
        """
        if self.model and self.model.key == model.key:
            return model.key
        self.close()
        self._options = self._options_of(model)
        self.score_length = self.rolling_length = 0
        self._open(model)
        self.score_length = self.score_length or self.max_length
        self.rolling_length = self.rolling_length or self.max_length
        self.model = model
        return model.key

    def _options_of(self, model: ModelRef) -> O:
        return self._read({**self._placed(model), **self._given, **model.options}, model)

    def _placed(self, model: ModelRef) -> dict[str, Any]:
        """Returns the options that the model's placement asks for. The config's options win over them."""
        return {}

    def _open(self, model: ModelRef) -> None:
        """Opens `model` and sets tokenizer and max_length, and vocab_size and gpu if they are known.

        score_length and rolling_length are max_length where it sets none.
        """
        raise NotImplementedError

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        raise self._not_answerable("loglikelihood")

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        raise self._not_answerable("loglikelihood")

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        raise self._not_answerable("generate_until")

    def _not_answerable(self, kind: str) -> TaskError:
        """For a task that asks by another kind than its output_type names: planning refuses the others."""
        return TaskError(f"engine {self.NAME!r} does not answer {kind}", "not_answerable")

    def close(self) -> None:
        self.model = None

    def _read(self, given: Mapping[str, Any], model: ModelRef | None = None) -> O:
        try:
            return self.OPTIONS(**given)  # type: ignore[return-value]
        except ValidationError as error:
            first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        owner = f"engine {self.NAME!r}" if model is None else f"model {model.name!r}, engine {self.NAME!r}"
        if first["type"] == "extra_forbidden":
            names = ", ".join(sorted(self.OPTIONS.model_fields))
            raise ConfigError(f"{owner}: option {name!r} is unknown; known options: {names}")
        raise ConfigError(f"{owner}: option {name!r} is {first['input']!r}: {first['msg']}")
