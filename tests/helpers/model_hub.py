"""A hub of models on this machine, as far as a catalog needs one: listings in pages, infos, files, ranges, and faults.

Owns the protocol of the Hugging Face Hub's API (as huggingface_hub 2 uses it) and counts requests. Files are made
on request, so that thousands of models need little memory.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from tests.helpers.local_server import serving


def safetensors(shapes: dict[str, list[int]], dtype: str = "BF16", seed: str = "") -> tuple[bytes, int, str]:
    """(header with its prefix, size of the whole file, SHA-256) of a file whose tensors nobody may read."""
    width = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4}[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        count = width
        for n in shape:
            count *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    return (
        struct.pack("<Q", len(text)) + text,
        8 + len(text) + end,
        hashlib.sha256(f"{seed}{text!r}".encode()).hexdigest(),
    )


@dataclass
class Repo:
    """One model repo at one commit. Weight files are (header, size, SHA-256)."""

    id: str
    files: dict[str, bytes] = field(default_factory=dict)
    weights: dict[str, tuple[bytes, int, str]] = field(default_factory=dict)
    downloads: int = 5000
    tags: list[str] = field(default_factory=list)
    gated: Any = False
    created: str = "2024-01-01T00:00:00.000Z"
    parameters: int | None = None
    library: str = "transformers"

    @property
    def sha(self) -> str:
        said = repr((self.id, sorted(self.files.items()), sorted((n, w[2]) for n, w in self.weights.items())))
        return hashlib.sha1(said.encode()).hexdigest()

    def entry(self) -> dict[str, Any]:
        """As it stands in a listing."""
        counted = {"total": self.parameters} if self.parameters else None
        return {
            "id": self.id,
            "sha": self.sha,
            "downloads": self.downloads,
            "tags": self.tags,
            "gated": self.gated,
            "createdAt": self.created,
            "library_name": self.library,
            "pipeline_tag": "text-generation",
            **({"safetensors": counted} if counted else {}),
        }

    def info(self) -> dict[str, Any]:
        small = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]
        large = [
            {
                "rfilename": name,
                "size": size,
                "blobId": sha[:40],
                "lfs": {"sha256": sha, "size": size, "pointerSize": 1},
            }
            for name, (_, size, sha) in self.weights.items()
        ]
        return {**self.entry(), "siblings": small + large}


def llama(name: str, *, hidden: int = 64, seed: str | None = None, dtype: str = "BF16", **changes: Any) -> Repo:
    """A repo as those of small Llamas are. Equal `seed`s (its name by default) mean equal weights."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "max_position_embeddings": 2048,
        **changes.pop("config", {}),
    }
    files = {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}).encode(),
        "generation_config.json": b'{"temperature": 0.6}',
        "README.md": b"a model",
    } | changes.pop("files", {})
    shapes = {"model.embed_tokens.weight": [100, hidden], "model.norm.weight": [hidden]}
    weights = {"model.safetensors": safetensors(shapes, dtype, name if seed is None else seed)}
    weights = changes.pop("weights", weights)
    return Repo(name, {n: d for n, d in files.items() if d is not None}, weights, **changes)


@dataclass
class ModelHub:
    repos: dict[str, Repo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    #: Whose files are refused, with this status.
    closed: dict[str, int] = field(default_factory=dict)
    page_size: int = 1000
    #: A part of a path -> status and headers of a coming answer; each is given once.
    faults: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    #: A part of a path -> a body that is given once in place of the right one.
    damaged: list[tuple[str, bytes]] = field(default_factory=list)
    #: Called before each page with its number.
    before_page: Callable[[int], None] = lambda number: None
    ignores_ranges: bool = False
    #: The token that is asked for; None: any or none.
    token: str | None = None
    down: bool = False
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *repos: Repo) -> None:
        self.repos |= {repo.id: repo for repo in repos}

    def calls(self) -> Counter[str]:
        """How often each kind of thing was asked: list, info, or a file's name."""
        return Counter(_kind(path) for path in self.asked)

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.asked.append(path)
            fault = next((f for f in self.faults if f[0] in path), None)
            if fault:
                self.faults.remove(fault)
            broken = next((d for d in self.damaged if d[0] in path), None)
            if broken:
                self.damaged.remove(broken)
        if self.down:
            return 503, {}, b"down"
        if self.token and headers.get("Authorization") not in (None, f"Bearer {self.token}"):
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
        if fault:
            return fault[1], fault[2], b"not now"
        status, found, body = self._answer(path, headers)
        return (status, found, broken[1]) if broken else (status, found, body)

    def _answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(path)
        if parts.path == "/api/models":
            return self._page({name: values[-1] for name, values in parse_qs(parts.query).items()})
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", parts.path):
            name, revision = match[1], unquote(match[2] or "main")
            if name in self.renamed:
                there = parts.path.replace(name, self.renamed[name], 1)
                return 307, {"Location": f"{there}?{parts.query}"}, b""
            repo = self.repos.get(name)
            if repo is None:
                return 404, {"X-Error-Code": "RepoNotFound"}, b""
            if revision not in ("main", repo.sha):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            return 200, {}, json.dumps(repo.info()).encode()
        match = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", parts.path)
        assert match, path
        return self._file(match[1], match[2], match[3], headers.get("Range"))

    def _page(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        number = int(query.pop("cursor", 0))
        self.before_page(number)
        limit = min(int(query["limit"]), self.page_size)
        found = [
            repo
            for repo in self.repos.values()
            if query.get("search", "") in repo.id
            and repo.id.startswith(f"{query['author']}/" if "author" in query else "")
            and ("filter" not in query or query["filter"] in repo.tags)
        ]
        found.sort(key=lambda repo: (-repo.downloads, repo.id))
        first = number * limit
        headers = {}
        if first + limit < len(found):
            following = urlencode({**query, "cursor": number + 1})
            headers = {"Link": f'<{self.endpoint}/api/models?{following}>; rel="next"'}
        return 200, headers, json.dumps([repo.entry() for repo in found[first : first + limit]]).encode()

    def _file(self, name: str, revision: str, file: str, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        repo = self.repos.get(name)
        if repo is None or revision != repo.sha:
            return 404, {"X-Error-Code": "RepoNotFound" if repo is None else "RevisionNotFound"}, b""
        if name in self.closed:
            return self.closed[name], {"X-Error-Code": "GatedRepo"}, b""
        head, size, _ = repo.weights.get(file, (repo.files.get(file), 0, ""))
        if head is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        if file not in repo.weights:
            return 200, {}, head
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
        first, last = (int(asked[1]), min(int(asked[2]), size - 1)) if asked else (0, size - 1)
        data = head[first : last + 1]
        data += b"\xee" * (last + 1 - first - len(data))  # tensors
        if self.ignores_ranges or not asked:
            return 200, {}, data
        return 206, {"Content-Range": f"bytes {first}-{last}/{size}"}, data


def _kind(path: str) -> str:
    plain = urlsplit(path).path
    if plain == "/api/models":
        return "list"
    return "info" if plain.startswith("/api/models/") else plain.rsplit("/", 1)[-1]


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    """A hub that is served until the end of the block."""
    store = ModelHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one packet per answer
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, headers, body = store.answer(self.path, dict(self.headers.items()))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as store.endpoint:
        yield store
