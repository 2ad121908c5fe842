"""Where lm-eval and the user's own folders define a task.

Owns how a name is found among lm-eval's 14,000 YAML files, which lm-eval parses all of: 5 s of CPU in each process.
Knows nothing of what a task is.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.metadata
import json
import os
import re
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from collectors.catalog import cache_dir
from collectors.config import TaskSpec
from schemas.failures import ConfigError
from schemas.identity import digest

_LM_EVAL_TASKS = Path(lm_eval.__file__).parent / "tasks"
_WORD = re.compile(rb"[\w.+-]+")


@functools.lru_cache(8)
def manager(folders: tuple[str, ...], defaults: bool) -> TaskManager:
    """lm-eval's index of `folders`, and with `defaults` of all that it ships, which is read once in a process."""
    if not (folders and defaults):
        return TaskManager(include_path=list(folders), include_defaults=defaults)
    shipped, own = manager((), True).task_index, manager(folders, False).task_index
    found = TaskManager(include_defaults=False)
    found._index = {**shipped, **own}  # as lm-eval lays the one over the other
    return found


def manager_of(name: str, include: list[str]) -> TaskManager:
    """An index that holds all that loading `name` needs: of its folder alone where it is a single task."""
    own = _own(tuple(include))
    folder = own[name] if name in own else _shipped({name}).get(name)
    return manager((folder,), False) if folder else manager(tuple(include), True)


def check_names(specs: list[TaskSpec], include: list[str]) -> None:
    """Raises ConfigError naming every task or group that lm-eval does not have, with the nearest that it has."""
    faults = [f"include_tasks: no folder {folder}" for folder in include if not Path(folder).is_dir()]
    own, names = _own(tuple(include)), {spec.task for spec in specs}
    known = own | _shipped(names - set(own))
    for name in sorted(names - set(known)):
        near = difflib.get_close_matches(name, known, n=3)
        faults.append(f"unknown task {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    if faults:
        raise ConfigError("\n".join(faults))


@functools.lru_cache(8)
def _own(include: tuple[str, ...]) -> dict[str, str | None]:
    """As _shipped, of the user's own folders: read anew in each process, and they win."""
    return _folders(manager(include, False)) if include else {}


def _shipped(names: set[str]) -> dict[str, str | None]:
    """Tasks, groups and tags that lm-eval ships -> the folder of the YAML file, None for groups and tags.

    All of them, as this machine's cache keeps them for a release; or `names` alone, where each is a single task for
    sure and the cache has nothing yet.
    """
    key = digest([lm_eval.__file__, importlib.metadata.version("lm_eval")])
    kept = cache_dir() / f"lm-eval-leaf-folders-{key}.json"
    known: dict[str, str | None]
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if not (isinstance(known, dict) and all(isinstance(folder, str | None) for folder in known.values())):
            raise ValueError(f"{kept} holds something else")
    except (FileNotFoundError, ValueError):
        found = _single_tasks(frozenset(names))
        if found.keys() >= names:
            return {**found}
        known = _folders(manager((), True))
        temporary = kept.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(kept)
    return known


def _folders(found: TaskManager) -> dict[str, str | None]:
    """None for groups and tags: their members may be anywhere, so they need the whole index."""
    leaves = set(found.all_subtasks)
    return {
        name: str(entry.yaml_path.parent) if name in leaves and entry.yaml_path else None
        for name, entry in found.task_index.items()
    }


@functools.lru_cache(8)
def _single_tasks(names: frozenset[str]) -> dict[str, str]:
    """Folders of those of `names` that are single tasks for sure: lm-eval's rules over the files that say a name."""
    mentions: dict[str, list[Path]] = {name: [] for name in names}
    wanted = {name.encode(): name for name in names}
    for folder, _, files in os.walk(_LM_EVAL_TASKS):
        for file in files:
            if "yaml" in file:  # lm-eval's templates have no suffix
                path = Path(folder, file)
                for word in wanted.keys() & set(_WORD.findall(path.read_bytes())):
                    mentions[wanted[word]].append(path)
    found = {}
    for name, paths in mentions.items():
        configs = sorted(path for path in paths if path.suffix == ".yaml")
        templates = [path for path in paths if path.suffix != ".yaml"]
        entry = _entries(configs).get(name)
        # whoever includes a template that defines the name may be the task
        if entry and entry.kind in (Kind.TASK, Kind.PY_TASK) and entry.yaml_path and name not in _entries(templates):
            found[name] = str(entry.yaml_path.parent)
    return found


def _entries(paths: list[Path]) -> dict[str, Entry]:
    """lm-eval's index of some files alone. It passes over those that it cannot read."""
    index: dict[str, Entry] = {}
    for path in paths:
        with contextlib.suppress(Exception):
            TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, index)
    return index
