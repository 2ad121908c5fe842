"""What is checked before an engine starts: its options, and the files of a model folder.

Owns the checks that need no engine, so that a broken folder costs milliseconds and gets one clear line instead of a
traceback from inside a library. Knows nothing of how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from collectors.engines import ModelRef
from schemas.failures import ConfigError


class EngineOptions(BaseModel):
    """Base of every engine's options: unknown names are errors, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


O = TypeVar("O", bound=EngineOptions)  # noqa: E741


def read_options(engine: str, kind: type[O], given: Mapping[str, Any], model: ModelRef | None = None) -> O:
    """`given`, with the model's own options laid over it. Raises ConfigError for an unknown name or a wrong value."""
    try:
        return kind(**{**given, **(model.options if model else {})})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        owner = f"engine {engine!r}" if model is None else f"model {model.name!r}, engine {engine!r}"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(kind.model_fields))
            raise ConfigError(f"{owner}: option {name!r} is unknown; known options: {known}") from None
        raise ConfigError(f"{owner}: option {name!r} is {first['input']!r}: {first['msg']}") from None
