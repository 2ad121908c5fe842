"""Shapes and sizes of published models."""

from __future__ import annotations

from typing import Any

from collectors.engines import ModelRef
from collectors.models.placement import ModelSize
from collectors.specs import GpuSpec

#: config.json as their repos have it, as far as it sizes anything.
LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}

LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
}

LLAMA_405B = LLAMA_70B | {
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_hidden_layers": 126,
}

SMOL = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}

#: Parameters in their safetensors headers, as the hub shows them.
PARAMETERS = {"8b": 8_030_261_248, "70b": 70_553_706_496, "405b": 405_853_388_800, "smol": 134_515_008}
CONFIGS: dict[str, dict[str, Any]] = {"8b": LLAMA_8B, "70b": LLAMA_70B, "405b": LLAMA_405B, "smol": SMOL}
EIGHT = [GpuSpec(name=name, per_node=8) for name in ("T4", "L4", "A100-80G", "H100")]


def model(name: str, dtype: str = "bfloat16", **keys: Any) -> ModelRef:
    length = min(keys.pop("max_length", 8192), CONFIGS[name]["max_position_embeddings"])
    return ModelRef(name, name, "r" * 40, None, dtype, max_length=length, **keys)


def facts(name: str) -> ModelSize:
    return ModelSize(PARAMETERS[name], 2 * PARAMETERS[name], CONFIGS[name])
