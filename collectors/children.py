"""Processes that a pool starts, which end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Ends this process of a pool once its parent is gone, whatever it does; called once, when the process starts.

    A pool's process waits for work on a pipe that it holds open itself: after a `kill -9` of the parent it would wait
    for ever.
    """
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
