"""Keeps the code of a judge from running an answer, and from reaching out, in a process that does nothing else.

Tasks whose code would run an answer are refused when they are planned (collectors.harness.evaluating). This is the
second net, for code that the search cannot see: Python calls an audit hook before it acts, and code cannot remove a
hook (PEP 578). Owns the list of acts that no judge needs. Knows nothing of tasks.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import types
from collections.abc import Callable
from typing import Any

from collectors.sandbox.bubblewrap import is_starting

#: Starts of programs.
_STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
_STARTS |= {"subprocess.Popen"}
#: Changes of files. A judge may change files in its own folder.
_CHANGES = {"os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
_CHANGES |= {"os.truncate", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile"}
_REACHES = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
#: What sympy makes of an expression of numbers, which math-verify reads; it reads others by a grammar.
_NUMBERS = re.compile(r"(?:\b(?:Integer|Float|Rational)\b|[\d\s()+\-*/.,'e])*")
#: Names of code that has no file: eval, exec and compile use the first, ast.parse the second.
_NO_FILE = ("<string>", "<unknown>")
_EVALUATOR = "sympy.parsing.sympy_parser"

#: Most bytes of a file that a judge writes, and of the memory that it takes beyond what it began with.
FILE_BYTES = 64 * 2**20
MEMORY_BYTES = 4 * 2**30


def confine(folder: str, refuse: Callable[[str], None]) -> None:
    """Confines this process for good to `folder` and to computing.

    `refuse` gets the name of the first step out of bounds, and must end the process: the code behind that step is not
    trusted to go on. The network is merely away.
    """
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "TMPDIR": folder, "HOME": folder})
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MEMORY_BYTES,) * 2)
    place = os.path.join(os.path.realpath(folder), "")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _REACHES:
            raise PermissionError("there is no network while an answer is judged")
        if event in _STARTS:
            if not is_starting.get():
                refuse(event)
        elif event in _CHANGES and not _is_inside(place, args[0]):
            refuse(f"{event} {args[0]!r}")
        elif event == "open" and _writes(args) and not _is_inside(place, args[0]):
            refuse(f"open {args[0]!r} for writing")
        elif event == "compile" and args[1] in _NO_FILE and _is_by_sympy() and not _is_number(args[0]):
            refuse("eval of an expression")

    sys.addaudithook(hook)


def limit_by_cpu_time_alone() -> None:
    """Turns off alarms of the wall clock in this process: a verdict must not depend on how busy the machine is.

    lm-eval's judges of maths take an answer for wrong when their alarm rings. `allow_seconds` limits them instead.
    """
    signal.alarm = lambda seconds: 0
    timer = signal.setitimer
    signal.setitimer = lambda which, seconds, interval=0.0: (
        (0.0, 0.0) if which == signal.ITIMER_REAL else timer(which, seconds, interval)
    )


def allow_seconds(seconds: int) -> None:
    """Lets the system end this process by SIGXCPU after this many more seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _data_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def _is_inside(place: str, path: Any) -> bool:
    if isinstance(path, int):  # a descriptor that is open already
        return True
    full = os.path.realpath(os.fsdecode(path))
    return full == "/dev/null" or full.startswith(place) or full == place.rstrip(os.sep)


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    if isinstance(flags, int):
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return any(letter in mode for letter in "wax+")


def _is_by_sympy() -> bool:
    """Whether sympy's evaluator stands among the callers, and no import: the code of a module is not an answer."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name == _EVALUATOR:
            return True
        if name == "importlib._bootstrap":
            return False
        frame = frame.f_back
    return False


def _is_number(source: Any) -> bool:
    if source is None:  # a syntax tree, made of a text that was seen before
        return True
    text = source.decode(errors="replace") if isinstance(source, bytes) else str(source)
    return _NUMBERS.fullmatch(text) is not None
