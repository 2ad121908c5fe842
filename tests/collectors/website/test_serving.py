"""The server of a site: ranges, and no file beyond the folder."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.lake import layout
from collectors.website.building import KIND, SITE_MANIFEST
from collectors.website.serving import server
from schemas.records import SCHEMA_VERSION

DATA = bytes(range(256)) * 8
MANIFEST = json.dumps(
    {
        "kind": layout.PUBLISHED_KIND,
        "schema_version": SCHEMA_VERSION,
        "version": "1.0.0",
        "counts": {},
        "provenance": {},
        "description": {},
        "files": {"named": {"bytes": 5, "sha256": "0" * 64}},
    }
).encode()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_bytes(b"<p>start</p>")
    (folder / "site.duckdb").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "published" / "named").write_bytes(b"named")
    (tmp_path / "published" / "unnamed").write_bytes(b"unnamed")
    (folder / "version").symlink_to(tmp_path / "published")
    write_site_json(folder, hashlib.sha256(MANIFEST).hexdigest())
    yield from served(folder)


def write_site_json(folder: Path, manifest_sha256: str | None) -> None:
    value = {"kind": KIND, "version": "version 1.0.0", "manifest_sha256": manifest_sha256, "files": {}}
    (folder / SITE_MANIFEST).write_text(json.dumps(value))


def served(folder: Path) -> Iterator[int]:
    with server(folder, 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), data


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=0-9", 0, 9), ("bytes=2000-", 2000, 2047), ("bytes=-5", 2043, 2047),
                                 ("bytes=2040-99999", 2040, 2047)]
)  # fmt: skip
def test_server_range_is_answered_with_its_part(port: int, asked: str, first: int, last: int) -> None:
    status, headers, data = ask(port, "/site.duckdb", Range=asked)
    assert (status, headers["Content-Range"]) == (206, f"bytes {first}-{last}/2048")
    assert data == DATA[first : last + 1]


def test_server_head_with_a_range_is_answered_by_206_without_a_body(port: int) -> None:
    status, headers, data = ask(port, "/site.duckdb", "HEAD", Range="bytes=0-0")
    assert (status, headers["Content-Range"], headers["Content-Length"], data) == (206, "bytes 0-0/2048", "1", b"")


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=-0"])
def test_server_range_outside_the_file_is_refused(port: int, asked: str) -> None:
    assert ask(port, "/site.duckdb", Range=asked)[0] == 416


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=5-2", "bytes=9000-5"])
def test_server_other_ranges_give_the_whole_file(port: int, asked: str) -> None:
    status, _, data = ask(port, "/site.duckdb", Range=asked)
    assert (status, data) == (200, DATA)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/link",
        "/no",
        "/%00",
        "/version/../../secret",
        "//etc/passwd",
        "/version/unnamed",
        f"/{'a' * 300}",
        f"/{'a' * 5000}/x",
    ],
)
def test_server_gives_nothing_beyond_the_site_and_its_version(port: int, path: str) -> None:
    assert ask(port, path)[0] == 404


def test_server_gives_pages_and_the_version_to_this_machine_alone(port: int) -> None:
    status, headers, data = ask(port, "/")
    assert (status, data) == (200, b"<p>start</p>")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/version/manifest.json")[2] == MANIFEST
    assert ask(port, "/version/named")[2] == b"named"
    assert ask(port, "/", Host="evil.example")[0] == 403
    assert ask(port, "/", Host="127.0.0.1:80@evil")[0] == 403
    assert ask(port, "/", Host=f"LocalHost:{port}")[0] == 200


@pytest.mark.parametrize(
    "request_text", ["GET http://[ HTTP/1.1\r\nHost: localhost", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
                     "GET / HTTP/1.1"]
)  # fmt: skip
def test_server_request_that_cannot_be_read_is_answered_with_400(
    port: int, request_text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"{request_text}\r\n\r\n".encode())
        assert client.makefile("rb").readline() == b"HTTP/1.1 400 Bad Request\r\n"
    assert capfd.readouterr().err == ""


def test_server_client_that_goes_away_leaves_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_bytes(bytes(16 << 20))
    with server(tmp_path, 0) as serving:
        serving.daemon_threads = False  # so that server_close waits for the answer's end
        client = socket.create_connection(("127.0.0.1", serving.server_port), timeout=10)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        serving.handle_request()
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # with a reset
    assert capfd.readouterr().err == ""


def test_server_clients_that_come_at_once_are_let_in(tmp_path: Path) -> None:
    with server(tmp_path, 0) as serving, contextlib.ExitStack() as clients:
        for _ in range(300):  # nobody accepts yet: beyond the queue a connection waits for its timeout
            clients.enter_context(socket.create_connection(("127.0.0.1", serving.server_port), timeout=0.5))


@pytest.mark.parametrize("manifest_sha256", [None, "0" * 64, hashlib.sha256(b"{}").hexdigest()])
def test_server_follows_no_link_to_another_folder_than_the_version_of_its_pages(
    manifest_sha256: str | None, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").write_bytes(b"{}")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "version").symlink_to(tmp_path / "elsewhere")
    write_site_json(tmp_path / "site", manifest_sha256)
    [status] = [ask(port, "/version/manifest.json")[0] for port in served(tmp_path / "site")]
    assert status == 404
