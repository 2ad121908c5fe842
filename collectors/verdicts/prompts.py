"""Prompt files of judges that are models: YAML with a version, a scale and a parser. Owns the keys and the reading.

A number on the scale is a score, divided so that the scale ends at 0 and 1. Anything else is no verdict: no answer is
scored by a judge that did not answer.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from collectors.specs import Strict
from schemas.failures import YAML_VALUE_ERRORS, ConfigError, one_line
from schemas.identity import digest

#: What a prompt may name: of an item, and the answer or, in turn, the two answers to compare.
OF_ITEM = ("question", "reference")
SINGLE, PAIR = ("answer",), ("answer_a", "answer_b")
#: Bytes of a prompt file. More is none.
_MOST = 1 << 20


class JudgePrompt(Strict):
    """What a prompt file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: The version that its author gave it. The digest of the file tells two texts of one version apart.
    version: str = Field(min_length=1)
    #: The request. $question and $reference are the item's, $answer is the answer; of a pair $answer_a and $answer_b.
    prompt: str = Field(min_length=1)
    system_prompt: str | None = None
    #: A regular expression. Its last match in the judge's text counts, by its first group.
    parser: str
    #: Lowest and highest number; null: the verdicts are the names below.
    scale: tuple[float, float] | None = None
    #: Text that the parser finds -> score in [0, 1]. Of a pair: the score of the answer that stands first.
    names: dict[str, float] | None = None
    #: The lowest score, in [0, 1], of a correct answer; null: none is.
    correct_threshold: float | None = Field(None, ge=0, le=1)
    max_tokens: int = Field(512, ge=1, le=100_000)
    #: Whether the request is put into the judge's chat template.
    chat_template: bool = True

    @field_validator("scale", mode="before")
    @classmethod
    def _two(cls, value: Any) -> Any:
        if value is None:
            return None
        if not (isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)):
            raise ValueError("should be two numbers, such as [1, 10]")
        if not value[0] < value[1]:
            raise ValueError("begins at or above its end")
        return tuple(float(one) for one in value)

    @field_validator("names", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if not all(type(one) in (int, float) and 0 <= one <= 1 for one in value.values()):
            raise ValueError("should be numbers from 0 to 1")
        return {str(name): float(one) for name, one in value.items()}

    @model_validator(mode="after")
    def _is_whole(self) -> JudgePrompt:
        try:
            groups = re.compile(self.parser).groups
        except re.error as error:
            raise ValueError(f"parser: {error}") from None
        if groups < 1:
            raise ValueError("parser: has no group, such as (\\d+)")
        if (self.scale is None) == (self.names is None):
            raise ValueError("give either scale or names")
        template = string.Template(self.prompt)
        if not template.is_valid():
            raise ValueError("prompt: a $ that names nothing is written $$")
        named = set(template.get_identifiers())
        if unknown := sorted(named - {*OF_ITEM, *SINGLE, *PAIR}):
            raise ValueError(f"prompt: ${unknown[0]} is none of ${', $'.join((*OF_ITEM, *SINGLE, *PAIR))}")
        if named.isdisjoint(PAIR) == named.isdisjoint(SINGLE) or (self._pairs(named) and not named.issuperset(PAIR)):
            raise ValueError("prompt: names either $answer, or $answer_a and $answer_b")
        return self

    @staticmethod
    def _pairs(named: set[str]) -> bool:
        return not named.isdisjoint(PAIR)

    @property
    def is_pair(self) -> bool:
        return self._pairs(set(string.Template(self.prompt).get_identifiers()))

    def request(self, **texts: str) -> str:
        """The request for one answer or pair. What they hold is put in once: a $ in an answer stays as it is."""
        return string.Template(self.prompt).substitute(texts)

    def read(self, text: str) -> float | None:
        """The score in [0, 1] that the judge's text gives; None for a text without one, or off the scale."""
        found = None
        for match in re.finditer(self.parser, text[-_LONGEST:]):
            found = match[1]
        if found is None:
            return None
        if self.names is not None:
            return self.names.get(found.strip())
        assert self.scale
        low, high = self.scale
        try:
            number = float(found)
        except ValueError:
            return None
        return (number - low) / (high - low) if low <= number <= high else None


#: Characters at the end of a judge's text that are searched. A pattern over a text without end takes without end.
_LONGEST = 20_000


@dataclass(frozen=True)
class PromptFile:
    """A prompt file as it was read."""

    prompt: JudgePrompt
    text: str

    @property
    def digest(self) -> str:
        return digest(self.text)


def read_prompt(path: Path) -> PromptFile:
    """Raises ConfigError, with the key, for a file that is missing or wrong."""
    try:
        data = path.read_bytes()
        if len(data) > _MOST:
            raise ConfigError(f"--prompt {path}: {len(data):,} bytes are too many for a prompt")
        text = data.decode()
        value = _loaded(path, text)
        if not isinstance(value, dict):
            raise ConfigError(f"--prompt {path}: expected the keys {', '.join(JudgePrompt.model_fields)}")
        return PromptFile(JudgePrompt.model_validate(value), text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--prompt {path}: {f'{place}: ' if place else ''}{first['msg']}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompt {path}: {one_line(error, 200)}") from error


def _loaded(path: Path, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (*YAML_VALUE_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"--prompt {path}: {one_line(error, 200)}") from error
