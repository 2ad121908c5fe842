"""Finds the files that define a task: lm-eval's own and those in the user's folders.

Owns the look-up of a name among lm-eval's 14,000 YAML files without parsing all of them, as lm-eval does: that takes
5 s of CPU, once on each machine. Does not load tasks.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from collectors.atomic import write_whole
from collectors.cache import cache_dir
from collectors.specs import TaskSpec
from schemas.failures import ConfigError
from schemas.identity import digest

_LM_EVAL_TASKS = Path(lm_eval.__file__).parent / "tasks"
_WORD = re.compile(rb"[\w.+-]+")
#: Names that YAML writes as they are, quoted or not.
_PLAIN = re.compile(r"[\w.+-]+")
_SINGLE = (Kind.TASK, Kind.PY_TASK)
#: Single tasks that lm-eval ships -> their folders, as far as this process looked: a look reads 14,000 files.
_FOUND: dict[str, str] = {}


@functools.lru_cache(8)
def manager(folders: tuple[str, ...], defaults: bool) -> TaskManager:
    """Returns lm-eval's index of `folders`; `defaults` adds the tasks that it ships."""
    own = TaskManager(include_path=list(folders), include_defaults=False)
    if defaults:
        own._index = {**_shipped_entries(), **own.task_index}  # the user's folders win, as in lm-eval
    return own


def manager_of(name: str, include: list[str]) -> TaskManager:
    """Returns an index that is enough to load `name`: of its folder alone when it is a single task."""
    own = _own(tuple(include))
    folder = own[name] if name in own else _shipped({name}).get(name)
    return manager((folder,), False) if folder else manager(tuple(include), True)


def check_names(specs: list[TaskSpec], include: list[str]) -> None:
    """Raises ConfigError that names each missing folder and each unknown task or group, with the closest names."""
    faults = [_no_folder(folder) for folder in include if not Path(folder).is_dir()]
    own, wanted = _own(tuple(include)), {spec.task for spec in specs}
    available = own | _shipped(wanted - set(own))
    for name in sorted(wanted - set(available)):
        near = difflib.get_close_matches(name, available, n=3)
        faults.append(f"unknown task {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    if faults:
        raise ConfigError("\n".join(faults))


def _no_folder(path: str) -> str:
    hint = ": it is a file, and belongs into `tasks`" if Path(path).is_file() else ""
    return f"include_tasks: no folder {path}{hint}"


def hidden_files(names: Iterable[str], include: list[str]) -> Iterator[str]:
    """Yields a line for each task that several files define: the one that is taken, and the others."""
    own = _own(tuple(include))
    wanted = [name for name in dict.fromkeys(names) if name in own]
    files: dict[str, list[str]] = {name: [] for name in wanted}
    for folder in include:
        for path in sorted(Path(folder).rglob("*.yaml")):
            with contextlib.suppress(Exception):  # lm-eval's index passes over it, too
                if not _may_name(path.read_bytes(), wanted):
                    continue
                name = load_yaml(path, resolve_func=False).get("task")
                if name in files:
                    files[name].append(str(path))
    for name in wanted:
        entry = manager(tuple(include), False).task_index[name]
        taken = str(entry.yaml_path)
        others = [_short(path) for path in dict.fromkeys(files[name]) if path != taken]
        others += ["lm-eval's own"] if _is_shipped(name) else []
        if others:
            yield f"task {name} stands in several files: {_short(taken)} is taken, not {', '.join(others)}"


def _may_name(data: bytes, names: list[str]) -> bool:
    """Whether a YAML file may define one of these tasks: it names or includes one, or may spell it otherwise."""
    if b"include" in data or b"\\" in data or not all(map(_PLAIN.fullmatch, names)):
        return True
    return any(name.encode() in data for name in names)


def _is_shipped(name: str) -> bool:
    """Whether lm-eval ships a task of this name. Reading all its tasks for one alone takes half a second."""
    return name in (_folders_of(_kept()) if _kept().exists() else _single_tasks(frozenset({name})))


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


@functools.lru_cache(8)
def _own(include: tuple[str, ...]) -> dict[str, str | None]:
    """As _shipped, for the user's own folders. They may change, so each process reads them again."""
    return _folders(manager(include, False).task_index) if include else {}


def _shipped(names: set[str]) -> dict[str, str | None]:
    """Maps the tasks, groups and tags that lm-eval ships to the folder of their YAML file; None for groups and tags.

    While this machine's cache is empty and each of `names` is certainly a single task, the map holds `names` alone.
    """
    if not names:
        return {}
    if not _kept().exists():
        if not _FOUND.keys() >= names:
            _FOUND.update(_single_tasks(frozenset(names)))
        if _FOUND.keys() >= names:
            return {name: _FOUND[name] for name in names}
    return _folders_of(_kept())


def _folders(index: Mapping[str, Entry]) -> dict[str, str | None]:
    """Maps names to folders; groups and tags to None, since their members may be anywhere and need the whole index."""
    return {
        name: str(entry.yaml_path.parent) if entry.kind in _SINGLE and entry.yaml_path else None
        for name, entry in index.items()
    }


@functools.lru_cache(2)
def _folders_of(kept: Path) -> dict[str, str | None]:
    return _folders(_read_entries(kept))


def _kept() -> Path:
    """The file with lm-eval's index of its tasks, by its release and place."""
    key = digest([lm_eval.__file__, importlib.metadata.version("lm_eval")])
    return cache_dir() / f"lm-eval-index-{key}.json"


def _shipped_entries() -> dict[str, Entry]:
    """Returns lm-eval's index of the tasks that it ships, from this machine's cache if it is there.

    Without their configs, which lm-eval reads again from the files.
    """
    return _read_entries(_kept())


@functools.lru_cache(2)
def _read_entries(kept: Path) -> dict[str, Entry]:
    try:
        rows = json.loads(kept.read_text(encoding="utf-8"))
        return {
            name: Entry(name, Kind[kind], _LM_EVAL_TASKS / file if file else None, tags={*tags})
            for name, (kind, file, tags) in rows.items()
        }
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or another program's
        index: dict[str, Entry] = TaskManager().task_index
    rows = {}
    for name, entry in index.items():
        file = str(entry.yaml_path.relative_to(_LM_EVAL_TASKS)) if entry.yaml_path else ""
        rows[name] = (entry.kind.name, file, sorted(entry.tags))
    write_whole(kept, json.dumps(rows).encode())
    return index


@functools.lru_cache(8)
def _single_tasks(names: frozenset[str]) -> dict[str, str]:
    """Maps those of `names` that are certainly single tasks to their folders.

    Only the files that mention a name are parsed, by lm-eval's rules.
    """
    mentions: dict[str, list[Path]] = {name: [] for name in names}
    wanted = {name.encode(): name for name in names}
    for folder, _, files in os.walk(_LM_EVAL_TASKS):
        for file in files:
            if "yaml" in file:  # lm-eval's templates contain "yaml" but have no suffix
                path = Path(folder, file)
                for word in wanted.keys() & set(_WORD.findall(path.read_bytes())):
                    mentions[wanted[word]].append(path)
    folders = {}
    for name, paths in mentions.items():
        configs = sorted(path for path in paths if path.suffix == ".yaml")
        templates = [path for path in paths if path.suffix != ".yaml"]
        entry = _entries(configs).get(name)
        # When a template defines the name, any file that includes the template may be the task.
        if entry and entry.kind in _SINGLE and entry.yaml_path and name not in _entries(templates):
            folders[name] = str(entry.yaml_path.parent)
    return folders


def _entries(paths: list[Path]) -> dict[str, Entry]:
    """Returns lm-eval's index of some files, without those that it cannot read."""
    index: dict[str, Entry] = {}
    for path in paths:
        with contextlib.suppress(Exception):
            TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, index)
    return index
