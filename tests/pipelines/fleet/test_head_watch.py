"""A head that goes away is noticed, by a driver that looks or for one that hangs."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from pipelines.fleet import head_watch
from pipelines.fleet.head_watch import HeadWatch
from schemas.failures import EngineError
from tests.helpers.runs import wait_until


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    monkeypatch.setattr(head_watch, "INTERVAL", 0.05)
    server = socket.create_server(("127.0.0.1", 0), backlog=1000)
    return server


def test_head_that_answers_is_no_matter_and_one_that_is_gone_is_an_error(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with HeadWatch(f"127.0.0.1:{port}", silence=0.3, notice=600) as watch:
        started = time.monotonic()
        while time.monotonic() - started < 0.6:
            watch.check()
        listener.close()
        wait_until("the loss is noticed", watch._lost.is_set, 30)
        with pytest.raises(EngineError, match=rf"the head of the Ray cluster at 127.0.0.1:{port} is gone"):
            watch.check()


def test_head_is_blamed_for_what_comes_up_where_it_does_not_answer(listener: socket.socket) -> None:
    with HeadWatch(f"127.0.0.1:{listener.getsockname()[1]}", silence=600) as watch:
        error = EngineError("no engine process could be started")
        assert watch.blame(error) is error
        listener.close()
        wait_until("it is gone", lambda: not watch._answers(), 30)
        assert str(watch.blame(error)) == f"the head of the Ray cluster at {watch.address} is gone: it does not answer"


def test_head_that_is_back_in_time_was_never_gone(listener: socket.socket) -> None:
    address = listener.getsockname()
    with HeadWatch(f"127.0.0.1:{address[1]}", silence=5, notice=600) as watch:
        listener.close()
        wait_until("it is missed", lambda: not watch._answers(), 30)
        with socket.create_server(address):
            wait_until("it is back", watch._answers, 30)
            watch.check()


def test_driver_that_hangs_when_the_head_is_gone_is_ended_in_one_line() -> None:
    code = (
        "import threading; from pipelines.fleet import head_watch; head_watch.INTERVAL = 0.05\n"
        "with head_watch.HeadWatch('127.0.0.1:1', silence=0.2, notice=0.2): threading.Event().wait()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("error: the head of the Ray cluster at 127.0.0.1:1 is gone")
    assert "run the same command on a new cluster to continue" in done.stderr
