"""Folders for work in progress go with their process, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from collectors.scratch import PREFIX, clear_left, scratch

#: Makes a folder, says so, and waits.
HOLDS = """
import sys, time
from collectors.scratch import scratch
with scratch("x-", sys.argv[1]) as folder:
    (folder / "data").write_text("1")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_scratch_of_a_killed_process_is_cleared_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        left = Path(process.stdout.readline().strip())
        clear_left(tmp_path)
        assert (left / "data").exists(), "its process is at work"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (left / "data").exists()
        with scratch("y-", str(tmp_path)) as mine:
            assert list(tmp_path.iterdir()) == [mine]
            assert mine.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


def test_clear_left_touches_nothing_that_scratch_did_not_make(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}mine").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("1")
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / f"{PREFIX}link")
    clear_left(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
