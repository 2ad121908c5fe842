"""Models of a hub are pinned to a commit and fetched once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collectors.lake.store import Lake
from collectors.models.pinning import fetch, resolve
from collectors.models.sizes import sizes_of
from collectors.specs import ModelSpec
from schemas.failures import ModelError
from tests.helpers.model_folders import FILES, refused
from tests.helpers.small_hub import Hub, point_at, served

__all__ = ["served"]  # a fixture


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
    # the config alone is in the cache: the model is not
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


# ---- weights in several formats

INDEX = "model.safetensors.index.json"


def index(*names: str) -> bytes:
    return json.dumps({"weight_map": {f"tensor{i}": name for i, name in enumerate(names)}}).encode()


#: Files of a repo beside config and tokenizer -> those that are downloaded.
FORMATS: list[tuple[dict[str, bytes], set[str]]] = [
    ({"model.safetensors": b"s", "pytorch_model.bin": b"b", "training_args.bin": b"t"}, {"model.safetensors"}),
    (
        {"model.safetensors": b"s", "checkpoint-5/model.safetensors": b"c", "openvino/openvino_model.bin": b"o"},
        {"model.safetensors"},
    ),
    ({"pytorch_model.bin": b"b", "optimizer.bin": b"o"}, {"pytorch_model.bin"}),
    (
        {
            "model-00001-of-00002.safetensors": b"1",
            "model-00002-of-00002.safetensors": b"2",
            "consolidated.safetensors": b"c",
            "pytorch_model-00001-of-00001.bin": b"b",
            "pytorch_model.bin.index.json": index("pytorch_model-00001-of-00001.bin"),
            INDEX: index("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        },
        {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
    ),
    (
        {"part-a.safetensors": b"a", "part-b.safetensors": b"b", INDEX: index("part-a.safetensors")},
        {"part-a.safetensors"},
    ),
    ({"weights.safetensors": b"a", "weights.bin": b"b"}, {"weights.safetensors"}),
    ({"model.safetensors": b"s", "pytorch_model.bin": b"b", INDEX: b"["}, {"model.safetensors", "pytorch_model.bin"}),
    (
        {"adapter_model.safetensors": b"s", "adapter_model.bin": b"b"},
        {"adapter_model.safetensors", "adapter_model.bin"},
    ),
]


@pytest.mark.parametrize(("files", "loaded"), FORMATS)
def test_only_the_weights_that_are_loaded_are_downloaded(
    served: Hub, files: dict[str, bytes], loaded: set[str], tmp_path: Path
) -> None:
    small = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    served.commit("org/model", {**small, **files}, "main")
    folder = Path(fetch(resolve(hub_spec(), "auto")).path or "")
    assert {str(f.relative_to(folder)) for f in folder.rglob("*") if f.suffix in (".safetensors", ".bin")} == loaded

    at_uri = tmp_path / "at-uri"
    at_uri.mkdir()
    for name, data in {**small, **files}.items():
        (at_uri / name).parent.mkdir(exist_ok=True)
        (at_uri / name).write_bytes(data)
    if files.get(INDEX) == b"[":
        return
    copy = Path(fetch(resolve(ModelSpec(source=f"file://{at_uri}"), "auto")).path or "")
    assert {file.name for file in copy.iterdir() if file.suffix in (".safetensors", ".bin")} == loaded


# ---- without a hub


def cached(cache: Path, files: dict[str, bytes], branch: str = "main") -> str:
    """A repo in the hub client's cache as an earlier download leaves it; returns its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = cache / "models--org--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / branch).write_text(commit)
    (repo / "blobs").mkdir()
    folder = repo / "snapshots" / commit
    folder.mkdir(parents=True)
    for number, (name, data) in enumerate(files.items()):
        (repo / "blobs" / str(number)).write_bytes(data)
        (folder / name).symlink_to(repo / "blobs" / str(number))
    return commit


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("revision", [None, "main"])
def test_cached_model_is_found_by_its_name_without_a_hub(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: bool,
    revision: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    commit = cached(tmp_path / "cache", {name: data for name, data in FILES.items() if name != "README.md"})
    model = resolve(hub_spec(revision), "auto")
    assert (model.revision, model.dtype) == (commit, "bfloat16")
    assert caplog.messages[-1] == (
        f"org/model: the hub does not answer; commit {commit} of this machine's cache is used"
    )
    fetched = fetch(model)
    assert (Path(fetched.path or "") / "model.safetensors").read_bytes() == b"weights"
    ((_, size),) = sizes_of(Lake(str(tmp_path / "lake")), [model], far=True)
    assert isinstance(size, ModelError) or size.weight_bytes == len(b"weights")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_model_that_is_not_whole_in_the_cache_is_refused_without_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    cached(tmp_path / "cache", {name: data for name, data in FILES.items() if name != missing})
    assert "the hub did not answer" in refused("not_found", lambda: resolve(hub_spec(), "auto"))


def test_another_branch_than_the_cached_one_is_refused_without_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    cached(tmp_path / "cache", FILES)
    refused("not_found", lambda: resolve(hub_spec("v2"), "auto"))


def test_cache_does_not_stand_in_where_the_hub_refuses(served: Hub, tmp_path: Path) -> None:
    cached(tmp_path / "cache", FILES)
    assert "has no org/model" in refused("not_found", lambda: resolve(hub_spec(), "auto"))
