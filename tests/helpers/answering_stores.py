"""Servers that give one answer to every request, as an object store that a lake is opened at."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import s3fs

from tests.helpers.object_store import ObjectStore


@contextmanager
def answering(*replies: tuple[int, str]) -> Iterator[tuple[str, list[str]]]:
    """A store that answers its PUTs with (status, code) in turn, the last one for ever, and has no object."""
    puts: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients of S3 wait for "100 Continue" before they send

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            puts.append(self.headers.get("If-None-Match", ""))
            self._reply(*replies[min(len(puts), len(replies)) - 1])

        def do_GET(self) -> None:
            self._reply(404, "NoSuchKey")

        def do_HEAD(self) -> None:
            self._reply(404, "")

        def do_DELETE(self) -> None:
            self._reply(204, "")

        def _reply(self, status: int, code: str) -> None:
            body = f"<Error><Code>{code}</Code><Message>412 {code}</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", puts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def replying(*replies: tuple[int, bytes], head: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A store that answers its GETs with (status, body) in turn, the last one for ever, and each HEAD with `head`."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = replies[min(len(asked), len(replies) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(head)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def store_at(endpoint: str, key: str = "an-id", secret: str = "hidden-secret") -> Iterator[None]:
    environment = ObjectStore(endpoint, key, secret, 0, Path()).environment
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if value:
                patch.setenv(name, value)
            else:
                patch.delenv(name, raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        yield
        s3fs.S3FileSystem.clear_instance_cache()
