"""The edges of a process that a person runs: its streams, signals and exit code.

Owns what every script of this folder does around its main. Knows nothing of what the scripts do.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run_script(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and exits with its code: 143 after SIGTERM, 1 when whoever read the output has gone (`| head`)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or file that takes ASCII only still gets the rest
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by default the process would end without cleaning up
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it again at exit
        code = 1
    sys.exit(code)
