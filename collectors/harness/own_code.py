"""Decides which code of task files runs: lm-eval's own always, that of a user's folders only if the run allows it.

Owns the three ways by which a task file runs code while it is only planned: `!function`, a metric that lm-eval
lacks and `evaluate` would fetch, and templates. Templates are rendered in Jinja's sandbox, those of lm-eval too: in a
plain one `cycler.__init__.__globals__` leads to every module. Importing this module changes lm-eval in this process.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval.api.task
import lm_eval.tasks._yaml_loader as loader
import lm_eval.utils
import yaml
from jinja2 import BaseLoader, StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.registry import metric_registry

from schemas.failures import TaskError, causes

_SHIPPED = (Path(lm_eval.__file__).parent / "tasks").resolve()
#: An environment variable, so that a process that judges, which loads the same tasks, inherits it.
_ALLOWED = "ROUTERLAKE_ALLOW_CODE"
#: Bytes of a YAML file whose brackets, even if it is nothing else, are read within a megabyte of the stack.
_SHORT = 4096
_ADVICE = "allow_code: true in the config allows the code of your own task folders"

#: Whether the task that is being loaded is in a folder of the user's.
_is_own = contextvars.ContextVar("is_own", default=False)


def use_code(allowed: bool) -> None:
    """Allows or refuses, in this process and its children, the code of task folders that lm-eval does not ship."""
    os.environ[_ALLOWED] = "1" if allowed else "0"


def is_allowed() -> bool:
    """Whether this process runs the code of task folders that lm-eval does not ship."""
    return os.environ.get(_ALLOWED) == "1"


def is_shipped(file: Path) -> bool:
    """Whether lm-eval ships a file or folder."""
    return file.resolve().is_relative_to(_SHIPPED)


@contextlib.contextmanager
def loading(file: Path | None) -> Iterator[None]:
    """Says which file defines the task that is loaded inside."""
    token = _is_own.set(file is not None and not is_shipped(file))
    try:
        yield
    finally:
        _is_own.reset(token)


def refusal(error: BaseException) -> str | None:
    """The reason why a task that failed with `error` is refused for its code; None if it is not."""
    for cause in causes(error):
        if isinstance(cause, CodeRefusedError):
            return str(cause)
        if isinstance(cause, SecurityError):
            return f"has a template that reaches beyond its document, so it is refused: {cause}"
    return None


class CodeRefusedError(TaskError):
    """A task file wants to run code, and the run does not allow it."""

    def __init__(self, message: str, kind: str = "unsafe_code") -> None:
        super().__init__(message, kind)


def _guarded(import_function: Callable[[str, Path], Any]) -> Callable[[str, Path], Any]:
    def checked(qual: str, base_dir: Path) -> Any:
        if not is_shipped(base_dir) and not is_allowed():
            raise CodeRefusedError(f"runs code of your own, !function {qual}: {_ADVICE}")
        return import_function(qual, base_dir)

    return checked


def _known_only(get_metric: Callable[..., Any]) -> Callable[..., Any]:
    def checked(name: str, hf_evaluate_metric: bool = False) -> Any:
        if _is_own.get() and not is_allowed() and (hf_evaluate_metric or name not in metric_registry):
            raise CodeRefusedError(f"has the metric {name!r}, whose code would be fetched and run: {_ADVICE}")
        return get_metric(name, hf_evaluate_metric)

    return checked


def _bounded(make_loader: Callable[..., Any]) -> Callable[..., Any]:
    """Gives long files of a user's folders to Python's own reader: libyaml's crashed at 20,000 brackets.

    A short one, which has fewer, is read by libyaml: that takes a tenth of the time.
    """

    def made(base_dir: Path, *, resolve_funcs: bool) -> Any:
        whole = make_loader(base_dir, resolve_funcs=resolve_funcs)
        if is_shipped(base_dir):
            return whole

        class Loader(yaml.SafeLoader): ...

        yaml.add_constructor("!function", loader._mk_function_ctor(base_dir, resolve_funcs), Loader=Loader)

        def reading(stream: Any) -> Any:
            data = stream.read()
            return (whole if len(data) <= _SHORT else Loader)(data)

        return reading

    return made


def _sandbox() -> SandboxedEnvironment:
    plain = lm_eval.utils.env
    environment = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(plain.filters)
    return environment


if not isinstance(lm_eval.utils.env, SandboxedEnvironment):
    lm_eval.utils.env = _sandbox()
    loader._make_loader = _bounded(loader._make_loader)
    loader._import_func_in_yml = _guarded(loader._import_func_in_yml)
    lm_eval.api.task.get_metric = _known_only(lm_eval.api.task.get_metric)
