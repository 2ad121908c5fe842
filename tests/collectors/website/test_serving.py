"""The server of a site: ranges, and no file beyond the folder."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.website.serving import server

DATA = bytes(range(256)) * 8


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_bytes(b"<p>start</p>")
    (folder / "site.duckdb").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "manifest.json").write_bytes(b"{}")
    (folder / "version").symlink_to(tmp_path / "published")
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


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=5-2", "bytes=-0"])
def test_server_range_outside_the_file_is_refused(port: int, asked: str) -> None:
    assert ask(port, "/site.duckdb", Range=asked)[0] == 416


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=-"])
def test_server_other_ranges_give_the_whole_file(port: int, asked: str) -> None:
    status, _, data = ask(port, "/site.duckdb", Range=asked)
    assert (status, data) == (200, DATA)


@pytest.mark.parametrize(
    "path", ["/../secret", "/%2e%2e/secret", "/link", "/no", "/%00", "/version/../../secret", "//etc/passwd"]
)
def test_server_gives_nothing_beyond_the_site_and_its_version(port: int, path: str) -> None:
    assert ask(port, path)[0] == 404


def test_server_gives_pages_and_the_version_to_this_machine_alone(port: int) -> None:
    status, headers, data = ask(port, "/")
    assert (status, data) == (200, b"<p>start</p>")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/version/manifest.json")[2] == b"{}"
    assert ask(port, "/", Host="evil.example")[0] == 403
