"""Serves a site on this machine, with ranges: a browser reads parts of large files, and Python's own server has none.

Owns the protocol. Only files below the folder are served, and those of the version that its pages show, and only to
this machine.
"""

from __future__ import annotations

import http.server
import os
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from collectors.website.building import VERSION
from collectors.website.verifying import shown_version

HOST = "127.0.0.1"
#: What a browser calls this machine. Another name that leads here would make this site another's.
_OF_THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]*)?", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
#: Not to be read by pages of other origins, nor as another type. A worker's own policy comes by header alone.
_HEADERS = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
}
_BLOCK = 1 << 20


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024  # 1,000 clients one after another took 164 s with 5, 7 s with 128, 0.1 s with this

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault of ours; other errors are shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the site in `folder`, not yet serving. Port 0 takes a free one. Raises OSError if it is taken."""
    shown = shown_version(folder)

    class Handler(_Handler):
        root = Path(os.path.realpath(folder))
        of_version = frozenset(shown[0] / name for name in shown[1]) if shown else frozenset()

    return _Server((HOST, port), Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    root: Path
    #: The files beyond `root` that are served, too.
    of_version: frozenset[Path]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a page's requests are of no interest."""

    def _answer(self, *, with_body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        try:
            path = self._path()
        except ValueError:
            hosts = []  # an address that cannot be read
        if len(hosts) != 1:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if not _OF_THIS_MACHINE.fullmatch(hosts[0].strip()):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        try:
            file = open(path, "rb") if path else None  # noqa: SIM115
        except OSError:
            file = None
        if path is None or file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(path, file, with_body=with_body)

    def _path(self) -> Path | None:
        """The file of the request: below the folder, or one that the manifest of its version names."""
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        if "\0" in name:
            return None
        path = Path(os.path.realpath(self.root / name))
        is_served = path in self.of_version if name.startswith(f"{VERSION}/") else path.is_relative_to(self.root)
        return path if is_served and os.path.isfile(path) else None  # Path.is_file raises for a name that is too long

    def _send(self, path: Path, file: BinaryIO, *, with_body: bool) -> None:
        size = os.fstat(file.fileno()).st_size
        part = _part(self.headers.get("Range"), size)
        if part is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last, is_part = part
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        if is_part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            for block in _blocks(file, first, last):
                self.wfile.write(block)


def _part(header: str | None, size: int) -> tuple[int, int, bool] | None:
    """First and last byte, and whether they are a part; None for a range outside the file.

    Several ranges, and malformed ones, are answered with the whole file, as RFC 9110 says: one that ends before its
    start is malformed.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if not match or match.groups() == ("", ""):
        return 0, size - 1, False
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size - 1, True) if int(last) and size else None
    if last and int(last) < int(first):
        return 0, size - 1, False
    end = min(int(last), size - 1) if last else size - 1
    return (int(first), end, True) if int(first) <= end else None


def _blocks(file: BinaryIO, first: int, last: int) -> Iterator[bytes]:
    file.seek(first)
    left = last - first + 1
    while left > 0 and (block := file.read(min(left, _BLOCK))):
        left -= len(block)
        yield block
