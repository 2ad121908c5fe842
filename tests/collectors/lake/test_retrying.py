"""Which errors may mend: asked of the clients' own errors, made by servers that are away, refuse, or a full device."""

from __future__ import annotations

import http.server
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.utils import _http, get_session

from collectors.engines import ModelRef
from collectors.lake.retrying import may_mend
from collectors.lake.store import Lake
from collectors.models.pinning import fetch
from schemas.failures import StorageError, UnreachableError
from tests.helpers.answering_stores import answering, store_at
from tests.helpers.local_server import serving
from tests.helpers.small_hub import point_at


def raised(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("it worked")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_full_device_may_mend() -> None:
    def write() -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"1")

    assert may_mend(raised(write))


@pytest.mark.parametrize("name", ["", "no/such/folder"])
def test_missing_or_forbidden_paths_do_not_mend(tmp_path: Path, name: str) -> None:
    assert not may_mend(raised(lambda: open(tmp_path / name)))  # noqa: SIM115
    assert not may_mend(PermissionError(13, "Permission denied"))
    assert not may_mend(OSError(30, "Read-only file system"))


@pytest.mark.parametrize(
    ("status", "code", "mends"),
    [
        (503, "SlowDown", True),
        (500, "InternalError", True),
        (429, "TooManyRequests", True),
        (403, "AccessDenied", False),
        (403, "ExpiredToken", False),
        (404, "NoSuchBucket", False),
        (400, "InvalidRequest", False),
    ],
)
def test_lake_refusals_of_a_store_are_waited_for_only_where_it_asks_for_that(
    status: int, code: str, mends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with answering((status, code)) as (endpoint, _), store_at(endpoint):
        lake = Lake("s3://bucket/lake")
        lake.filesystem.retries = 1
        error = raised(lambda: lake.create("a", b"1"))
    assert isinstance(error, StorageError)
    assert isinstance(error, UnreachableError) is mends, error


def test_lake_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with store_at(f"http://127.0.0.1:{closed_port()}"):
        lake = Lake("s3://bucket/lake")
        lake.filesystem.retries = 1
        for action in (lambda: lake.create("a", b"1"), lambda: lake.has("a"), lambda: lake.read("a")):
            assert isinstance(raised(action), UnreachableError)


@contextmanager
def hub(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as url:
        yield url


@pytest.mark.parametrize(("status", "mends"), [(503, True), (408, True), (404, False), (403, False)])
def test_fetch_from_a_hub_that_is_away_is_waited_for(
    status: int, mends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client asks again by itself, for 23 s: here without its pauses.
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None, time=time.time))
    with hub(status) as url:
        point_at(monkeypatch, url, tmp_path)
        error = raised(lambda: fetch(ModelRef("org/model", "org/model", "0" * 40, None)))
    assert isinstance(error, UnreachableError) is mends, error
    assert getattr(error, "kind", "") == "hub_down" or not mends
    assert "\n" not in str(error)


def test_hub_that_does_not_listen_may_mend() -> None:
    assert may_mend(raised(lambda: get_session().get(f"http://127.0.0.1:{closed_port()}/api", timeout=5)))
