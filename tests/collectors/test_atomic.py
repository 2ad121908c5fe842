"""Files that appear whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from collectors.atomic import replacing, write_whole


def test_write_whole_replaces_the_older_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"old")
    write_whole(tmp_path / "a.json", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"new")]


def test_replacing_block_that_fails_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"old")

    def fail(name: str, half: Callable[[Path], object]) -> None:
        with replacing(tmp_path / name) as temporary:
            half(temporary)
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail("a.json", lambda temporary: temporary.write_bytes(b"ne"))
    with pytest.raises(ValueError, match="half"):
        fail("folder", lambda temporary: (temporary / "deep").mkdir(parents=True))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"old")]


def test_replacing_block_that_writes_nothing_or_has_no_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_replacing_folder_appears_whole_and_replaces_no_folder_with_files(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "file").write_bytes(b"1")
        assert not (tmp_path / "folder").exists()
    with pytest.raises(OSError, match="not empty"), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")] == ["folder", "folder/file"]


def test_replacing_long_names_and_the_endings_that_writers_go_by_fit(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 240}.parquet"
    with replacing(path, ending=path.suffix) as temporary:
        assert temporary.suffix == ".parquet"
        temporary.write_bytes(b"1")
    with replacing(path) as temporary:
        assert not temporary.match("*.parquet")
        temporary.write_bytes(b"2")
    assert path.read_bytes() == b"2"


def test_replacing_writers_at_once_never_show_half_a_file(tmp_path: Path) -> None:
    path, contents = tmp_path / "a", [bytes([number]) * 100_000 for number in range(4)]
    write_whole(path, contents[0])

    def write(data: bytes) -> None:
        for _ in range(30):
            write_whole(path, data)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import sys
from pathlib import Path
from collectors.atomic import replacing
with replacing(Path(sys.argv[1]), locked=True) as temporary:
    temporary.mkdir()
    (temporary / "half").write_bytes(b"1")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_replacing_locked_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, text=True, **pipes) as process:
        assert process.stdout
        left = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert (left / "half").exists()
    with replacing(tmp_path / "model", locked=True) as temporary:
        assert temporary == left
        temporary.mkdir()
    assert list((tmp_path / "model").iterdir()) == []
    assert not left.exists()
