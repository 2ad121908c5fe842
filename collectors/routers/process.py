"""The process of routers: `python -m collectors.routers.process`. It forks a child for each trial, and kills a late
one.

Owns the protocol: a line of JSON for a trial on standard input, a line for its end on standard output. The libraries
are imported once, before the forks. A child runs one router on one fold (collectors.routers.trial) and writes its file;
its output goes to the log. `Process` is the other side.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.failures import one_line

#: Libraries of the shipped routers; a fork has them for nothing.
_LIBRARIES = ("numpy", "scipy.sparse", "sklearn.cluster", "sklearn.linear_model", "sklearn.neighbors")
_MORE = ("sklearn.ensemble", "sklearn.neural_network", "sklearn.svm", "sklearn.feature_extraction.text")
#: The failure of a trial whose process of routers, or node, was lost.
LOST = "lost"
#: One thread each: results must not depend on the machine's cores, and several processes share them.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class _Orphan(Exception):
    """The board is gone."""


class Process:
    """A process of routers, one trial at a time."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            text=True,
        )

    def run(self, trial: Mapping[str, Any], place: Path, out: Path) -> dict[str, Any]:
        """Runs a trial with the files of `place`, and writes `out`. Returns {} or {"failed": kind, "message": …}.

        `trial` has the router (RouterSpec), the names of the files of its fold and vectors, the folders of modules
        (path), and perhaps a library to load before the fork (preload).
        """
        given = {**trial, "folder": str(place), "out": str(out)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(given) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        found: dict[str, Any] = (
            json.loads(line) if line else {"failed": LOST, "message": "the process that ran it ended"}
        )
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # it takes its trial with it
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def main() -> None:
    for name in (*_LIBRARIES, *_MORE):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a router prints
    board = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for line in sys.stdin:
        trial = json.loads(line)
        if trial.get("preload"):
            with contextlib.suppress(ImportError):
                importlib.import_module(trial["preload"])
        try:
            answers.write(json.dumps(_tried(trial, board)) + "\n")
        except _Orphan:
            return
        answers.flush()


def _tried(trial: dict[str, Any], board: int) -> dict[str, Any]:
    note = Path(f"{trial['out']}.failed.json")
    note.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _child(trial, note)
    limit = float(trial["router"]["seconds"])
    try:
        status = _waited(child, limit, board)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # and whatever it started
    if status is None:
        os.kill(child, signal.SIGKILL)  # in a group of its own choice, perhaps
        os.waitpid(child, 0)
        return {"failed": "time", "message": f"it took longer than {limit:g} s"}
    if note.exists():
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        note.unlink()
        return found
    if status != 0 or not Path(trial["out"]).exists():
        by = (
            f"signal {os.WTERMSIG(status)}"
            if os.WIFSIGNALED(status)
            else f"exit code {os.waitstatus_to_exitcode(status)}"
        )
        return {"failed": "died", "message": f"its process ended with {by}"}
    return {}


def _waited(child: int, limit: float, board: int) -> int | None:
    """The child's status; None if it is still there after `limit` seconds. Raises _Orphan if the board was killed."""
    end, pause = time.monotonic() + limit, 0.001
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if os.getppid() != board:
            raise _Orphan
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return None


def _child(trial: dict[str, Any], note: Path) -> None:
    """Runs a trial as `Process.run` describes it. Never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _run(trial)
        code = 0
    except BaseException as error:  # a router may raise anything, SystemExit as well
        kind = "choice" if type(error).__name__ == "BadChoice" else "raised"
        message = " ".join(str(error).split())[:300] if kind == "choice" else one_line(error, 300)
        trace = "".join(traceback.format_exception(error))[-4000:]
        with contextlib.suppress(OSError):
            note.write_text(json.dumps({"failed": kind, "message": message, "trace": trace}), encoding="utf-8")
    finally:
        os._exit(code)


def _run(trial: dict[str, Any]) -> None:
    import warnings

    import numpy as np

    from collectors.atomic import replacing
    from collectors.routers.registry import RouterSpec
    from collectors.routers.trial import Fold, read_data, run_trial

    warnings.simplefilter("ignore")  # of convergence, for each of many models
    spec = RouterSpec(**trial["router"])
    for folder in filter(None, (spec.folder, *trial.get("path", ()))):
        sys.path.append(folder)
    place = Path(trial["folder"])
    vectors = np.load(place / trial["vectors"], mmap_mode="r", allow_pickle=False)
    made = run_trial(read_data(place), spec, Fold.load(place / trial["fold"]), vectors)
    with replacing(Path(trial["out"]), ending=".npz") as new:
        np.savez(new, allow_pickle=False, **made)


if __name__ == "__main__":
    main()
