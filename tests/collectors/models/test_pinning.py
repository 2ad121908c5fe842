"""Which model is meant: revisions that follow the files, a hub and a store that answer or do not, plain refusals."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants as hub
import pytest
import s3fs

from collectors.cache import cache_dir
from collectors.engines import ModelRef
from collectors.models.pinning import fetch, fingerprint, resolve
from collectors.specs import ModelSpec
from schemas.failures import ConfigError, ModelError
from tests.helpers.object_store import BUCKET, PATIENCE, ObjectStore

ROOT = Path(__file__).parents[3]
FILES = {
    "config.json": b'{"model_type": "llama", "dtype": "bfloat16"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"a model",
}


def write(folder: Path, **changes: bytes | None) -> Path:
    """A model folder; `changes` by file name, None: left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**FILES, **changes}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def refused(kind: str, action: Callable[[], Any]) -> str:
    """The one line of the ModelError of `kind` that `action` has to raise."""
    with pytest.raises(ModelError) as caught:
        action()
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- folders


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "tokenizer.model", "code.py"])
def test_fingerprint_any_byte_of_what_decides_an_answer_changes_it(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "m", **{name: b"some text"})
    before = fingerprint(folder)
    (folder / name).write_bytes(b"some texu")
    assert fingerprint(folder) != before
    (folder / name).write_bytes(b"some text")
    assert fingerprint(folder) == before


def test_fingerprint_readme_place_times_and_subfolders_are_left_out(tmp_path: Path) -> None:
    before = fingerprint(write(tmp_path / "m"))
    moved = (tmp_path / "m").rename(tmp_path / "other name")
    (moved / "README.md").write_text("better text")
    (moved / "logs").mkdir()
    os.utime(moved / "config.json", (0, 0))
    assert fingerprint(moved) == before


def test_fingerprint_file_renamed_or_added_changes_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    before = fingerprint(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizes.json")
    renamed = fingerprint(folder)
    (folder / "chat_template.jinja").write_text("")
    assert len({before, renamed, fingerprint(folder)}) == 3


def test_fingerprint_symlinked_files_count_by_content(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in FILES:
        (linked / name).symlink_to(folder / name)
    assert fingerprint(linked) == fingerprint(folder)


def test_resolve_symlink_loops_and_dangling_links_are_left_out_or_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    before = fingerprint(folder)
    (folder / "loop.json").symlink_to(folder / "loop.json")
    (folder / "gone.json").symlink_to(folder / "nowhere")
    assert fingerprint(folder) == before
    (tmp_path / "self").symlink_to(tmp_path / "self")
    refused("not_found", lambda: resolve(ModelSpec(source=str(tmp_path / "self")), "auto"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "nowhere")
    refused("no_weights", lambda: fingerprint(folder))


@pytest.mark.parametrize("source", ["", "none", "model.safetensors"])
def test_resolve_folder_that_is_missing_empty_or_a_file_is_refused(tmp_path: Path, source: str) -> None:
    write(tmp_path / "m")
    place = tmp_path / "m" / source if source else tmp_path
    message = refused("not_found" if source else "no_weights", lambda: resolve(ModelSpec(source=str(place)), "auto"))
    assert str(place) in message


@pytest.mark.parametrize(
    "config",
    [None, b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 100_000],
    ids=["missing", "empty", "cut", "list", "text", "bytes", "deep_list", "deep"],
)
def test_resolve_damaged_config_is_refused_by_name(tmp_path: Path, config: bytes | None) -> None:
    folder = write(tmp_path / "m", **{"config.json": config})
    message = refused("bad_model", lambda: resolve(ModelSpec(source=str(folder)), "auto"))
    assert str(folder) in message
    assert "config.json" in message


@pytest.mark.parametrize(
    ("config", "wanted", "length"),
    [
        ({"max_position_embeddings": 2048}, 8192, 2048),
        ({"max_position_embeddings": 2048}, 512, 512),
        ({"max_position_embeddings": 2048}, None, 2048),
        ({"n_positions": 1024}, 8192, 1024),
        ({"text_config": {"max_position_embeddings": 2048}}, 8192, 2048),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default"}}, 8192, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 8192, 8192),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, None, None),
        ({"max_position_embeddings": True}, 8192, 8192),
        ({}, None, None),
    ],
)
def test_resolve_max_length_is_the_models_own_where_that_is_known_to_be_shorter(
    tmp_path: Path, config: dict[str, Any], wanted: int | None, length: int | None
) -> None:
    folder = write(tmp_path / "m", **{"config.json": json.dumps(config).encode()})
    assert resolve(ModelSpec(source=str(folder)), "auto", wanted).max_length == length
    assert resolve(ModelSpec(source=str(folder), max_length=100), "auto", wanted).max_length == 100


@pytest.mark.parametrize(
    ("config", "wanted", "own", "dtype"),
    [
        ({"dtype": "bfloat16"}, "auto", None, "bfloat16"),
        ({"torch_dtype": "float16"}, "auto", None, "float16"),
        ({"torch_dtype": "torch.float16"}, "auto", None, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, "auto", None, "bfloat16"),
        ({"text_config": {"torch_dtype": "bfloat16"}, "dtype": None}, "auto", None, "bfloat16"),
        ({"dtype": "float16", "text_config": {"dtype": "bfloat16"}}, "auto", None, "float16"),
        ({}, "auto", None, "float32"),
        ({"text_config": 5, "quantization_config": "gptq"}, "auto", None, "float32"),
        ({"dtype": "bfloat16"}, "float32", None, "float32"),
        ({"dtype": "bfloat16"}, "float32", "float16", "float16"),
        ({"dtype": "bfloat16"}, "float32", "auto", "bfloat16"),
    ],
)
def test_resolve_dtype_is_the_models_own_unless_told(
    tmp_path: Path, config: dict[str, Any], wanted: str, own: Any, dtype: str
) -> None:
    folder = write(tmp_path / "m", **{"config.json": json.dumps(config).encode()})
    assert resolve(ModelSpec(source=str(folder), dtype=own), wanted).dtype == dtype


def test_resolve_quantization_is_the_models_own_unless_told(tmp_path: Path) -> None:
    config = json.dumps({"quantization_config": {"quant_method": "awq"}}).encode()
    folder = write(tmp_path / "m", **{"config.json": config})
    assert resolve(ModelSpec(source=str(folder)), "auto").quantization == "awq"
    assert resolve(ModelSpec(source=str(folder), quantization="fp8"), "auto").quantization == "fp8"
    assert resolve(ModelSpec(source=str(write(tmp_path / "n"))), "auto").quantization is None
    damaged = write(tmp_path / "d", **{"config.json": config.replace(b'"awq"', b'["awq"]')})
    assert resolve(ModelSpec(source=str(damaged)), "auto").quantization is None


@pytest.mark.parametrize("change", ["byte", "added", "weights_gone", "gone"])
def test_fetch_folder_changed_since_the_plan_is_refused(tmp_path: Path, change: str) -> None:
    folder = write(tmp_path / "m")
    model = resolve(ModelSpec(source=str(folder)), "auto")
    assert fetch(model) == model
    if change == "byte":
        (folder / "model.safetensors").write_bytes(b"weightz")
    elif change == "added":
        (folder / "tokenizer_config.json").write_text("{}")
    elif change == "weights_gone":
        (folder / "model.safetensors").unlink()
    else:
        folder.rename(tmp_path / "n")
    kinds = {"byte": "model_changed", "added": "model_changed", "weights_gone": "no_weights", "gone": "not_found"}
    assert str(folder) in refused(kinds[change], lambda: fetch(model))


# ---- the hub


@dataclass
class Hub:
    """Repos by id, each commit's files by sha, branches and tags by name; and what was asked."""

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
    """A hub on this machine, to which the client in this process talks; its cache is the test's own."""
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


def hub_spec(revision: str | None = None) -> ModelSpec:
    return ModelSpec(source="org/model", revision=revision)


def test_hub_branch_tag_and_commit_are_pinned_to_the_commit(served: Hub) -> None:
    old = served.commit("org/model", FILES, "v1")
    new = served.commit("org/model", {**FILES, "model.safetensors": b"better"}, "main")
    wanted = {None: new, "main": new, "v1": old, old: old, new: new}
    for revision, sha in wanted.items():
        model = resolve(hub_spec(revision), "auto")
        assert (model.revision, model.name, model.source, model.path) == (sha, "org/model", "org/model", None)
        assert model.dtype == "bfloat16"
    assert not [line for line in served.asked if "safetensors" in line or "tokenizer" in line]


def test_hub_snapshot_is_fetched_once_and_then_needs_no_hub(served: Hub) -> None:
    served.commit("org/model", {**FILES, "training.log": b"x"}, "main")
    model = resolve(hub_spec(), "auto")
    folder = Path(fetch(model).path or "")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {n: FILES[n] for n in FILES if n[0] != "R"}
    gets = [line for line in served.asked if line.startswith("GET /org")]
    served.commit("org/model", {**FILES, "model.safetensors": b"later"}, "main")
    assert fetch(model).path == str(folder)
    served.broken = 404
    assert fetch(model).path == str(folder)
    assert [line for line in served.asked if line.startswith("GET /org")] == gets
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_hub_repo_that_is_gated_is_refused_with_what_to_do(served: Hub) -> None:
    served.commit("org/model", FILES, "main")
    served.gated.add("org/model")
    assert "HF_TOKEN" in refused("gated", lambda: resolve(hub_spec(), "auto"))


@pytest.mark.parametrize("revision", [None, "v9", "0" * 40])
def test_hub_repo_or_revision_that_is_missing_is_refused(served: Hub, revision: str | None) -> None:
    if revision:
        served.commit("org/model", FILES, "main")
    assert "org/model" in refused("not_found", lambda: resolve(hub_spec(revision), "auto"))


def test_hub_repo_without_config_or_weights_is_refused(served: Hub) -> None:
    served.commit("org/model", {"model.safetensors": b"1"}, "main")
    assert "no config.json" in refused("bad_model", lambda: resolve(hub_spec(), "auto"))
    served.commit("org/model", {"config.json": b"{", "model.safetensors": b"1"}, "main")
    assert "config.json is damaged" in refused("bad_model", lambda: resolve(hub_spec(), "auto"))
    served.commit("org/model", {"config.json": b"{}", "tokenizer.json": b"{}"}, "main")
    model = resolve(hub_spec(), "auto")
    refused("no_weights", lambda: fetch(model))


@pytest.mark.parametrize("status", [400, 403])
def test_hub_refuses_is_one_line(served: Hub, status: int) -> None:
    served.broken = status
    assert "the hub did not answer" in refused("not_found", lambda: resolve(hub_spec(), "auto"))


def test_hub_out_of_order_is_one_line_before_and_after_the_plan(served: Hub) -> None:
    served.commit("org/model", FILES, "main")
    model = resolve(hub_spec(), "auto")
    served.broken = 501  # at 500, 502, 503 and 504 the client asks again, for 23 s
    assert "the hub did not answer" in refused("not_found", lambda: resolve(hub_spec("main"), "auto"))
    # the config alone is in the cache: that is no snapshot
    refused("not_found", lambda: fetch(model))


def test_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    message = refused("not_found", lambda: resolve(hub_spec(), "auto"))
    assert message.startswith("org/model is not a folder here, and the hub did not answer")


@pytest.mark.parametrize("source", ["a//b", "org/model/", "-x", "a b", "org/mo..del", "org/" + "x" * 150])
def test_source_that_is_neither_repo_nor_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    refused("not_found", lambda: resolve(ModelSpec(source=source), "auto"))


# ---- folders at a URI


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """put(name, data) and the URI of an empty model folder; the node's cache is the test's own."""
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "node"))
    if request.param == "file":
        folder = tmp_path / "store" / "m"
        folder.mkdir(parents=True)
        yield f"file://{folder}", lambda name, data: (folder / name).write_bytes(data)
        return
    store: ObjectStore = request.getfixturevalue("object_store")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    uri = f"s3://{BUCKET}/{secrets.token_hex(4)}/m"
    yield uri, lambda name, data: s3fs.S3FileSystem(use_listings_cache=False).pipe_file(f"{uri}/{name}", data)
    s3fs.S3FileSystem.clear_instance_cache()


def test_uri_folder_is_pinned_by_its_listing_and_fetched_once(place: Any, tmp_path: Path) -> None:
    uri, put = place
    for name, data in FILES.items():
        put(name, data)
    model = resolve(ModelSpec(source=uri), "auto")
    assert (model.name, model.source, model.path, model.dtype) == ("m", uri, None, "bfloat16")
    put("README.md", b"other words")
    assert resolve(ModelSpec(source=uri), "auto") == model
    folder = Path(fetch(model).path or "")
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {n: FILES[n] for n in FILES if n != "README.md"}
    inode = folder.stat().st_ino
    assert fetch(model).path == str(folder)
    assert folder.stat().st_ino == inode
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert (Path(fetch(model).path or "") / "model.safetensors").read_bytes() == b"weights"
    assert not list((tmp_path / "node" / "models").glob("*.tmp"))


def test_uri_of_a_store_without_versions_is_refused() -> None:
    """fsspec's memory store tells when a file was made but by no name that a change would show in."""
    memory = fsspec.filesystem("memory")
    for name, data in FILES.items():
        memory.pipe_file(f"/unversioned/{name}", data)
    assert "no version" in refused("bad_model", lambda: resolve(ModelSpec(source="memory://unversioned"), "auto"))


@pytest.mark.parametrize("made", ["file", "folder"])
def test_cache_that_cannot_be_made_is_one_line(made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "file") + ("/deeper" if made == "folder" else ""))
    with pytest.raises(ConfigError, match="set ROUTERLAKE_CACHE"):
        cache_dir("models")


def test_chat_templates_with_names_are_part_of_the_revision(place: Any, tmp_path: Path) -> None:
    uri, put = place
    for name, data in FILES.items():
        put(name, data)
    folder = write(tmp_path / "here")
    plain, alone = resolve(ModelSpec(source=uri), "auto").revision, fingerprint(folder)
    if uri.startswith("file"):
        (Path(uri.removeprefix("file://")) / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates").mkdir()
    put("additional_chat_templates/terse.jinja", b"{{ messages }}")
    (folder / "additional_chat_templates" / "terse.jinja").write_bytes(b"{{ messages }}")
    model = resolve(ModelSpec(source=uri), "auto")
    assert model.revision != plain
    assert fingerprint(folder) != alone
    fetched = Path(fetch(model).path or "") / "additional_chat_templates" / "terse.jinja"
    assert fetched.read_bytes() == b"{{ messages }}"


def test_uri_folder_changed_since_the_plan_is_refused_and_leaves_nothing(place: Any, tmp_path: Path) -> None:
    uri, put = place
    for name, data in FILES.items():
        put(name, data)
    model = resolve(ModelSpec(source=uri), "auto")
    put("model.safetensors", b"other weights")
    assert uri in refused("model_changed", lambda: fetch(model))
    assert not [entry for entry in (tmp_path / "node" / "models").iterdir() if entry.is_dir()]
    assert resolve(ModelSpec(source=uri), "auto").revision != model.revision


def test_uri_folder_without_weights_config_or_anything_is_refused(place: Any) -> None:
    uri, put = place
    put("tokenizer.json", b"{}")
    refused("no_weights", lambda: resolve(ModelSpec(source=uri), "auto"))
    put("model.safetensors", b"1")
    assert "no config.json" in refused("bad_model", lambda: resolve(ModelSpec(source=uri), "auto"))
    for data in (b"{", b"[]"):
        put("config.json", data)
        assert "config.json" in refused("bad_model", lambda: resolve(ModelSpec(source=uri), "auto"))
    refused("not_found", lambda: resolve(ModelSpec(source=f"{uri}-none"), "auto"))


def test_uri_leftover_of_a_killed_download_is_replaced(place: Any, tmp_path: Path) -> None:
    uri, put = place
    for name, data in FILES.items():
        put(name, data)
    model = resolve(ModelSpec(source=uri), "auto")
    half = tmp_path / "node" / "models" / f"m-{model.revision}.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"we")
    (half / "stale.bin").write_bytes(b"x")
    folder = Path(fetch(model).path or "")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not (folder / "stale.bin").exists()


FETCHER = """
import json, sys
from collectors.models.pinning import fetch
from collectors.engines import ModelRef
model = ModelRef(**json.loads(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(fetch(model).path)
"""


@pytest.mark.slow
def test_uri_folder_fetched_by_two_processes_at_once_is_whole_for_both(place: Any) -> None:
    uri, put = place
    weights = os.urandom(20_000_000)
    for name, data in {**FILES, "model.safetensors": weights}.items():
        put(name, data)
    model = resolve(ModelSpec(source=uri), "auto")
    command = [sys.executable, "-c", FETCHER, json.dumps(vars(model))]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    paths = {process.communicate(timeout=PATIENCE)[0].strip() for process in both}
    assert len(paths) == 1
    assert (Path(paths.pop()) / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("source", ["nosuch://x/y", "s3://"])
def test_uri_that_cannot_be_one_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    refused("not_found", lambda: resolve(ModelSpec(source=source), "auto"))


def test_uri_without_credentials_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ObjectStore("http://127.0.0.1:9", "", "", 0, Path()).environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    assert "redentials" in refused("not_found", lambda: resolve(ModelSpec(source="s3://bucket/m"), "auto"))
    s3fs.S3FileSystem.clear_instance_cache()


def test_model_ref_key_tells_revision_dtype_and_quantization_apart() -> None:
    base = {"name": "m", "source": "m", "revision": "r", "path": None, "dtype": "float32"}
    changes: list[dict[str, Any]] = [{}, {"revision": "s"}, {"dtype": "float16"}, {"quantization": "fp8"}]
    assert len({ModelRef(**{**base, **change}).key for change in changes}) == 4
