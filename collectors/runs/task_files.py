"""A task's own YAML file in a config: its name, and the folder that lm-eval has to search for it.

Owns the reading of the name alone. lm-eval reads the file (collectors.harness.loading), and no code of it runs here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from schemas.failures import YAML_VALUE_ERRORS

_SUFFIXES = (".yaml", ".yml")


def is_task_file(name: Any) -> bool:
    """Whether an entry of `tasks` is the path of a file."""
    return isinstance(name, str) and name.endswith(_SUFFIXES)


def read_task_file(path: str) -> tuple[str, str]:
    """Returns the task or group in a file, and the file's folder. Raises ValueError for a file without either."""
    file = Path(os.path.expanduser(path)).absolute()
    try:
        value = yaml.load(file.read_text(encoding="utf-8"), Loader=_Plain)
    except OSError as error:
        raise ValueError(f"cannot read the task file {path}: {error.strerror}") from error
    except (*YAML_VALUE_ERRORS, yaml.YAMLError) as error:
        raise ValueError(f"the task file {path} is not valid YAML: {' '.join(str(error).split())[:160]}") from error
    name = (value.get("group") or value.get("task")) if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"the task file {path} names no task: it needs a line such as `task: {file.stem}`")
    return name, str(file.parent)


class _Plain(yaml.SafeLoader):
    """Reads lm-eval's tags, such as !function, as plain texts."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: str(getattr(node, "value", "")))
