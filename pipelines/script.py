"""The edges of a process that a person runs: its streams, signals and exit code.

Owns what every script of this folder does around its main. Knows nothing of what the scripts do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from schemas.failures import ConfigError


def run_script(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and exits with its code.

    143 after SIGTERM, 130 after Ctrl-C, 2 for an argument that is no text, 1 when nobody reads the output any more
    (`| head`) or it cannot be written.
    """
    _mend_streams()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by default the process would end without cleaning up
    try:
        code = _check_arguments() or main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        if error.errno == errno.ENOSPC:
            print(f"error: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains of it again at exit
        code = 1
    # Not sys.exit(): threads of Ray and Arrow outlive their work, and have crashed an interpreter winding down.
    logging.shutdown()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def command(script: str, *arguments: str) -> str:
    """A command of this folder as a person can type it where they are: `script` is its __file__."""
    return shlex.join([_from_here(sys.executable), _from_here(os.path.abspath(script)), *arguments])


def python(code: str) -> str:
    """A line of Python as a person can type it where they are."""
    return shlex.join([_from_here(sys.executable), "-c", code])


def sibling(script: str, name: str) -> str:
    """The file of another command of the same folder."""
    return os.path.join(os.path.dirname(os.path.abspath(script)), name)


def write_file(path: Path, data: bytes) -> None:
    """Whole or not at all: what was there before stays where the disk is full. Raises ConfigError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def _from_here(path: str) -> str:
    here = os.getcwd()
    return os.path.relpath(path, here) if path.startswith(here + os.sep) else path


def _mend_streams() -> None:
    """A closed stream becomes one that goes nowhere, and one that takes ASCII only still gets the rest."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, number)  # or the next file that is opened would get what is printed by libraries
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _check_arguments() -> int:
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            print(f"error: the argument {argument!r} is no text in UTF-8", file=sys.stderr)
            return 2
    return 0
