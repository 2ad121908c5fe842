"""A trial on any machine of a cluster: the board's files are brought there once, and the trial's own file goes back.

Owns the check that the machine runs the code of the board. pipelines.fleet hands out the trials.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from collectors.routers.process import LOST, Process
from collectors.routers.registry import RouterSpec
from collectors.routers.trial import Written
from collectors.scratch import scratch, shared_scratch

#: Libraries whose versions change results.
_LIBRARIES = ("numpy", "scikit-learn", "scipy")
#: The shared folder that this process has in use until it ends, by the name of the board's.
_in_use = contextlib.ExitStack()
_folders: dict[str, Path] = {}


def code_of(spec: RouterSpec) -> str:
    """The router's code and the versions of libraries, which a machine must have in common with the board."""
    return " ".join([spec.digest, *(importlib.metadata.version(name) for name in _LIBRARIES)])


def run_anywhere(
    trial: Mapping[str, Any], place: Path, bring: Callable[[Path], None], code: str
) -> tuple[dict[str, Any], bytes]:
    """Runs a trial as `Process.run` does. Returns how it ended, and its file.

    `bring` puts the files of `place` into a folder of a machine that does not see `place`. Raises ConfigError.
    """
    spec = RouterSpec(**trial["router"])
    here = os.getcwd()
    if spec.folder and not os.path.isdir(spec.folder):
        spec = replace(spec, folder=here)
    if (own := code_of(spec)) != code:
        return {"failed": LOST, "message": f"{os.uname().nodename} has other code: {own}, the board has {code}"}, b""
    given = {**trial, "router": asdict(spec), "path": [*trial["path"], here]}
    seen = place if place.is_dir() else _brought(place.name, bring)
    with scratch("trial-") as folder:
        out = folder / "made.npz"
        written = _written(str(seen))
        ended = _run(given, seen, out)
        if written.is_changed() or written.digests != trial["files"]:
            message = f"a router wrote into the data of the board on {os.uname().nodename}"
            return {"failed": LOST, "message": message}, b""
        if not ended and not out.is_file():
            ended = {"failed": "died", "message": "it left no choices"}
        return ended, b"" if ended else out.read_bytes()


def _run(trial: Mapping[str, Any], place: Path, out: Path) -> dict[str, Any]:
    try:
        return _process().run(trial, place, out)
    except BaseException:  # it is interrupted, and its trial with it
        _process().close()
        raise


@functools.cache
def _process() -> Process:
    """One for all trials of this process: its libraries take two seconds. It ends with this process."""
    return Process()


@functools.lru_cache(maxsize=1)
def _written(folder: str) -> Written:
    """The files of a board as this process met them first."""
    return Written(Path(folder))


def _brought(name: str, bring: Callable[[Path], None]) -> Path:
    if name not in _folders:
        _in_use.close()  # of another board
        _folders.clear()
        _folders[name] = _in_use.enter_context(shared_scratch(f"of-{name}", bring))
    return _folders[name]
