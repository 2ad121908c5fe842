"""Models in folders: their revision follows their files, and other folders are refused plainly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from collectors.models.pinning import fetch, fingerprint, resolve
from collectors.specs import ModelSpec
from tests.helpers.model_folders import FILES, refused, write


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "tokenizer.model", "code.py"])
def test_fingerprint_any_byte_of_what_decides_an_answer_changes_it(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "m", **{name: b"some text"})
    before = fingerprint(folder)
    (folder / name).write_bytes(b"some texu")
    assert fingerprint(folder) != before
    (folder / name).write_bytes(b"some text")
    assert fingerprint(folder) == before


def test_fingerprint_that_takes_long_says_how_far_it_is_within_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "m")
    before = fingerprint(folder)
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(100 * 2**20)  # 25 blocks
    with caplog.at_level("INFO", logger="collectors.models.pinning"):
        quick = fingerprint(folder)
        assert caplog.messages == []
        monkeypatch.setattr("collectors.models.pinning.PROGRESS_SECONDS", -1.0)
        assert fingerprint(folder) == quick != before
    assert caplog.messages[0] == "fingerprint of m: 0.0 of 0.1 GiB"
    assert caplog.messages[-1] == "fingerprint of m: 0.1 of 0.1 GiB"
    assert len(caplog.messages) == 25 + 2, "two small files beside"


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
