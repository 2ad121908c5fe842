"""A model's own files: the row of a real folder, headers of weights, and the choice of weight files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save

from collectors.engines import ModelRef
from collectors.models.model_files import PREFIX, Tensors, header_length, model_row
from collectors.models.pinning import resolve
from collectors.models.small_files import special_tokens
from collectors.specs import ModelSpec
from schemas.failures import ModelError
from schemas.records import MODEL


def test_model_row_of_a_real_model_are_its_own(tiny_models: dict[str, Path]) -> None:
    from safetensors import safe_open

    facts = model_row(resolve(ModelSpec(source=str(tiny_models["good"])), "auto"))
    weights = tiny_models["good"] / "model.safetensors"
    with safe_open(str(weights), "np") as tensors:
        parameters = sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118
    assert set(facts) == set(MODEL.names)
    assert facts["parameters"] == parameters
    assert (facts["architecture"], facts["max_length"]) == ("LlamaForCausalLM", 2048)
    assert facts["weight_bytes"] == weights.stat().st_size


def test_model_row_same_tokenizer_of_two_models_has_one_hash(tiny_models: dict[str, Path]) -> None:
    one, other = (model_row(resolve(ModelSpec(source=str(tiny_models[n])), "auto")) for n in ("good", "other"))
    for name in ("tokenizer_hash", "chat_template_hash"):
        assert one[name] == other[name] is not None
    assert one["revision"] != other["revision"]


@pytest.mark.parametrize("config", [{}, {"architectures": 5, "max_position_embeddings": "many"}, {"architectures": []}])
def test_model_row_that_nobody_tells_are_none(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"1")
    facts = model_row(resolve(ModelSpec(source=str(tmp_path)), "auto"))
    names = ("architecture", "parameters", "max_length", "chat_template_hash")
    assert [facts[name] for name in names] == [None] * 4
    assert facts["weight_bytes"] == 1


# ---- weights


def test_tensors_of_a_file_that_safetensors_wrote_are_its_own() -> None:
    import numpy as np

    arrays = {"a": np.zeros((3, 5), np.float32), "b": np.zeros((7,), np.float16), "c": np.zeros((), np.float32)}
    data = save(arrays)
    length = header_length(data[:PREFIX])
    found = Tensors()
    found.add(data[PREFIX : PREFIX + length], len(data))
    assert found.elements == {"F32": 16, "F16": 7}
    assert found.parameters(quantized=False) == sum(array.size for array in arrays.values())
    with pytest.raises(ValueError, match="bytes instead of"):
        Tensors().add(data[PREFIX : PREFIX + length], len(data) - 1)


def test_tensors_hash_does_not_depend_on_how_files_are_cut() -> None:
    import numpy as np

    def tensors(*files: dict[str, Any]) -> Tensors:
        found = Tensors()
        for arrays in files:
            data = save(arrays)
            found.add(data[PREFIX : PREFIX + header_length(data[:PREFIX])])
        return found

    a, b = np.zeros((3, 5), np.float32), np.zeros((2, 2), np.float32)
    whole = tensors({"a": a, "b": b})
    assert whole.hash() == tensors({"b": b}, {"a": a}).hash()
    assert whole.hash() != tensors({"a": a, "b": b.astype(np.float16)}).hash()
    assert whole.hash() != tensors({"a": a.T.copy(), "b": b}).hash()


@pytest.mark.parametrize("packed", ["I32", "U8"])
def test_tensors_several_weights_in_one_integer_are_no_known_number_of_parameters(packed: str) -> None:
    found = Tensors({packed: 1_000_000, "F16": 500_000})
    assert found.parameters(quantized=True) is None
    assert Tensors({"I64": 1, "BF16": 1_000_000}).parameters(quantized=True) == 1_000_001
    assert found.parameters(quantized=False) == 1_500_000  # buffers of an old model


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b'{"a": 5}', b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 1]}}', b"[" * 100_000],
)
def test_tensors_damaged_header_is_a_value_error(header: bytes) -> None:
    with pytest.raises(ValueError, match="header cannot be read"):
        Tensors().add(header)


@pytest.mark.parametrize("prefix", [b"", b"1234567", struct.pack("<Q", 10**12)])
def test_header_length_that_cannot_be_one_is_refused(prefix: bytes) -> None:
    with pytest.raises(ValueError, match="no safetensors header"):
        header_length(prefix)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b'"x"', b"no JSON"])
def test_special_tokens_of_a_damaged_file_beside_a_template_of_its_own_are_a_bad_model(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is"):
        special_tokens(ModelRef("m", str(tmp_path), "r", str(tmp_path)))
