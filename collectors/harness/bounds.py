"""Bounds the files of a user's task folders before C and C++ readers get them: nesting ends these by a signal.

Owns the bound. libyaml's loader in Python and pyarrow's JSON reader, which `datasets` uses, both ended the process at
100,000 brackets; Python's own readers raise RecursionError.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.failures import TaskError

#: Deepest nesting of brackets in a row of data.
DEEPEST = 200
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def check_data(task: str, folder: Path, config: dict[str, Any]) -> None:
    """Raises TaskError for a task whose own JSON data are nested deeper than DEEPEST."""
    if config.get("dataset_path") != "json":
        return
    for file in _files((config.get("dataset_kwargs") or {}).get("data_files")):
        for path in glob.glob(os.path.join(folder, file)) or glob.glob(file):
            if os.path.isfile(path) and (line := _deep_line(path)):
                raise TaskError(f"task {task}: {path}, line {line}: nested too deeply", "bad_task")


def _files(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _files(one)


def _deep_line(path: str) -> int | None:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.count(b"[") + line.count(b"{") > DEEPEST and depth_of(line) > DEEPEST:
                return number
    return None


def depth_of(data: bytes) -> int:
    """Returns the deepest nesting of brackets outside strings."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
