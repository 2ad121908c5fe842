"""Streams, signals, exit codes and files of the scripts in this folder.

Owns the code around every main function, and knows nothing of any script's work.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from collectors.atomic import write_whole
from collectors.extras import advice, leave_pandas
from pipelines.console.plain_console import VisibleStream
from schemas.failures import ConfigError, RouterlakeError, one_line

#: The command that runs all scripts (console/command.py). It puts its name and the script's into sys.argv[0].
COMMAND = "routerlake"

#: Scripts that need pandas for nothing but what takes it by name, nor any library that may.
_WITHOUT_PANDAS = frozenset(
    ["compact", "export", "forget", "ingest", "matrix", "plot", "prices", "publish", "score", "status"]
)
_FOLDER = Path(__file__).resolve().parent.parent
#: A script as a text names it. What `ray job submit` gets behind its two dashes stays.
_SCRIPT = re.compile(r"(?P<dashes>-- )?(?:python pipelines/)?\b(?P<name>[a-z]+)\.py\b")


class Parser(argparse.ArgumentParser):
    """A parser whose help names the scripts as they were called: `matrix.py --lake`, or `routerlake matrix --lake`.

    `script` is a __file__ of this folder; `parts` are the words behind its name.
    """

    def __init__(self, script: str, *parts: str, description: str, epilog: str | None = None) -> None:
        called = sys.argv[0] if _is_command() else f"{Path(script).stem}.py"
        prog = " ".join([called, *(part for part in parts if not called.endswith(f" {part}"))])
        super().__init__(
            prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def format_help(self) -> str:
        return as_called(super().format_help())


def as_called(text: str) -> str:
    """`text` with the scripts that it names as commands, if this process was started as one."""
    if not _is_command():
        return text
    names = {path.stem for path in _FOLDER.glob("*.py")}

    def called(match: re.Match[str]) -> str:
        is_ours = match["name"] in names and not match["dashes"]
        return f"{COMMAND} {match['name']}" if is_ours else match[0]

    return _SCRIPT.sub(called, text)


def _is_command() -> bool:
    return sys.argv[0].startswith(f"{COMMAND} ")


def in_order(script: str, work: Callable[[], int], *, unharmed: bool = False) -> int:
    """The exit code of a script's work: its own, 2 for wrong input, 1 for what else went wrong, each in one line.

    `unharmed` adds that the lake is so, for work that another try continues.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return work()
    except RouterlakeError as error:
        is_wrong = isinstance(error, ConfigError)
        hint = "\nThe lake is unharmed; run the same command to continue." if unharmed and not is_wrong else ""
        # Of a wrong config each fault has a line.
        print(f"{Path(script).stem}: {error if is_wrong else one_line(error)}{hint}", file=sys.stderr)
        return 2 if is_wrong else 1


def run_script(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and exits with its code.

    Other exit codes: 143 after SIGTERM, 130 after Ctrl-C, 2 for an argument that is not UTF-8 and for a library that an
    extra of the package brings, 1 if the output cannot be written or its reader is gone (`| head`).
    """
    _mend_streams()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the default ends the process without cleanup
    called = Path(sys.argv[0]).stem
    if (sys.argv[1] if called == COMMAND and len(sys.argv) > 1 else called) in _WITHOUT_PANDAS:
        leave_pandas()
    try:
        code = _check_arguments() or main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except ModuleNotFoundError as error:
        if not (line := advice(error)):
            raise
        print(f"error: {line}", file=sys.stderr)
        code = 2
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        if error.errno == errno.ENOSPC:
            print(f"error: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python reports the error again at exit
        code = 1
    # Not sys.exit(): threads of Ray and Arrow outlive their work and have crashed the interpreter while it shut down.
    logging.shutdown()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def command(script: str, *arguments: str) -> str:
    """A shell command that runs `script`, a __file__ of this folder, from the current directory."""
    if _is_command():
        return shlex.join([COMMAND, Path(script).stem, *arguments])
    return shlex.join([_from_here(sys.executable), _from_here(os.path.abspath(script)), *arguments])


def python(code: str) -> str:
    """A shell command that runs a line of Python from the current directory."""
    return shlex.join([_from_here(sys.executable), "-c", code])


def sibling(script: str, name: str) -> str:
    """The path of the script `name` in the folder of `script`."""
    return os.path.join(os.path.dirname(os.path.abspath(script)), name)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: an older file stays if the disk is full. Raises ConfigError."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _from_here(path: str) -> str:
    here = os.getcwd()
    return os.path.relpath(path, here) if path.startswith(here + os.sep) else path


def _mend_streams() -> None:
    """Replaces closed streams with /dev/null, and escapes or replaces characters that a stream must not get."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, number)  # or the next opened file would receive the output of libraries
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        setattr(sys, name, VisibleStream(stream))


def _check_arguments() -> int:
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            print(f"error: the argument {argument!r} is not valid UTF-8", file=sys.stderr)
            return 2
    return 0
