"""Which files of a folder are its weights."""

import json
from pathlib import Path

import pytest

from collectors.engines.weight_files import INDEX, missing_shards, safetensors_of, weight_files


@pytest.mark.parametrize(
    ("names", "kind", "files"),
    [
        (["model.safetensors", "pytorch_model.bin", "x/model.safetensors"], "safetensors", ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "consolidated.safetensors"],
            "safetensors",
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["gptq_model-4bit-128g.safetensors"], "safetensors", ["gptq_model-4bit-128g.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "optimizer.bin"], "bin", ["pytorch_model.bin"]),
        (["adapter_model.safetensors", "adapter_config.json"], "adapter", ["adapter_model.safetensors"]),
        (["m.Q4_K_M.gguf", "m.Q8_0.gguf", "README.md"], "gguf", ["m.Q4_K_M.gguf", "m.Q8_0.gguf"]),
        (["training_args.bin", "config.json", "onnx/model.onnx"], None, []),
    ],
)
def test_weight_files_are_those_that_an_engine_loads(names: list[str], kind: str | None, files: list[str]) -> None:
    assert weight_files(names) == (kind, files)


def test_missing_shards_are_counted_by_what_their_names_say() -> None:
    assert missing_shards([f"model-0000{n}-of-00003.safetensors" for n in (1, 3)]) == 1
    assert missing_shards(["model.safetensors"]) == missing_shards([]) == 0


@pytest.mark.parametrize(
    ("names", "loaded"),
    [
        (["model.safetensors", "README.md"], ["model.safetensors"]),
        (["gptq_model.safetensors"], ["gptq_model.safetensors"]),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],) * 2,
        (["pytorch_model.bin"], []),
    ],
)
def test_safetensors_of_a_folder_with_one_set_are_that_set(tmp_path: Path, names: list[str], loaded: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert safetensors_of(tmp_path) == [tmp_path / name for name in loaded]


@pytest.mark.parametrize("other", ["consolidated.safetensors", "adapter_model.safetensors", "again.safetensors"])
def test_safetensors_of_a_folder_with_others_are_those_of_its_index_or_an_error(tmp_path: Path, other: str) -> None:
    """vLLM loads all of *.safetensors, or consolidated* alone; transformers loads model.safetensors."""
    (tmp_path / "model.safetensors").touch()
    (tmp_path / other).touch()
    with pytest.raises(ValueError, match=f"{other} lies beside the weights"):
        safetensors_of(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}))
    assert safetensors_of(tmp_path) == [tmp_path / "model.safetensors"]


def test_safetensors_of_a_folder_with_an_index_beside_a_whole_file_are_the_shards_that_it_names(tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in ("model.safetensors", *shards):
        (tmp_path / name).touch()
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    assert safetensors_of(tmp_path) == [tmp_path / name for name in shards]
