"""The code that a router is made of: another result may come of other code, so a kept trial notes what it ran.

Owns the note: name of a module that is neither Python's own nor this project's -> the digest of its file, or the
version of the library that it is of. Modules are found and read here, and never run. Files that a router opens itself,
such as weights, are its own affair: it names them in its parameters.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Collection, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parents[2]
_OURS = ("collectors", "pipelines", "schemas")
_STANDARD = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})
_LIBRARIES = {"site-packages", "dist-packages"}

Note = dict[str, str]


def loaded_since(before: Collection[str], factory: str, began: float) -> Note | None:
    """The note of all modules beyond `before`, at the time `began`, that are loaded now.

    None if the file of one cannot be told, or was written since: it may not be what was loaded. Of the package that has
    the router each file counts, wherever it is installed.
    """
    note: Note = {}
    own = factory.partition(":")[0].partition(".")[0]
    known = {name.partition(".")[0] for name in before}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if (name in before and top != own) or top in _OURS:
            continue
        spec = _spec_of(module)
        if spec is None or (spec.origin is not None and not _is_built_in(spec) and _file(spec) is None):
            if top in note or top in known or _is_of_a_librarys_making(spec):
                continue  # six.moves, and what torch writes at its import
            return None
        file = _file(spec)
        if file is None or _is_standard(file):
            continue
        if file.stat().st_mtime > began:
            return None
        if _is_library(file) and top != own:
            if top not in known:
                note[top] = _version(top, file)
        else:
            note[name] = _digest(file)
    return note


class Sources:
    """Modules as they stand on this machine, for routers whose modules may lie in `folders`."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders
        self._found: Note = {}
        importlib.invalidate_caches()

    def other(self, note: Mapping[str, str]) -> str | None:
        """The first module that is not as the note has it."""
        for name, noted in note.items():
            if name not in self._found:
                self._found[name] = self._now(name)
            if noted not in self._found[name].split("\n"):
                return name
        return None

    def has(self, name: str) -> bool:
        return bool(self._found.get(name))

    def _now(self, name: str) -> str:
        """What a note may have of a module, by lines; empty where it is not found."""
        spec = found(name, self._folders)
        file = _file(spec) if spec else None
        if file is None:
            return ""
        return _digest(file) if "." in name else f"{_digest(file)}\n{_version(name, file)}"


def found(module: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Where a module stands: on the path, then in `folders`, as the process of routers looks. Runs none of it."""
    path = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT / "pipelines"]  # of a script there
    path += folders
    spec: ModuleSpec | None = None
    for depth, part in enumerate(module.split(".")):
        try:
            spec = PathFinder.find_spec(part, path)
            if spec is None and not depth:
                spec = importlib.util.find_spec(part)  # what is installed by a finder of its own
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def text_of(module: str, folders: Sequence[str]) -> bytes:
    """The text of a module in Python; empty where no file has it."""
    spec = found(module, folders)
    file = _file(spec) if spec else None
    return file.read_bytes() if file and file.suffix == ".py" else b""


def _spec_of(module: object) -> ModuleSpec | None:
    spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
    return spec if isinstance(spec, ModuleSpec) else None


def _is_of_a_librarys_making(spec: ModuleSpec | None) -> bool:
    """Whether a library made a module out of nothing, with a loader of its own."""
    maker = _spec_of(sys.modules.get(type(spec.loader).__module__)) if spec else None
    file = _file(maker) if maker else None
    return file is not None and _is_library(file)


def _is_built_in(spec: ModuleSpec) -> bool:
    return spec.origin in ("built-in", "frozen") and not spec.has_location


def _file(spec: ModuleSpec) -> Path | None:
    """The file of a module; built-in ones and the folders of a namespace have none."""
    file = Path(spec.origin) if spec.origin and spec.has_location else None
    return file if file and file.is_file() else None


def _is_standard(file: Path) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in _STANDARD) and not _is_library(file)


def _is_library(file: Path) -> bool:
    return not _LIBRARIES.isdisjoint(file.parts)


def _version(name: str, file: Path) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        return f"version {importlib.metadata.version(name)}"
    return _digest(file)


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
