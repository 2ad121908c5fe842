"""The process of routers: `python -m collectors.routers.process`. It forks a child for each trial, and kills a late
one.

Owns the protocol: a line of JSON for a trial on standard input, a line for its end on standard output. The libraries
are imported once, before the forks. A child runs one router on one fold (collectors.routers.trial) and writes its file;
the beginning of its output is shown. `Process` is the other side, and trusts neither: a router may write lines of its
own there, or stop the process that should end it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collectors.routers.contract import BadChoice, why
from schemas.texts import visible

#: Libraries of the shipped routers; a fork has them for nothing.
_LIBRARIES = ("numpy", "scipy.sparse", "sklearn.cluster", "sklearn.linear_model", "sklearn.neighbors")
_MORE = ("sklearn.ensemble", "sklearn.neural_network", "sklearn.svm", "sklearn.feature_extraction.text")
#: Bytes of a trial's output that are shown.
_SHOWN = 4096
#: Of prctl(2).
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
#: How often what a trial left behind is ended, before the next trial begins.
_ROUNDS = 100
#: The failure of a trial whose process of routers, or node, was lost.
LOST = "lost"
#: All failures of a trial.
FAILURES = ("raised", "choice", "time", "died", LOST)
#: Seconds beyond a router's own, for libraries, before the process itself is ended.
_GRACE = 120.0
#: Most bytes of a line of the protocol.
_MOST_LINE = 1 << 20
#: One thread each: results must not depend on the machine's cores, and several processes share them.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class _Orphan(Exception):
    """The board is gone."""


class _Failed(Exception):
    """A trial failed; `end` is what the board gets."""

    def __init__(self, end: dict[str, Any]) -> None:
        super().__init__()
        self.end = end


class Process:
    """A process of routers, one trial at a time. It is started with a trial, and anew where it was lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def run(self, trial: Mapping[str, Any], place: Path, out: Path) -> dict[str, Any]:
        """Runs a trial with the files of `place`, and writes `out`. Returns {} or {"failed": kind, "message": …}.

        `trial` has the router (RouterSpec), the names of the files of its fold and vectors, the folders of modules
        (path), and perhaps a library to load before the fork (preload). A failure may have `sources`
        (collectors.routers.sources).
        """
        name = secrets.token_hex(8)
        limit = float(trial["router"]["seconds"])
        given = {**trial, "folder": str(place), "out": str(out), "trial": name}
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
            return self._end_of(name, process, time.monotonic() + limit + _GRACE)
        except TimeoutError:
            self._kill()
            return {"failed": "time", "message": f"it took longer than {limit:g} s, and the process that should end it"}
        except OSError:
            self._kill()
            return {"failed": LOST, "message": "the process that ran it ended"}

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._read = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
        )
        return self._process

    def _end_of(self, name: str, process: subprocess.Popen[bytes], until: float) -> dict[str, Any]:
        """The end of the trial of this name; lines of others, and what is no line of the protocol, are passed over.

        Raises TimeoutError at the time `until`, and ConnectionResetError where the process ended.
        """
        assert process.stdout is not None
        while True:
            line, newline, rest = self._read.partition(b"\n")
            if newline:
                self._read = rest
                if (found := _answer(line, name)) is not None:
                    return found
                continue
            if len(self._read) > _MOST_LINE:
                self._read = b""
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if select.select([process.stdout], [], [], left)[0]:
                more = os.read(process.stdout.fileno(), 1 << 16)
                if not more:
                    raise ConnectionResetError
                self._read += more

    def stop(self) -> None:
        """Ends the process at once, with its trial, though it may be stopped. A `run` of another thread is LOST."""
        if process := self._process:
            for _ in range(_ROUNDS):  # what these start meanwhile
                if not (pids := _below(process.pid)):
                    break
                for pid in pids:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            process.kill()

    def _kill(self) -> None:
        if self._process:
            self.stop()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()
            self._process = None

    def close(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        if self._process.returncode is None:
            self._process.terminate()  # it takes its trial with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        self._kill()


def _answer(line: bytes, name: str) -> dict[str, Any] | None:
    """What a line of the protocol says of the trial of this name; None for any other line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("trial") != name:
        return None
    return ended if is_end(ended := value.get("end")) else None


def is_end(value: Any) -> bool:
    """Whether a value is {}, or a failure with its message and perhaps the note of its sources."""
    if not isinstance(value, dict):
        return False
    if not value:
        return True
    sources = value.get("sources") or {}
    return (
        value.get("failed") in FAILURES
        and isinstance(value.get("message"), str)
        and isinstance(sources, dict)
        and all(isinstance(one, str) for one in sources.values())
    )


def _below(pid: int) -> list[int]:
    """The processes below one that are alive."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [*_below(child), *([child] if _is_alive(child) else [])]
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return False


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
            ended = _tried(trial, board)
        except _Orphan:
            return
        answers.write("\n" + json.dumps({"trial": trial["trial"], "end": ended}) + "\n")
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
    if (found := _noted(note)) is not None:
        return found
    if status != 0 or not Path(trial["out"]).exists():
        by = (
            f"signal {os.WTERMSIG(status)}"
            if os.WIFSIGNALED(status)
            else f"exit code {os.waitstatus_to_exitcode(status)}"
        )
        return {"failed": "died", "message": f"its process ended with {by}"}
    return {}


def _noted(note: Path) -> dict[str, Any] | None:
    """The failure that a child noted; None if it noted none, or wrote what is no failure."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        note.unlink()
    except (OSError, ValueError, RecursionError):
        return None
    return found if found and is_end(found) else None


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
        os.write(2, visible(text[:left].decode(errors="replace")).encode())
        if left and len(text) > left:
            os.write(2, b"\n... it prints more, which is left out\n")
    return max(0, left - len(text))


def _adopt() -> None:
    """Makes this process the parent of what trials leave behind in groups of their own. Only Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_the_parent() -> None:
    """Lets the kernel end this process when its parent is gone: nobody else would hold its time. Only Linux can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


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
        _end_with_the_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the board's pipes are not the router's
        _run(trial)
        code = 0
    except _Failed as failed:
        with contextlib.suppress(OSError):
            note.write_text(json.dumps(failed.end), encoding="utf-8")
    except BaseException:  # our own code raised it
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(trial: dict[str, Any]) -> None:
    """Raises _Failed for whatever the router raises."""
    import warnings

    import numpy as np

    from collectors.atomic import replacing
    from collectors.routers.registry import RouterSpec
    from collectors.routers.sources import loaded_since
    from collectors.routers.trial import Fold, read_data, run_trial

    warnings.simplefilter("ignore")  # of convergence, for each of many models
    spec = RouterSpec(**trial["router"])
    for folder in filter(None, (spec.folder, *trial.get("path", ()))):
        sys.path.append(folder)
    place = Path(trial["folder"])
    vectors = np.load(place / trial["vectors"], mmap_mode="r", allow_pickle=False)
    data, fold = read_data(place), Fold.load(place / trial["fold"])
    before, began = set(sys.modules), time.time()
    try:
        made = run_trial(data, spec, fold, vectors)
    except BaseException as error:  # a router may raise anything, SystemExit as well
        try:
            trace = "".join(traceback.format_exception(error))[-4000:]
        except Exception:  # the text of its error raises, too
            trace = ""
        # What a module that cannot be imported needs is told by nothing that was.
        is_whole = spec.factory.partition(":")[0] in sys.modules and not isinstance(error, ImportError | SyntaxError)
        sources = loaded_since(before, spec.factory, began) if is_whole else None
        kind = "choice" if type(error) is BadChoice else "raised"
        raise _Failed({"failed": kind, "message": why(error), "trace": trace, "sources": sources}) from error
    sources = loaded_since(before, spec.factory, began)
    try:
        with replacing(Path(trial["out"]), ending=".npz") as new:
            np.savez(new, allow_pickle=False, sources=json.dumps(sources), **made)
    except OSError as error:  # such as a full disk, which is not the router's fault
        raise _Failed({"failed": LOST, "message": f"its choices were not kept: {why(error)}"}) from error


if __name__ == "__main__":
    main()
