"""Processes of a pool end with the process that made the pool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.runs import ROOT, alive, wait_until

PARENT = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from collectors.children import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    input()
"""


def test_process_of_a_pool_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        assert alive(child)
        parent.kill()
    wait_until("the pool's process is gone", lambda: not alive(child))
