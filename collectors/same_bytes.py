"""DuckDB files that are the same to the byte each time that they are made of the same rows.

Owns what that takes: a process of its own whose allocator clears memory, because DuckDB leaves the ends of its segments
unset, and the compressions that a file may have. One thread has to write, which is the writer's part.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from collectors.children import end_with_parent
from schemas.failures import StorageError

#: FSST draws its sample at random, and bitpacking copies unset bytes of the stack.
SAME_COMPRESSION = "SET disabled_compression_methods = 'bitpacking,fsst'"
#: Read when DuckDB is loaded: jemalloc then clears the memory that it hands out.
_CLEARED = ("DUCKDB_JE_MALLOC_CONF", "zero:true")
#: Held while the environment has it, and a process gets that.
_environment = threading.Lock()

Result = TypeVar("Result")


def in_cleared_process(write: Callable[..., Result], *args: object) -> Result:
    """Calls a function of a module in such a process, and returns what it returns.

    Raises what the function raises, and StorageError if its process was ended.
    """
    name, value = _CLEARED
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            with _environment:
                before = os.environ.get(name)
                os.environ[name] = value
                try:
                    written = pool.submit(write, *args)  # the process starts here
                finally:
                    os.environ.pop(name)
                    if before is not None:
                        os.environ[name] = before
            return written.result()
    except BrokenProcessPool as error:
        raise StorageError("the process that writes the database was ended, perhaps for its memory") from error
