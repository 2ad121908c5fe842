"""Folders for work in progress go with their process, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from collectors.scratch import PREFIX, clear_left, scratch, shared_scratch
from schemas.failures import ConfigError

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


def test_shared_scratch_is_filled_once_and_stays_while_anybody_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    filled: list[Path] = []

    def fill(folder: Path) -> None:
        filled.append(folder)
        (folder / "data").write_text("1")

    with shared_scratch("of-one", fill) as first:
        with shared_scratch("of-one", fill) as second:
            assert first == second
        clear_left(tmp_path)
        assert (first / "data").exists(), "one of two still has it"
    clear_left(tmp_path)
    assert not first.exists()
    with shared_scratch("of-one", fill):
        assert filled == [first, first]
    os.symlink(tmp_path, tmp_path / f"{PREFIX}of-two")
    with pytest.raises(ConfigError, match="another user's"), shared_scratch("of-two", fill):
        pass


def test_shared_scratch_that_was_half_filled_is_filled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def half(folder: Path) -> None:
        (folder / "data").write_text("1")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), shared_scratch("of-one", half):
        pass
    with shared_scratch("of-one", lambda folder: (folder / "data").write_text("2") and None) as folder:
        assert (folder / "data").read_text() == "2"
