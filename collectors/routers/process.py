"""The process of routers: `python -m collectors.routers.process`. It forks a child for each trial, and kills a late
one.

Owns the protocol: a line of JSON for a trial on standard input, a line for its end on standard output. The libraries
are imported once, before the forks. A child runs one router on one fold (collectors.routers.trial) and writes its file;
the beginning of its output is shown. `Process` is the other side.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
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
#: Bytes of a trial's output that are shown.
_SHOWN = 4096
#: Of prctl(2).
_PR_SET_CHILD_SUBREAPER = 36
#: How often what a trial left behind is ended, before the next trial begins.
_ROUNDS = 100
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
    os.dup2(2, 1)  # whatever a library prints
    _adopt()
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
    printed, output = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
        _child(trial, note)
    os.close(output)
    limit = float(trial["router"]["seconds"])
    try:
        status = _waited(child, limit, board, printed)
    finally:
        os.close(printed)
        _end(child)
    if status is None:
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


def _waited(child: int, limit: float, board: int, printed: int) -> int | None:
    """The child's status; None if it is still there after `limit` seconds. Raises _Orphan if the board was killed.

    Shows the beginning of what the child prints, and reads the rest, so that it never waits for a reader.
    """
    end, pause, left, is_open = time.monotonic() + limit, 0.001, _SHOWN, True
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if os.getppid() != board:
            raise _Orphan
        if not is_open:
            time.sleep(pause)
        elif select.select([printed], [], [], pause)[0]:
            text = os.read(printed, 1 << 16)
            is_open = bool(text)
            left = _shown(text, left)
        pause = min(2 * pause, 0.05)
    return None


def _shown(text: bytes, left: int) -> int:
    """Shows the first `left` bytes of `text`. Returns how many more may be shown."""
    with contextlib.suppress(OSError):
        os.write(2, text[:left])
        if left and len(text) > left:
            os.write(2, b"\n... it prints more, which is left out\n")
    return max(0, left - len(text))


def _adopt() -> None:
    """Makes this process the parent of what trials leave behind in groups of their own. Only Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end(child: int) -> None:
    """Ends a trial that is still there, and all that it left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    pids = [child]
    for _ in range(_ROUNDS):  # what these start meanwhile
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:  # its number is nobody else's until it is waited for
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        pids = []
        with contextlib.suppress(OSError):
            pids = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
        if not pids:
            return


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
        try:
            message = " ".join(str(error).split())[:300] if kind == "choice" else one_line(error, 300)
            trace = "".join(traceback.format_exception(error))[-4000:]
        except Exception:  # the text of its error raises, too
            message, trace = type(error).__name__, ""
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
