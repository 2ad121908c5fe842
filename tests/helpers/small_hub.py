"""A hub on this machine with one repo of a few files, which can refuse or fail as a test asks."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest


@dataclass
class Hub:
    """Repos by id, each commit's files by sha, branches and tags by name; and the requests."""

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    #: Answers everything with this status when set.
    broken: int = 0
    asked: list[str] = field(default_factory=list)

    def commit(self, repo: str, files: dict[str, bytes], *refs: str) -> str:
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repos.setdefault(repo, {})[sha] = files
        self.refs |= {f"{repo}@{ref}": sha for ref in refs}
        return sha

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body, as the hub's API gives them."""
        if self.broken:
            return self.broken, {}, b"out of order"
        api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").split("?")[0].strip("/").split("/")
        repo, (verb, revision), name = "/".join(parts[:2]), (*parts[2:4], "revision", "main")[:2], "/".join(parts[4:])
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        sha = self.refs.get(f"{repo}@{revision}", revision)
        if sha not in self.repos[repo]:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = self.repos[repo][sha]
        if api and verb == "revision":
            return 200, {}, json.dumps({"id": repo, "sha": sha, "siblings": [{"rfilename": n} for n in files]}).encode()
        if repo in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if api:
            tree = [{"type": "file", "path": n, "size": len(d), "oid": _oid(d)} for n, d in files.items()]
            return 200, {}, json.dumps(tree).encode()
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}, b""
        return 200, {"X-Repo-Commit": sha, "ETag": f'"{_oid(files[name])}"'}, files[name]


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine for the client in this process, with a cache for this test alone."""
    store = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            store.asked.append(f"{self.command} {self.path}")
            status, headers, body = store.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield store
    server.shutdown()
    server.server_close()
    thread.join()


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(hub, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_TOKEN_PATH", os.devnull)
    monkeypatch.delenv("HF_TOKEN", raising=False)
