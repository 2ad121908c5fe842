"""YAML files of a person's own that hold plain values: no aliases, no key twice, and nothing that JSON has not."""

from __future__ import annotations

import math
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Refuses aliases, as a few lines of them stand for gigabytes, and a key that stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        value = super().construct_mapping(node, deep=deep)
        if len(value) < len(node.value):
            raise yaml.YAMLError("a key stands twice")
        return value

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read: write the value again")
        return super().compose_node(parent, index)


def read_plain(data: bytes | str) -> Any:
    """Raises yaml.YAMLError and YAML_VALUE_ERRORS of schemas.failures."""
    return yaml.load(data, Loader=_Loader)  # a SafeLoader


def is_text(value: Any) -> bool:
    """Whether a value is text of at least one character that a file can hold: no half of a surrogate pair."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def is_json(value: Any) -> bool:
    """Whether JSON has the value: no date, no set, no bytes, no NaN, no key that is no text."""
    if isinstance(value, dict):
        return all(is_text(key) and is_json(one) for key, one in value.items())
    if isinstance(value, list):
        return all(is_json(one) for one in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int) or value == "" or is_text(value)
