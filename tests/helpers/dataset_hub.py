"""A hub of data sets on this machine, as far as publishing to one and reading from it need: commits, tags, large files.

Owns the protocol (of huggingface_hub 2) and the commits. Knows nothing of published versions.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.local_server import serving

#: Files of these sizes or more go up apart from the commit, as on the hub.
LARGE = 2000


@dataclass
class DatasetHub:
    """Commits of each repo by their ids, newest last, each with its files; tags; and the uploads of large files."""

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    #: Answers writes with this status when set.
    refuses: int = 0
    #: Called before a tag is made: what somebody else does in that moment.
    before_tag: Any = None
    endpoint: str = ""

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        commits = self.commits.get(repo, {})
        if revision == "main":
            revision = list(commits)[-1] if commits else ""
        return commits.get(self.tags.get(repo, {}).get(revision, revision))

    def oid(self, repo: str, revision: str) -> str:
        commits = self.commits[repo]
        return list(commits)[-1] if revision == "main" else self.tags[repo].get(revision, revision)

    # ---- writing

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        if self.refuses:
            return self.refuses, {"error": "you may not"}
        if path == "/api/repos/create":
            value = json.loads(body)
            repo = f"{value.get('organization') or 'me'}/{value['name']}"
            if repo in self.commits:
                return 409, {"error": "you already created this repo", "url": f"{self.endpoint}/datasets/{repo}"}
            self.commits[repo], self.tags[repo] = {"0" * 40: {".gitattributes": b"x"}}, {}
            return 200, {"url": f"{self.endpoint}/datasets/{repo}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/datasets/(.+)\.git/info/lfs/objects/batch", path):
            wanted = json.loads(body)["objects"]
            upload = [{**o, "actions": {"upload": {"href": f"{self.endpoint}/upload/{o['oid']}"}}} for o in wanted]
            return 200, {"transfer": "basic", "objects": upload}
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(preupload|commit|tag|paths-info)/([^/]+)", path)
        assert match, path
        repo, verb, revision = match.groups()
        if verb == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return 200, {"files": modes}
        if verb == "paths-info":
            # The client sends a form.
            names = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            files = self.files(repo, revision) or {}
            return 200, [_info(name, files[name]) for name in names if name in files]
        if verb == "tag":
            if self.before_tag:
                self.before_tag()
            tag = json.loads(body)["tag"]
            if tag in self.tags[repo]:
                return 409, {"error": "Tag already exists"}
            self.tags[repo][tag] = revision
            return 200, {}
        return 200, self._commit(repo, [json.loads(line) for line in body.splitlines() if line])

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        files = dict(self.files(repo, "main") or {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(f"{len(self.commits[repo])}{sorted(files)}".encode()).hexdigest()
        self.commits[repo][oid] = files
        url = f"{self.endpoint}/datasets/{repo}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    # ---- reading

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/refs", path):
            repo = match[1]
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": oid} for t, oid in self.tags[repo].items()]
            head = {"name": "main", "ref": "refs/heads/main", "targetCommit": self.oid(repo, "main")}
            return 200, {}, json.dumps({"branches": [head], "converts": [], "tags": tags}).encode()
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            files = self.files(match[1], match[2] or "main")
            if files is None:
                return _no_revision(match[1] in self.commits)
            value = {"id": match[1], "sha": self.oid(match[1], match[2] or "main"), "siblings": []}
            return 200, {}, json.dumps(value).encode()
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            files = self.files(match[1], match[2])
            if files is None:
                return _no_revision(match[1] in self.commits)
            below = f"{match[3]}/" if match[3] else ""
            return 200, {}, json.dumps([_info(n, d) for n, d in files.items() if n.startswith(below)]).encode()
        match = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match:
            return 404, {}, b""
        data = (self.files(match[1], match[2]) or {}).get(match[3])
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"X-Repo-Commit": self.oid(match[1], match[2]), "ETag": f'"{_sha(data)}"'}, data


def _no_revision(repo_is_there: bool) -> tuple[int, dict[str, str], bytes]:
    return 404, {"X-Error-Code": "RevisionNotFound" if repo_is_there else "RepoNotFound"}, b""


def _info(name: str, data: bytes) -> dict[str, Any]:
    commit = {"id": _sha(data), "title": "a file", "date": "2026-01-01T00:00:00.000Z"}
    return {"type": "file", "path": name, "size": len(data), "oid": _sha(data), "lastCommit": commit}


def _sha(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def dataset_hub() -> Iterator[DatasetHub]:
    """A hub that is served until the end of the block."""
    store = DatasetHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = store.get(unquote(urlsplit(self.path).path))
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked and status == 200:
                first, last = int(asked[1]), int(asked[2] or len(body) - 1)
                headers = {**headers, "Content-Range": f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"}
                status, body = 206, body[first : last + 1]
            self.reply(status, headers, body)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, value = store.post(unquote(urlsplit(self.path).path), body)
            self.reply(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert hashlib.sha256(body).hexdigest() == self.path.rsplit("/", 1)[-1]
            store.large[self.path.rsplit("/", 1)[-1]] = body
            self.reply(200, {}, b"")

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as store.endpoint:
        yield store
