"""Models of a hub are pinned to a commit and fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.models.pinning import fetch, resolve
from collectors.specs import ModelSpec
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
