"""Files of a model's folder that contradict each other are named at once, before any library opens them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collectors.engines import ModelRef
from collectors.engines.checks import check_folder
from schemas.failures import ModelError

#: A header of one tensor, as safetensors has it.
HEADER = json.dumps({"model.layers.0.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


def folder_with(config: str, folder: Path) -> ModelRef:
    (folder / "config.json").write_text(config)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + bytes(4))
    return ModelRef("m", str(folder), "r", str(folder))


@pytest.mark.parametrize(
    "config",
    [
        '{"num_hidden_layers": 1000000000}',
        '{"n_layer": 1e9}',
        '{"text_config": {"num_local_experts": 1000000000}}',
        '{"num_labels": 1000000000}',
        '{"num_hidden_layers": ' + "9" * 300 + "}",
    ],
)
def test_config_of_far_more_parts_than_tensors_is_a_bad_model(config: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not of these weights") as caught:
        check_folder(folder_with(config, tmp_path), lambda _: True)
    assert caught.value.kind == "bad_model"


def test_config_nested_too_deeply_is_a_bad_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not JSON"):
        check_folder(folder_with("[" * 100_000 + "]" * 100_000, tmp_path), lambda _: True)
