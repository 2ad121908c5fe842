"""Models of a folder at a URI are pinned by its listing and fetched once."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from collectors.cache import cache_dir
from collectors.engines import ModelRef
from collectors.models.pinning import fetch, fingerprint, resolve
from collectors.specs import ModelSpec
from schemas.failures import ConfigError
from tests.helpers.model_folders import FILES, refused, write
from tests.helpers.object_store import BUCKET, PATIENCE, ObjectStore

ROOT = Path(__file__).parents[3]


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
    """fsspec's memory store has a time for each file, but under a key that does not change with the file."""
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
    half = tmp_path / "node" / "models" / f".m-{model.revision}.tmp"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"we")
    (half / "stale.bin").write_bytes(b"x")
    folder = Path(fetch(model).path or "")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not (folder / "stale.bin").exists()
    assert not half.exists()


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
